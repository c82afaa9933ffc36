"""The Poisson distribution truncated at zero: counts 1, 2, 3, ...; the linear predictor gives the untruncated mean.

With lambda the untruncated mean, the log-likelihood is (y - 1) log(lambda) - L, L = log((exp(lambda) - 1) / lambda),
whose two parts have no poles in common. With B = lambda / (exp(lambda) - 1) and D = lambda L' = lambda + B - 1, the
cumulants are

    mean M = 1 + D      variance V = M (1 - B)      third K = V (1 - B) + M B D

(Johnson, Kemp & Kotz 2005, Univariate Discrete Distributions, section 4.10; log(lambda) is the natural parameter).
"""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from bigmm.families.distribution import Column, Distribution, Mask
from bigmm.families.links import LOG, bounded, mean_jet, power_slopes
from bigmm.families.links import eta_of as link_of
from bigmm.families.power import LARGEST_POISSON_MEAN, POWER_LINKS, in_power_domain, no_count
from bigmm.families.special import device

SERIES = 0.4
"""Below this lambda, differences of numbers near 1 are sums of a series of Bernoulli numbers."""
LARGE = 40.0
"""Above this lambda, exp(-lambda) is nothing beside 1."""
MOST_STEPS = 60
SMALLEST_LAMBDA = 1e-300
SMALLEST_DRAWN = 1e-9
"""Draws with a smaller lambda than this are taken as draws with this one: next to all are 1."""


@device
def _cumulants(lam: float) -> tuple[float, float, float]:
    """(D, V, K): mean less 1, variance and third cumulant."""
    if lam > LARGE:
        return lam - 1.0, lam, lam
    if lam < SERIES:
        excess = lam * _slopes(lam)[0]
        missing = lam - excess
        b = 1.0 - missing
    else:
        b = lam / math.expm1(lam)
        excess, missing = lam + b - 1.0, 1.0 - b
    variance = (1.0 + excess) * missing
    return excess, variance, variance * missing + (1.0 + excess) * b * excess


@device
def _slopes(lam: float) -> tuple[float, float, float]:
    """First three derivatives of L by lambda."""
    s = lam * lam
    if lam < SERIES:
        first = s * (1.0 / 720.0 - s * (1.0 / 30240.0 - s * (1.0 / 1209600.0 - s / 47900160.0)))
        second = s * (1.0 / 240.0 - s * (1.0 / 6048.0 - s * (1.0 / 172800.0 - s / 5322240.0)))
        third = 1.0 / 120.0 - s * (1.0 / 1512.0 - s * (1.0 / 28800.0 - s / 665280.0))
        return 0.5 + lam * (1.0 / 12.0 - first), 1.0 / 12.0 - second, -lam * third
    if lam > LARGE:
        return 1.0 - 1.0 / lam, 1.0 / s, -2.0 / (s * lam)
    failure, r = -math.expm1(-lam), 1.0 / lam
    zero = 1.0 - failure
    ratio = zero / (failure * failure)
    return 1.0 / failure - r, r * r - ratio, ratio * (1.0 + zero) / failure - 2.0 * r * r * r


@device
def _log_mass(y: float, lam: float, log_lam: float) -> float:
    """y log(lam) - log(exp(lam) - 1): the log-likelihood without log(y!)."""
    if lam > LARGE:
        return y * log_lam - lam
    # expm1(lambda) / lambda is 1 here, and 0 / 0 at lambda = 0.
    if lam < SMALLEST_LAMBDA:
        return (y - 1.0) * log_lam
    return (y - 1.0) * log_lam - math.log(math.expm1(lam) / lam)


@device
def _score(link_id: int, y: float, w: float, eta: float, phi: float) -> tuple[float, float, float, float, float, float]:
    log_lam, _, t1, _, t2, _ = power_slopes(link_id, eta)
    # The slopes of log(lambda): all links but the logarithm are powers of eta.
    t3 = 0.0 if link_id == LOG else -2.0 * t2 / eta
    lam, lam1, lam2, lam3 = mean_jet(link_id, eta)
    l1, l2, l3 = _slopes(lam)
    _, variance, third = _cumulants(lam)
    more = y - 1.0
    return (
        w * _log_mass(y, lam, log_lam),
        w * (more * t1 - l1 * lam1),
        w * variance * t1 * t1,
        w * (l2 * lam1 * lam1 + l1 * lam2 - more * t2),
        w * (third * t1 * t1 * t1 + 2.0 * variance * t1 * t2),
        w * (l3 * lam1 * lam1 * lam1 + 3.0 * l2 * lam1 * lam2 + l1 * lam3 - more * t3),
    )


@device
def _mean(link_id: int, eta: float) -> float:
    return 1.0 + _cumulants(power_slopes(link_id, bounded(link_id, eta))[1])[0]


@device
def _mean_derivative(link_id: int, eta: float) -> float:
    _, lam, t1, _, _, _ = power_slopes(link_id, bounded(link_id, eta))
    return _cumulants(lam)[1] * t1


@device
def _lambda_of(mu: float) -> float:
    """The untruncated mean whose truncated mean is mu, by Newton's method on log(lambda); 0 for mu <= 1."""
    # nan is not above 1, and stays what it is.
    if not mu > 1.0:
        return 0.0 if mu <= 1.0 else mu
    # The mean is about 1 + lambda / 2 for a small lambda, and lambda for a large one.
    lam = min(2.0 * (mu - 1.0), mu)
    for _ in range(MOST_STEPS):
        excess, variance, _third = _cumulants(lam)
        step = ((mu - 1.0) - excess) / variance
        # Steps of log(lambda) are bounded: far from the root the slope says little about the way there.
        lam *= math.exp(min(max(step, -1.0), 1.0))
        if abs(step) < 1e-15:
            break
    return lam


@device
def _eta_of(link_id: int, mu: float) -> float:
    return link_of(link_id, _lambda_of(mu))


@device
def _variance(mu: float, phi: float) -> float:
    return _cumulants(_lambda_of(mu))[1]


@device
def _deviance(y: float, w: float, mu: float, phi: float) -> float:
    best, lam = max(_lambda_of(y), SMALLEST_LAMBDA), max(_lambda_of(mu), SMALLEST_LAMBDA)
    return 2.0 * w * max(_log_mass(y, best, math.log(best)) - _log_mass(y, lam, math.log(lam)), 0.0)


@device
def _constant(y: float, w: float) -> float:
    return -w * math.lgamma(y + 1.0)


def _outside(y: Column) -> Mask:
    return no_count(y) | (y < 0.5)


def _start_mean(y: Column, w: Column, link: str) -> Column:
    # A count of 1 has the limit lambda = 0 as its best mean, which has no logarithm.
    return y + 0.1


def _common_mean(response: float, weight: float, link: str) -> float:
    return max(response / weight, 1.0 + 0.5 / weight)


def _quantile(u: Column, mu: Column, w: Column, phi: float) -> Column:
    means = np.minimum(mu, LARGEST_POISSON_MEAN)
    lam = np.array([max(_lambda_of(m), SMALLEST_DRAWN) for m in means.ravel()]).reshape(mu.shape)
    # By the upper tail: where lambda is small, nothing of u is left beside the probability of 0.
    counts = stats.poisson.isf(-np.expm1(-lam) * (1.0 - u), lam)
    return np.where(np.isnan(mu), np.nan, np.maximum(counts, 1.0))


def _simulate(rng: np.random.Generator, mu: Column, w: Column, phi: float) -> Column:
    return _quantile(rng.random(mu.shape), mu, w, phi)


DISTRIBUTION = Distribution(
    name="truncated_poisson",
    spellings=("ztpoisson", "zerotruncatedpoisson"),
    links=POWER_LINKS,
    canonical="log",
    in_domain=in_power_domain,
    score_full=_score,
    constant=_constant,
    variance=_variance,
    deviance_row=_deviance,
    mean=_mean,
    mean_derivative=_mean_derivative,
    eta_of=_eta_of,
    start_mean=_start_mean,
    common_mean=_common_mean,
    outside_range=_outside,
    range_message=(
        "a truncated_poisson response is a count 1, 2, 3, ...; use family='poisson' for counts that can be 0, and give "
        "an exposure as offset, not as divisor of the response"
    ),
    simulate=_simulate,
    quantile=_quantile,
    countable=True,
    separable=True,
)
