"""Found rows as shown: passages, windows, quotes, pages, editions."""
