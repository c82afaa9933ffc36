"""The record of a family: everything that the package knows about one distribution of the response.

docs/extending/family.md explains every field by the example of the beta distribution.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from bigmm.families import links as _links
from bigmm.families.special import device

Column = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Device = Callable[..., Any]
"""A compiled function of scalars, which kernels inline."""

Dispersion = Literal["none", "scale", "shape"]


@device
def no_dispersion(link_id: int, y: float, w: float, eta: float, phi: float) -> tuple[float, float, float]:
    """The derivatives by log phi of a family without a dispersion."""
    return 0.0, 0.0, 0.0


def no_doubt(y: Column, w: Column | None) -> tuple[Mask, str] | None:
    """No response of the family is doubtful."""
    return None


def no_moments(y: Column, mu: Column) -> tuple[float, float]:
    """A scale is estimated by Pearson's statistic and needs no other moments."""
    return 0.0, 0.0


def no_start(first: float, second: float) -> float:
    """Without a shape, phi starts at 1."""
    return 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """One family of responses.

    Device functions take scalars, and an eta that is in the domain and within the limits of its link. In the formulas,
    mu is the mean of the response, w its prior weight and phi the dispersion (1 for families without one).

    Attributes
    ----------
    name : name of the family and of its file.
    spellings : other packages' names, in lower case without spaces, dots, hyphens and underscores.
    links : names of the links it takes; the first one is the default.
    canonical : the link with which expected and observed weights agree for every eta, if there is one.
    in_domain : (link_id, eta) -> whether eta gives a mean that the family allows; False for nan.
    score_full : (link_id, y, w, eta, phi) -> (ll, d1, w_fisher, w_observed, w_fisher', w_observed') as in
        `scores.score_full`.
    dispersion_derivatives : (link_id, y, w, eta, phi) -> (d ll, d d1, d w_observed) / d log phi.
    constant : (y, w) -> what ll lacks to be R's log density; free of eta and phi.
    variance : (mu, phi) -> variance of one observation of weight 1; phi = 1 gives R's variance function of a scale.
    deviance_row : (y, w, mu, phi) -> weighted unit deviance, at least 0.
    mean, mean_derivative : (link_id, eta) -> mean of the response, and its slope.
    eta_of : (link_id, mu) -> linear predictor that gives this mean.
    dispersion : "none"; "scale", which multiplies the variance and whose square root is sigma; or "shape", which is
        part of the variance function.
    dispersion_meaning : what phi is, for the summary.
    largest_dispersion : above this shape the likelihood is taken as flat. None stands for no such limit.
    flat_dispersion : advice where the shape reached that limit.
    moments : (y, mu) -> two sums over rows, from which `start_dispersion` estimates a shape.
    start_dispersion : (first sum, second sum) -> shape to start from.
    start_mean : (y, w, link) -> (n,) means to start from, one row at a time, so that it does not matter how rows are
        cut into chunks.
    common_mean : (sum of w y, sum of w, link) -> one mean for all rows, inside the range.
    outside_range : y -> (n,) True for responses that the family cannot have.
    range_message : what to say of such a response.
    doubt : (y, w) -> (n,) doubtful responses and what to say of them, or None.
    simulate : (rng, mu, w, phi) -> (n,) one response for each mean.
    quantile : (u, mu, w, phi) -> (n,) u-quantiles of the same distributions. Inversion takes one uniform a row, so that
        draws do not depend on how rows are cut.
    countable : the log-likelihood is linear in y at a given eta, up to the constant, and w multiplies it. Rows that
        are identical but for y can be counted instead of repeated.
    separable : responses can be all one value in some corner of the covariates.
    two_outcomes : the response may be two levels, or successes of trials.
    weights_are_trials : a row's variance is known only with its weight.
    outcome_note : which outcome is modelled where the response has no levels; "" where there are no outcomes.
    positive : responses are never negative.
    """

    name: str
    links: tuple[str, ...]
    canonical: str | None
    in_domain: Device
    score_full: Device
    constant: Device
    variance: Device
    deviance_row: Device
    start_mean: Callable[[Column, Column, str], Column]
    common_mean: Callable[[float, float, str], float]
    outside_range: Callable[[Column], Mask]
    range_message: str
    simulate: Callable[[np.random.Generator, Column, Column, float], Column]
    quantile: Callable[[Column, Column, Column, float], Column]
    spellings: tuple[str, ...] = ()
    mean: Device = _links.mean
    mean_derivative: Device = _links.mean_derivative
    eta_of: Device = _links.eta_of
    dispersion: Dispersion = "none"
    dispersion_derivatives: Device = no_dispersion
    dispersion_meaning: str = ""
    largest_dispersion: float | None = None
    flat_dispersion: str = ""
    moments: Callable[[Column, Column], tuple[float, float]] = no_moments
    start_dispersion: Callable[[float, float], float] = no_start
    doubt: Callable[[Column, Column | None], tuple[Mask, str] | None] = no_doubt
    countable: bool = False
    separable: bool = False
    two_outcomes: bool = False
    weights_are_trials: bool = False
    outcome_note: str = ""
    positive: bool = True
