"""From the blocks of A to the minimum of the criterion: which solver, from where, to what precision. No rows here."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import numpy as np

from bigmm.blocks import Gram
from bigmm.blocks.structure import elimination_order
from bigmm.errors import MemoryLimitError, UsageError
from bigmm.execute.discipline import one_thread_each
from bigmm.objective import Criterion, Templates
from bigmm.objective.algebra import Algebra, IterativeAlgebra
from bigmm.objective.montecarlo import MonteCarloError, monte_carlo_error
from bigmm.optimize import Outcome, Problem, minimize

SMALL_TAIL = 2500
EXACT_TAIL = 5000
"""Above this a dense factorization costs minutes on a laptop (ALGORITHMS section 7)."""
FIRST_PROBES, FIRST_DEFLATION, MOST_PROBES = 8, 24, 256
BLOCK = 16
"""Right-hand sides that the iterative solver handles at once; fewer cost as much."""
CHEAP_TAIL = 200
CHEAP_LEVELS = 20_000


def is_cheap(gram: Gram) -> bool:
    """Does an evaluation cost about a millisecond? A function of the sizes alone, so that fits are reproducible."""
    _, tail = elimination_order(gram)
    size = sum(gram.terms[t].n_levels * gram.terms[t].width for t in tail) + len(gram.xy)
    levels = sum(t.n_levels * t.width for t in gram.terms)
    return size <= CHEAP_TAIL and levels <= CHEAP_LEVELS


def quiet_driver(gram: Gram) -> AbstractContextManager[None]:
    """One BLAS thread while the dense tail is small: there, waking threads costs more than they give."""
    _, tail = elimination_order(gram)
    size = sum(gram.terms[t].n_levels * gram.terms[t].width for t in tail) + len(gram.xy)
    return one_thread_each() if size < SMALL_TAIL else nullcontext()


def starts(moments: np.ndarray, templates: Templates, theta0: np.ndarray | None) -> tuple[np.ndarray, ...]:
    """The preferred start first: theta0, else from moments; then identity templates and two rescaled ones."""
    unit = np.where(templates.lower == 0, 1.0, 0.0)
    rest = (moments, unit, 0.2 * moments, 5.0 * moments)
    if theta0 is None:
        return rest
    theta0 = np.asarray(theta0, float)
    if theta0.shape != (templates.n_theta,):
        raise UsageError(
            f"theta0 must have {templates.n_theta} elements ({', '.join(templates.names)}), got {theta0.shape}"
        )
    if not np.all(np.isfinite(theta0)) or np.any(theta0 < templates.lower):
        raise UsageError(f"theta0 must be finite with non-negative diagonal elements, got {theta0}")
    return (theta0, *rest)


def tail_columns(gram: Gram) -> int:
    """Random effects that are left for the dense tail."""
    _, tail = elimination_order(gram)
    return sum(gram.terms[t].n_levels * gram.terms[t].width for t in tail)


def solver_bytes(gram: Gram) -> tuple[int, int]:
    """(bytes the exact solver needs beside A, columns of its dense tail)."""
    stages, tail = elimination_order(gram)
    m = len(gram.xy)
    size = sum(gram.terms[t].n_levels * gram.terms[t].width for t in tail) + m
    sparse = sum(b.data.nbytes + 16 * len(b.indices) for b in gram.cross.values())
    levels = sum(gram.terms[s].diagonal.nbytes * 2 + gram.terms[s].dense.nbytes for s in stages)
    return 5 * 8 * size * size + 4 * sparse + 2 * levels, size


def check_memory(gram: Gram, limit: int) -> None:
    """Raises MemoryLimitError, naming the options, when the exact solver does not fit."""
    needed, size = solver_bytes(gram)
    if needed > limit:
        fixed = _fixed_factors(gram)
        instead = f"make {fixed} a random effect" if fixed else "use solver='iterative'"
        raise MemoryLimitError(
            f"the exact solver needs about {needed / 2**30:.1f} GiB (a dense block of {size} columns for the crossed "
            f"factors) but the limit is {limit / 2**30:.1f} GiB: raise memory_limit, {instead}, "
            "drop a grouping factor, or use a coarser one"
        )


def _fixed_factors(gram: Gram) -> str:
    """Names and sizes of the factors among the fixed effects that are kept as levels, '' when there are none."""
    return " and ".join(f"the fixed factor {t.name!r} ({t.n_levels:,} levels)" for t in gram.terms if not t.penalized)


def choose_solver(gram: Gram, requested: str, memory_limit: int) -> tuple[str, str]:
    """("exact" or "iterative", why); raises UsageError for what the iterative solver does not take."""
    size, fixed = tail_columns(gram), _fixed_factors(gram)
    _, tail = elimination_order(gram)
    crossed = any(gram.terms[t].penalized for t in tail)
    if requested == "exact":
        return "exact", "as asked for"
    if not crossed:
        reason = "all factors are eliminated level by level"
        if requested == "iterative":
            reason = "nothing to iterate on: one grouping factor or nested ones are eliminated level by level"
        return "exact", reason
    if fixed:
        if requested == "iterative":
            raise UsageError(
                f"the iterative solver does not take {fixed}: use solver='exact', which needs a dense block of "
                f"{size:,} columns, or make it a random effect, or use a coarser one"
            )
        return "exact", f"{fixed} needs it"
    if requested == "iterative":
        return "iterative", "as asked for"
    needed, _ = solver_bytes(gram)
    if needed > memory_limit:
        return "iterative", f"a dense block of {size:,} columns needs {needed / 2**30:.1f} GiB"
    if size > EXACT_TAIL:
        return "iterative", f"a dense block of {size:,} columns costs {1.4e-9 * size**3:.0f} Gflop per evaluation"
    return "exact", f"the dense block of {size:,} columns is small"


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
    algebra = IterativeAlgebra(gram, FIRST_PROBES, FIRST_DEFLATION, seed)
    start = starts(algebra.start(templates), templates, theta0)[0]
    evaluations = 0
    while True:
        criterion = Criterion(gram, templates, reml, algebra)
        problem = Problem(
            criterion.value, criterion.evaluate, templates.lower, (start,), templates.rectified, noisy=True
        )
        outcome = minimize(problem)
        evaluations += outcome.evaluations
        outcome = replace(outcome, evaluations=evaluations, gradient_evaluations=evaluations)
        error = monte_carlo_error(criterion, outcome.theta, criterion.evaluate(outcome.theta).hessian, tolerance)
        excess = max(error.share / tolerance[0], error.objective / tolerance[1])
        if excess <= 1.0 or algebra.n_probes >= MOST_PROBES or not outcome.converged:
            if excess > 1.0:
                outcome = still_uncertain(outcome, error.objective, algebra.n_probes)
            return Solved(criterion, outcome, error)
        # theta is within a fraction of its standard error already: the next search is one evaluation there, as a rule
        start = outcome.theta
        algebra = algebra.enlarged(criterion.factor(start), *_enlarged(algebra.n_probes, algebra.n_deflation, excess))


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
    algebra: Algebra | None = None,
) -> Solved:
    """The minimum by the named solver ("exact" or "iterative"); algebra: an exact one of gram that is there already."""
    # the iterative solver's BLAS calls are small, and between them its own threads want the cores
    with one_thread_each() if solver == "iterative" else quiet_driver(gram):
        if solver == "iterative":
            return solve_iteratively(gram, templates, reml, theta0, seed, tolerance)
        criterion = Criterion(gram, templates, reml, algebra)
        return Solved(criterion, minimize_criterion(criterion, optimizer, theta0), None)


def minimize_criterion(criterion: Criterion, optimizer: str, theta0: np.ndarray | None = None) -> Outcome:
    """Minimise the deviance or REML criterion over theta."""
    templates, small = criterion.templates, criterion.algebra.compressed()
    fast = criterion if small is None else Criterion(small, templates, criterion.reml)
    first = starts(criterion.algebra.start(templates), templates, theta0)
    cheap = fast.algebra.name == "exact" and is_cheap(fast.gram)
    problem = Problem(fast.value, fast.evaluate, templates.lower, first, templates.rectified, cheap)
    return minimize(problem, optimizer)
