"""Receipts, replay, signatures, deletion and its proof."""
