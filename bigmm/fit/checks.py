"""Designs for which a mixed model cannot be told apart from its residuals, named before the optimisation starts."""

from __future__ import annotations

import numpy as np

from bigmm.blocks.gram import Gram, TermBlock
from bigmm.errors import DataError

NO_VARIATION = 1e-14


def check_identified(gram: Gram) -> None:
    """Raises DataError when a grouping factor has one level, as many levels or random effects as there are rows, or no
    variation of the response within its levels (lme4's checks)."""
    for term in gram.terms:
        if not term.penalized:
            continue
        if term.n_levels < 2:
            raise DataError(
                f"grouping factor {term.name!r} has only {term.n_levels} level with rows: the variance between levels "
                "cannot be estimated; remove the term or check the column and the filter"
            )
        if term.n_levels >= gram.n:
            raise DataError(
                f"grouping factor {term.name!r} has {term.n_levels} levels for {gram.n} rows: with one row per level "
                "its variance cannot be told apart from the residual; remove the term or use a coarser factor"
            )
        if term.n_levels * term.width >= gram.n:
            raise DataError(
                f"grouping factor {term.name!r} has {term.n_levels * term.width} random effects ({term.n_levels} "
                f"levels x {term.width}) for {gram.n} rows: they cannot be told apart from the "
                "residual; use fewer random slopes"
            )
        if gram.one is not None and _constant_within(gram, term):
            raise DataError(
                f"the response does not vary within the levels of {term.name!r}: there is no residual variance to "
                "estimate; remove the term or check that the factor is not the response itself"
            )


def _constant_within(gram: Gram, term: TermBlock) -> bool:
    if term.width != 1 or term.diagonal.min(initial=1.0) <= 0 or not np.all(term.basis == 1.0):
        return False
    total = gram.xy[-1, -1]
    between = float(np.sum(term.dense[:, 0, -1] ** 2 / term.diagonal[:, 0, 0]))
    is_intercept = np.isclose(float(term.diagonal.sum()), float(gram.xy[0, 0])) if len(gram.xy) > 1 else False
    return bool(is_intercept and total - between <= NO_VARIATION * total)
