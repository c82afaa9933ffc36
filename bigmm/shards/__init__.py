"""Rows and sums in shards: one pass makes them, and every evaluation uses them."""
