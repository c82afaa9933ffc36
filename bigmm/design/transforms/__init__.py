"""Stateful transforms: what they learn from all rows, and how they are replayed on any of them."""
