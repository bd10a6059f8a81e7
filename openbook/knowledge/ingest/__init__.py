"""From files to stored contents: which files, split into passages, embedded, in runs that share the write lock."""
