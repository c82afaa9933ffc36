"""Observed information: differences of the exact gradient."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

STEP = 1e-4
"""In units of the standard error that the search's curvature suggests: the gradient is exact, so one-sided differences
with a short step are good to about this, relatively."""
# The square of this is the smallest curvature that sets a step.
TINY = 1e-100
NOISY_STEP = 1e-2
"""The same where the gradient is an estimate in single precision: it is smooth in psi, but to fewer digits."""


def observed_hessian(
    gradient: Callable[[np.ndarray], np.ndarray],
    psi: np.ndarray,
    curvature: np.ndarray,
    free: np.ndarray,
    step: float = STEP,
) -> np.ndarray:
    """(P, P) second derivatives at psi of a function with this gradient; rows and columns that are not free are zero.

    curvature (P, P): an approximation that sets the steps.
    """
    n = len(psi)
    out = np.zeros((n, n))
    centre = gradient(psi)
    scale = np.sqrt(np.abs(np.diagonal(curvature)))
    for i in np.flatnonzero(free):
        if not TINY < scale[i] < np.inf:  # without curvature there is no unit to step in, and no standard error
            out[i] = np.nan
            continue
        move = np.zeros(n)
        move[i] = step / scale[i]
        out[i] = (gradient(psi + move) - centre) / move[i]
    # One-sided differences are not symmetric, but a Hessian is.
    out = 0.5 * (out + out.T)
    out[~free] = 0.0
    out[:, ~free] = 0.0
    return out


def covariance(hessian: np.ndarray, free: np.ndarray) -> np.ndarray | None:
    """(P, P) inverse of half the Hessian of -2 log L over the free parameters; None where it is not positive
    definite or not finite."""
    part = hessian[np.ix_(free, free)]
    if not np.all(np.isfinite(part)):
        return None
    try:
        values, vectors = np.linalg.eigh(part)
    except np.linalg.LinAlgError:
        return None
    # Below this share the smallest eigenvalue is an error of the differences.
    if not len(part) or values[0] <= 1e-12 * max(values[-1], 1e-300):
        return None
    out = np.zeros_like(hessian)
    out[np.ix_(free, free)] = 2.0 * (vectors / values) @ vectors.T
    return out
