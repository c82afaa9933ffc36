"""The search over psi = (beta, theta, log phi), and what is read off its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from bigmm.accumulate import Assembled
from bigmm.blocks import Gram, TermBlock
from bigmm.blocks.factor import NotPositiveDefiniteError
from bigmm.errors import DataError, UsageError
from bigmm.fit import runaway
from bigmm.laplace.crossed import CrossedLaplace
from bigmm.laplace.evaluation import GlmmEvaluation, Parameters
from bigmm.laplace.information import covariance, observed_hessian
from bigmm.laplace.shards import Shard
from bigmm.laplace.single import SingleFactor, working_blocks
from bigmm.laplace.start import Start
from bigmm.laplace.whitening import Whitened
from bigmm.laplace.wiring import Rows, ready_rows, wire
from bigmm.laplace.working import WorkingModel
from bigmm.objective import Estimates
from bigmm.optimize import Outcome, Problem, minimize

if TYPE_CHECKING:
    from bigmm.fit.glmm import HeldModel


COUNTED = ("bernoulli", "binomial", "poisson", "negative_binomial")
"""Families whose responses can be all one value in some corner of the covariates."""


@dataclass(frozen=True, slots=True)
class FinishedSearch:
    """outcome: with advice where something ran away; assembled: the blocks at the mode; working: their model; penalized:
    -2 ll + |u|^2 with constants."""

    outcome: Outcome
    assembled: Assembled
    working: WorkingModel
    theta: np.ndarray
    phi: float
    estimates: Estimates
    se_method: str
    penalized: float


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
        from bigmm.fit.glmm import theta_start

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
        from bigmm.design.layout import joint_terms

        joined = joint_terms(self.model.spec.layout)
        order = (0,) if self.single else self.model.assembled.term_order
        return [joined[j].covariates for j in order]

    def _groupings(self) -> list[int]:
        from bigmm.design.layout import joint_terms

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
                    "the deviance is not finite at the starting values (PIRLS found no mode): check for complete separation, "
                    "extreme covariates or offsets, and the link"
                )
        lower = parameters.lower(templates.lower)
        at = slice(parameters.n_beta, parameters.n_beta + parameters.n_theta)

        def rectify(working: np.ndarray) -> np.ndarray:
            out = np.array(working, float)
            out[at] = templates.rectified(out[at])
            return out

        problem = Problem(self._value, self._evaluate, lower, (white.inward(psi),), rectify)
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

    def _advice(self, psi: np.ndarray, beta: np.ndarray, rx: np.ndarray) -> str:
        """What ran away, "" when nothing did."""
        model, templates, start = self.model, self.model.templates, self.start
        _, theta, _ = self.parameters.split(psi)
        names = self.fixed_names
        error = np.sqrt(np.abs(np.diagonal(rx)))
        error = error[np.isfinite(error)]
        lost = runaway.lost_coefficients(beta, error, start)
        found = ""
        if lost.any() and model.family.name in COUNTED:
            largest = np.max(model.held.map(runaway.largest_values, model.fixed_columns), axis=0)
            found = runaway.without_estimate(lost, error, largest, names)
        covariates = [c for term in model.spec.layout.terms for c in term.covariates]
        scales = np.zeros(len(theta))
        scales[templates.lower == 0] = np.sqrt(model.mean_squares[covariates])
        found = found or runaway.runaway_variance(model.family, np.abs(theta) * scales, templates.names)
        if self.parameters.with_phi:
            found = found or runaway.runaway_dispersion(model.family, psi[-1], self.phi_bounds)
        return found

    # ------------------------------------------------------------------------------------------------ the end

    def finish(self, outcome: Outcome, se: str) -> FinishedSearch:
        """Blocks at the mode, covariance of the coefficients, modes."""
        parameters, model = self.parameters, self.model
        psi = outcome.theta
        _, theta, phi = parameters.split(psi)
        if self.single:
            assembled, beta, u, penalized = self._blocks_of_levels(psi)
        else:
            assembled, beta, u, penalized = self._blocks_of_terms(psi)
        working = WorkingModel(assembled.gram, model.templates, False)
        try:
            read = working.estimates(theta)
        except NotPositiveDefiniteError as error:
            raise DataError(
                "the working weights vanish where the search ended: means are at the edge of what the family allows; check "
                "for separation, and for covariates or offsets that overflow"
            ) from error
        advice = self._advice(psi, beta, read.vcov)
        if advice:
            outcome = replace(outcome, status="stopped", advice=advice)
        vcov, method = self._covariance(outcome, read.vcov, se)
        lams = model.templates.joint(theta)
        b = tuple(u_j @ lam.T for u_j, lam in zip(u, lams, strict=True))
        user_beta = np.full(len(read.beta), np.nan)
        user_beta[np.isfinite(read.beta)] = beta
        estimates = Estimates(user_beta, vcov, 1.0, read.pwrss, read.logdet_z, read.logdet_x, outcome.value, u, b)
        return FinishedSearch(outcome, assembled, working, theta, phi, estimates, method, penalized)

    def _covariance(self, outcome: Outcome, rx: np.ndarray, se: str) -> tuple[np.ndarray, str]:
        parameters, white = self.parameters, self.white
        if se == "rx" or parameters.profile:
            return rx, "rx"
        free = ~(outcome.at_boundary & (outcome.theta == 0))
        if parameters.with_phi:
            free[-1] = self.phi_bounds[0] < outcome.theta[-1] < self.phi_bounds[1]
        at = white.inward(outcome.theta)
        curvature = white.evaluate(at).hessian
        hessian = observed_hessian(lambda x: white.evaluate(x).gradient, at, curvature, free)
        found = covariance(hessian, free)
        if found is None:
            return rx, "rx"
        jacobian = white.jacobian()
        n = parameters.n_beta
        beta = (jacobian @ found @ jacobian.T)[:n, :n]
        out = np.full_like(rx, np.nan)
        kept = np.isfinite(np.diagonal(rx))
        out[np.ix_(kept, kept)] = beta
        return out, "hessian"

    def _blocks_of_terms(self, psi):
        engine = self.engine
        mode = engine.mode(psi)
        _, theta, phi = self.parameters.split(psi)
        lams = self.model.templates.joint(theta)
        effects = tuple(u @ lam.T for u, lam in zip(mode.u, lams, strict=True))
        sums = engine.sums(mode.beta, effects, phi, engine.observed, True)
        gram = engine.gram(sums)
        gram = restored(gram, self.model.assembled.gram)
        return replace(self.model.assembled, gram=gram), mode.beta, mode.u, mode.penalized + self.model.constant

    def _blocks_of_levels(self, psi):
        engine, model = self.engine, self.model
        engine.value(psi)
        beta, theta, phi = self.parameters.split(psi)
        lam = model.templates.joint(theta)[0]
        starts = [engine.u[a:b] for a, b in zip(model.edges[:-1], model.edges[1:], strict=True)]
        parts = model.held.map(
            working_blocks, engine.xc, engine.zc, model.family, beta, lam, phi, engine.observed, per_shard=starts
        )
        counts = np.concatenate([part[4] for part in parts])
        kept = np.flatnonzero(counts)
        diagonal, dense = (np.concatenate([part[i] for part in parts])[kept] for i in (0, 1))
        layout = model.spec.layout
        name = layout.groupings[model.leading].name
        block = TermBlock(name, diagonal, dense, np.eye(diagonal.shape[1]))
        gram = replace(model.assembled.gram, terms=(block,), cross={}, xy=sum(part[2] for part in parts))
        gram = restored(gram, model.assembled.gram)
        u = engine.u[kept]
        penalized = -2.0 * sum(part[3] for part in parts) + float((u**2).sum()) + model.constant
        return Assembled(gram, (0,), (kept,), model.assembled.dropped_columns), beta, (u,), penalized


def restored(gram: Gram, pattern: Gram) -> Gram:
    """Working blocks in raw columns, with the pattern's bookkeeping of dropped coefficients."""
    n = len(pattern.active)
    return replace(
        gram,
        x_basis=np.eye(n),
        one=None,
        y_shift=0.0,
        active=pattern.active,
        fixed_order=pattern.fixed_order,
        sum_log_w=0.0,
    )


def _checked_theta0(theta0: Any, templates: Any) -> np.ndarray:
    theta0 = np.asarray(theta0, float)
    if theta0.shape != (templates.n_theta,) or not np.all(np.isfinite(theta0)) or np.any(theta0 < templates.lower):
        raise UsageError(
            f"theta0 must have {templates.n_theta} finite elements ({', '.join(templates.names)}), those of the diagonal not "
            f"negative; got {theta0}"
        )
    return theta0
