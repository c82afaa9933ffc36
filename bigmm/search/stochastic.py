"""The search of an objective with probes: the zero of its estimated score, with probes until their errors are small.

Probes make value and gradient deterministic functions that agree only up to a Monte Carlo error, so the score is driven
to zero (`optimize.score`). The error of the end decides whether the search goes on from there with more probes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Generic, Protocol, Self, TypeVar

import numpy as np

from bigmm.objective.evaluation import Objective
from bigmm.objective.factorization import Probing
from bigmm.objective.krylov import MOST_PROBES
from bigmm.objective.montecarlo import ProbeError
from bigmm.optimize import Outcome, Problem, minimize, score

BLOCK = 16
"""Right-hand sides that the iterative solver handles at once; fewer cost as much."""


class ProbedObjective(Objective, Protocol):
    """An objective in the coordinates of its search, whose solver has probes.

    value_needs_search: whether more vectors, for the value of the objective alone, are followed by a search. Where a
    search is dear and the parameters do not feel the error of the value, `value_error` takes the vectors without one.
    """

    value_needs_search: bool

    @property
    def probing(self) -> Probing:
        """The random vectors of the solver."""
        ...

    def problem(self, starts: tuple[np.ndarray, ...]) -> Problem:
        """The problem that `optimize` minimises from these starts."""
        ...

    def probe_error(self, point: np.ndarray) -> ProbeError:
        """The errors at the end of a search; infinite where the objective has no value."""
        ...

    def enlarged(self, point: np.ndarray, probes: int, deflation: int) -> Self:
        """The objective with more random vectors; point: where it was evaluated last."""
        ...

    def value_error(self, point: np.ndarray, error: float, tolerance: float) -> tuple[float, Probing]:
        """The error of the value, brought below the tolerance where that needs no search, and the vectors for it."""
        ...


S = TypeVar("S", bound=ProbedObjective)


@dataclass(frozen=True, slots=True)
class StochasticOutcome(Generic[S]):
    """The end of a search.

    Attributes
    ----------
    outcome : in the coordinates of the search.
    objective : with the random vectors of the end of the search.
    error : of the parameters and of the value.
    probing : the vectors that the value takes.
    """

    outcome: Outcome
    objective: S
    error: ProbeError
    probing: Probing


def solve_score_equation(objective: S, start: np.ndarray, tolerance: tuple[float, float]) -> StochasticOutcome[S]:
    """Find the zero of the estimated score; probes and basis grow until the Monte Carlo errors are small enough.

    Parameters
    ----------
    objective : with the random vectors that the search begins with.
    start : (n,) in its coordinates.
    tolerance : (share of a parameter's statistical standard error, standard error of the objective).
    """
    stop, evaluations = score.stop_below(tolerance[0]), 0
    while True:
        outcome = minimize(replace(objective.problem((start,)), noisy=True, tolerance=stop))
        evaluations += outcome.evaluations
        error, probing = objective.probe_error(outcome.theta), objective.probing
        excess = error.share / tolerance[0]
        if objective.value_needs_search:
            excess = max(excess, error.objective / tolerance[1])
        # `not >` ends the loop at NaN too, where more probes cannot help.
        if not excess > 1.0 or probing.probes >= MOST_PROBES or not outcome.converged:
            break
        # the point is within a fraction of its standard error already: the next search is one evaluation, as a rule
        start = outcome.theta
        objective = objective.enlarged(start, *more_vectors(probing, excess))
    outcome = replace(outcome, evaluations=evaluations, gradient_evaluations=evaluations)
    if np.isfinite(error.objective):
        value_error, probing = objective.value_error(outcome.theta, error.objective, tolerance[1])
        error = replace(error, objective=value_error)
        if error.share > tolerance[0] or error.objective > tolerance[1]:
            outcome = still_uncertain(outcome, error.objective, probing.probes)
    return StochasticOutcome(outcome, objective, error, probing)


def more_vectors(probing: Probing, excess: float) -> tuple[int, int]:
    """(probes, deflation) for an error that is so many times too large: up to four times the probes, or a larger basis.

    Probes alone are cheap, since what is solved stays solved, but the error falls with their square root only. Where it
    is far too large, the basis lacks a few large eigenvalues.
    """
    probes, deflation = probing.probes, probing.deflation
    # The error falls with the square root of the probes; the factor 1.1 allows for the error of the error.
    enough = BLOCK * math.ceil(probes * (1.1 * excess) ** 2 / BLOCK)
    if enough <= 4 * probes:
        return min(enough, MOST_PROBES), deflation
    return min(2 * probes, MOST_PROBES), (4 if excess > 10 else 2) * deflation


def still_uncertain(outcome: Outcome, objective_error: float, probes: int) -> Outcome:
    """The outcome of a search whose Monte Carlo errors stayed above the tolerance."""
    advice = f"the Monte Carlo error of the objective is still {objective_error:.2g} with {probes} probes"
    return replace(outcome, advice="; ".join([*([outcome.advice] if outcome.advice else []), advice]))
