"""The inverse Gaussian distribution, with variance phi mu^3 / w."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from bigmm.families.distribution import Column, Distribution
from bigmm.families.links import mean_jet, power_slopes
from bigmm.families.power import (
    POSITIVE_MESSAGE,
    POWER_LINKS,
    exponential_score,
    in_power_domain,
    not_positive,
    positive_mean,
    same_mean,
)
from bigmm.families.special import HALF_LOG_TWO_PI, device
from bigmm.families.unit import SMALLEST_MEAN


@device
def _score(link_id: int, y: float, w: float, eta: float, phi: float) -> tuple[float, float, float, float, float, float]:
    slopes = power_slopes(link_id, eta)
    mu, m1 = slopes[1], slopes[2]
    r = (y - mu) / mu
    ll = -0.5 * (w / phi * r * r / y + math.log(phi))
    return exponential_score(ll, y, slopes, w / phi, m1 / (mu * mu), 3.0, 0.0)


@device
def _dispersion_derivatives(link_id: int, y: float, w: float, eta: float, phi: float) -> tuple[float, float, float]:
    _ll, d1, _fisher, observed, _fisher_slope, _observed_slope = _score(link_id, y, w, eta, phi)
    mu = mean_jet(link_id, eta)[0]
    r = (y - mu) / mu
    return 0.5 * (w / phi * r * r / y - 1.0), -d1, -observed


@device
def _constant(y: float, w: float) -> float:
    return 0.5 * math.log(w) - HALF_LOG_TWO_PI - 1.5 * math.log(y)


@device
def _variance(mu: float, phi: float) -> float:
    return phi * mu * mu * mu


@device
def _deviance(y: float, w: float, mu: float, phi: float) -> float:
    mu = max(mu, SMALLEST_MEAN)
    return w * ((y - mu) / mu) ** 2 / y


def _simulate(rng: np.random.Generator, mu: Column, w: Column, phi: float) -> Column:
    return rng.wald(mu, w / phi)


def _quantile(u: Column, mu: Column, w: Column, phi: float) -> Column:
    return np.asarray(stats.invgauss.ppf(u, mu * phi / w, scale=w / phi), dtype=np.float64)


DISTRIBUTION = Distribution(
    name="inverse_gaussian",
    spellings=("invgauss", "ig"),
    links=POWER_LINKS,
    # The canonical link, 1 / mu^2, is not offered.
    canonical=None,
    in_domain=in_power_domain,
    score_full=_score,
    dispersion_derivatives=_dispersion_derivatives,
    constant=_constant,
    variance=_variance,
    deviance_row=_deviance,
    start_mean=same_mean,
    common_mean=positive_mean,
    outside_range=not_positive,
    range_message=POSITIVE_MESSAGE.format("an inverse_gaussian"),
    simulate=_simulate,
    quantile=_quantile,
    dispersion="scale",
    dispersion_meaning="variance = phi mu^3 / weight",
)
