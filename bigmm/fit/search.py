"""The search over psi = (beta, theta, log phi), in the coordinates of `laplace.coordinates`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bigmm.blocks import Gram
from bigmm.errors import DataError, UsageError
from bigmm.fit import runaway
from bigmm.fit.engines import make_engine
from bigmm.fit.held_model import HeldModel
from bigmm.fit.offsets import wide_offset
from bigmm.fit.probed import Probed, search_score
from bigmm.laplace.coordinates import Coordinates, row_frame
from bigmm.laplace.crossed import CrossedLaplace
from bigmm.laplace.objective import Parameters
from bigmm.laplace.start import Start
from bigmm.objective.criterion import fixed_map
from bigmm.objective.evaluation import Evaluation
from bigmm.objective.frame import Frame
from bigmm.objective.montecarlo import TOLERANCE
from bigmm.optimize import Outcome, Problem, minimize, score
from bigmm.solver import check_optimizer

UNBOUNDED_LINKS = ("logit", "probit", "cloglog", "cauchit", "log")
SHARES = (1.0, 0.3, 0.05, 1e-3)
"""Of the starting theta, tried in turn."""
SEARCH_TOLERANCE = 1e-9
"""The curvature is only a working one here, so the end is certified more strictly than for a linear model."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What users may say about the search: theta0: start of theta or None; optimizer: a name that `minimize` knows;
    solver: "exact" or "iterative", seed and mc_tol (share of a parameter's standard error, error of the objective) of
    its probes."""

    theta0: Any = None
    optimizer: str = "auto"
    solver: str = "exact"
    seed: int = 0
    mc_tol: tuple[float, float] = TOLERANCE


class Search:
    """The minimisation of the deviance.

    Attributes
    ----------
    model : the model as the engine left it.
    back : (rank, rank) map from the coefficients of working columns to those of the user's columns.
    is_laplace : whether the integral is Laplace's, not a quadrature.
    probed : errors that come from the probes of the iterative solver; None for the exact one.
    end : (P,) point where the search ended, in its own coordinates; NaN before `run`.
    """

    def __init__(self, model: HeldModel, start: Start, nagq: int, observed: bool, wishes: Wishes):
        check_optimizer(wishes.optimizer, wishes.solver)
        self.start, self.wishes, self.is_laplace = start, wishes, nagq < 2
        templates, family, p = model.templates, model.family, len(model.fixed_columns)
        n, profile = model.assembled.gram.n, nagq == 0
        self.parameters = Parameters(p, templates.n_theta, family.has_dispersion, profile, n)
        rows = row_frame(templates, model.covariates, model.column_root, model.bases)
        engine_parameters = replace(self.parameters, n_theta=rows.roots.n_theta)
        self.engine, self.model = make_engine(
            model, rows.roots, start.beta, nagq, observed, engine_parameters, wishes.solver, wishes.seed
        )
        given = wishes.theta0
        self.theta0 = theta_start(model, rows.frame, start.eta) if given is None else _checked_theta0(given, templates)
        self.phi_bounds = runaway.dispersion_bounds(family, start.phi)
        information = start.information if self.parameters.n_beta else np.zeros((0, 0))
        if not (np.isfinite(start.ll) and np.all(np.isfinite(information))):
            raise DataError(no_start(model, start))
        self.back = user_map(model.assembled.gram)
        n = self.parameters.n_beta
        self.coordinates = Coordinates(
            self.engine.value, self.engine.evaluate, information, self.parameters, rows, self.back[:n, :n]
        )
        self.iterative = wishes.solver == "iterative"
        self.probed: Probed | None = None
        self.end = np.full(self.parameters.size, np.nan)

    @property
    def fixed_names(self) -> np.ndarray:
        """(rank,) names of the coefficients that are kept."""
        layout, gram = self.model.spec.layout, self.model.assembled.gram
        return np.array(layout.fixed_names, object)[gram.active[gram.fixed_order]]

    @property
    def passes(self) -> int:
        """Looks at all rows so far."""
        return self.engine.passes

    def run(self) -> Outcome:
        """Minimise; the outcome's theta is psi in the user's coordinates."""
        parameters, templates, coordinates = self.parameters, self.model.templates, self.coordinates
        layout = self.model.spec.layout
        sizes = {term.name: term.n_levels for term in layout.joint}
        runaway.check_dispersion(self.model.family, sizes, parameters.rows)
        runaway.check_separation(self.model.family, self.start, layout.response, self.fixed_names)
        begin = self._first()
        lower = parameters.lower(templates.search_lower)
        theta_part = slice(parameters.n_beta, parameters.n_beta + parameters.n_theta)

        def rectify(working: np.ndarray) -> np.ndarray:
            out = np.array(working, float)
            out[theta_part] = templates.rectified(out[theta_part])
            return out

        problem = Problem(
            self._value,
            self._evaluate,
            lower,
            (begin,),
            rectify,
            tolerance=score.stop_below(self.wishes.mc_tol[0]) if self.iterative else SEARCH_TOLERANCE,
            noisy=self.iterative,
        )
        if self.iterative:
            assert isinstance(self.engine, CrossedLaplace)
            self.probed = search_score(self.engine, coordinates, problem, self.wishes.mc_tol)
            outcome = self.probed.outcome
        else:
            outcome = self._again(problem, minimize(problem, self.wishes.optimizer))
        self.end = self._bounded(outcome.theta)
        return replace(outcome, theta=coordinates.outward(self.end))

    def _first(self) -> np.ndarray:
        begin = self._feasible(self.start.beta)
        if begin is None:
            raise DataError(no_start(self.model, self.start))
        return begin

    def _feasible(self, beta: np.ndarray) -> np.ndarray | None:
        """The point with these coefficients; the random effects are made smaller until all levels have a mode. None
        where that never is."""
        for share in SHARES:
            point = self.coordinates.inward(
                beta, self.model.templates.scaled(self.theta0, share), float(np.log(self.start.phi))
            )
            # an estimate is kept: the search begins with it
            value = self.coordinates.evaluate(point).value if self.iterative else self.coordinates.value(point)
            if np.isfinite(value):
                return point
        return None

    def _again(self, problem: Problem, outcome: Outcome) -> Outcome:
        """The outcome, or a better one of a second search, where the first one ended without a minimum.

        Means that follow the covariates may begin next to the edge of a link's domain, where a search gets stuck. The
        second search begins with the same mean for all rows, so its end is at least as good as without covariates.
        """
        parameters, start = self.parameters, self.start
        n = parameters.n_beta
        if outcome.converged or n < 2 or not np.all(np.isfinite([*start.constant, *start.ones])):
            return outcome
        origin, size = self._feasible(start.constant), self.parameters.size
        if origin is None:
            return outcome
        directions = np.eye(size)[:, n - 1 :]
        directions[:, 0] = self.coordinates.inward(start.ones, np.zeros(parameters.n_theta), 0.0)
        origin[n:], covariances = 0.0, origin[n:].copy()  # the directions lead to theta and log phi themselves
        reduced = along(problem, origin, directions, np.append(0.0, covariances))
        first = minimize(reduced, self.wishes.optimizer)
        other = minimize(replace(problem, starts=(origin + directions @ first.theta,)), self.wishes.optimizer)
        ends = (outcome, other)
        best = min(ends, key=lambda o: o.value if np.isfinite(o.value) else np.inf)
        every = (*ends, first)
        return replace(
            best,
            evaluations=sum(o.evaluations for o in every),
            gradient_evaluations=sum(o.gradient_evaluations for o in every),
            starts=sum(o.starts for o in every),
        )

    def _bounded(self, working: np.ndarray) -> np.ndarray:
        """log phi within its bounds."""
        if not self.parameters.with_phi:
            return working
        return np.append(working[:-1], np.clip(working[-1], *self.phi_bounds))

    def _value(self, working: np.ndarray) -> float:
        """The deviance, flat where log phi is out of bounds."""
        return self.coordinates.value(self._bounded(working))

    def _evaluate(self, working: np.ndarray) -> Evaluation:
        inside = self._bounded(working)
        model = self.coordinates.evaluate(inside)
        if not self.parameters.with_phi or self.phi_bounds[0] < working[-1] < self.phi_bounds[1]:
            return model
        model.gradient[-1], model.hessian[-1], model.hessian[:, -1] = 0.0, 0.0, 0.0
        model.hessian[-1, -1] = 1.0
        return model


def user_map(gram: Gram) -> np.ndarray:
    """(rank, rank) from coefficients of the working columns to those of the user's that are kept, in their order."""
    return fixed_map(gram)[gram.fixed_order][gram.active[gram.fixed_order]]


def along(problem: Problem, origin: np.ndarray, directions: np.ndarray, start: np.ndarray) -> Problem:
    """The problem at origin (P,) + directions (P, r) point (r,), from start (r,); the first direction is free, the
    others are the last coordinates of the problem."""

    def whole_point(point: np.ndarray) -> np.ndarray:
        return origin + directions @ point

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
        rectify=lambda point: np.append(point[0], problem.rectify(whole_point(point))[last:]),
    )


def no_start(model: HeldModel, start: Start) -> str:
    """Why there is nowhere to start from, and what to do."""
    family = model.family
    if np.isfinite(start.ll) or family.link in UNBOUNDED_LINKS:
        return (
            "the deviance is not finite at the starting values (PIRLS found no mode): check for complete "
            f"separation, extreme covariates or offsets, and the link{wide_offset(model)}"
        )
    return (
        f"no coefficients were found at which every mean is in the range of {family} (the deviance is not finite at "
        "the starting values): keep the intercept, check the sign and size of covariates and offsets, or use link='log'"
        f"{wide_offset(model)}"
    )


def _checked_theta0(theta0: Any, templates: Any) -> np.ndarray:
    theta0 = np.asarray(theta0, float)
    if (
        theta0.shape != (templates.n_theta,)
        or not np.all(np.isfinite(theta0))
        or np.any(theta0 < templates.lower)
        or np.any(theta0 > templates.upper)
    ):
        raise UsageError(
            f"theta0 must have {templates.n_theta} finite elements ({', '.join(templates.names)}), those of the "
            f"diagonal not negative; got {theta0}"
        )
    return theta0


def theta_start(model: HeldModel, frame: Frame, size: float) -> np.ndarray:
    """(n_theta,) theta for which each column of each term adds about half a unit of deviation to the linear predictor.

    Where the link has a domain to stay in the deviation is less; size: mean size of the linear predictor. The start is
    made in the frame, so that it depends on neither origin nor unit of a covariate.
    """
    fraction = 0.5 if model.family.link in UNBOUNDED_LINKS else 0.2 * max(size, 1e-6)
    return frame.outward(frame.start(fraction))
