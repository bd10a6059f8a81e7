"""Found rows as they are shown: passages, windows, quotes, pages, editions."""
