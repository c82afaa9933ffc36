"""What distributions with a mean between 0 and 1 share."""

from __future__ import annotations

import math

from bigmm.families.links import CAUCHIT, CLOGLOG, IDENTITY, LOG, LOGIT, PROBIT, unit_tails
from bigmm.families.special import device, relative_entropy

UNIT_LINKS = ("logit", "probit", "cloglog", "cauchit", "log", "identity")
SMALLEST_MEAN = 1e-300
LARGEST_PROBABILITY = 1.0 - 2.0**-53


@device
def in_unit_domain(link_id: int, eta: float) -> bool:
    """Whether the mean of eta lies between 0 and 1."""
    if link_id == LOG:
        return eta < 0.0
    if link_id == IDENTITY:
        return 0.0 < eta < 1.0
    if link_id in (LOGIT, PROBIT, CLOGLOG, CAUCHIT):
        return eta == eta
    raise ValueError("the link has no mean between 0 and 1")


@device
def proportion_score(
    link_id: int, y: float, w: float, eta: float, phi: float
) -> tuple[float, float, float, float, float, float]:
    """Score of a proportion y of successes among w trials; see `scores.score_full`."""
    if link_id == LOGIT:
        return _logit_score(y, w, eta)
    log_success, log_failure, a, b, ga, gb, slope = unit_tails(link_id, eta)
    successes, failures = w * y, w * (1.0 - y)
    # Derivatives of a and b, whose differences from g are given without cancellation in both tails.
    a1, b1 = a * ga, b * gb
    a2, b2 = a1 * ga + a * (slope - a1), b1 * gb + b * (slope + b1)
    fisher = w * a * b
    return (
        successes * log_success + failures * log_failure,
        successes * a - failures * b,
        fisher,
        failures * b1 - successes * a1,
        fisher * (ga + gb),
        failures * b2 - successes * a2,
    )


@device
def _logit_score(y: float, w: float, eta: float) -> tuple[float, float, float, float, float, float]:
    # The commonest kernel: one exp, one log, no branch on the sign of eta.
    e = math.exp(-abs(eta))
    large = 1.0 / (1.0 + e)
    success = large if eta > 0.0 else e * large
    failure = e * large if eta > 0.0 else large
    weight = w * success * failure
    slope = weight * (failure - success)
    ll = w * (y * eta - max(eta, 0.0) - math.log1p(e))
    return ll, w * (y * failure - (1.0 - y) * success), weight, weight, slope, slope


@device
def proportion_variance(mu: float, phi: float) -> float:
    """Variance of one trial."""
    return mu * (1.0 - mu)


@device
def proportion_deviance(y: float, w: float, mu: float, phi: float) -> float:
    """2 w [y log(y / mu) + (1 - y) log((1 - y) / (1 - mu))]."""
    # A mean that was rounded to 0 or 1 has a finite deviance, as R's binomial() has.
    mu = min(max(mu, SMALLEST_MEAN), LARGEST_PROBABILITY)
    return 2.0 * w * (relative_entropy(y, mu) + relative_entropy(1.0 - y, 1.0 - mu))
