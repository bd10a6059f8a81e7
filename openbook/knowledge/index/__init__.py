"""What a search reads: words, vectors and segments, derived from the store, and what a query may see of them."""
