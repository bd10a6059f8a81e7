"""From files to stored contents: found, split into passages, embedded, in runs that share the write lock."""
