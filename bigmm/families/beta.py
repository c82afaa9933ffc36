"""The beta distribution: proportions strictly between 0 and 1, with variance mu (1 - mu) / (1 + phi).

Ferrari & Cribari-Neto (2004), Journal of Applied Statistics 31, 799-815, give it by mean and precision: its shapes are
a = mu phi and b = (1 - mu) phi. With F = mu, S = 1 - mu, f = mu', A = f / F, B = f / S, g = f' / f and
Delta = logit(y) - logit(mu),

    d1 = w [phi f Delta + A e(a) - B e(b)],      e(x) = x (log x - digamma(x)),

and derivatives follow from A' = A (g - A), B' = B (g + B), a' = a A, b' = -b B and a A = b B = phi f. No term is a
difference of large numbers where a or b tends to 0 or to infinity: see `_pieces`.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from bigmm.families.distribution import Column, Distribution, Mask
from bigmm.families.links import LOGIT, unit_tails
from bigmm.families.power import same_mean
from bigmm.families.special import (
    ASYMPTOTIC,
    HALF_LOG_TWO_PI,
    device,
    digamma_error,
    relative_entropy,
    stirling_error,
)
from bigmm.families.unit import LARGEST_PROBABILITY, SMALLEST_MEAN, UNIT_LINKS, in_unit_domain

SATURATED_STEPS = 200
"""Newton steps to the mean that fits a response best: about one for each unit of the logit."""


@device
def _log_gamma_piece(x: float, log_x: float) -> float:
    """log(2 pi) / 2 + x log x - x - lgamma(x); for x = 0 it is about log x, which is given apart."""
    # The large terms are left out by Stirling's formula, or by the recurrence where x may be 0.
    if x >= ASYMPTOTIC:
        return 0.5 * log_x - stirling_error(x)
    return HALF_LOG_TWO_PI + x * log_x - x - math.lgamma(1.0 + x) + log_x


@device
def _pieces(x: float, log_x: float) -> tuple[float, float, float]:
    """What the derivatives need of a shape x: (e, e - p, 2 p + q).

    e = x (log x - digamma(x)), p = x^2 trigamma(x), q = x^3 tetragamma(x). They tend to 1, 0 and 0 for x to 0, where
    the recurrence of Abramowitz & Stegun 6.4.6 takes the poles away. The series are A&S 6.3.18, 6.4.12 and 6.4.13.
    """
    z = x if x >= ASYMPTOTIC else 1.0 + x
    first = second = third = 0.0
    while z < ASYMPTOTIC:
        r = 1.0 / z
        first += r
        second += r * r
        third += r * r * r
        z += 1.0
    r = 1.0 / z
    s = r * r
    series = 1.0 / 30.0 - s * (1.0 / 42.0 - s * (1.0 / 30.0 - s * (5.0 / 66.0 - s * (691.0 / 2730.0 - s * 7.0 / 6.0))))
    trigamma = second + r * (1.0 + r * (0.5 + r * (1.0 / 6.0 - s * series)))
    series = 1.0 / 6.0 - s * (1.0 / 6.0 - s * (3.0 / 10.0 - s * (5.0 / 6.0 - s * (691.0 / 210.0 - s * 35.0 / 2.0))))
    tetragamma = -s * (1.0 + r * (1.0 + r * (0.5 - s * series))) - 2.0 * third
    if x >= ASYMPTOTIC:
        e = 0.5 + x * digamma_error(x)
        return e, e - x * x * trigamma, x * x * (2.0 * trigamma + x * tetragamma)
    digamma = math.log(z) - 0.5 * r - digamma_error(z) - first
    lift = x * (log_x - digamma)
    return 1.0 + lift, lift - x * x * trigamma, x * x * (2.0 * trigamma + x * tetragamma)


@device
def _log_likelihood(y: float, log_mu: float, log_failure: float, phi: float) -> float:
    """Log density of y without -log y - log(1 - y): about -phi KL(mu, y), so that a large phi cancels nothing."""
    log_phi, mu, failure = math.log(phi), math.exp(log_mu), math.exp(log_failure)
    gammas = (
        _log_gamma_piece(phi * mu, log_phi + log_mu)
        + _log_gamma_piece(phi * failure, log_phi + log_failure)
        - _log_gamma_piece(phi, log_phi)
    )
    divergence = relative_entropy(mu, y) + relative_entropy(failure, 1.0 - y)
    return gammas - HALF_LOG_TWO_PI - phi * divergence


@device
def _score(link_id: int, y: float, w: float, eta: float, phi: float) -> tuple[float, float, float, float, float, float]:
    log_mu, log_failure, a, b, ga, gb, g_slope = unit_tails(link_id, eta)
    log_phi = math.log(phi)
    ea, ma, na = _pieces(math.exp(log_phi + log_mu), log_phi + log_mu)
    eb, mb, nb = _pieces(math.exp(log_phi + log_failure), log_phi + log_failure)
    g = ga + a
    # a mu = b (1 - mu) = f, so one of the two serves in both tails.
    pull = phi * a * math.exp(log_mu) * (math.log(y) - math.log1p(-y) - log_mu + log_failure)
    d1 = pull + a * ea - b * eb
    fisher = a * a * (ea - ma) + b * b * (eb - mb)
    observed = b * (gb * eb - b * mb) - a * (ga * ea + a * ma) - pull * g
    fisher_slope = a * a * (2.0 * ga * (ea - ma) + a * na) + b * b * (2.0 * gb * (eb - mb) - b * nb)
    observed_slope = (
        b * (eb * (gb * gb + (g_slope + b * gb)) - 3.0 * b * gb * mb + b * b * (mb - nb))
        - a * (ea * (ga * ga + (g_slope - a * ga)) + 3.0 * a * ga * ma + a * a * (ma - na))
        - pull * (g * g + g_slope)
    )
    ll = _log_likelihood(y, log_mu, log_failure, phi)
    return w * ll, w * d1, w * fisher, w * observed, w * fisher_slope, w * observed_slope


@device
def _dispersion_derivatives(link_id: int, y: float, w: float, eta: float, phi: float) -> tuple[float, float, float]:
    log_mu, log_failure, a, b, ga, gb, _ = unit_tails(link_id, eta)
    log_phi, mu, failure = math.log(phi), math.exp(log_mu), math.exp(log_failure)
    ea, ma, na = _pieces(phi * mu, log_phi + log_mu)
    eb, mb, nb = _pieces(phi * failure, log_phi + log_failure)
    pull = phi * a * mu * (math.log(y) - math.log1p(-y) - log_mu + log_failure)
    divergence = relative_entropy(mu, y) + relative_entropy(failure, 1.0 - y)
    observed = b * (gb * mb - b * (mb - nb)) - a * (ga * ma + a * (ma - na)) - pull * (ga + a)
    return (
        w * (ea + eb - _pieces(phi, log_phi)[0] - phi * divergence),
        w * (pull + a * ma - b * mb),
        w * observed,
    )


@device
def _constant(y: float, w: float) -> float:
    return -w * (math.log(y) + math.log1p(-y))


@device
def _variance(mu: float, phi: float) -> float:
    return mu * (1.0 - mu) / (1.0 + phi)


@device
def _deviance(y: float, w: float, mu: float, phi: float) -> float:
    # The likelihood of one response is highest where logit(y) = digamma(a) - digamma(b), not at mu = y.
    mu = min(max(mu, SMALLEST_MEAN), LARGEST_PROBABILITY)
    eta = math.log(y) - math.log1p(-y)
    for _ in range(SATURATED_STEPS):
        _ll, d1, fisher, _observed, _fisher_slope, _observed_slope = _score(LOGIT, y, 1.0, eta, phi)
        # Tiny shapes make the score a pole in eta: long steps would leave the response behind.
        step = min(max(d1 / fisher, -2.0), 2.0)
        eta += step
        if abs(step) < 1e-12 * (1.0 + abs(eta)):
            break
    log_mu, log_failure, _a, _b, _ga, _gb, _slope = unit_tails(LOGIT, eta)
    best = _log_likelihood(y, log_mu, log_failure, phi)
    return 2.0 * w * max(best - _log_likelihood(y, math.log(mu), math.log1p(-mu), phi), 0.0)


def _common_mean(response: float, weight: float, link: str) -> float:
    return response / weight


def _moments(y: Column, mu: Column) -> tuple[float, float]:
    """Sums of (y - mu)^2, whose mean is mu (1 - mu) / (1 + phi), and of mu (1 - mu)."""
    return float(((y - mu) ** 2).sum()), float((mu * (1.0 - mu)).sum())


def _start_dispersion(squares: float, spread: float) -> float:
    # Fits without error start from a large precision, not from infinity.
    return float(np.clip(spread / max(squares, 1e-8 * spread) - 1.0, 0.05, 1e6))


def _outside(y: Column) -> Mask:
    return ~((y > 0.0) & (y < 1.0))


def _inside(y: Column) -> Column:
    """Draws of small shapes round to 0 or 1, which no beta response is."""
    return np.clip(y, SMALLEST_MEAN, LARGEST_PROBABILITY)


def _simulate(rng: np.random.Generator, mu: Column, w: Column, phi: float) -> Column:
    return _inside(rng.beta(mu * phi, (1.0 - mu) * phi))


def _quantile(u: Column, mu: Column, w: Column, phi: float) -> Column:
    return _inside(np.asarray(stats.beta.ppf(u, mu * phi, (1.0 - mu) * phi), dtype=np.float64))


DISTRIBUTION = Distribution(
    name="beta",
    spellings=("betafamily", "betareg"),
    links=UNIT_LINKS,
    # The mean is the natural parameter of logit(y), at a given precision.
    canonical="identity",
    in_domain=in_unit_domain,
    score_full=_score,
    dispersion_derivatives=_dispersion_derivatives,
    constant=_constant,
    variance=_variance,
    deviance_row=_deviance,
    start_mean=same_mean,
    common_mean=_common_mean,
    outside_range=_outside,
    range_message=(
        "a beta response lies strictly between 0 and 1; use family='binomial' for successes of trials, or model the "
        "zeros and ones apart"
    ),
    simulate=_simulate,
    quantile=_quantile,
    dispersion="shape",
    dispersion_meaning="precision: variance = mu (1 - mu) / (1 + precision)",
    largest_dispersion=1e10,
    flat_dispersion=(
        "the dispersion is not identified: the precision of the beta grows without limit, because covariates or levels "
        "predict the response without error; check that they are not made from the response"
    ),
    moments=_moments,
    start_dispersion=_start_dispersion,
)
