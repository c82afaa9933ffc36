"""The gamma distribution, with variance phi mu^2 / w."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from bigmm.families.distribution import Column, Distribution
from bigmm.families.links import mean_jet, power_slopes
from bigmm.families.power import (
    POSITIVE_MESSAGE,
    exponential_score,
    in_power_domain,
    not_positive,
    positive_mean,
    same_mean,
)
from bigmm.families.special import (
    HALF_LOG_TWO_PI,
    device,
    log_minus_digamma,
    log_ratio_minus,
    stirling_error,
)
from bigmm.families.unit import SMALLEST_MEAN


@device
def _score(link_id: int, y: float, w: float, eta: float, phi: float) -> tuple[float, float, float, float, float, float]:
    slopes = power_slopes(link_id, eta)
    mu, m1 = slopes[1], slopes[2]
    # The density by its shape w / phi, with Stirling's formula: lgamma(shape) would cancel for a small phi.
    shape = w / phi
    ll = shape * log_ratio_minus(y, mu) + 0.5 * math.log(shape) - HALF_LOG_TWO_PI - stirling_error(shape)
    return exponential_score(ll, y, slopes, w / phi, m1 / mu, 2.0, 0.0)


@device
def _dispersion_derivatives(link_id: int, y: float, w: float, eta: float, phi: float) -> tuple[float, float, float]:
    _ll, d1, _fisher, observed, _fisher_slope, _observed_slope = _score(link_id, y, w, eta, phi)
    mu = mean_jet(link_id, eta)[0]
    shape = w / phi
    return -shape * (log_ratio_minus(y, mu) + log_minus_digamma(shape)), -d1, -observed


@device
def _constant(y: float, w: float) -> float:
    return -math.log(y)


@device
def _variance(mu: float, phi: float) -> float:
    return phi * mu * mu


@device
def _deviance(y: float, w: float, mu: float, phi: float) -> float:
    return -2.0 * w * log_ratio_minus(y, max(mu, SMALLEST_MEAN))


def _simulate(rng: np.random.Generator, mu: Column, w: Column, phi: float) -> Column:
    return rng.gamma(w / phi, mu * phi / w)


def _quantile(u: Column, mu: Column, w: Column, phi: float) -> Column:
    return np.asarray(stats.gamma.ppf(u, w / phi, scale=mu * phi / w), dtype=np.float64)


DISTRIBUTION = Distribution(
    name="gamma",
    # R's default is the inverse, though the logarithm is what most models want.
    links=("inverse", "log", "identity", "sqrt"),
    canonical="inverse",
    in_domain=in_power_domain,
    score_full=_score,
    dispersion_derivatives=_dispersion_derivatives,
    constant=_constant,
    variance=_variance,
    deviance_row=_deviance,
    start_mean=same_mean,
    common_mean=positive_mean,
    outside_range=not_positive,
    range_message=POSITIVE_MESSAGE.format("a gamma"),
    simulate=_simulate,
    quantile=_quantile,
    dispersion="scale",
    dispersion_meaning="variance = phi mu^2 / weight",
)
