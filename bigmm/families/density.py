"""What a row's log-likelihood, deviance and variance are on R's scale. Device functions for kernels."""

from __future__ import annotations

import math

from bigmm.families.family import (
    BERNOULLI,
    BINOMIAL,
    GAMMA,
    GAUSSIAN,
    INVERSE_GAUSSIAN,
    NEGATIVE_BINOMIAL,
    POISSON,
)
from bigmm.families.special import HALF_LOG_TWO_PI, device, log1p_minus, log_ratio_minus

SMALLEST_MEAN = 1e-300
LARGEST_PROBABILITY = 1.0 - 2.0**-53


@device
def constant(family_id, y, w):
    """What `scores.score` leaves out: with it, the sum is R's dbinom, dpois, dnbinom, dnorm, dgamma (log) and statmod's
    dinvgauss. Free of eta and phi; 0 for rows of weight 0. Trials are rounded, as R's binomial()$aic does."""
    if w == 0.0 or family_id == BERNOULLI:
        return 0.0
    if family_id == BINOMIAL:
        trials = float(round(w))
        successes = float(round(w * y))
        return math.lgamma(trials + 1.0) - math.lgamma(successes + 1.0) - math.lgamma(trials - successes + 1.0)
    if family_id in (POISSON, NEGATIVE_BINOMIAL):
        return -w * math.lgamma(y + 1.0)
    if family_id == GAMMA:
        return -math.log(y)
    gaussian = 0.5 * math.log(w) - HALF_LOG_TWO_PI
    return gaussian if family_id == GAUSSIAN else gaussian - 1.5 * math.log(y)


@device
def variance(family_id, mu, phi):
    """Variance of one observation of weight 1 (the binomial: of one trial); phi = 1 gives R's variance function."""
    if family_id <= BINOMIAL:
        return mu * (1.0 - mu)
    if family_id == POISSON:
        return mu
    if family_id == NEGATIVE_BINOMIAL:
        return mu + mu * mu / phi
    if family_id == GAUSSIAN:
        return phi
    return phi * mu * mu if family_id == GAMMA else phi * mu * mu * mu


@device
def deviance_row(family_id, y, w, mu, phi):
    """Weighted unit deviance, at least 0 (McCullagh & Nelder 1989, section 2.3.1); phi matters to the negative binomial
    alone. Its signed root is R's deviance residual."""
    if family_id == GAUSSIAN:
        return w * (y - mu) ** 2
    if family_id <= BINOMIAL:
        mu = min(max(mu, SMALLEST_MEAN), LARGEST_PROBABILITY)
        return 2.0 * w * (_relative(y, mu) + _relative(1.0 - y, 1.0 - mu))
    mu = max(mu, SMALLEST_MEAN)
    if family_id == POISSON:
        return 2.0 * w * _relative(y, mu)
    if family_id == NEGATIVE_BINOMIAL:
        return 2.0 * w * max(_relative(y, mu) - _relative(y + phi, mu + phi), 0.0)
    if family_id == INVERSE_GAUSSIAN:
        return w * ((y - mu) / mu) ** 2 / y
    return -2.0 * w * log_ratio_minus(y, mu)


@device
def _relative(y, mu):
    """y log(y / mu) - (y - mu), 0 log 0 = 0: as mu [(1 + r) log(1 + r) - r] with r = (y - mu) / mu."""
    if y <= 0.0:
        return mu
    r = (y - mu) / mu
    if abs(r) < 0.3:
        return mu * (r * r + (1.0 + r) * log1p_minus(r))
    return y * math.log(y / mu) - (y - mu)
