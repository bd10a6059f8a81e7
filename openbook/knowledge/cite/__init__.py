"""From rows that were found to what is shown: passages, windows, quotes, pages, editions."""
