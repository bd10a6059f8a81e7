-- The tables of openbook/knowledge/store/schema.py, with the same names and meaning. What differs, and why:
-- texts compare by their bytes (COLLATE "C"), as in SQLite; ids of contents and passages come from sequences, so that many
-- may add some at once, and none is given twice; documents have no digest, and there is no table of sums: the database
-- checks its pages, and keeps its own references whole.
-- No statistics are taken of what documents say or are called: a purge would have to delete it there too.

CREATE TABLE migrations (number integer PRIMARY KEY, applied_at text NOT NULL DEFAULT now()::text);

CREATE TABLE meta (key text COLLATE "C" PRIMARY KEY, value text NOT NULL);

CREATE TABLE versions (version integer PRIMARY KEY, created_at text COLLATE "C" NOT NULL, summary text NOT NULL);

CREATE TABLE tags (
  name text COLLATE "C" PRIMARY KEY, version integer NOT NULL REFERENCES versions (version), created_at text COLLATE "C" NOT NULL);

CREATE TABLE sources (folder text COLLATE "C" PRIMARY KEY, rules text NOT NULL);

CREATE SEQUENCE contents_ids;
CREATE TABLE contents (
  id bigint PRIMARY KEY, key text COLLATE "C" NOT NULL UNIQUE, code text COLLATE "C" NOT NULL, text text COLLATE "C" NOT NULL,
  title text COLLATE "C" NOT NULL, media_type text COLLATE "C" NOT NULL, source_chars bigint, metadata text COLLATE "C" NOT NULL,
  digest bigint NOT NULL);

CREATE SEQUENCE passages_ids;
CREATE TABLE passages (
  id bigint PRIMARY KEY, content_id bigint NOT NULL REFERENCES contents (id), passage_id text COLLATE "C" NOT NULL,
  start_char integer NOT NULL, end_char integer NOT NULL, page integer, headings text COLLATE "C" NOT NULL,
  embedding_key bytea NOT NULL, digest bigint NOT NULL);
CREATE INDEX passages_by_content ON passages (content_id);
CREATE INDEX passages_by_passage_id ON passages (passage_id);

CREATE TABLE embeddings (embedding_key bytea PRIMARY KEY, vector bytea NOT NULL, digest bigint);

CREATE TABLE identities (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, path text COLLATE "C" NOT NULL, labels text COLLATE "C" NOT NULL,
  given text COLLATE "C" NOT NULL);
CREATE INDEX closed_documents ON identities (labels) WHERE labels <> '[]';

CREATE TABLE documents (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, path text COLLATE "C" NOT NULL,
  content_id bigint NOT NULL REFERENCES contents (id), bytes bigint NOT NULL, stat text COLLATE "C" NOT NULL,
  metadata text COLLATE "C" NOT NULL, labels text COLLATE "C" NOT NULL, given_labels text COLLATE "C" NOT NULL,
  added_in integer NOT NULL, removed_in integer, identity bigint NOT NULL REFERENCES identities (id));
CREATE UNIQUE INDEX live_documents ON documents (path) WHERE removed_in IS NULL;
CREATE INDEX documents_by_content ON documents (content_id);
CREATE INDEX documents_by_identity ON documents (identity);

CREATE TABLE verdicts (
  path text COLLATE "C" PRIMARY KEY, outcome text NOT NULL, reason text NOT NULL, tried_at text NOT NULL, stat text NOT NULL);

ALTER TABLE sources ALTER folder SET STATISTICS 0, ALTER rules SET STATISTICS 0;
ALTER TABLE contents ALTER text SET STATISTICS 0, ALTER title SET STATISTICS 0, ALTER metadata SET STATISTICS 0;
ALTER TABLE passages ALTER headings SET STATISTICS 0;
ALTER TABLE identities ALTER path SET STATISTICS 0;
ALTER TABLE documents ALTER path SET STATISTICS 0, ALTER metadata SET STATISTICS 0, ALTER stat SET STATISTICS 0;
ALTER TABLE verdicts ALTER path SET STATISTICS 0, ALTER reason SET STATISTICS 0, ALTER stat SET STATISTICS 0;
