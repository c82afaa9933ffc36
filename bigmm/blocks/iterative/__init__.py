"""The iterative solver: the tail's Schur complement is applied by conjugate gradients and never formed."""
