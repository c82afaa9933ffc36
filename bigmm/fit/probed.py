"""The search under the iterative solver: root finding on the estimated score, with probes until they say enough."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bigmm.blocks.exact.factor import NotPositiveDefiniteError
from bigmm.laplace.coordinates import Coordinates
from bigmm.laplace.crossed import CrossedLaplace
from bigmm.laplace.montecarlo import ProbeError, probe_error
from bigmm.objective.factorization import Probing
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
        outcome, probing = minimize(problem), _probing(engine)
        evaluations += outcome.evaluations
        outcome = replace(outcome, evaluations=evaluations, gradient_evaluations=evaluations)
        try:
            jacobians = coordinates.jacobian(outcome.theta), coordinates.user_jacobian(outcome.theta)
            error = probe_error(engine, coordinates.engine(outcome.theta), *jacobians)
        except NotPositiveDefiniteError:
            unknown = np.full(len(outcome.theta), np.nan)
            return Probed(outcome, ProbeError(np.inf, unknown, unknown), (probing.probes, probing.deflation))
        if error.share <= tolerance[0] or probing.probes >= MOST_PROBES or not outcome.converged:
            break
        engine.use(engine.solver.enlarged(2 * probing.probes, 2 * probing.deflation))
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
    solver, probing = engine.solver, _probing(engine)
    while error > tolerance and probing.probes < MOST_PROBES:
        engine.use(engine.solver.enlarged(2 * probing.probes, 2 * probing.deflation))
        error = engine.at_mode(psi, False).factor.logdet_error
        probing = _probing(engine)
    engine.use(solver)
    return (probing.probes, probing.deflation), error


def _probing(engine: CrossedLaplace) -> Probing:
    probing = engine.solver.probing
    assert probing is not None
    return probing
