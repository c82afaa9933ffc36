"""Links: eta to mean and back, by the number of the link. Device functions for kernels, scalars in and out.

Extreme eta saturates (see the limits below) instead of overflowing: there the row is as good as impossible or certain,
and a step that led there is halved by whoever took it.
"""

from __future__ import annotations

import math

from bigmm.families.special import device, normal_quantile, normal_tail

LOGIT, PROBIT, CLOGLOG, CAUCHIT, LOG, IDENTITY, INVERSE, SQRT = range(8)
LINKS = {
    "logit": LOGIT,
    "probit": PROBIT,
    "cloglog": CLOGLOG,
    "cauchit": CAUCHIT,
    "log": LOG,
    "identity": IDENTITY,
    "inverse": INVERSE,
    "sqrt": SQRT,
}
SIGMOID_LINKS = ("logit", "probit", "cloglog", "cauchit")
"""Links whose means lie between 0 and 1 for every eta."""

# Chosen so that no product of derivatives overflows.
LOG_LIMIT = 230.0
UNIT_LIMIT = 1e8
POWER_LIMIT = 1e50
SQRT_LIMIT = 1e25

SERIES = 0.1
PI = math.pi


@device
def clip(x: float, low: float, high: float) -> float:
    """x, or the nearer limit."""
    return min(max(x, low), high)


@device
def bounded(link_id: int, eta: float) -> float:
    """eta within the limits of its link; away from zero where mean or slope has a pole there."""
    if link_id == LOG:
        return clip(eta, -LOG_LIMIT, LOG_LIMIT)
    if link_id == CLOGLOG:
        return clip(eta, -UNIT_LIMIT, LOG_LIMIT)
    if link_id == IDENTITY:
        return clip(eta, -POWER_LIMIT, POWER_LIMIT)
    # A pole at 0: the side of eta is kept, for the mean changes its sign there.
    if link_id == INVERSE:
        return math.copysign(clip(abs(eta), 1.0 / POWER_LIMIT, POWER_LIMIT), eta)
    if link_id == SQRT:
        return math.copysign(clip(abs(eta), 1.0 / SQRT_LIMIT, SQRT_LIMIT), eta)
    if link_id in (LOGIT, PROBIT, CAUCHIT):
        return clip(eta, -UNIT_LIMIT, UNIT_LIMIT)
    raise ValueError("no link has this number")


@device
def unit_tails(link_id: int, eta: float) -> tuple[float, float, float, float, float, float, float]:
    """What a mean F(eta) in (0, 1) needs: (log F, log S, a, b, g - a, g + b, g') with S = 1 - F, f = F'.

    a = f / F and b = f / S are the slopes of log F and -log S, g = f' / f; then a' = a (g - a) and b' = b (g + b).
    The differences are formed without cancellation in both tails.
    """
    if link_id == LOGIT:
        return _logit_tails(eta)
    if link_id == PROBIT:
        return _probit_tails(eta)
    if link_id == CLOGLOG:
        return _cloglog_tails(eta)
    if link_id == CAUCHIT:
        return _cauchit_tails(eta)
    if link_id == LOG:
        failure = -math.expm1(eta)
        b = math.exp(eta) / failure
        return eta, math.log(failure), 1.0, b, 0.0, 1.0 / failure, 0.0
    if link_id != IDENTITY:
        raise ValueError("no link of means between 0 and 1 has this number")
    a, b = 1.0 / eta, 1.0 / (1.0 - eta)
    return math.log(eta), math.log1p(-eta), a, b, -a, b, 0.0


@device
def _logit_tails(eta: float) -> tuple[float, float, float, float, float, float, float]:
    # exp(-|eta|) cannot overflow, and both tails are read off it.
    e = math.exp(-abs(eta))
    both = math.log1p(e)
    large, small = 1.0 / (1.0 + e), e / (1.0 + e)
    slope = -2.0 * large * small
    if eta > 0.0:
        return -both, -eta - both, small, large, -large, small, slope
    return eta - both, -both, large, small, -small, large, slope


@device
def _probit_tails(eta: float) -> tuple[float, float, float, float, float, float, float]:
    t = abs(eta)
    log_tail, hazard, excess = normal_tail(t)
    tail = math.exp(log_tail)
    log_rest, other = math.log1p(-tail), hazard * tail / (1.0 - tail)
    if eta > 0.0:
        return log_rest, log_tail, other, hazard, -t - other, excess, -1.0
    return log_tail, log_rest, hazard, other, -excess, t + other, -1.0


@device
def _cloglog_tails(eta: float) -> tuple[float, float, float, float, float, float, float]:
    z = math.exp(eta)
    success = -math.expm1(-z)
    if z < SERIES:
        # Bernoulli numbers: z / (e^z - 1) = 1 - z/2 + z^2/12 - z^4/720 + ...
        s = z * z
        difference = -z * 0.5 - s * (1.0 / 12.0 - s * (1.0 / 720.0 - s * (1.0 / 30240.0 - s / 1209600.0)))
        log_success = eta + math.log(success / z) if z > 0.0 else eta
        return log_success, -z, 1.0 - z - difference, z, difference, 1.0, -z
    a = z * math.exp(-z) / success
    return math.log(success), -z, a, z, 1.0 - z - a, 1.0, -z


@device
def _cauchit_tails(eta: float) -> tuple[float, float, float, float, float, float, float]:
    d = 1.0 + eta * eta
    # The smaller tail has all of its digits; log1p forms its complement.
    tail = math.atan2(1.0, abs(eta)) / PI
    density, g, slope = 1.0 / (PI * d), -2.0 * eta / d, 2.0 * (eta * eta - 1.0) / (d * d)
    if eta > 0.0:
        a, b = density / (1.0 - tail), density / tail
        return math.log1p(-tail), math.log(tail), a, b, g - a, g + b, slope
    a, b = density / tail, density / (1.0 - tail)
    return math.log(tail), math.log1p(-tail), a, b, g - a, g + b, slope


@device
def power_slopes(link_id: int, eta: float) -> tuple[float, float, float, float, float, float]:
    """For positive means: (log mu, mu, m1 = mu'/mu, m2 = mu''/mu', m1', m2')."""
    if link_id == LOG:
        return eta, math.exp(eta), 1.0, 1.0, 0.0, 0.0
    r = 1.0 / eta
    if link_id == IDENTITY:
        return math.log(eta), eta, r, 0.0, -r * r, 0.0
    if link_id == INVERSE:
        return -math.log(eta), r, -r, -2.0 * r, r * r, 2.0 * r * r
    if link_id != SQRT:
        raise ValueError("no link of positive means has this number")
    return 2.0 * math.log(abs(eta)), eta * eta, 2.0 * r, r, -2.0 * r * r, -r * r


@device
def mean_jet(link_id: int, eta: float) -> tuple[float, float, float, float]:
    """For any mean of a power link: (mu, mu', mu'', mu''')."""
    if link_id == LOG:
        mu = math.exp(eta)
        return mu, mu, mu, mu
    if link_id == IDENTITY:
        return eta, 1.0, 0.0, 0.0
    if link_id == INVERSE:
        r = 1.0 / eta
        return r, -r * r, 2.0 * r * r * r, -6.0 * r * r * r * r
    if link_id != SQRT:
        raise ValueError("no link of positive means has this number")
    return eta * eta, 2.0 * eta, 2.0, 0.0


@device
def mean(link_id: int, eta: float) -> float:
    """mu: the inverse link."""
    eta = bounded(link_id, eta)
    if link_id <= CAUCHIT:
        # By way of log F, in which small means keep their digits.
        return math.exp(unit_tails(link_id, eta)[0])
    return mean_jet(link_id, eta)[0]


@device
def mean_derivative(link_id: int, eta: float) -> float:
    """d mu / d eta."""
    eta = bounded(link_id, eta)
    if link_id <= CAUCHIT:
        tails = unit_tails(link_id, eta)
        return tails[2] * math.exp(tails[0])
    return mean_jet(link_id, eta)[1]


@device
def eta_of(link_id: int, mu: float) -> float:
    """The link; nan where the mean has none."""
    if link_id == LOGIT:
        # Not the logarithm of a ratio: 1 - mu would lose the digits of a small mu.
        return math.log(mu) - math.log1p(-mu)
    if link_id == PROBIT:
        return normal_quantile(mu)
    if link_id == CLOGLOG:
        return math.log(-math.log1p(-mu))
    if link_id == CAUCHIT:
        # Near 0 the cotangent keeps the digits that mu - 0.5 would lose.
        return -1.0 / math.tan(PI * mu) if mu < 0.25 else math.tan(PI * (mu - 0.5))
    if link_id == LOG:
        return math.log(mu)
    if link_id == IDENTITY:
        return mu
    if link_id == INVERSE:
        return 1.0 / mu
    if link_id != SQRT:
        raise ValueError("no link has this number")
    return math.sqrt(mu)
