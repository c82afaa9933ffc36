"""The negative binomial distribution: counts with variance mu + mu^2 / phi (NB2), phi its shape."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from bigmm.families.distribution import Column, Distribution
from bigmm.families.links import mean_jet, power_slopes
from bigmm.families.poisson import count_constant
from bigmm.families.power import (
    COUNT_MESSAGE,
    POWER_LINKS,
    bounded_poisson,
    exponential_score,
    in_power_domain,
    no_count,
    positive_mean,
)
from bigmm.families.special import (
    ASYMPTOTIC,
    device,
    digamma,
    digamma_error,
    log1p_minus,
    relative_entropy,
    stirling_error,
)
from bigmm.families.unit import SMALLEST_MEAN


@device
def _score(link_id: int, y: float, w: float, eta: float, phi: float) -> tuple[float, float, float, float, float, float]:
    slopes = power_slopes(link_id, eta)
    log_mu, mu, m1 = slopes[0], slopes[1], slopes[2]
    tau = mu / (phi + mu)
    rho = phi / (phi + mu)
    ll = w * _log_likelihood(y, mu, log_mu, phi)
    return exponential_score(ll, y, slopes, w, m1 * rho, 1.0 + tau, tau * rho * m1 * m1)


@device
def _log_likelihood(y: float, mu: float, log_mu: float, phi: float) -> float:
    """lgamma(y + phi) - lgamma(phi) + y log(mu / (mu + phi)) + phi log(phi / (mu + phi))."""
    x = (y - mu) / (phi + mu)
    if abs(x) > 0.5 or phi < ASYMPTOTIC:
        gammas = math.lgamma(y + phi) - math.lgamma(phi)
        return gammas - y * math.log1p(phi / mu) - phi * math.log1p(mu / phi)
    # About the Poisson log-likelihood, its limit: the gamma functions by Stirling, no difference of large numbers.
    poisson = y * log_mu - mu
    remainder = stirling_error(phi + y) - stirling_error(phi) - 0.5 * math.log1p(y / phi)
    return poisson + (y - mu) * x + (y + phi) * log1p_minus(x) + remainder


@device
def _dispersion_derivatives(link_id: int, y: float, w: float, eta: float, phi: float) -> tuple[float, float, float]:
    _ll, d1, _fisher, observed, _fisher_slope, _observed_slope = _score(link_id, y, w, eta, phi)
    mu = mean_jet(link_id, eta)[0]
    tau, rho = mu / (phi + mu), phi / (phi + mu)
    m1 = power_slopes(link_id, eta)[2]
    return w * _shape_slope(y, mu, phi), tau * d1, tau * observed - d1 * m1 * rho * tau


@device
def _shape_slope(y: float, mu: float, phi: float) -> float:
    """d `_log_likelihood` / d log phi."""
    x = (y - mu) / (phi + mu)
    if abs(x) > 0.5 or phi < ASYMPTOTIC:
        return phi * (digamma(y + phi) - digamma(phi) - math.log1p(mu / phi) - x)
    gammas = 0.5 * y / (phi * (phi + y)) + digamma_error(phi) - digamma_error(phi + y)
    return phi * (log1p_minus(x) + gammas)


@device
def _variance(mu: float, phi: float) -> float:
    return mu + mu * mu / phi


@device
def _deviance(y: float, w: float, mu: float, phi: float) -> float:
    mu = max(mu, SMALLEST_MEAN)
    # A difference of nearly equal numbers near y = mu: rounding must not make it negative, for a root is taken of it.
    return 2.0 * w * max(relative_entropy(y, mu) - relative_entropy(y + phi, mu + phi), 0.0)


def _moments(y: Column, mu: Column) -> tuple[float, float]:
    """Sums of (y - mu)^2 - mu, whose mean is mu^2 / phi, and of mu^2."""
    return float(((y - mu) ** 2 - mu).sum()), float((mu**2).sum())


def _start_dispersion(excess: float, squares: float) -> float:
    # Counts that vary less than Poisson counts have no shape by moments: the search starts from a large one.
    return float(np.clip(squares / max(excess, 1e-8 * squares), 0.05, 1e4))


def _start_mean(y: Column, w: Column, link: str) -> Column:
    # R's mustart of the family in package MASS.
    return np.where(y == 0.0, 1.0 / 6.0, y)


def _simulate(rng: np.random.Generator, mu: Column, w: Column, phi: float) -> Column:
    # A Poisson count whose mean is gamma distributed (Greenwood & Yule 1920).
    return bounded_poisson(rng, rng.gamma(phi, mu / phi))


def _quantile(u: Column, mu: Column, w: Column, phi: float) -> Column:
    return np.asarray(stats.nbinom.ppf(u, phi, phi / (phi + mu)), dtype=np.float64)


DISTRIBUTION = Distribution(
    name="negative_binomial",
    spellings=("nb", "nb2", "negbin", "negbinomial", "nbinom", "nbinom2"),
    links=POWER_LINKS,
    canonical=None,
    in_domain=in_power_domain,
    score_full=_score,
    dispersion_derivatives=_dispersion_derivatives,
    constant=count_constant,
    variance=_variance,
    deviance_row=_deviance,
    start_mean=_start_mean,
    common_mean=positive_mean,
    outside_range=no_count,
    range_message=COUNT_MESSAGE.format("negative_binomial"),
    simulate=_simulate,
    quantile=_quantile,
    dispersion="shape",
    dispersion_meaning="shape: variance = mu + mu^2 / shape",
    largest_dispersion=1e8,
    flat_dispersion=(
        "the dispersion is not identified: the shape of the negative binomial grows without limit, because the counts "
        "vary no more than Poisson counts do; use family='poisson'"
    ),
    moments=_moments,
    start_dispersion=_start_dispersion,
    separable=True,
)
