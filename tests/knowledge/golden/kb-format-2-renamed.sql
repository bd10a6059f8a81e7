BEGIN TRANSACTION;
PRAGMA application_id = 1329744706;
PRAGMA user_version = 2;
CREATE TABLE contents (
  id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE, code TEXT NOT NULL, text TEXT NOT NULL,
  title TEXT NOT NULL, media_type TEXT NOT NULL, source_chars INTEGER, metadata TEXT NOT NULL);
INSERT INTO "contents" VALUES(2,'15ea3394c1b24dace245a52ad2adff11309bd2040d53a6f01594f1bb07b0ff7d','reader 4 splitter 2 450','Bees sleep at night.
','','text/plain',21,'{}');
INSERT INTO "contents" VALUES(3,'2200a39676bc403bf458511d99a1b7f00ab0c4c871abc8ae61cf77aec9bad794','reader 4 splitter 2 450','# Plan

The new ship is called Isolde.
','Plan','text/markdown',39,'{}');
INSERT INTO "contents" VALUES(4,'10ac7204dfb2f870aebf41c26555ecb428e2066ce2d5d8b62319200fc99d845c','reader 4 splitter 2 450','# Plan

The garden is dug in May.
','Plan','text/markdown',34,'{}');
CREATE TABLE documents (
  id INTEGER PRIMARY KEY, path TEXT NOT NULL, content_id INTEGER NOT NULL REFERENCES contents (id),
  bytes INTEGER NOT NULL, stat TEXT NOT NULL, metadata TEXT NOT NULL, labels TEXT NOT NULL,
  given_labels TEXT NOT NULL, added_in INTEGER NOT NULL, removed_in INTEGER);
INSERT INTO "documents" VALUES(1,'/old/docs/bees.txt',2,21,'','{"bytes":21,"modified":"2026-11-26T22:11:13+00:00","name":"bees.txt","path":"/old/docs/bees.txt","title":"bees","type":"txt"}','[]','[]',3,NULL);
INSERT INTO "documents" VALUES(2,'/old/docs/plan.md',3,39,'','{"bytes":39,"modified":"2026-11-26T22:11:13+00:00","name":"plan.md","path":"/old/docs/plan.md","title":"Plan","type":"md"}','[]','[]',3,4);
INSERT INTO "documents" VALUES(3,'/old/docs/z-plan.md',3,39,'','{"bytes":39,"modified":"2026-11-26T22:11:13+00:00","name":"z-plan.md","path":"/old/docs/z-plan.md","title":"Plan","type":"md"}','[]','[]',4,5);
INSERT INTO "documents" VALUES(4,'/old/docs/z-plan.md',3,39,'','{"bytes":39,"modified":"2026-11-26T22:11:13+00:00","name":"z-plan.md","path":"/old/docs/z-plan.md","title":"Plan","type":"md"}','["hr"]','["hr"]',5,NULL);
INSERT INTO "documents" VALUES(5,'/old/docs/plan.md',4,34,'','{"bytes":34,"modified":"2026-11-26T22:11:13+00:00","name":"plan.md","path":"/old/docs/plan.md","title":"Plan","type":"md"}','[]','[]',6,NULL);
CREATE TABLE embeddings (embedding_key BLOB PRIMARY KEY, vector BLOB NOT NULL) WITHOUT ROWID;
INSERT INTO "embeddings" VALUES(X'2A145DABE5C4F8851DAF008BC5477730035AC5AAF6BCD606C06DC3E3C395C710',X'000000000000000000000000000000000000473400000000000000004734000000000000000000000000000047B400000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000473400000000000047B400000000000000000000000000006A3A00000000');
INSERT INTO "embeddings" VALUES(X'8550FAA52691CA811809E4E5DF5738C8CD1EF85D796FF43A7BDB41D4861251A8',X'000000000000000000000000000000000000473400000000473400000000000000000000000047340000000000000000000000000000000047B4000000000000473400000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000006A3A00000000');
INSERT INTO "embeddings" VALUES(X'E00BCD3F6CF7F96C209C75860DB89FFD1ADCAA5CB66FFC68482A93E5A9BB053B',X'0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000380000000000000038000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000380000000000000000000000380000000000000000');
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO "meta" VALUES('created_at','2026-11-26T22:11:13+00:00');
INSERT INTO "meta" VALUES('embedder','{"name": "hash", "digest": "38aae25d07e1f37c28ace241a2b29d4bf0ba93be991dbe2e45504ba57e94f8a3", "dimensions": 64}');
INSERT INTO "meta" VALUES('id','eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee');
INSERT INTO "meta" VALUES('labels_of_gone','{"/old/docs/wages.txt": ["board"]}');
INSERT INTO "meta" VALUES('sizing','{"overlap": 0, "reader": "", "size": 450, "tokenizer": "", "unit": "characters"}');
CREATE TABLE passages (
  id INTEGER PRIMARY KEY AUTOINCREMENT, content_id INTEGER NOT NULL REFERENCES contents (id), passage_id TEXT NOT NULL,
  start_char INTEGER NOT NULL, end_char INTEGER NOT NULL, page INTEGER, headings TEXT NOT NULL,
  embedding_key BLOB NOT NULL);
INSERT INTO "passages" VALUES(2,2,'p9bf5b10833989f4ad873',0,21,NULL,'[]',X'E00BCD3F6CF7F96C209C75860DB89FFD1ADCAA5CB66FFC68482A93E5A9BB053B');
INSERT INTO "passages" VALUES(3,3,'p07437ceccdc3591a1833',0,39,NULL,'["Plan"]',X'2A145DABE5C4F8851DAF008BC5477730035AC5AAF6BCD606C06DC3E3C395C710');
INSERT INTO "passages" VALUES(4,4,'p2f4570bebb3999f30151',0,34,NULL,'["Plan"]',X'8550FAA52691CA811809E4E5DF5738C8CD1EF85D796FF43A7BDB41D4861251A8');
CREATE TABLE sources (folder TEXT PRIMARY KEY, rules TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO "sources" VALUES('/old/docs','{"include": [], "exclude": [], "labels": [], "ocr": "", "path": "/old/docs"}');
CREATE TABLE tags (
  name TEXT PRIMARY KEY, version INTEGER NOT NULL REFERENCES versions (version), created_at TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO "tags" VALUES('spring',6,'2026-11-26T22:11:13+00:00');
CREATE TABLE verdicts (
  path TEXT PRIMARY KEY, outcome TEXT NOT NULL, reason TEXT NOT NULL, tried_at TEXT NOT NULL, stat TEXT NOT NULL)
  WITHOUT ROWID;
CREATE TABLE versions (version INTEGER PRIMARY KEY, created_at TEXT NOT NULL, summary TEXT NOT NULL);
INSERT INTO "versions" VALUES(2,'2026-11-26T22:11:13+00:00','1 removed');
INSERT INTO "versions" VALUES(3,'2026-11-26T22:11:13+00:00','2 added');
INSERT INTO "versions" VALUES(4,'2026-11-26T22:11:13+00:00','1 added, 1 removed');
INSERT INTO "versions" VALUES(5,'2026-11-26T22:11:13+00:00','1 updated');
INSERT INTO "versions" VALUES(6,'2026-11-26T22:11:13+00:00','1 added');
CREATE INDEX passages_by_content ON passages (content_id);
CREATE INDEX passages_by_passage_id ON passages (passage_id);
CREATE UNIQUE INDEX live_documents ON documents (path) WHERE removed_in IS NULL;
CREATE INDEX documents_by_content ON documents (content_id);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('contents',4);
INSERT INTO "sqlite_sequence" VALUES('passages',4);
COMMIT;
