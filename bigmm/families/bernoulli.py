"""The Bernoulli distribution: a response of 0 or 1."""

from __future__ import annotations

import numpy as np

from bigmm.families.distribution import Column, Distribution, Mask
from bigmm.families.special import device
from bigmm.families.unit import UNIT_LINKS, in_unit_domain, proportion_deviance, proportion_score, proportion_variance


@device
def _constant(y: float, w: float) -> float:
    # A single trial has no binomial coefficient.
    return 0.0


def shrunk_mean(y: Column, w: Column, link: str) -> Column:
    """R's mustart: half a success and half a failure are added to each row."""
    return (w * y + 0.5) / (w + 1.0)


def shrunk_common_mean(response: float, weight: float, link: str) -> float:
    """The mean of all rows, away from 0 and 1."""
    return (response + 0.5) / (weight + 1.0)


def _outside(y: Column) -> Mask:
    return np.asarray((y != 0.0) & (y != 1.0))


def _simulate(rng: np.random.Generator, mu: Column, w: Column, phi: float) -> Column:
    return (rng.random(mu.shape) < mu).astype(np.float64)


def _quantile(u: Column, mu: Column, w: Column, phi: float) -> Column:
    # The upper part of u gives 1, so that draws grow with u as those of other families do.
    return np.where(np.isnan(mu), np.nan, 1.0 * (u > 1.0 - mu))


DISTRIBUTION = Distribution(
    name="bernoulli",
    spellings=("binary",),
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
    range_message=(
        "a bernoulli response is 0 or 1; recode it, or use family='binomial' with weights= the numbers of trials, or "
        "name the value that counts as 1 with success="
    ),
    simulate=_simulate,
    quantile=_quantile,
    countable=True,
    separable=True,
    two_outcomes=True,
    outcome_note="modelled value 1 against 0",
)
