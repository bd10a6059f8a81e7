-- Rows behind access labels are closed to roles of the database that only read, by the database itself. `readers` says, as a JSON
-- list, which labels a role holds; one that is not in it holds none. Whoever owns the tables, or is a member of the owner, sees
-- all, and is the one who writes. As for every query, a document is seen when each label that it carries in a version, and each
-- that it carries now or carried last, is held.

CREATE TABLE readers (role text COLLATE "C" PRIMARY KEY, labels text COLLATE "C" NOT NULL);

CREATE FUNCTION held_labels() RETURNS SETOF text LANGUAGE sql STABLE SECURITY DEFINER SET search_path = openbook, pg_temp
BEGIN ATOMIC
  SELECT label.value FROM readers, json_each(readers.labels) AS label WHERE readers.role = session_user;
END;

CREATE FUNCTION is_open_to_reader(labels text) RETURNS boolean LANGUAGE sql STABLE
BEGIN ATOMIC
  SELECT labels = '[]' OR NOT EXISTS (
    SELECT 1 FROM json_each(labels) AS label WHERE label.value NOT IN (SELECT held_labels()));
END;

CREATE INDEX passages_by_embedding ON passages (embedding_key);

ALTER TABLE identities ENABLE ROW LEVEL SECURITY;
CREATE POLICY reader ON identities FOR SELECT USING (is_open_to_reader(labels));

ALTER TABLE documents ENABLE ROW LEVEL SECURITY;
CREATE POLICY reader ON documents FOR SELECT USING (
  is_open_to_reader(labels) AND EXISTS (SELECT 1 FROM identities i WHERE i.id = identity));

ALTER TABLE contents ENABLE ROW LEVEL SECURITY;
CREATE POLICY reader ON contents FOR SELECT USING (EXISTS (SELECT 1 FROM documents d WHERE d.content_id = contents.id));

ALTER TABLE passages ENABLE ROW LEVEL SECURITY;
CREATE POLICY reader ON passages FOR SELECT USING (EXISTS (SELECT 1 FROM documents d WHERE d.content_id = passages.content_id));

ALTER TABLE embeddings ENABLE ROW LEVEL SECURITY;
CREATE POLICY reader ON embeddings FOR SELECT USING (
  EXISTS (SELECT 1 FROM passages p WHERE p.embedding_key = embeddings.embedding_key));

-- What was not taken in may be as closed as what was.
ALTER TABLE verdicts ENABLE ROW LEVEL SECURITY;
ALTER TABLE readers ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON readers FOR SELECT USING (role = session_user);
