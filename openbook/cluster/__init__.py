"""Work on many machines: facts in PostgreSQL, work through Ray."""
