"""Gauss-Hermite nodes for a standard normal weight."""

from __future__ import annotations

import numpy as np


def gauss_hermite(n: int) -> tuple[np.ndarray, np.ndarray]:
    """(nodes (n,), log weights (n,)) with sum w f(x) ~ integral of f against the standard normal density.

    n <= 1 gives empty arrays: Laplace. Golub and Welsch (1969) as in `numpy.polynomial.hermite_e`.
    """
    if n <= 1:
        return np.empty(0), np.empty(0)
    nodes, weights = np.polynomial.hermite_e.hermegauss(n)
    return nodes, np.log(weights) - 0.5 * np.log(2.0 * np.pi)
