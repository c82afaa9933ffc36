"""The normal distribution, with variance phi / w."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from bigmm.families.distribution import Column, Distribution, Mask
from bigmm.families.links import IDENTITY, INVERSE, LOG, SQRT, mean_jet
from bigmm.families.power import positive_mean
from bigmm.families.special import HALF_LOG_TWO_PI, device


@device
def _in_domain(link_id: int, eta: float) -> bool:
    if link_id in (IDENTITY, LOG, INVERSE, SQRT):
        return eta == eta
    raise ValueError("the link does not go with the gaussian family")


@device
def _score(link_id: int, y: float, w: float, eta: float, phi: float) -> tuple[float, float, float, float, float, float]:
    mu, mu1, mu2, mu3 = mean_jet(link_id, eta)
    c, r = w / phi, y - mu
    fisher = c * mu1 * mu1
    return (
        -0.5 * (c * r * r + math.log(phi)),
        c * r * mu1,
        fisher,
        fisher - c * r * mu2,
        2.0 * c * mu1 * mu2,
        3.0 * c * mu1 * mu2 - c * r * mu3,
    )


@device
def _dispersion_derivatives(link_id: int, y: float, w: float, eta: float, phi: float) -> tuple[float, float, float]:
    _ll, d1, _fisher, observed, _fisher_slope, _observed_slope = _score(link_id, y, w, eta, phi)
    mu = mean_jet(link_id, eta)[0]
    return 0.5 * (w / phi * (y - mu) ** 2 - 1.0), -d1, -observed


@device
def _constant(y: float, w: float) -> float:
    return 0.5 * math.log(w) - HALF_LOG_TWO_PI


@device
def _variance(mu: float, phi: float) -> float:
    return phi


@device
def _deviance(y: float, w: float, mu: float, phi: float) -> float:
    return w * (y - mu) ** 2


def _start_mean(y: Column, w: Column, link: str) -> Column:
    # With other links 0 has no linear predictor, and a negative mean only the inverse has.
    if link == "identity":
        return y
    return np.where(y == 0.0, 1.0, y if link == "inverse" else np.abs(y))


def _common_mean(response: float, weight: float, link: str) -> float:
    return response / weight if link == "identity" else positive_mean(response, weight, link)


def _outside(y: Column) -> Mask:
    return np.zeros(y.shape, dtype=bool)


def _simulate(rng: np.random.Generator, mu: Column, w: Column, phi: float) -> Column:
    return rng.normal(mu, np.sqrt(phi / w))


def _quantile(u: Column, mu: Column, w: Column, phi: float) -> Column:
    return np.asarray(stats.norm.ppf(u, mu, np.sqrt(phi / w)), dtype=np.float64)


DISTRIBUTION = Distribution(
    name="gaussian",
    spellings=("normal",),
    links=("identity", "log", "inverse", "sqrt"),
    canonical="identity",
    in_domain=_in_domain,
    score_full=_score,
    dispersion_derivatives=_dispersion_derivatives,
    constant=_constant,
    variance=_variance,
    deviance_row=_deviance,
    start_mean=_start_mean,
    common_mean=_common_mean,
    outside_range=_outside,
    range_message="",
    simulate=_simulate,
    quantile=_quantile,
    dispersion="scale",
    dispersion_meaning="variance = phi / weight",
    positive=False,
)
