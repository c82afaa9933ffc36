"""The binomial distribution: a proportion of successes, whose weight is its number of trials."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from bigmm.families.bernoulli import shrunk_common_mean, shrunk_mean
from bigmm.families.distribution import Column, Distribution, Mask
from bigmm.families.special import device
from bigmm.families.unit import UNIT_LINKS, in_unit_domain, proportion_deviance, proportion_score, proportion_variance

TRIALS_TOLERANCE = 1e-3
"""How far from an integer trials * proportion may be without a warning: R's binomial()."""


@device
def _constant(y: float, w: float) -> float:
    # Trials are rounded, as R's binomial()$aic does.
    trials = float(round(w))
    successes = float(round(w * y))
    return math.lgamma(trials + 1.0) - math.lgamma(successes + 1.0) - math.lgamma(trials - successes + 1.0)


def _outside(y: Column) -> Mask:
    return (y < 0.0) | (y > 1.0)


def _doubt(y: Column, w: Column | None) -> tuple[Mask, str]:
    successes = y if w is None else w * y
    message = "proportion {value} times its number of trials is not an integer: are the weights the numbers of trials?"
    if w is None:
        message = "proportion {value} needs its number of trials: give weights=, or successes / trials in the formula"
    return np.abs(successes - np.round(successes)) > TRIALS_TOLERANCE, message


def _simulate(rng: np.random.Generator, mu: Column, w: Column, phi: float) -> Column:
    # Rows without trials have the proportion 0, not 0 / 0.
    trials = np.round(w)
    return rng.binomial(trials.astype(np.int64), mu) / np.maximum(trials, 1.0)


def _quantile(u: Column, mu: Column, w: Column, phi: float) -> Column:
    trials = np.round(w)
    return np.asarray(stats.binom.ppf(u, trials, mu) / np.maximum(trials, 1.0), dtype=np.float64)


DISTRIBUTION = Distribution(
    name="binomial",
    links=UNIT_LINKS,
    canonical="logit",
    in_domain=in_unit_domain,
    score_full=proportion_score,
    constant=_constant,
    variance=proportion_variance,
    deviance_row=proportion_deviance,
    start_mean=shrunk_mean,
    common_mean=shrunk_common_mean,
    outside_range=_outside,
    range_message="a binomial response is a proportion from 0 to 1; write cbind(successes, failures) for counts",
    doubt=_doubt,
    simulate=_simulate,
    quantile=_quantile,
    countable=True,
    separable=True,
    two_outcomes=True,
    weights_are_trials=True,
)
