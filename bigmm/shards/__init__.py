"""Rows and sums in shards, kept for many looks: made once by one pass, then asked by every evaluation."""
