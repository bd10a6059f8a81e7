"""Work on many machines: facts in PostgreSQL, segments in object storage, work through Ray."""
