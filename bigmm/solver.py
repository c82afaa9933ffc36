"""From the blocks of A to the minimum of the criterion: which solver, from where, to what precision. No rows here."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bigmm.blocks import Gram
from bigmm.blocks.structure import elimination_order
from bigmm.errors import UsageError
from bigmm.execute.discipline import one_thread_each
from bigmm.objective import Criterion, Templates, twofold
from bigmm.objective.boundary import square_root
from bigmm.objective.factorization import Solver
from bigmm.objective.frame import Frame, Framed, frame_of
from bigmm.objective.montecarlo import MonteCarloError, monte_carlo_error, probing_of
from bigmm.objective.saturation import Restricted, has_levels, restricted
from bigmm.objective.solvers import LINEAR_SOLVERS
from bigmm.optimize import Outcome, Problem, minimize, score

SMALL_TAIL = 2500
MOST_PROBES = 256
BLOCK = 16
"""Right-hand sides that the iterative solver handles at once; fewer cost as much."""
NO_EFFECT = 1e-2
"""A scale is zero only where a level of average information shrinks its effect to less than the square of this."""
FAR_FROM_ZERO = 100.0
"""Mean over standard deviation of a covariate."""


def quiet_driver(gram: Gram) -> AbstractContextManager[None]:
    """One BLAS thread while the dense tail is small: there, waking threads costs more than they give."""
    _, tail = elimination_order(gram)
    size = sum(gram.terms[t].n_levels * gram.terms[t].width for t in tail) + len(gram.xy)
    return one_thread_each() if size < SMALL_TAIL else nullcontext()


def starts(
    moments: np.ndarray, templates: Templates, theta0: np.ndarray | None, identity: np.ndarray
) -> tuple[np.ndarray, ...]:
    """The preferred start first: theta0, else from moments; then identity templates and two rescaled ones."""
    rest = (moments, identity, templates.scaled(moments, 0.2), templates.scaled(moments, 5.0))
    if theta0 is None:
        return rest
    theta0 = np.asarray(theta0, float)
    if theta0.shape != (templates.n_theta,):
        raise UsageError(
            f"theta0 must have {templates.n_theta} elements ({', '.join(templates.names)}), got {theta0.shape}"
        )
    if not np.all(np.isfinite(theta0)) or np.any(theta0 < templates.lower) or np.any(theta0 > templates.upper):
        raise UsageError(f"theta0 must be finite with non-negative diagonal elements, got {theta0}")
    return (theta0, *rest)


def checked_tolerance(mc_tol: Any) -> tuple[float, float]:
    """mc_tol as two positive numbers; raises UsageError."""
    try:
        share, objective = (float(x) for x in mc_tol)
        if share > 0 and objective > 0:
            return share, objective
    except (TypeError, ValueError):
        pass
    raise UsageError(
        "mc_tol must be two positive numbers, the share of each parameter's standard error and the standard error of "
        f"the objective, such as (0.01, 0.05); got {mc_tol!r}"
    )


def checked_seed(seed: Any) -> int:
    """seed as a whole number that is not negative; raises UsageError."""
    if isinstance(seed, (int, np.integer)) and not isinstance(seed, bool) and seed >= 0:
        return int(seed)
    raise UsageError(f"seed must be a whole number that is not negative, got {seed!r}")


def check_optimizer(optimizer: str, solver: str) -> None:
    """Raises UsageError for an optimizer that the iterative solver would not use."""
    if solver == "iterative" and optimizer not in ("auto", "newton"):
        raise UsageError(
            f"optimizer={optimizer!r} needs exact values of the objective, but the iterative solver has estimates: it "
            "finds the zero of the estimated score by Newton's method; leave optimizer='auto', or use solver='exact'"
        )


@dataclass(frozen=True, slots=True)
class Solved:
    """The criterion whose factor estimates are read off, the outcome, and the iterative solver's error (or None)."""

    criterion: Criterion
    outcome: Outcome
    error: MonteCarloError | None


def solve_iteratively(
    gram: Gram, templates: Templates, reml: bool, theta0: np.ndarray | None, seed: int, tolerance: tuple[float, float]
) -> Solved:
    """Find the zero of the estimated score; probes and deflation grow until the Monte Carlo errors are small enough.

    tolerance: (share of a theta's statistical standard error, standard error of the objective).
    """
    solver = LINEAR_SOLVERS["iterative"](gram, seed)
    frame = frame_for(solver, templates)
    search = restricted(Framed(Criterion(gram, templates, reml, solver), frame))
    begin = starts(solver.start(templates), templates, theta0, frame.identity)[0]
    start = search.start(frame.inward(begin))
    stop = score.stop_below(tolerance[0])
    evaluations = 0
    while True:
        criterion = Criterion(gram, templates, reml, solver)
        search = replace(search, framed=Framed(criterion, frame))
        outcome = minimize(_problem(search, (start,), noisy=True, tolerance=stop))
        evaluations += outcome.evaluations
        error = monte_carlo_error(search, outcome.theta, tolerance)
        excess = max(error.share / tolerance[0], error.objective / tolerance[1])
        probing = probing_of(criterion)
        if excess <= 1.0 or probing.probes >= MOST_PROBES or not outcome.converged:
            outcome = replace(outcome, evaluations=evaluations, gradient_evaluations=evaluations)
            outcome = _outward(search, outcome)
            if excess > 1.0:
                outcome = still_uncertain(outcome, error.objective, probing.probes)
            return Solved(criterion, outcome, error)
        # theta is within a fraction of its standard error already: the next search is one evaluation there, as a rule
        start = outcome.theta
        factor = criterion.factor(frame.outward(start))
        solver = solver.enlarged(*_enlarged(probing.probes, probing.deflation, excess), factor)


def still_uncertain(outcome: Outcome, objective_error: float, probes: int) -> Outcome:
    """The outcome of a search whose Monte Carlo errors stayed above what was asked for."""
    told = f"the Monte Carlo error of the objective is still {objective_error:.2g} with {probes} probes"
    return replace(outcome, advice=f"{outcome.advice} {told}".strip())


def _enlarged(probes: int, deflation: int, excess: float) -> tuple[int, int]:
    """(probes, deflation) when the error is so many times too large: up to four times the probes, or a larger basis.

    Probes alone are cheap, since what is solved stays solved, but the error falls with their square root only; what is
    far too large is a few large eigenvalues that the basis lacks.
    """
    wanted = BLOCK * math.ceil(probes * (1.1 * excess) ** 2 / BLOCK)
    if wanted <= 4 * probes:
        return min(wanted, MOST_PROBES), deflation
    return min(2 * probes, MOST_PROBES), (4 if excess > 10 else 2) * deflation


def solve_model(
    gram: Gram,
    templates: Templates,
    reml: bool,
    solver: str,
    *,
    optimizer: str = "auto",
    theta0: np.ndarray | None = None,
    seed: int = 0,
    tolerance: tuple[float, float] = (0.01, 0.05),
    linear_solver: Solver | None = None,
) -> Solved:
    """The minimum by the named solver ("exact" or "iterative"); linear_solver: an exact one of gram, where
    there is one already. seed, tolerance: as `checked_seed` and `checked_tolerance` have passed them."""
    check_optimizer(optimizer, solver)
    # the iterative solver's BLAS calls are small, and between them its own threads want the cores
    with one_thread_each() if solver == "iterative" else quiet_driver(gram):
        if solver == "iterative":
            return solve_iteratively(gram, templates, reml, theta0, seed, tolerance)
        criterion = Criterion(gram, templates, reml, linear_solver)
        return Solved(criterion, minimize_criterion(criterion, optimizer, theta0), None)


def minimize_criterion(criterion: Criterion, optimizer: str, theta0: np.ndarray | None = None) -> Outcome:
    """Minimise the deviance or REML criterion over theta."""
    templates, small = criterion.templates, criterion.solver.compressed()
    frame = frame_for(criterion.solver, templates)
    search = restricted(Framed(criterion if small is None else Criterion(small, templates, criterion.reml), frame))
    fast = search.criterion
    begin = starts(criterion.solver.start(templates), templates, theta0, frame.identity)
    first = (search.start(frame.inward(start)) for start in begin)
    cheap = fast.solver.is_cheap
    exact = cheap and has_levels(criterion) and twofold.is_affordable(criterion.gram)
    gradient = replace(search, framed=Framed(criterion, frame)).exact_gradient if exact else None
    return _outward(search, minimize(_problem(search, tuple(first), cheap=cheap, exact_gradient=gradient), optimizer))


def frame_for(solver: Solver, templates: Templates) -> Frame:
    """The coordinates of the search."""
    gram = solver.gram
    bases = [term.basis for term in gram.terms if term.penalized]
    return frame_of(templates, bases, solver.squares(), [gram.n / levels for levels in solver.level_counts()])


def _problem(search: Restricted, first: tuple[np.ndarray, ...], **how: Any) -> Problem:
    templates = search.criterion.templates
    how["curvature_noise"] = search.curvature_noise
    return Problem(search.value, search.evaluate, templates.search_lower, first, templates.rectified, **how)


def _outward(search: Restricted, outcome: Outcome) -> Outcome:
    """The outcome for theta, of one for eta."""
    frame, criterion = search.frame, search.criterion
    theta = search.outward(outcome.theta)
    at_boundary = _at_boundary(search, outcome.theta, theta)
    advice = _told(search, outcome)
    if frame.is_trivial:
        return replace(outcome, at_boundary=at_boundary, advice=advice)
    gradient, scales = criterion.evaluate(theta).gradient, criterion.templates.search_lower == 0.0
    return replace(
        outcome,
        theta=theta,
        gradient=gradient,
        gradient_evaluations=outcome.gradient_evaluations + 1,
        max_abs_gradient=float(np.abs(gradient[~(at_boundary & ((theta == 0) | ~scales))]).max(initial=0.0)),
        at_boundary=at_boundary,
        advice=advice,
    )


def _at_boundary(search: Restricted, point: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """(n_theta,) parameters at a bound: lme4's rule, but for scales that are small because a covariate is large."""
    criterion = search.criterion
    small = search.frame.at_boundary(search.start(point))
    for term in criterion.templates.terms:
        if term.covariance.is_invariant:
            small[term.part] = term.covariance.at_boundary(theta[term.part])
    if not (small & (theta != 0)).any():
        return small
    squares = criterion.solver.squares()
    for term, lam in zip(criterion.templates.terms, criterion.templates.lambdas(theta), strict=True):
        columns = square_root(squares[term.joint]) @ criterion.gram.terms[term.joint].basis[:, term.slots]
        scales = np.linalg.svd(columns @ lam, compute_uv=False)[term.width - 1 :]
        if term.covariance.is_invariant and scales.min(initial=np.inf) > NO_EFFECT:
            small[term.part] = False
    return small


def _told(search: Restricted, outcome: Outcome) -> str:
    """The advice, with what the columns of random effects have to do with it."""
    parts = [
        f"the column of the random effects {name!r} of {term.group!r} depends on those before it in the term, in every "
        "level: they cannot be told apart, and its variance is set to 0; remove it"
        for term, name in search.frame.unidentified
    ]
    parts += [
        f"the fixed effects have a coefficient for every level of {term.group!r}, so the REML criterion does not "
        f"depend on the variance of its random effects {name!r}, which is set to 0; remove them, or the fixed effects"
        for term, name in search.saturated
    ]
    if not outcome.converged:
        parts += _far_from_zero(search.criterion)
    return "; ".join([*parts, *([outcome.advice] if outcome.advice else [])])


def _far_from_zero(criterion: Criterion) -> list[str]:
    """Covariates of random effects that vary little beside their size: all but a full covariance depends on that."""
    found, squares = [], criterion.solver.squares()
    for term in criterion.templates.terms:
        basis, own = criterion.gram.terms[term.joint].basis, squares[term.joint]
        for slot, name in zip(term.slots, term.names, strict=True):
            ratio = abs(basis[0, slot]) * np.sqrt(own[0, 0] / max(own[slot, slot], 1e-300)) if slot else 0.0
            if FAR_FROM_ZERO < ratio < np.inf:
                found.append(f"{name!r} is {ratio:.0e} times as large as it varies: centre it (subtract its mean)")
    return found
