"""The search data, derived from the store (words, vectors, segments), and the scope of a query."""
