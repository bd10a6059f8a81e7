"""The truth: rows, versions and labels in a SQLite file or a database, one writer at a time."""
