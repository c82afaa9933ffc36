"""The scale of the response: inverse link, and residuals of every kind.

`families.rows` has the formulas; here missing values stay missing.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bigmm.families import Family
from bigmm.families import rows as columnwise

Column = np.ndarray


def mean(family: Family, eta: Column) -> Column:
    """(n,) inverse link; NaN where eta is."""
    # Compiled kernels may turn NaN into a number where they clamp eta, so NaN is put back.
    return np.where(np.isnan(eta), np.nan, columnwise.mean(family, eta))


def mean_slope(family: Family, eta: Column) -> Column:
    """(n,) d mu / d eta; NaN where eta is."""
    return np.where(np.isnan(eta), np.nan, columnwise.mean_derivative(family, eta))


def _response(family: Family, y: Column, w: Column, eta: Column, phi: float) -> Column:
    return y - columnwise.mean(family, eta)


def _pearson(family: Family, y: Column, w: Column, eta: Column, phi: float) -> Column:
    return columnwise.pearson_residuals(family, y, w, columnwise.mean(family, eta), phi)


def _deviance(family: Family, y: Column, w: Column, eta: Column, phi: float) -> Column:
    return columnwise.deviance_residuals(family, y, w, columnwise.mean(family, eta), phi)


def _working(family: Family, y: Column, w: Column, eta: Column, phi: float) -> Column:
    return (y - columnwise.mean(family, eta)) / columnwise.mean_derivative(family, eta)


RESIDUALS: dict[str, Callable[[Family, Column, Column, Column, float], Column]] = {
    "response": _response,
    "pearson": _pearson,
    "deviance": _deviance,
    "working": _working,
}
"""R's definitions (McCullagh & Nelder 1989, section 2.4): y - mu; that over the square root of the variance function;
the signed root of the unit deviance; (y - mu) / mu'. A scale divides none of them, but a shape is part of the
variance function."""


def residuals(family: Family, kind: str, y: Column, w: Column, eta: Column, phi: float) -> Column:
    """(n,) residuals of one kind of `RESIDUALS`; NaN where y, w or eta is."""
    complete = ~(np.isnan(y) | np.isnan(w) | np.isnan(eta))
    # Only complete rows go to the kernels, whose formulas assume values in the family's range.
    out = np.full(len(y), np.nan)
    out[complete] = RESIDUALS[kind](family, y[complete], w[complete], eta[complete], phi)
    return out
