"""The search of a generalized model over psi = (beta, theta, log phi), in the coordinates of `laplace.coordinates`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bigmm.blocks.exact.factor import NotPositiveDefiniteError
from bigmm.laplace.coordinates import Coordinates
from bigmm.laplace.objective import LaplaceObjective, ProbedEngine
from bigmm.objective.covariances import ModelCovariance
from bigmm.objective.evaluation import Evaluation
from bigmm.objective.factorization import Probing
from bigmm.objective.montecarlo import ProbeError
from bigmm.optimize import Outcome, Problem, minimize

SEARCH_TOLERANCE = 1e-9
"""The curvature is only a working one here, so the end is certified more strictly than for a linear model."""


@dataclass(frozen=True, slots=True)
class GeneralizedObjective:
    """The deviance in the coordinates of its search, flat where log phi is out of its bounds.

    Attributes
    ----------
    engine : the deviance as a function of the engine's psi.
    coordinates : of the search.
    covariances : of the user's theta.
    phi_bounds : range of log phi.
    """

    engine: LaplaceObjective
    coordinates: Coordinates
    covariances: ModelCovariance
    phi_bounds: tuple[float, float]

    value_needs_search = False

    @property
    def probing(self) -> Probing:
        """The random vectors of an iterative solver."""
        return self.probed.probing

    @property
    def probed(self) -> ProbedEngine:
        """The engine of an iterative solver."""
        if self.engine.probed is None:
            raise TypeError("an exact solver has no probes")
        return self.engine.probed

    def bounded(self, point: np.ndarray) -> np.ndarray:
        """The point with log phi within its bounds."""
        if not self.coordinates.parameters.with_phi:
            return point
        # log phi is the last coordinate in psi and in the search alike.
        return np.append(point[:-1], np.clip(point[-1], *self.phi_bounds))

    def value(self, point: np.ndarray) -> float:
        """The deviance."""
        return self.coordinates.value(self.bounded(point))

    def evaluate(self, point: np.ndarray) -> Evaluation:
        """Value, gradient and curvature."""
        model = self.coordinates.evaluate(self.bounded(point))
        if not self.coordinates.parameters.with_phi or self.phi_bounds[0] < point[-1] < self.phi_bounds[1]:
            return model
        # Flat outside: a unit curvature keeps the matrix regular, and without a slope no step is taken.
        model.gradient[-1], model.hessian[-1], model.hessian[:, -1] = 0.0, 0.0, 0.0
        model.hessian[-1, -1] = 1.0
        return model

    def rectified(self, point: np.ndarray) -> np.ndarray:
        """The same covariance with scales that are not negative."""
        out, parameters = np.array(point, float), self.coordinates.parameters
        part = slice(parameters.n_beta, parameters.n_beta + parameters.n_theta)
        out[part] = self.covariances.rectified(out[part])
        return out

    def problem(self, starts: tuple[np.ndarray, ...]) -> Problem:
        """The problem that `optimize` minimises from these starts."""
        lower = self.coordinates.parameters.lower(self.covariances.search_lower)
        return Problem(self.value, self.evaluate, lower, starts, self.rectified, tolerance=SEARCH_TOLERANCE)

    def probe_error(self, point: np.ndarray) -> ProbeError:
        """See `ProbedObjective.probe_error`; of the parameters that are reported."""
        coordinates = self.coordinates
        try:
            jacobians = coordinates.jacobian(point), coordinates.user_jacobian(point)
            return self.probed.probe_error(coordinates.engine(point), *jacobians)
        except NotPositiveDefiniteError:
            # No value, so no error either: infinite, which no tolerance admits.
            unknown = np.full(len(point), np.nan)
            return ProbeError(np.inf, unknown, unknown)

    def enlarged(self, point: np.ndarray, probes: int, deflation: int) -> GeneralizedObjective:
        """See `ProbedObjective.enlarged`; the engine goes on with the larger solver."""
        # The engine changes in place, since it holds the rows: a second one would hold them twice.
        self.probed.enlarge(probes, deflation)
        return self

    def value_error(self, point: np.ndarray, error: float, tolerance: float) -> tuple[float, Probing]:
        """See `ProbedObjective.value_error`; the engine returns to the vectors that the search ended with."""
        return self.probed.value_error(self.coordinates.engine(point), error, tolerance)


@dataclass(frozen=True, slots=True)
class SecondStart:
    """The start of a second search: origin (P,) has the same mean for all rows, and direction (P,) changes it."""

    origin: np.ndarray
    direction: np.ndarray


def minimize_twice(
    objective: GeneralizedObjective,
    start: np.ndarray,
    second_start: Callable[[], SecondStart | None],
    optimizer: str,
) -> Outcome:
    """The minimum from the start, or a better one of a second search, where the first one ended without a minimum.

    Means that follow the covariates may begin next to the edge of a link's domain, where a search makes no progress.
    The second search begins with the same mean for all rows, so its end is at least as good as without covariates.
    """
    problem = objective.problem((start,))
    outcome = minimize(problem, optimizer)
    # A callable: a second start costs passes over the rows, which most fits do not need.
    second = None if outcome.converged else second_start()
    if second is None:
        return outcome
    parameters, origin = objective.coordinates.parameters, second.origin.copy()
    n = parameters.n_beta
    directions = np.eye(parameters.size)[:, n - 1 :]
    directions[:, 0] = second.direction
    origin[n:], covariances = 0.0, origin[n:].copy()  # the directions lead to theta and log phi themselves
    reduced = along(problem, origin, directions, np.append(0.0, covariances))
    # The model without covariates first: it has few parameters, and all rows have the same mean.
    first = minimize(reduced, optimizer)
    other = minimize(replace(problem, starts=(origin + directions @ first.theta,)), optimizer)
    return best_of((outcome, other), first)


def best_of(ends: Sequence[Outcome], *others: Outcome) -> Outcome:
    """The lowest end, with the effort of all searches."""
    # NaN would win or lose by its place in the list.
    best = min(ends, key=lambda end: end.value if np.isfinite(end.value) else np.inf)
    every = (*ends, *others)
    return replace(
        best,
        evaluations=sum(end.evaluations for end in every),
        gradient_evaluations=sum(end.gradient_evaluations for end in every),
        starts=sum(end.starts for end in every),
    )


def along(problem: Problem, origin: np.ndarray, directions: np.ndarray, start: np.ndarray) -> Problem:
    """The problem at origin (P,) + directions (P, r) point (r,), from start (r,); the first direction is free, the
    others are the last coordinates of the problem."""

    def whole_point(point: np.ndarray) -> np.ndarray:
        return np.asarray(origin + directions @ point)

    def evaluate(point: np.ndarray) -> Evaluation:
        assert problem.evaluate is not None
        model = problem.evaluate(whole_point(point))
        return Evaluation(model.value, directions.T @ model.gradient, directions.T @ model.hessian @ directions)

    last = len(origin) + 1 - len(start)
    return replace(
        problem,
        value=lambda point: problem.value(whole_point(point)),
        evaluate=evaluate,
        lower=np.append(-np.inf, problem.lower[last:]),
        starts=(start,),
        # The first coordinate is a common change of the coefficients, which has no sign to mend.
        rectify=lambda point: np.append(point[0], problem.rectify(whole_point(point))[last:]),
    )
