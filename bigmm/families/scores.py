"""The log-likelihood of one row and its derivatives, by the numbers of family and link. Device functions for kernels.

Notation: mu = mean(eta), r = y - mu, V the variance function, h = mu' / V, c = w / phi (w where phi does not divide).
For every family but the binomial ones (McCullagh & Nelder 1989, section 2.5)

    d1 = c r h      w_fisher = c mu' h      w_observed = w_fisher - c r h'

and with k = V' mu / V, u = h' / h = mu''/mu' - k mu'/mu all of it follows from the slopes of the link.
An eta that has no mean in the family (see `in_domain`) gives ll = -inf and zeros: the step is to be halved.
"""

from __future__ import annotations

import math

from bigmm.families.family import (
    BINOMIAL,
    GAMMA,
    GAUSSIAN,
    IDENTITY,
    INVERSE,
    INVERSE_GAUSSIAN,
    LOG,
    LOGIT,
    NEGATIVE_BINOMIAL,
    POISSON,
)
from bigmm.families.links import bounded, mean_jet, power_slopes, unit_tails
from bigmm.families.special import (
    ASYMPTOTIC,
    HALF_LOG_TWO_PI,
    device,
    digamma,
    digamma_error,
    log1p_minus,
    log_minus_digamma,
    log_ratio_minus,
    stirling_error,
)

OUTSIDE = -math.inf


@device
def in_domain(family_id, link_id, eta):
    """Whether eta gives a mean that the family allows (False for nan)."""
    if family_id <= BINOMIAL:
        if link_id == LOG:
            return eta < 0.0
        if link_id == IDENTITY:
            return 0.0 < eta < 1.0
    elif family_id != GAUSSIAN and link_id in (IDENTITY, INVERSE):
        return eta > 0.0
    return eta == eta


@device
def score(family_id, link_id, y, w, eta, phi):
    """(ll, d1, w_fisher, w_observed) of one row.

    ll: weighted log-likelihood up to `density.constant`, d1 = d ll / d eta, w_observed = -d2 ll / d eta2, w_fisher its
    expectation. w: number of trials for the binomial (y the proportion), a multiplier of ll for bernoulli, poisson and
    negative binomial, and a divisor of phi for gaussian, gamma and inverse gaussian.
    """
    ll, d1, fisher, observed, _fisher_slope, _observed_slope = score_full(family_id, link_id, y, w, eta, phi)
    return ll, d1, fisher, observed


@device
def score_full(family_id, link_id, y, w, eta, phi):
    """(ll, d1, w_fisher, w_observed, d w_fisher / d eta, d w_observed / d eta) of one row; see `score`."""
    if w == 0.0:
        return 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    if not in_domain(family_id, link_id, eta):
        return OUTSIDE, 0.0, 0.0, 0.0, 0.0, 0.0
    eta = bounded(link_id, eta)
    if family_id <= BINOMIAL:
        return _logit(y, w, eta) if link_id == LOGIT else _binomial(link_id, y, w, eta)
    if family_id == GAUSSIAN:
        return _gaussian(link_id, y, w, eta, phi)
    return _positive(family_id, link_id, y, w, eta, phi)


@device
def _logit(y, w, eta):
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
def _binomial(link_id, y, w, eta):
    log_success, log_failure, a, b, ga, gb, slope = unit_tails(link_id, eta)
    successes, failures = w * y, w * (1.0 - y)
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
def _gaussian(link_id, y, w, eta, phi):
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
def _positive(family_id, link_id, y, w, eta, phi):
    log_mu, mu, m1, m2, m1_slope, m2_slope = power_slopes(link_id, eta)
    c, h, k, k_slope = _variance_slopes(family_id, w, mu, m1, phi)
    u = m2 - k * m1
    u_slope = m2_slope - k * m1_slope - k_slope
    d1 = c * (y - mu) * h
    fisher = c * (mu * m1) * h
    fisher_slope = fisher * (m2 + u)
    return (
        _log_likelihood(family_id, y, w, mu, log_mu, phi),
        d1,
        fisher,
        fisher - d1 * u,
        fisher_slope,
        fisher_slope + fisher * u - d1 * (u * u + u_slope),
    )


@device
def _variance_slopes(family_id, w, mu, m1, phi):
    """(c, h, k, m1 dk/deta): V = mu^k, and for the negative binomial k = 1 + mu / (phi + mu)."""
    if family_id == POISSON:
        return w, m1, 1.0, 0.0
    if family_id == NEGATIVE_BINOMIAL:
        tau = mu / (phi + mu)
        rho = phi / (phi + mu)
        return w, m1 * rho, 1.0 + tau, tau * rho * m1 * m1
    if family_id == GAMMA:
        return w / phi, m1 / mu, 2.0, 0.0
    return w / phi, m1 / (mu * mu), 3.0, 0.0


@device
def _log_likelihood(family_id, y, w, mu, log_mu, phi):
    if family_id == POISSON:
        return w * (y * log_mu - mu)
    if family_id == NEGATIVE_BINOMIAL:
        return w * _negative_binomial(y, mu, log_mu, phi)
    if family_id == GAMMA:
        shape = w / phi
        return shape * log_ratio_minus(y, mu) + 0.5 * math.log(shape) - HALF_LOG_TWO_PI - stirling_error(shape)
    r = (y - mu) / mu
    return -0.5 * (w / phi * r * r / y + math.log(phi))


@device
def _negative_binomial(y, mu, log_mu, phi):
    """lgamma(y + phi) - lgamma(phi) + y log(mu / (mu + phi)) + phi log(phi / (mu + phi))."""
    x = (y - mu) / (phi + mu)
    if abs(x) > 0.5 or phi < ASYMPTOTIC:
        gammas = math.lgamma(y + phi) - math.lgamma(phi)
        return gammas - y * math.log1p(phi / mu) - phi * math.log1p(mu / phi)
    # About the Poisson log-likelihood, its limit: the gamma functions by Stirling, no difference of large numbers.
    poisson = y * log_mu - mu
    rest = stirling_error(phi + y) - stirling_error(phi) - 0.5 * math.log1p(y / phi)
    return poisson + (y - mu) * x + (y + phi) * log1p_minus(x) + rest


@device
def dispersion_derivatives(family_id, link_id, y, w, eta, phi):
    """(d ll, d d1, d w_observed) / d log phi of one row; zeros for families without a dispersion."""
    _ll, d1, _fisher, observed, _fisher_slope, _observed_slope = score_full(family_id, link_id, y, w, eta, phi)
    if family_id <= POISSON or w == 0.0 or not in_domain(family_id, link_id, eta):
        return 0.0, 0.0, 0.0
    mu = mean_jet(link_id, bounded(link_id, eta))[0]
    r = (y - mu) / mu
    if family_id == NEGATIVE_BINOMIAL:
        tau, rho = mu / (phi + mu), phi / (phi + mu)
        m1 = power_slopes(link_id, bounded(link_id, eta))[2]
        return w * _shape_slope(y, mu, phi), tau * d1, tau * observed - d1 * m1 * rho * tau
    if family_id == GAUSSIAN:
        return 0.5 * (w / phi * (y - mu) ** 2 - 1.0), -d1, -observed
    if family_id == INVERSE_GAUSSIAN:
        return 0.5 * (w / phi * r * r / y - 1.0), -d1, -observed
    shape = w / phi
    return -shape * (log_ratio_minus(y, mu) + log_minus_digamma(shape)), -d1, -observed


@device
def _shape_slope(y, mu, phi):
    """d `_negative_binomial` / d log phi."""
    x = (y - mu) / (phi + mu)
    if abs(x) > 0.5 or phi < ASYMPTOTIC:
        return phi * (digamma(y + phi) - digamma(phi) - math.log1p(mu / phi) - x)
    gammas = 0.5 * y / (phi * (phi + y)) + digamma_error(phi) - digamma_error(phi + y)
    return phi * (log1p_minus(x) + gammas)
