"""One script per claim; `python -m benchmarks` runs them all at small sizes (README.md)."""
