"""The search over psi = (beta, theta, log phi), and what is read off its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from bigmm.accumulate import Assembled
from bigmm.blocks import Gram, TermBlock
from bigmm.errors import DataError, UsageError
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


@dataclass(frozen=True, slots=True)
class FinishedSearch:
    """assembled: the blocks at the mode; working: their model; penalized: -2 ll + |u|^2 with constants."""

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
        information = start.information if self.parameters.n_beta else np.zeros((0, 0))
        self.white = Whitened(self.engine.value, self.engine.evaluate, information, self.parameters.size)

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

        problem = Problem(white.value, white.evaluate, lower, (white.inward(psi),), rectify)
        outcome = minimize(problem, self.optimizer)
        self._check_separation(white.outward(outcome.theta))
        return replace(outcome, theta=white.outward(outcome.theta))

    def _check_separation(self, psi: np.ndarray) -> None:
        """Raises DataError when coefficients ran away: the likelihood has no maximum."""
        if self.model.family.name not in ("bernoulli", "binomial") or not self.parameters.n_beta:
            return
        spread = np.sqrt(np.maximum(np.diagonal(self.start.information), 0.0) / max(self.parameters.rows, 1))
        beta = np.abs(psi[: self.parameters.n_beta]) * spread
        if np.any(beta > 50.0):
            names = self.model.spec.layout.fixed_names
            worst = names[int(np.argmax(beta))]
            raise DataError(
                f"complete separation: coefficient {worst!r} runs away ({psi[int(np.argmax(beta))]:.3g}); some combination of "
                "the covariates predicts the response without error, so the likelihood has no maximum: drop or merge it"
            )

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
        read = working.estimates(theta)
        vcov, method = self._covariance(outcome, read.vcov, se)
        lams = model.templates.joint(theta)
        b = tuple(u_j @ lam.T for u_j, lam in zip(u, lams, strict=True))
        user_beta = np.full(len(read.beta), np.nan)
        user_beta[np.isfinite(read.beta)] = beta
        estimates = Estimates(user_beta, vcov, 1.0, read.pwrss, read.logdet_z, read.logdet_x, outcome.value, u, b)
        return FinishedSearch(assembled, working, theta, phi, estimates, method, penalized)

    def _covariance(self, outcome: Outcome, rx: np.ndarray, se: str) -> tuple[np.ndarray, str]:
        parameters, white = self.parameters, self.white
        if se == "rx" or parameters.profile:
            return rx, "rx"
        free = ~(outcome.at_boundary & (outcome.theta == 0))
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
