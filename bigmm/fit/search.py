"""The search over psi = (beta, theta, log phi)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from bigmm.design.layout import joint_terms
from bigmm.errors import DataError, UsageError
from bigmm.fit import runaway
from bigmm.fit.held_model import HeldModel
from bigmm.laplace.crossed import CrossedLaplace
from bigmm.laplace.evaluation import GlmmEvaluation, Parameters
from bigmm.laplace.single import SingleFactor
from bigmm.laplace.start import Start
from bigmm.laplace.whitening import Whitened
from bigmm.laplace.wiring import ready_rows, wire
from bigmm.optimize import Outcome, Problem, minimize

UNBOUNDED_LINKS = ("logit", "probit", "cloglog", "cauchit", "log")


SEARCH_TOLERANCE = 1e-9
"""The curvature is only a working one here, so the end is certified more strictly than for a linear model."""


class Search:
    """Chooses the engine (one factor: level by level; else PIRLS on the blocked factor) and minimises the deviance."""

    def __init__(self, model: HeldModel, start: Start, nagq: int, observed: bool, theta0: Any, optimizer: str):
        self.model, self.start, self.optimizer = model, start, optimizer
        templates, family = model.templates, model.family
        xc = model.fixed_columns
        self.single = len(model.templates.widths) == 1 and nagq >= 1
        self.parameters = Parameters(
            len(xc), templates.n_theta, family.has_dispersion, nagq == 0, model.assembled.gram.n
        )
        covariates = self._covariates()
        if self.single:
            self.engine: SingleFactor | CrossedLaplace = SingleFactor(
                model.held.map,
                model.edges,
                xc,
                covariates[0],
                family,
                templates,
                self.parameters,
                observed,
                nagq,
                model.constant,
            )
        else:
            wiring = wire(model.assembled.gram, xc, covariates)
            groupings = self._groupings()
            held = model.held.replaced(
                partial(ready_rows, wiring=wiring, groupings=groupings, places=list(model.places))
            )
            self.engine = CrossedLaplace(
                held.map, wiring, family, templates, self.parameters, observed, model.constant, start.beta
            )
        self.theta0 = _checked_theta0(theta0, templates) if theta0 is not None else theta_start(model, start.eta)
        self.phi_bounds = runaway.dispersion_bounds(family, start.phi)
        information = start.information if self.parameters.n_beta else np.zeros((0, 0))
        self.white = Whitened(self.engine.value, self.engine.evaluate, information, self.parameters.size)

    @property
    def fixed_names(self) -> np.ndarray:
        """(rank,) names of the coefficients that are kept."""
        layout, gram = self.model.spec.layout, self.model.assembled.gram
        return np.array(layout.fixed_names, object)[gram.active[gram.fixed_order]]

    @property
    def passes(self) -> int:
        """Looks at all rows so far."""
        return self.engine.passes

    def _covariates(self) -> list[tuple[int, ...]]:
        joined = joint_terms(self.model.spec.layout)
        order = (0,) if self.single else self.model.assembled.term_order
        return [joined[j].covariates for j in order]

    def _groupings(self) -> list[int]:
        joined = joint_terms(self.model.spec.layout)
        return [joined[j].grouping for j in self.model.assembled.term_order]

    def run(self) -> Outcome:
        """Minimise; the outcome's theta is psi in the user's coordinates."""
        parameters, templates, white = self.parameters, self.model.templates, self.white
        layout = self.model.spec.layout
        sizes = {layout.groupings[t.grouping].name: layout.groupings[t.grouping].n_levels for t in layout.terms}
        runaway.check_dispersion(self.model.family, sizes, parameters.rows)
        runaway.check_separation(self.model.family, self.start, layout.response, self.fixed_names)
        psi = parameters.join(self.start.beta, self.theta0, float(np.log(self.start.phi)))
        smaller = parameters.join(self.start.beta, 0.3 * self.theta0, float(np.log(self.start.phi)))
        first = self.engine.value(psi)
        if not np.isfinite(first):
            psi = smaller
            if not np.isfinite(self.engine.value(psi)):
                raise DataError(
                    "the deviance is not finite at the starting values (PIRLS found no mode): check for complete "
                    "separation, extreme covariates or offsets, and the link"
                )
        lower = parameters.lower(templates.lower)
        at = slice(parameters.n_beta, parameters.n_beta + parameters.n_theta)

        def rectify(working: np.ndarray) -> np.ndarray:
            out = np.array(working, float)
            out[at] = templates.rectified(out[at])
            return out

        problem = Problem(self._value, self._evaluate, lower, (white.inward(psi),), rectify, tolerance=SEARCH_TOLERANCE)
        outcome = minimize(problem, self.optimizer)
        return replace(outcome, theta=white.outward(self._bounded(outcome.theta)))

    def _bounded(self, working: np.ndarray) -> np.ndarray:
        """log phi within its bounds."""
        if not self.parameters.with_phi:
            return working
        return np.append(working[:-1], np.clip(working[-1], *self.phi_bounds))

    def _value(self, working: np.ndarray) -> float:
        """The deviance, flat where log phi is out of bounds."""
        return self.white.value(self._bounded(working))

    def _evaluate(self, working: np.ndarray) -> GlmmEvaluation:
        inside = self._bounded(working)
        model = self.white.evaluate(inside)
        if not self.parameters.with_phi or self.phi_bounds[0] < working[-1] < self.phi_bounds[1]:
            return model
        model.gradient[-1], model.hessian[-1], model.hessian[:, -1] = 0.0, 0.0, 0.0
        model.hessian[-1, -1] = 1.0
        return model


def _checked_theta0(theta0: Any, templates: Any) -> np.ndarray:
    theta0 = np.asarray(theta0, float)
    if theta0.shape != (templates.n_theta,) or not np.all(np.isfinite(theta0)) or np.any(theta0 < templates.lower):
        raise UsageError(
            f"theta0 must have {templates.n_theta} finite elements ({', '.join(templates.names)}), those of the "
            f"diagonal not negative; got {theta0}"
        )
    return theta0


def theta_start(model: HeldModel, eta: float) -> np.ndarray:
    """Template diagonals that give each covariate's effect about half a unit of the linear predictor; less where the
    link has a domain to stay in (eta: mean size of the linear predictor)."""
    fraction = 0.5 if model.family.link in UNBOUNDED_LINKS else 0.2 * max(eta, 1e-6)
    layout, templates = model.spec.layout, model.templates
    theta = np.where(templates.lower == 0, fraction, 0.0)
    squares = model.mean_squares
    at = 0
    for term, template in zip(layout.terms, templates.terms, strict=True):
        for row, column in template.entries():
            if row == column:
                theta[at] = fraction / np.sqrt(max(squares[term.covariates[row]], 1e-300))
            at += 1
    return theta
