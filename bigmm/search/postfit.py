"""The end of a generalized model's search: blocks at the mode, standard errors, and advice on runaway parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from bigmm.accumulate import Assembled
from bigmm.blocks import Gram, TermBlock
from bigmm.blocks.exact.factor import NotPositiveDefiniteError
from bigmm.errors import DataError
from bigmm.laplace.crossed import squared_length
from bigmm.laplace.information import NOISY_STEP, STEP, covariance, observed_hessian
from bigmm.laplace.objective import ModeBlocks
from bigmm.laplace.offsets import wide_offset
from bigmm.laplace.working import WorkingModel, working_model
from bigmm.objective import Estimates
from bigmm.objective.montecarlo import monte_carlo_error
from bigmm.optimize import Outcome
from bigmm.search import separation
from bigmm.search.generalized import GeneralizedObjective
from bigmm.search.glmm import GlmmSearch
from bigmm.search.stochastic import StochasticOutcome


@dataclass(frozen=True, slots=True)
class PostFit:
    """A generalized model at the end of its search.

    Attributes
    ----------
    outcome : of the search, with advice where a parameter ran away.
    assembled : the blocks at the mode.
    working : the linear model of these blocks.
    theta, phi : of the user's covariances, and the dispersion.
    estimates : coefficients, modes and their covariances.
    se_method : "hessian" or "rx".
    penalized : the objective less log|M|.
    error : the record of the iterative solver's Monte Carlo error; None for an exact solver.
    observed : whether the blocks have observed working weights, else expected ones.
    """

    outcome: Outcome
    assembled: Assembled
    working: WorkingModel
    theta: np.ndarray
    phi: float
    estimates: Estimates
    se_method: str
    penalized: float
    error: dict[str, Any] | None = None
    observed: bool = False


@dataclass(frozen=True, slots=True)
class Optimum:
    """The blocks at the modes, beta (rank,) of the working columns, u per term of the Gram (q, k), and the penalized
    deviance with constants."""

    assembled: Assembled
    beta: np.ndarray
    u: tuple[np.ndarray, ...]
    penalized: float


def postfit(search: GlmmSearch, outcome: Outcome, se: str) -> PostFit:
    """Blocks at the mode, covariance of the coefficients, modes. Raises DataError where the working weights vanish."""
    model, parameters = search.model, search.parameters
    _, theta, phi = parameters.split(outcome.theta)
    covered = observed_covariance(search, outcome, se)
    mode, working, read, observed = readable_blocks(search, theta)
    advice = runaway_advice(search, mode.beta, working.fixed_errors(theta))
    if advice:
        outcome = replace(outcome, status="stopped", advice=advice)
    record = None
    if search.stochastic is not None:
        # of a deflation basis made here, which the search could not have: a saved fit finds the same
        outcome = replace(outcome, value=mode.penalized + read.logdet_z)
        record = error_record(search, search.stochastic, working, theta, outcome.value)
    penalized = mode.penalized
    if search.is_laplace:  # to the digits of theta: log|M| from theta is less exact where a covariate is far from zero
        penalized = outcome.value - read.logdet_z
    vcov, method = coefficient_covariance(search, covered, read.vcov)
    b = tuple(u_j @ lam.T for u_j, lam in zip(mode.u, model.covariances.joint(theta), strict=True))
    # Dropped coefficients stay NaN, as the linear model has them.
    beta = np.full(len(read.beta), np.nan)
    beta[np.isfinite(read.beta)] = search.back @ mode.beta
    estimates = Estimates(beta, vcov, 1.0, read.pwrss, read.logdet_z, read.logdet_x, outcome.value, mode.u, b)
    return PostFit(outcome, mode.assembled, working, theta, phi, estimates, method, penalized, record, observed)


def readable_blocks(search: GlmmSearch, theta: np.ndarray) -> tuple[Optimum, WorkingModel, Estimates, bool]:
    """Blocks at the mode that have a factor.

    The blocks have the weights of log|M|. Coefficients end at the maximum of the integral, where observed weights need
    not make the blocks of effects and coefficients together positive definite: of a gamma response of small shape with
    an identity link, most are negative. The blocks then have expected weights, which are never negative.

    Returns
    -------
    tuple : the blocks, their model, its estimates, and whether the weights are the observed ones.

    Raises
    ------
    DataError
        Where expected weights vanish too, and where an offset ends the search at the edge.
    """
    exact, offset = search.engine.observed, ""
    # An estimate of log|M| is of one kind of weights: with the other, the objective would be another.
    for observed in (True, False) if exact and search.stochastic is None else (exact,):
        mode = blocks_at_mode(search, observed)
        working = working_model(mode.assembled.gram, search.model.covariances, probe_record(search))
        try:
            return mode, working, working.estimates(theta), observed
        except NotPositiveDefiniteError as error:
            failure, offset = error, wide_offset(search.model)
            if offset:
                break
    raise DataError(
        "the working weights vanish where the search ended: means are at the edge of what the family allows; check "
        f"for separation, and for covariates or offsets that overflow{offset}"
    ) from failure


def blocks_at_mode(search: GlmmSearch, observed: bool) -> Optimum:
    """From the engine of the search, with observed or expected working weights."""
    model, coordinates = search.model, search.coordinates
    blocks = search.engine.at_optimum(coordinates.engine_point(search.end), observed)
    assembled, order = model.assembled, model.chain or model.assembled.term_order
    terms = tuple(
        TermBlock(model.spec.layout.joint[j].name, diagonal, dense, basis)
        for j, diagonal, dense, basis in zip(order, blocks.diagonal, blocks.dense, model.bases, strict=True)
    )
    gram = working_gram(assembled.gram, terms, blocks)
    level_numbers = assembled.level_numbers if blocks.levels is None else blocks.levels
    penalized = -2.0 * blocks.ll + squared_length(blocks.u) + model.constant
    return Optimum(
        Assembled(gram, order, level_numbers, assembled.dropped_columns),
        blocks.beta,
        turned(search, blocks.u),
        penalized,
    )


def probe_record(search: GlmmSearch) -> dict[str, Any] | None:
    """Probes, deflation and seed that the objective takes; None where nothing is estimated."""
    return None if search.stochastic is None else asdict(search.stochastic.probing)


def error_record(
    search: GlmmSearch,
    end: StochasticOutcome[GeneralizedObjective],
    working: WorkingModel,
    theta: np.ndarray,
    objective: float,
) -> dict[str, Any]:
    """`MonteCarloError` as plain values, with the errors of the coefficients beside those of theta."""
    n, error = search.parameters.n_beta, end.error
    part = slice(n, n + search.parameters.n_theta)
    of_theta = replace(error, parameters=error.parameters[part], statistical=error.statistical[part])
    record = monte_carlo_error(working, theta, of_theta, search.options.mc_tol, objective).as_record()
    beta = {"beta": error.parameters[:n].tolist(), "beta_statistical": error.statistical[:n].tolist()}
    return record | beta if n else record


def runaway_advice(search: GlmmSearch, beta: np.ndarray, error: np.ndarray) -> str:
    """Advice on a parameter that ran away, "" where none did.

    beta and error (rank,) are the coefficients of the working columns and their standard errors given theta.
    """
    model, covariances = search.model, search.model.covariances
    lost = separation.lost_coefficients(model.family, beta, error, search.start)
    # A pass over the rows, taken only on suspicion.
    if lost.any():
        largest = np.max(model.shards.map(separation.largest_values, model.fixed_columns), axis=0)
        advice = separation.without_estimate(lost, error, largest, search.fixed_names)
        if advice:
            return advice
    # columns of the frame have a mean square of one: a row of eta is the deviation that its column adds to the rows
    deviations = search.coordinates.frame.deviations(search.coordinates.eta(search.end))
    advice = separation.runaway_variance(model.family, deviations, covariances.names)
    return advice or separation.runaway_dispersion(model.family, search.end[-1], search.phi_bounds)


def observed_covariance(search: GlmmSearch, outcome: Outcome, se: str) -> np.ndarray | None:
    """(n_beta, n_beta) covariance of the coefficients from the Hessian; None for se="rx", or where the Hessian has no
    inverse."""
    parameters, coordinates, point = search.parameters, search.coordinates, search.end
    if se == "rx" or parameters.profile:
        return None
    # A variance at 0 is no parameter of the interior: the others have errors as if it were absent.
    free = ~(outcome.at_boundary & (point == 0))
    if parameters.with_phi:
        # Flat outside of the bounds, where a Hessian would be singular.
        free[-1] = search.phi_bounds[0] < point[-1] < search.phi_bounds[1]
    curvature = coordinates.evaluate(point).hessian
    step = NOISY_STEP if search.is_iterative else STEP
    hessian = observed_hessian(lambda x: coordinates.evaluate(x).gradient, point, curvature, free, step)
    inverse = covariance(hessian, free)
    if inverse is None:
        return None
    n = parameters.n_beta
    # The map of beta is linear, so the delta method is exact.
    outward = coordinates.user_jacobian(point)[:n, :n]
    return np.asarray(outward @ inverse[:n, :n] @ outward.T)


def coefficient_covariance(search: GlmmSearch, covered: np.ndarray | None, rx: np.ndarray) -> tuple[np.ndarray, str]:
    """((p, p) covariance of the coefficients, "hessian" or "rx"), in the user's order with NaN for dropped ones."""
    if covered is None:
        return rx, "rx"
    out = np.full_like(rx, np.nan)
    estimable = np.isfinite(np.diagonal(rx))
    out[np.ix_(estimable, estimable)] = covered
    return out, "hessian"


def turned(search: GlmmSearch, modes: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """Per term (q, k) u of the user's covariances, of the engine's u."""
    rotations = search.coordinates.rotations(search.end)
    return tuple(u @ rotation.T for u, rotation in zip(modes, rotations, strict=True))


def working_gram(pattern: Gram, terms: tuple[TermBlock, ...], blocks: ModeBlocks) -> Gram:
    """Working blocks with the pattern's bookkeeping of dropped coefficients, and with the way back to the user's
    columns; y* has none, for the linear predictor is the same in both."""
    return replace(pattern, terms=terms, cross=blocks.cross, xy=blocks.xy, one=None, y_shift=0.0, sum_log_w=0.0)
