"""What distributions with a positive mean share.

Notation: r = y - mu, V is the variance function, h = mu' / V, and c is the multiplier of the log-likelihood: w / phi,
or w where phi does not divide. For linear exponential families (McCullagh & Nelder 1989, section 2.5)

    d1 = c r h      w_fisher = c mu' h      w_observed = w_fisher - c r h'

and with k = V' mu / V, u = h' / h = mu'' / mu' - k mu' / mu all of it follows from the slopes of the link.
"""

from __future__ import annotations

import numpy as np

from bigmm.families.distribution import Column, Mask
from bigmm.families.links import IDENTITY, INVERSE, LOG, SQRT
from bigmm.families.special import device

POWER_LINKS = ("log", "identity", "inverse", "sqrt")
COUNT_TOLERANCE = 1e-7
"""How far from an integer a count may be, relative to max(1, count): R's dpois."""
LARGEST_POISSON_MEAN = 1e18
"""numpy draws no Poisson counts of larger means, because its counts are int64."""
COUNT_MESSAGE = "a {} response is a count 0, 1, 2, ...; give an exposure as offset, not as divisor of the response"
POSITIVE_MESSAGE = "{} response is greater than 0; drop the row, or model the zeros apart"


@device
def in_power_domain(link_id: int, eta: float) -> bool:
    """Whether the mean of eta is positive."""
    if link_id in (IDENTITY, INVERSE):
        return eta > 0.0
    if link_id in (LOG, SQRT):
        return eta == eta
    raise ValueError("the link has no positive mean")


@device
def exponential_score(
    ll: float,
    y: float,
    slopes: tuple[float, float, float, float, float, float],
    c: float,
    h: float,
    k: float,
    k_slope: float,
) -> tuple[float, float, float, float, float, float]:
    """Score of a linear exponential family, as `scores.score_full` gives it.

    slopes: those of `links.power_slopes`. k_slope: (mu' / mu) dk / d eta. The other arguments are those of the module.
    """
    _, mu, m1, m2, m1_slope, m2_slope = slopes
    # Relative slopes: neither mu nor mu^k is formed, which overflow before their ratios do.
    u = m2 - k * m1
    u_slope = m2_slope - k * m1_slope - k_slope
    d1 = c * (y - mu) * h
    fisher = c * (mu * m1) * h
    fisher_slope = fisher * (m2 + u)
    return (
        ll,
        d1,
        fisher,
        fisher - d1 * u,
        fisher_slope,
        fisher_slope + fisher * u - d1 * (u * u + u_slope),
    )


def no_count(y: Column) -> Mask:
    """(n,) True for what is no count 0, 1, 2, ..."""
    return (y < 0.0) | (np.abs(y - np.round(y)) > COUNT_TOLERANCE * np.maximum(1.0, y))


def not_positive(y: Column) -> Mask:
    """(n,) True for responses that are not above 0."""
    return y <= 0.0


def same_mean(y: Column, w: Column, link: str) -> Column:
    """The responses as means to start from."""
    return y


def positive_mean(response: float, weight: float, link: str) -> float:
    """The mean of the responses, away from 0."""
    return max(response / weight, 0.5 / weight)


def bounded_poisson(rng: np.random.Generator, mu: Column) -> Column:
    """(n,) Poisson counts; means above `LARGEST_POISSON_MEAN` are taken as that."""
    return rng.poisson(np.minimum(mu, LARGEST_POISSON_MEAN)).astype(np.float64)
