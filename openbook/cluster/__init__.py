"""The same work on many machines: truth in PostgreSQL, segments in object storage, work through Ray. An extra."""
