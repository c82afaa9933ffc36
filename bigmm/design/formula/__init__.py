"""The formula language: tokens, trees, random terms, model terms. Nothing is evaluated as Python."""
