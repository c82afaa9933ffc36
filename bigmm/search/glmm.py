"""The search over psi = (beta, theta, log phi), in the coordinates of `laplace.coordinates`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bigmm.blocks import Gram
from bigmm.errors import DataError
from bigmm.laplace.coordinates import Coordinates, row_frame
from bigmm.laplace.engines import make_engine
from bigmm.laplace.glmm_data import GlmmData
from bigmm.laplace.objective import Parameters
from bigmm.laplace.offsets import wide_offset
from bigmm.laplace.start import Start
from bigmm.objective.criterion import fixed_map
from bigmm.objective.frame import Frame
from bigmm.optimize import Outcome
from bigmm.search import separation
from bigmm.search.generalized import GeneralizedObjective, SecondStart, minimize_twice
from bigmm.search.options import SearchOptions, checked_theta0
from bigmm.search.stochastic import StochasticOutcome, solve_score_equation

# Links with a mean for every linear predictor; the logarithm of a proportion is the exception.
UNBOUNDED_LINKS = ("logit", "probit", "cloglog", "cauchit", "log")
SHARES = (1.0, 0.3, 0.05, 1e-3)
"""Of the starting theta, tried in turn."""


class GlmmSearch:
    """The minimisation of the deviance.

    Attributes
    ----------
    model : the model as the engine left it.
    back : (rank, rank) map from the coefficients of working columns to those of the user's columns.
    is_laplace : whether the integral is Laplace's, not a quadrature.
    stochastic : the end of a search with probes; None for an exact solver.
    end : (P,) point where the search ended, in its own coordinates; NaN before `run`.
    """

    def __init__(self, model: GlmmData, start: Start, nagq: int, observed: bool, options: SearchOptions):
        self.start, self.options, self.is_laplace = start, options, nagq < 2
        covariances, family, p = model.covariances, model.family, len(model.fixed_columns)
        n, profile = model.assembled.gram.n, nagq == 0
        self.parameters = Parameters(p, covariances.n_theta, family.has_dispersion, profile, n)
        rows = row_frame(covariances, model.covariates, model.column_root, model.bases)
        engine_parameters = replace(self.parameters, n_theta=rows.roots.n_theta)
        self.engine, self.model = make_engine(
            model, rows.roots, start.beta, nagq, observed, engine_parameters, options.solver, options.seed
        )
        self.theta0 = (
            theta_start(model, rows.frame, start.eta)
            if options.theta0 is None
            else checked_theta0(options.theta0, covariances)
        )
        self.phi_bounds = separation.dispersion_bounds(family, start.phi)
        # PIRLS has the coefficients where nagq = 0, so the search has none.
        information = start.information if self.parameters.n_beta else np.zeros((0, 0))
        if not (np.isfinite(start.ll) and np.all(np.isfinite(information))):
            raise DataError(no_start(model, start))
        self.back = user_map(model.assembled.gram)
        n = self.parameters.n_beta
        self.coordinates = Coordinates(
            self.engine.value, self.engine.evaluate, information, self.parameters, rows, self.back[:n, :n]
        )
        self.objective = GeneralizedObjective(self.engine, self.coordinates, covariances, self.phi_bounds)
        self.stochastic: StochasticOutcome[GeneralizedObjective] | None = None
        self.end = np.full(self.parameters.size, np.nan)

    @property
    def fixed_names(self) -> np.ndarray:
        """(rank,) names of the coefficients that are kept."""
        layout, gram = self.model.spec.layout, self.model.assembled.gram
        names = np.array(layout.fixed_names, object)
        return np.asarray(names[gram.active[gram.fixed_order]])

    @property
    def passes(self) -> int:
        """Looks at all rows so far."""
        return self.engine.passes

    @property
    def is_iterative(self) -> bool:
        """Whether value and gradient are estimates."""
        return self.engine.probed is not None

    def run(self) -> Outcome:
        """Minimise; the outcome's theta is psi in the user's coordinates."""
        layout = self.model.spec.layout
        sizes = {term.name: term.n_levels for term in layout.joint}
        # Before the search, which would run off without an error.
        separation.check_dispersion(self.model.family, sizes, self.parameters.rows)
        separation.check_separation(self.model.family, self.start, layout.response, self.fixed_names)
        start = self._feasible(self.start.beta)
        if start is None:
            raise DataError(no_start(self.model, self.start))
        if self.is_iterative:
            self.stochastic = solve_score_equation(self.objective, start, self.options.mc_tol)
            outcome = self.stochastic.outcome
        else:
            outcome = minimize_twice(self.objective, start, self._second_start, self.options.optimizer)
        # A point outside of the bounds has the value of the bound.
        self.end = self.objective.bounded(outcome.theta)
        return replace(outcome, theta=self.coordinates.outward(self.end))

    def _feasible(self, beta: np.ndarray) -> np.ndarray | None:
        """The point with these coefficients; the random effects are made smaller until all levels have a mode. None
        where that never is."""
        # Small effects keep means within the domain of an identity or inverse link.
        for share in SHARES:
            point = self.coordinates.inward(
                beta, self.model.covariances.scaled(self.theta0, share), float(np.log(self.start.phi))
            )
            # an estimate is kept: the search begins with it
            value = self.coordinates.evaluate(point).value if self.is_iterative else self.coordinates.value(point)
            if np.isfinite(value):
                return point
        return None

    def _second_start(self) -> SecondStart | None:
        """The same mean for all rows; None where there is nothing but that, or where it has no value."""
        start = self.start
        if self.parameters.n_beta < 2 or not np.all(np.isfinite([*start.constant, *start.ones])):
            return None
        origin = self._feasible(start.constant)
        if origin is None:
            return None
        # Linear in beta, so a direction goes through the same map as a point.
        return SecondStart(origin, self.coordinates.inward(start.ones, np.zeros(self.parameters.n_theta), 0.0))


def user_map(gram: Gram) -> np.ndarray:
    """(rank, rank) from coefficients of the working columns to those of the user's that are kept, in their order."""
    return np.asarray(fixed_map(gram)[gram.fixed_order][gram.active[gram.fixed_order]])


def no_start(model: GlmmData, start: Start) -> str:
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


def theta_start(model: GlmmData, frame: Frame, size: float) -> np.ndarray:
    """(n_theta,) theta for which each column of each term adds about half a unit of deviation to the linear predictor.

    Where the link has a domain to stay in the deviation is less; size: mean size of the linear predictor. The start is
    made in the frame, so that it depends on neither origin nor unit of a covariate.
    """
    # The size may be 0, where the scales would be at their stationary point 0.
    fraction = 0.5 if model.family.link in UNBOUNDED_LINKS else 0.2 * max(size, 1e-6)
    return frame.outward(frame.start(fraction))
