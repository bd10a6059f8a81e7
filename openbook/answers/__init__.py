"""The core flow: from a question to an answer with its receipt."""
