"""From the blocks of A to the minimum of the criterion: no rows here."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import numpy as np

from bigmm.blocks import Gram, compress
from bigmm.blocks.structure import elimination_order
from bigmm.errors import UsageError
from bigmm.execute.discipline import one_thread_each
from bigmm.objective import Criterion, Templates, moment_start
from bigmm.optimize import Outcome, Problem, minimize

SMALL_TAIL = 2500
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


def starts(gram: Gram, templates: Templates, theta0: np.ndarray | None) -> tuple[np.ndarray, ...]:
    """The preferred start first: theta0, else from moments; then identity templates and two rescaled ones."""
    moments = moment_start(gram, templates)
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


def minimize_criterion(criterion: Criterion, optimizer: str, theta0: np.ndarray | None = None) -> Outcome:
    """Minimise the deviance or REML criterion over theta."""
    gram, templates = criterion.gram, criterion.templates
    small = compress(gram)
    fast = criterion if small is gram else Criterion(small, templates, criterion.reml)
    first = starts(gram, templates, theta0)
    problem = Problem(fast.value, fast.evaluate, templates.lower, first, templates.rectified, is_cheap(small))
    return minimize(problem, optimizer)
