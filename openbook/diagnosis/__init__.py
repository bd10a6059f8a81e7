"""Diagnosis: closed-book, open-book and oracle answers side by side."""
