"""What is read off the end of a generalized model's search: blocks at the mode, standard errors, what ran away."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bigmm.accumulate import Assembled
from bigmm.blocks import Gram, TermBlock
from bigmm.blocks.factor import NotPositiveDefiniteError
from bigmm.errors import DataError
from bigmm.fit import runaway
from bigmm.fit.held_model import HeldModel
from bigmm.fit.search import Search
from bigmm.laplace.crossed import CrossedLaplace
from bigmm.laplace.information import covariance, observed_hessian
from bigmm.laplace.single import SingleFactor, working_blocks
from bigmm.laplace.working import WorkingModel
from bigmm.objective import Estimates
from bigmm.optimize import Outcome


@dataclass(frozen=True, slots=True)
class FinishedSearch:
    """outcome: with advice where something ran away; assembled: the blocks at the mode; working: their model;
    penalized: -2 ll + |u|^2 with constants."""

    outcome: Outcome
    assembled: Assembled
    working: WorkingModel
    theta: np.ndarray
    phi: float
    estimates: Estimates
    se_method: str
    penalized: float


@dataclass(frozen=True, slots=True)
class AtMode:
    """The blocks there, beta (rank,), u per term of the Gram (q, k), penalized deviance with constants."""

    assembled: Assembled
    beta: np.ndarray
    u: tuple[np.ndarray, ...]
    penalized: float


def finish(search: Search, outcome: Outcome, se: str) -> FinishedSearch:
    """Blocks at the mode, covariance of the coefficients, modes. Raises DataError where the working weights vanish."""
    model, parameters, engine = search.model, search.parameters, search.engine
    _, theta, phi = parameters.split(outcome.theta)
    if isinstance(engine, SingleFactor):
        at = level_blocks(engine, search, outcome.theta)
    else:
        at = term_blocks(engine, search, outcome.theta)
    working = WorkingModel(at.assembled.gram, model.templates, False)
    try:
        read = working.estimates(theta)
    except NotPositiveDefiniteError as error:
        raise DataError(
            "the working weights vanish where the search ended: means are at the edge of what the family allows; check "
            "for separation, and for covariates or offsets that overflow"
        ) from error
    advice = runaway_advice(search, outcome.theta, at.beta, read.vcov)
    if advice:
        outcome = replace(outcome, status="stopped", advice=advice)
    vcov, method = coefficient_covariance(search, outcome, read.vcov, se)
    b = tuple(u_j @ lam.T for u_j, lam in zip(at.u, model.templates.joint(theta), strict=True))
    beta = np.full(len(read.beta), np.nan)
    beta[np.isfinite(read.beta)] = at.beta
    estimates = Estimates(beta, vcov, 1.0, read.pwrss, read.logdet_z, read.logdet_x, outcome.value, at.u, b)
    return FinishedSearch(outcome, at.assembled, working, theta, phi, estimates, method, at.penalized)


def runaway_advice(search: Search, psi: np.ndarray, beta: np.ndarray, rx: np.ndarray) -> str:
    """What ran away, "" when nothing did; rx (p, p): covariance of the coefficients given theta."""
    model, templates = search.model, search.model.templates
    _, theta, _ = search.parameters.split(psi)
    error = np.sqrt(np.abs(np.diagonal(rx)))
    error = error[np.isfinite(error)]
    lost = runaway.lost_coefficients(model.family, beta, error, search.start)
    if lost.any():
        largest = np.max(model.held.map(runaway.largest_values, model.fixed_columns), axis=0)
        found = runaway.without_estimate(lost, error, largest, search.fixed_names)
        if found:
            return found
    covariates = [c for term in model.spec.layout.terms for c in term.covariates]
    scales = np.zeros(len(theta))
    scales[templates.lower == 0] = np.sqrt(model.mean_squares[covariates])
    found = runaway.runaway_variance(model.family, np.abs(theta) * scales, templates.names)
    return found or runaway.runaway_dispersion(model.family, psi[-1], search.phi_bounds)


def coefficient_covariance(search: Search, outcome: Outcome, rx: np.ndarray, se: str) -> tuple[np.ndarray, str]:
    """((p, p) covariance of the coefficients, "hessian" or "rx"): rx where asked for, or where the Hessian fails."""
    parameters, white = search.parameters, search.white
    if se == "rx" or parameters.profile:
        return rx, "rx"
    free = ~(outcome.at_boundary & (outcome.theta == 0))
    if parameters.with_phi:
        free[-1] = search.phi_bounds[0] < outcome.theta[-1] < search.phi_bounds[1]
    at = white.inward(outcome.theta)
    curvature = white.evaluate(at).hessian
    hessian = observed_hessian(lambda x: white.evaluate(x).gradient, at, curvature, free)
    found = covariance(hessian, free)
    if found is None:
        return rx, "rx"
    jacobian, n = white.jacobian(), parameters.n_beta
    out = np.full_like(rx, np.nan)
    kept = np.isfinite(np.diagonal(rx))
    out[np.ix_(kept, kept)] = (jacobian @ found @ jacobian.T)[:n, :n]
    return out, "hessian"


def term_blocks(engine: CrossedLaplace, search: Search, psi: np.ndarray) -> AtMode:
    """From the blocked factor's engine."""
    model = search.model
    mode = engine.mode(psi)
    _, theta, phi = search.parameters.split(psi)
    effects = tuple(u @ lam.T for u, lam in zip(mode.u, model.templates.joint(theta), strict=True))
    sums = engine.sums(mode.beta, effects, phi, engine.observed, True)
    gram = restored(engine.gram(sums), model.assembled.gram)
    return AtMode(replace(model.assembled, gram=gram), mode.beta, mode.u, mode.penalized + model.constant)


def level_blocks(engine: SingleFactor, search: Search, psi: np.ndarray) -> AtMode:
    """From the engine that goes level by level."""
    model = search.model
    engine.value(psi)
    beta, theta, phi = search.parameters.split(psi)
    lam = model.templates.joint(theta)[0]
    modes = [engine.u[a:b] for a, b in zip(model.edges[:-1], model.edges[1:], strict=True)]
    parts = model.held.map(
        working_blocks, engine.xc, engine.zc, model.family, beta, lam, phi, engine.observed, per_shard=modes
    )
    kept = np.flatnonzero(np.concatenate([part[4] for part in parts]))
    diagonal, dense = (np.concatenate([part[i] for part in parts])[kept] for i in (0, 1))
    block = TermBlock(grouping_name(model), diagonal, dense, np.eye(diagonal.shape[1]))
    gram = replace(model.assembled.gram, terms=(block,), cross={}, xy=sum(part[2] for part in parts))
    gram = restored(gram, model.assembled.gram)
    u = engine.u[kept]
    penalized = -2.0 * sum(part[3] for part in parts) + float((u**2).sum()) + model.constant
    return AtMode(Assembled(gram, (0,), (kept,), model.assembled.dropped_columns), beta, (u,), penalized)


def grouping_name(model: HeldModel) -> str:
    """Name of the factor that cuts the shards."""
    return model.spec.layout.groupings[model.leading].name


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
