"""The device functions over whole columns: for starting values, fitted means, residuals and tests. Shapes broadcast.

Each is a loop over the device function of the same name, so a formula is written once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import numpy as np

from bigmm.families import scores
from bigmm.families.distribution import Column
from bigmm.families.registry import Family
from bigmm.families.special import F
from bigmm.kernel import njit

# Device functions have other names here than the functions of columns, for a kernel calls the former.
device_mean, device_mean_derivative, device_eta_of = scores.mean, scores.mean_derivative, scores.eta_of
device_score, device_dispersion = scores.score_full, scores.dispersion_derivatives
device_constant, device_variance, device_deviance = scores.constant, scores.variance, scores.deviance_row


def loop(function: F) -> F:
    """Compile a loop over rows that writes to its last argument."""
    return cast(F, njit(cache=True, nogil=True)(function))


def mean(family: Family, eta: Column) -> Column:
    """mu, the inverse link."""
    return _over(_mean, (family.family_id, family.link_id), (eta,))


def mean_derivative(family: Family, eta: Column) -> Column:
    """d mu / d eta."""
    return _over(_mean_derivative, (family.family_id, family.link_id), (eta,))


def eta_of(family: Family, mu: Column) -> Column:
    """The link."""
    return _over(_eta_of, (family.family_id, family.link_id), (mu,))


def score_full(family: Family, y: Any, w: Any, eta: Any, phi: Any = 1.0) -> Column:
    """(6, n): ll, d1, w_fisher, w_observed and the slopes of the two weights; see `scores.score_full`."""
    return _over(_score_full, (family.family_id, family.link_id), (y, w, eta, phi), outputs=6)


def dispersion_derivatives(family: Family, y: Any, w: Any, eta: Any, phi: Any) -> Column:
    """(3, n): derivatives of ll, d1 and w_observed by log phi; see `scores.dispersion_derivatives`."""
    return _over(_dispersion, (family.family_id, family.link_id), (y, w, eta, phi), outputs=3)


def constant(family: Family, y: Any, w: Any) -> Column:
    """What ll lacks to be R's log density; see `scores.constant`."""
    return _over(_constant, (family.family_id,), (y, w))


def log_density(family: Family, y: Any, w: Any, eta: Any, phi: Any = 1.0) -> Column:
    """log density of each row on R's scale: its sum is the log-likelihood without random effects."""
    ll: Column = score_full(family, y, w, eta, phi)[0]
    return ll + constant(family, y, w)


def variance(family: Family, mu: Any, phi: Any = 1.0) -> Column:
    """Variance of an observation of weight 1; phi = 1 gives R's variance function; see `scores.variance`."""
    return _over(_variance, (family.family_id,), (mu, phi))


def deviance_row(family: Family, y: Any, w: Any, mu: Any, phi: Any = 1.0) -> Column:
    """Weighted unit deviances; see `scores.deviance_row`."""
    return _over(_deviance, (family.family_id,), (y, w, mu, phi))


def deviance_residuals(family: Family, y: Any, w: Any, mu: Any, phi: Any = 1.0) -> Column:
    """R's deviance residuals: signed roots of the unit deviances."""
    return np.asarray(np.copysign(np.sqrt(deviance_row(family, y, w, mu, phi)), np.subtract(y, mu)))


def pearson_residuals(family: Family, y: Any, w: Any, mu: Any, phi: Any = 1.0) -> Column:
    """R's Pearson residuals (y - mu) sqrt(w / V(mu)), V without a scale but with a shape."""
    unit = variance(family, mu, phi if family.distribution.dispersion == "shape" else 1.0)
    return np.asarray(np.subtract(y, mu) * np.sqrt(w / unit))


def simulate(family: Family, rng: np.random.Generator, mu: Column, w: Any = 1.0, phi: float = 1.0) -> Column:
    """One response per mean: mu (n,); w scalar or (n,) prior weights (trials of a binomial); phi as in `variance`."""
    mu, w = np.broadcast_arrays(np.asarray(mu, dtype=np.float64), np.asarray(w, dtype=np.float64))
    return family.distribution.simulate(rng, mu, w, phi)


def _over(kernel: Callable[..., None], numbers: tuple[int, ...], columns: tuple[Any, ...], outputs: int = 1) -> Column:
    """(outputs, *shape), or (*shape,) for one output: the kernel over the broadcast columns."""
    floats = [np.asarray(c, dtype=np.float64) for c in columns]
    shape = np.broadcast_shapes(*(a.shape for a in floats))
    # not broadcast_arrays: numba asks whether its arrays are writeable, of which NumPy warns
    arrays = [a if a.shape == shape else np.broadcast_to(a, shape) for a in floats]
    out = np.empty((outputs, math.prod(shape)))
    kernel(*numbers, *(np.ascontiguousarray(a).ravel() for a in arrays), out)
    return out.reshape((outputs, *shape) if outputs > 1 else shape)


@loop
def _mean(family_id: int, link_id: int, eta: Column, out: Column) -> None:
    for i in range(len(eta)):
        out[0, i] = device_mean(family_id, link_id, eta[i])


@loop
def _mean_derivative(family_id: int, link_id: int, eta: Column, out: Column) -> None:
    for i in range(len(eta)):
        out[0, i] = device_mean_derivative(family_id, link_id, eta[i])


@loop
def _eta_of(family_id: int, link_id: int, mu: Column, out: Column) -> None:
    for i in range(len(mu)):
        out[0, i] = device_eta_of(family_id, link_id, mu[i])


@loop
def _score_full(family_id: int, link_id: int, y: Column, w: Column, eta: Column, phi: Column, out: Column) -> None:
    for i in range(len(y)):
        out[0, i], out[1, i], out[2, i], out[3, i], out[4, i], out[5, i] = device_score(
            family_id, link_id, y[i], w[i], eta[i], phi[i]
        )


@loop
def _dispersion(family_id: int, link_id: int, y: Column, w: Column, eta: Column, phi: Column, out: Column) -> None:
    for i in range(len(y)):
        out[0, i], out[1, i], out[2, i] = device_dispersion(family_id, link_id, y[i], w[i], eta[i], phi[i])


@loop
def _constant(family_id: int, y: Column, w: Column, out: Column) -> None:
    for i in range(len(y)):
        out[0, i] = device_constant(family_id, y[i], w[i])


@loop
def _variance(family_id: int, mu: Column, phi: Column, out: Column) -> None:
    for i in range(len(mu)):
        out[0, i] = device_variance(family_id, mu[i], phi[i])


@loop
def _deviance(family_id: int, y: Column, w: Column, mu: Column, phi: Column, out: Column) -> None:
    for i in range(len(y)):
        out[0, i] = device_deviance(family_id, y[i], w[i], mu[i], phi[i])
