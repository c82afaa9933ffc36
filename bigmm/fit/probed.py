"""The search under the iterative solver: root finding on the estimated score, with probes until they say enough."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bigmm.blocks.exact.factor import NotPositiveDefiniteError
from bigmm.laplace.algebra import IterativeAlgebra
from bigmm.laplace.coordinates import Coordinates
from bigmm.laplace.crossed import CrossedLaplace
from bigmm.laplace.montecarlo import ProbeError, probe_error
from bigmm.optimize import Outcome, Problem, minimize
from bigmm.solver import MOST_PROBES, still_uncertain


@dataclass(frozen=True, slots=True)
class Probed:
    """outcome in working coordinates; error: not known (NaN) where there is no mode; sizes: probes and deflation
    vectors that the objective needs."""

    outcome: Outcome
    error: ProbeError
    sizes: tuple[int, int]


def search_score(
    engine: CrossedLaplace, coordinates: Coordinates, problem: Problem, tolerance: tuple[float, float]
) -> Probed:
    """Probes and deflation grow until the Monte Carlo errors are small enough: with a new search for the parameters,
    without one for the objective, whose error they do not feel.

    tolerance: (share of a parameter's statistical standard error, standard error of the objective).
    """
    evaluations = 0
    while True:
        outcome, algebra = minimize(problem), _iterative(engine)
        evaluations += outcome.evaluations
        outcome = replace(outcome, evaluations=evaluations, gradient_evaluations=evaluations)
        try:
            jacobians = coordinates.jacobian(), coordinates.user_jacobian(outcome.theta)
            error = probe_error(engine, coordinates.engine(outcome.theta), *jacobians)
        except NotPositiveDefiniteError:
            unknown = np.full(len(outcome.theta), np.nan)
            return Probed(outcome, ProbeError(np.inf, unknown, unknown), (algebra.n_probes, algebra.n_deflation))
        if error.share <= tolerance[0] or algebra.n_probes >= MOST_PROBES or not outcome.converged:
            break
        engine.use(algebra.enlarged())
        problem = replace(problem, starts=(outcome.theta,))
    sizes, objective = _enough_for_the_objective(
        engine, coordinates.engine(outcome.theta), error.objective, tolerance[1]
    )
    error = replace(error, objective=objective)
    if error.share > tolerance[0] or error.objective > tolerance[1]:
        outcome = still_uncertain(outcome, error.objective, sizes[0])
    return Probed(outcome, error, sizes)


def _enough_for_the_objective(
    engine: CrossedLaplace, psi: np.ndarray, error: float, tolerance: float
) -> tuple[tuple[int, int], float]:
    """((probes, deflation), error of the objective with them); the engine keeps what the search ended with."""
    algebra = more = _iterative(engine)
    while error > tolerance and more.n_probes < MOST_PROBES:
        more = more.enlarged()
        engine.use(more)
        error = engine.at_mode(psi, False).complete.logdet_error
    engine.use(algebra)
    return (more.n_probes, more.n_deflation), error


def _iterative(engine: CrossedLaplace) -> IterativeAlgebra:
    assert isinstance(engine.algebra, IterativeAlgebra)
    return engine.algebra
