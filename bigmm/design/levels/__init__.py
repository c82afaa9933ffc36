"""Levels of factors: equal values, their order and numbers, sets of them, and nested factors."""
