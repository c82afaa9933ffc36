"""The Poisson distribution: counts whose variance is their mean."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from bigmm.families.distribution import Column, Distribution
from bigmm.families.links import power_slopes
from bigmm.families.power import (
    COUNT_MESSAGE,
    LARGEST_POISSON_MEAN,
    POWER_LINKS,
    bounded_poisson,
    exponential_score,
    in_power_domain,
    no_count,
    positive_mean,
)
from bigmm.families.special import device, relative_entropy
from bigmm.families.unit import SMALLEST_MEAN


@device
def _score(link_id: int, y: float, w: float, eta: float, phi: float) -> tuple[float, float, float, float, float, float]:
    slopes = power_slopes(link_id, eta)
    log_mu, mu, m1 = slopes[0], slopes[1], slopes[2]
    return exponential_score(w * (y * log_mu - mu), y, slopes, w, m1, 1.0, 0.0)


@device
def count_constant(y: float, w: float) -> float:
    """-w log(y!)."""
    return -w * math.lgamma(y + 1.0)


@device
def _variance(mu: float, phi: float) -> float:
    return mu


@device
def _deviance(y: float, w: float, mu: float, phi: float) -> float:
    return 2.0 * w * relative_entropy(y, max(mu, SMALLEST_MEAN))


def _start_mean(y: Column, w: Column, link: str) -> Column:
    # R's mustart: a count of 0 has no logarithm.
    return y + 0.1


def _simulate(rng: np.random.Generator, mu: Column, w: Column, phi: float) -> Column:
    return bounded_poisson(rng, mu)


def _quantile(u: Column, mu: Column, w: Column, phi: float) -> Column:
    return np.asarray(stats.poisson.ppf(u, np.minimum(mu, LARGEST_POISSON_MEAN)), dtype=np.float64)


DISTRIBUTION = Distribution(
    name="poisson",
    links=POWER_LINKS,
    canonical="log",
    in_domain=in_power_domain,
    score_full=_score,
    constant=count_constant,
    variance=_variance,
    deviance_row=_deviance,
    start_mean=_start_mean,
    common_mean=positive_mean,
    outside_range=no_count,
    range_message=COUNT_MESSAGE.format("poisson"),
    simulate=_simulate,
    quantile=_quantile,
    countable=True,
    separable=True,
)
