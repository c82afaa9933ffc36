"""The scale of the response: inverse link, residuals of every kind, and quantiles to simulate from.

`families.rows` has the formulas; here missing values stay missing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import stats

from bigmm.families import Family
from bigmm.families import rows as columnwise
from bigmm.families.rows import LARGEST_POISSON_MEAN

Column = np.ndarray


def mean(family: Family, eta: Column) -> Column:
    """(n,) inverse link; NaN where eta is."""
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
the signed root of the unit deviance; (y - mu) / mu'. The dispersion divides none of them, but the negative binomial's
shape is part of its variance function."""


def residuals(family: Family, kind: str, y: Column, w: Column, eta: Column, phi: float) -> Column:
    """(n,) residuals of one kind of `RESIDUALS`; NaN where y, w or eta is."""
    known = ~(np.isnan(y) | np.isnan(w) | np.isnan(eta))
    out = np.full(len(y), np.nan)
    out[known] = RESIDUALS[kind](family, y[known], w[known], eta[known], phi)
    return out


def _binomial(u: Column, mu: Column, w: Column, phi: float) -> Column:
    trials = np.round(w)
    return stats.binom.ppf(u, trials, mu) / np.maximum(trials, 1.0)


QUANTILES: dict[str, Callable[[Column, Column, Column, float], Any]] = {
    "bernoulli": lambda u, mu, w, phi: np.where(np.isnan(mu), np.nan, 1.0 * (u > 1.0 - mu)),
    "binomial": _binomial,
    "poisson": lambda u, mu, w, phi: stats.poisson.ppf(u, np.minimum(mu, LARGEST_POISSON_MEAN)),
    "negative_binomial": lambda u, mu, w, phi: stats.nbinom.ppf(u, phi, phi / (phi + mu)),
    "gaussian": lambda u, mu, w, phi: stats.norm.ppf(u, mu, np.sqrt(phi / w)),
    "gamma": lambda u, mu, w, phi: stats.gamma.ppf(u, w / phi, scale=mu * phi / w),
    "inverse_gaussian": lambda u, mu, w, phi: stats.invgauss.ppf(u, mu * phi / w, scale=w / phi),
}
"""Family -> the u-quantile of an observation with mean mu, weight w (trials of a binomial, whose quantile is a
proportion) and dispersion phi. Inversion takes one uniform a row, so that draws do not depend on how rows are cut (see
`draws`); `families.simulate`, which draws the same distributions, takes a varying number."""
