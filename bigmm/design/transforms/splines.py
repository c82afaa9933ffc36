"""Spline bases: B-splines (de Boor), natural cubic splines as R's ns() builds them, cubic regression splines."""

from __future__ import annotations

import numpy as np
from formulaic.transforms.cubic_spline import cubic_spline
from scipy.interpolate import BSpline
from scipy.linalg import qr


def full_knots(low: float, high: float, inner: np.ndarray, degree: int) -> np.ndarray:
    """Knots with the boundaries repeated degree + 1 times."""
    return np.concatenate([np.full(degree + 1, low), np.sort(inner), np.full(degree + 1, high)])


def b_spline(x: np.ndarray, low: float, high: float, inner: np.ndarray, degree: int, intercept: bool) -> np.ndarray:
    """(n, len(inner) + degree + intercept) B-spline basis of finite x; its end polynomials go on outside."""
    knots = full_knots(low, high, inner, degree)
    if not len(x):
        return np.empty((0, len(knots) - degree - 1 - (not intercept)))
    # New data may lie outside the boundaries of the fit. R's bs() extends the end polynomials there too.
    basis = BSpline.design_matrix(x, knots, degree, extrapolate=True).toarray()
    return basis if intercept else basis[:, 1:]


def natural_spline(x: np.ndarray, low: float, high: float, inner: np.ndarray, intercept: bool) -> np.ndarray:
    """(n, len(inner) + 1 + intercept) cubic splines with zero curvature at the boundaries, linear outside them.

    The constraint is absorbed by the QR factors of the boundary curvatures, as R's splines::ns does.
    """
    knots = full_knots(low, high, inner, 3)
    spline = BSpline(knots, np.eye(len(knots) - 4), 3)
    ends = np.array([low, high])
    keep = slice(0 if intercept else 1, None)
    curvature = spline(ends, nu=2)[:, keep]
    # The first two columns of Q span the curvatures at both ends; the others span the coefficients without them.
    null_space = qr(curvature.T)[0][:, 2:]
    if not len(x):
        return np.empty((0, null_space.shape[1]))
    # Outside the boundaries the spline is its tangent at the end, which adds slope times distance.
    inside = np.clip(x, low, high)
    basis = BSpline.design_matrix(inside, knots, 3).toarray()
    slopes = spline(ends, nu=1)
    below, above = x < low, x > high
    basis[below] += np.multiply.outer(x[below] - low, slopes[0])
    basis[above] += np.multiply.outer(x[above] - high, slopes[1])
    return basis[:, keep] @ null_space


def regression_spline(x: np.ndarray, low: float, high: float, inner: np.ndarray) -> np.ndarray:
    """(n, len(inner) + 2) cubic regression splines in their values at the knots (Wood 2006, as formulaic's cr)."""
    knots = np.concatenate([[low], np.sort(inner), [high]])
    # Formulaic would learn knots from x; the given state makes it a pure function of x.
    state = {"lower_bound": low, "upper_bound": high, "constraints": None, "cyclic": False, "knots": knots.tolist()}
    if not len(x):
        return np.empty((0, len(knots)))
    columns = cubic_spline(x, _state=state)
    # The order of the keys is that of the knots.
    return np.column_stack([columns[key] for key in sorted(columns)])
