"""The search of a linear model: from the blocks of A to the minimum of the criterion. No rows here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bigmm.blocks import Gram
from bigmm.execute.discipline import one_thread_each
from bigmm.objective import Criterion, ModelCovariance, twofold
from bigmm.objective.boundary import square_root
from bigmm.objective.evaluation import Evaluation
from bigmm.objective.factorization import Probing, Solver
from bigmm.objective.frame import Frame, Framed, frame_of
from bigmm.objective.montecarlo import MonteCarloError, ProbeError, monte_carlo_error, probe_error, probing_of
from bigmm.objective.saturation import Restricted, has_levels, restricted
from bigmm.objective.solvers import LINEAR_SOLVERS
from bigmm.optimize import Outcome, Problem, minimize
from bigmm.search.driver import quiet_driver
from bigmm.search.options import SearchOptions, checked_theta0
from bigmm.search.stochastic import solve_score_equation

NO_EFFECT = 1e-2
"""A scale is zero only where a level of average information shrinks its effect to less than the square of this."""
FAR_FROM_ZERO = 100.0
"""Mean over standard deviation of a covariate."""


@dataclass(frozen=True, slots=True)
class LinearObjective:
    """A criterion in the coordinates of its search, without the elements that it does not depend on."""

    search: Restricted

    value_needs_search = True

    @property
    def criterion(self) -> Criterion:
        """The criterion of theta."""
        return self.search.criterion

    @property
    def probing(self) -> Probing:
        """The random vectors of an iterative solver."""
        return probing_of(self.criterion)

    def value(self, eta: np.ndarray) -> float:
        """See `Criterion.value`."""
        return self.search.value(eta)

    def evaluate(self, eta: np.ndarray) -> Evaluation:
        """See `Criterion.evaluate`."""
        return self.search.evaluate(eta)

    def problem(self, starts: tuple[np.ndarray, ...], **options: Any) -> Problem:
        """The problem that `optimize` minimises from these starts; options: of `Problem`."""
        covariances, noise = self.criterion.covariances, self.search.curvature_noise
        lower, rectify = covariances.search_lower, covariances.rectified
        options["has_several_minima"] = any(term.covariance.parts_from_residual for term in covariances.terms)
        return Problem(self.value, self.evaluate, lower, starts, rectify, curvature_noise=noise, **options)

    def probe_error(self, eta: np.ndarray) -> ProbeError:
        """See `objective.montecarlo.probe_error`."""
        return probe_error(self.search, eta)

    def enlarged(self, eta: np.ndarray, probes: int, deflation: int) -> LinearObjective:
        """See `ProbedObjective.enlarged`; solutions at eta are used again."""
        # The frame stays, so that points before and after are of the same coordinates.
        criterion, frame = self.criterion, self.search.frame
        solver = criterion.solver.enlarged(probes, deflation, criterion.factor(frame.outward(eta)))
        return self.of(Criterion(criterion.gram, criterion.covariances, criterion.reml, solver))

    def value_error(self, eta: np.ndarray, error: float, tolerance: float) -> tuple[float, Probing]:
        """See `ProbedObjective.value_error`; the search has done it."""
        return error, self.probing

    def of(self, criterion: Criterion) -> LinearObjective:
        """The same coordinates for the same criterion by another solver, or of other blocks."""
        return LinearObjective(replace(self.search, framed=Framed(criterion, self.search.frame)))

    def starts(self, moments: np.ndarray, theta0: Any) -> tuple[np.ndarray, ...]:
        """The preferred start first; see `starts`."""
        frame = self.search.frame
        # theta first, the coordinates of the search after: users give theta.
        every = starts(moments, self.criterion.covariances, theta0, frame.identity)
        return tuple(self.search.start(frame.inward(start)) for start in every)

    def in_theta(self, outcome: Outcome) -> Outcome:
        """The outcome for theta, of one for eta, with advice about the model."""
        theta = self.search.outward(outcome.theta)
        at_boundary = boundary(self.search, outcome.theta, theta)
        outcome = replace(outcome, at_boundary=at_boundary, advice=convergence_advice(self.search, outcome))
        # eta is theta then, and one evaluation is saved.
        if self.search.frame.is_trivial:
            return outcome
        gradient, scales = self.criterion.evaluate(theta).gradient, self.criterion.covariances.search_lower == 0.0
        return replace(
            outcome,
            theta=theta,
            gradient=gradient,
            gradient_evaluations=outcome.gradient_evaluations + 1,
            max_abs_gradient=float(np.abs(gradient[~(at_boundary & ((theta == 0) | ~scales))]).max(initial=0.0)),
        )


def linear_objective(criterion: Criterion, frame: Frame) -> LinearObjective:
    """The criterion in the coordinates of a frame."""
    return LinearObjective(restricted(Framed(criterion, frame)))


@dataclass(frozen=True, slots=True)
class LinearFit:
    """The criterion whose factor estimates are read off, the outcome, and the Monte Carlo error of an iterative solver
    (None of an exact one)."""

    criterion: Criterion
    outcome: Outcome
    error: MonteCarloError | None


def solve_model(
    gram: Gram, covariances: ModelCovariance, reml: bool, options: SearchOptions, solver: Solver | None = None
) -> LinearFit:
    """The minimum of the criterion.

    Parameters
    ----------
    gram : the blocks A.
    covariances : of the covariance.
    reml : the REML criterion, or the deviance.
    options : of the search.
    solver : an exact one of gram, where there is one already.
    """
    if solver is None or not solver.is_exact:  # the probes of another search are not those of this one
        solver = LINEAR_SOLVERS[options.solver](gram, options.seed)
    criterion = Criterion(gram, covariances, reml, solver)
    if solver.is_exact:
        with quiet_driver(gram):
            return LinearFit(criterion, minimize_criterion(criterion, options.optimizer, options.theta0), None)
    # the iterative solver's BLAS calls are small, and between them its own threads need the cores
    with one_thread_each():
        return solve_iteratively(criterion, options)


def solve_iteratively(criterion: Criterion, options: SearchOptions) -> LinearFit:
    """The zero of the score that probes estimate; see `solve_score_equation`."""
    solver, covariances = criterion.solver, criterion.covariances
    objective = linear_objective(criterion, frame_for(solver, covariances))
    start = objective.starts(solver.start(covariances), options.theta0)[0]
    end = solve_score_equation(objective, start, options.mc_tol)
    criterion, outcome = end.objective.criterion, end.objective.in_theta(end.outcome)
    theta = end.objective.search.frame.outward(end.outcome.theta)
    error = monte_carlo_error(criterion, theta, end.error, options.mc_tol, criterion.value(theta))
    return LinearFit(criterion, outcome, error)


def minimize_criterion(criterion: Criterion, optimizer: str, theta0: Any = None) -> Outcome:
    """Minimise the deviance or REML criterion over theta."""
    covariances, small = criterion.covariances, criterion.solver.compressed()
    frame = frame_for(criterion.solver, covariances)
    fast = criterion if small is None else Criterion(small, covariances, criterion.reml)
    # The frame is that of the whole Gram: classes of levels would have other mean squares.
    objective = linear_objective(fast, frame)
    first = objective.starts(criterion.solver.start(covariances), theta0)
    cheap, gradient = fast.solver.is_cheap, None
    # Exact gradients are for searches that go to the last digit, which are the cheap ones.
    if cheap and has_levels(criterion) and twofold.is_affordable(criterion.gram):
        gradient = objective.of(criterion).search.exact_gradient
    return objective.in_theta(minimize(objective.problem(first, cheap=cheap, exact_gradient=gradient), optimizer))


def starts(
    moments: np.ndarray, covariances: ModelCovariance, theta0: Any, identity: np.ndarray
) -> tuple[np.ndarray, ...]:
    """The preferred start first: theta0, else from moments; then identity covariances and two rescaled ones."""
    others = (moments, identity, covariances.scaled(moments, 0.2), covariances.scaled(moments, 5.0))
    return others if theta0 is None else (checked_theta0(theta0, covariances), *others)


def frame_for(solver: Solver, covariances: ModelCovariance) -> Frame:
    """The coordinates of the search."""
    gram = solver.gram
    bases = [term.basis for term in gram.terms if term.penalized]
    return frame_of(covariances, bases, solver.squares(), [gram.n / levels for levels in solver.level_counts()])


def boundary(search: Restricted, point: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """(n_theta,) parameters at a bound: lme4's rule, but for scales that are small because a covariate is large."""
    criterion = search.criterion
    small = search.frame.at_boundary(search.start(point))
    for term in criterion.covariances.terms:
        if term.covariance.is_invariant:
            small[term.part] = term.covariance.at_boundary(theta[term.part])
    # Nothing to take back: scales of exactly 0 need no look at their columns.
    if not (small & (theta != 0)).any():
        return small
    squares = criterion.solver.squares()
    for term, lam in zip(criterion.covariances.terms, criterion.covariances.lambdas(theta), strict=True):
        columns = square_root(squares[term.joint]) @ criterion.gram.terms[term.joint].basis[:, term.slots]
        # By the smallest singular value: a full covariance is singular in a direction, not in an element.
        scales = np.linalg.svd(columns @ lam, compute_uv=False)[term.width - 1 :]
        if term.covariance.is_invariant and scales.min(initial=np.inf) > NO_EFFECT:
            small[term.part] = False
    return small


def convergence_advice(search: Restricted, outcome: Outcome) -> str:
    """The advice of the optimizer, and the part that columns of random effects have in it."""
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
        parts += uncentred_covariates(search.criterion)
    return "; ".join([*parts, *([outcome.advice] if outcome.advice else [])])


def uncentred_covariates(criterion: Criterion) -> list[str]:
    """Covariates of random effects that vary little beside their size: all but a full covariance depends on that."""
    advice, squares = [], criterion.solver.squares()
    for term in criterion.covariances.terms:
        basis, square = criterion.gram.terms[term.joint].basis, squares[term.joint]
        for slot, name in zip(term.slots, term.names, strict=True):
            # basis[0, slot] is the origin that was taken off the column, so the ratio is of mean to deviation.
            ratio = abs(basis[0, slot]) * np.sqrt(square[0, 0] / max(square[slot, slot], 1e-300)) if slot else 0.0
            if FAR_FROM_ZERO < ratio < np.inf:
                advice.append(f"{name!r} is {ratio:.0e} times as large as it varies: centre it (subtract its mean)")
    return advice
