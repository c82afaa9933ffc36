"""The device functions over whole columns: for starting values, fitted means, residuals and tests. Shapes broadcast.

Each is a loop over the device function of the same name, so a formula is written once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from bigmm.families import density, links, scores
from bigmm.families.family import Family

device_mean, device_mean_derivative, device_eta_of = links.mean, links.mean_derivative, links.eta_of
device_score, device_dispersion = scores.score_full, scores.dispersion_derivatives
device_constant, device_variance, device_deviance = density.constant, density.variance, density.deviance_row

loop = njit(cache=True, nogil=True)


def mean(family: Family, eta: np.ndarray) -> np.ndarray:
    """mu, the inverse link."""
    return _over(_mean, (family.link_id,), (eta,))[0]


def mean_derivative(family: Family, eta: np.ndarray) -> np.ndarray:
    """d mu / d eta."""
    return _over(_mean_derivative, (family.link_id,), (eta,))[0]


def eta_of(family: Family, mu: np.ndarray) -> np.ndarray:
    """The link."""
    return _over(_eta_of, (family.link_id,), (mu,))[0]


def score_full(family: Family, y: Any, w: Any, eta: Any, phi: Any = 1.0) -> np.ndarray:
    """(6, n): ll, d1, w_fisher, w_observed and the slopes of the two weights; see `scores.score_full`."""
    return _over(_score_full, (family.family_id, family.link_id), (y, w, eta, phi), outputs=6)


def dispersion_derivatives(family: Family, y: Any, w: Any, eta: Any, phi: Any) -> np.ndarray:
    """(3, n): derivatives of ll, d1 and w_observed by log phi; see `scores.dispersion_derivatives`."""
    return _over(_dispersion, (family.family_id, family.link_id), (y, w, eta, phi), outputs=3)


def constant(family: Family, y: Any, w: Any) -> np.ndarray:
    """What ll lacks to be R's log density; see `density.constant`."""
    return _over(_constant, (family.family_id,), (y, w))[0]


def log_density(family: Family, y: Any, w: Any, eta: Any, phi: Any = 1.0) -> np.ndarray:
    """log density of each row on R's scale: its sum is the log-likelihood without random effects."""
    return score_full(family, y, w, eta, phi)[0] + constant(family, y, w)


def variance(family: Family, mu: Any, phi: Any = 1.0) -> np.ndarray:
    """Variance of an observation of weight 1; phi = 1 gives R's variance function; see `density.variance`."""
    return _over(_variance, (family.family_id,), (mu, phi))[0]


def deviance_row(family: Family, y: Any, w: Any, mu: Any, phi: Any = 1.0) -> np.ndarray:
    """Weighted unit deviances; see `density.deviance_row`."""
    return _over(_deviance, (family.family_id,), (y, w, mu, phi))[0]


def deviance_residuals(family: Family, y: Any, w: Any, mu: Any, phi: Any = 1.0) -> np.ndarray:
    """R's deviance residuals: signed roots of the unit deviances."""
    return np.copysign(np.sqrt(deviance_row(family, y, w, mu, phi)), np.subtract(y, mu))


def pearson_residuals(family: Family, y: Any, w: Any, mu: Any, phi: Any = 1.0) -> np.ndarray:
    """R's Pearson residuals (y - mu) sqrt(w / V(mu)), V without the dispersion phi but with the shape of the negative
    binomial."""
    unit = variance(family, mu, phi if family.name == "negative_binomial" else 1.0)
    return np.subtract(y, mu) * np.sqrt(w / unit)


def simulate(family: Family, rng: np.random.Generator, mu: np.ndarray, w: Any = 1.0, phi: float = 1.0) -> np.ndarray:
    """One response per mean: mu (n,); w scalar or (n,) prior weights (trials of a binomial); phi as in `variance`."""
    mu, w = np.broadcast_arrays(np.asarray(mu, dtype=np.float64), np.asarray(w, dtype=np.float64))
    return SIMULATORS[family.name](rng, mu, w, phi)


LARGEST_POISSON_MEAN = 1e18
"""numpy draws no larger ones: counts are int64."""


def _simulate_binomial(rng: np.random.Generator, mu: np.ndarray, w: np.ndarray, phi: float) -> np.ndarray:
    trials = np.round(w)
    return rng.binomial(trials.astype(np.int64), mu) / np.maximum(trials, 1.0)


def _simulate_negative_binomial(rng: np.random.Generator, mu: np.ndarray, w: np.ndarray, phi: float) -> np.ndarray:
    rates = rng.gamma(phi, mu / phi)
    return rng.poisson(np.minimum(rates, LARGEST_POISSON_MEAN)).astype(np.float64)


SIMULATORS: dict[str, Callable[[np.random.Generator, np.ndarray, np.ndarray, float], np.ndarray]] = {
    "bernoulli": lambda rng, mu, w, phi: (rng.random(mu.shape) < mu).astype(np.float64),
    "binomial": _simulate_binomial,
    "poisson": lambda rng, mu, w, phi: rng.poisson(np.minimum(mu, LARGEST_POISSON_MEAN)).astype(np.float64),
    "negative_binomial": _simulate_negative_binomial,
    "gaussian": lambda rng, mu, w, phi: rng.normal(mu, np.sqrt(phi / w)),
    "gamma": lambda rng, mu, w, phi: rng.gamma(w / phi, mu * phi / w),
    "inverse_gaussian": lambda rng, mu, w, phi: rng.wald(mu, w / phi),
}


def _over(kernel: Callable, numbers: tuple[int, ...], columns: tuple[Any, ...], outputs: int = 1) -> np.ndarray:
    """(outputs, *shape): the kernel over the broadcast columns."""
    floats = [np.asarray(c, dtype=np.float64) for c in columns]
    shape = np.broadcast_shapes(*(a.shape for a in floats))
    # not broadcast_arrays: numba asks whether its arrays are writeable, of which NumPy warns
    arrays = [a if a.shape == shape else np.broadcast_to(a, shape) for a in floats]
    out = np.empty((outputs, math.prod(shape)))
    kernel(*numbers, *(np.ascontiguousarray(a).ravel() for a in arrays), out)
    return out.reshape((outputs, *shape))


@loop
def _mean(link_id, eta, out):
    for i in range(len(eta)):
        out[0, i] = device_mean(link_id, eta[i])


@loop
def _mean_derivative(link_id, eta, out):
    for i in range(len(eta)):
        out[0, i] = device_mean_derivative(link_id, eta[i])


@loop
def _eta_of(link_id, mu, out):
    for i in range(len(mu)):
        out[0, i] = device_eta_of(link_id, mu[i])


@loop
def _score_full(family_id, link_id, y, w, eta, phi, out):
    for i in range(len(y)):
        out[0, i], out[1, i], out[2, i], out[3, i], out[4, i], out[5, i] = device_score(
            family_id, link_id, y[i], w[i], eta[i], phi[i]
        )


@loop
def _dispersion(family_id, link_id, y, w, eta, phi, out):
    for i in range(len(y)):
        out[0, i], out[1, i], out[2, i] = device_dispersion(family_id, link_id, y[i], w[i], eta[i], phi[i])


@loop
def _constant(family_id, y, w, out):
    for i in range(len(y)):
        out[0, i] = device_constant(family_id, y[i], w[i])


@loop
def _variance(family_id, mu, phi, out):
    for i in range(len(mu)):
        out[0, i] = device_variance(family_id, mu[i], phi[i])


@loop
def _deviance(family_id, y, w, mu, phi, out):
    for i in range(len(y)):
        out[0, i] = device_deviance(family_id, y[i], w[i], mu[i], phi[i])
