"""Designs for which a mixed model cannot be told apart from its residuals, named before the optimisation starts."""

from __future__ import annotations

import numpy as np

from bigmm.blocks.gram import Gram, TermBlock
from bigmm.errors import DataError
from bigmm.objective import ModelCovariance

NO_VARIATION = 1e-14


def check_identified(gram: Gram, covariances: ModelCovariance) -> None:
    """Raises DataError when a grouping factor has one level, as many levels or random effects as there are rows, or no
    variation of the response within its levels (lme4's checks)."""
    for number, term in enumerate(gram.terms):
        if term.penalized:
            check_factor(gram, term.name, term.n_levels, widest(covariances, number), _within(gram, term))


def widest(covariances: ModelCovariance, number: int) -> int:
    """Covariates of the widest term that the user wrote for a joint term: as in lme4, terms without correlation between
    them count one by one. A structure that the residual cannot imitate counts as one column."""
    widths = [t.width for t in covariances.terms if t.joint == number and not t.covariance.parts_from_residual]
    return max(widths, default=1)


def check_factor(gram: Gram, name: str, n_levels: int, width: int, within: float | None) -> None:
    """The checks of one factor.

    Parameters
    ----------
    gram : only its dense part is used.
    width : see `widest`.
    within : sum of squares of the response within the factor's levels, None where unknown.
    """
    if n_levels < 2:
        raise DataError(
            f"grouping factor {name!r} has only {n_levels} level with rows: the variance between levels "
            "cannot be estimated; remove the term or check the column and the filter"
        )
    if n_levels >= gram.n:
        raise DataError(
            f"grouping factor {name!r} has {n_levels} levels for {gram.n} rows: with one row per level "
            "its variance cannot be told apart from the residual; remove the term or use a coarser factor"
        )
    if n_levels * width >= gram.n:
        raise DataError(
            f"grouping factor {name!r} has {n_levels * width} random effects ({n_levels} "
            f"levels x {width}) for {gram.n} rows: they cannot be told apart from the "
            "residual; use fewer random slopes"
        )
    if within is not None and within <= NO_VARIATION * gram.xy[-1, -1]:
        raise DataError(
            f"the response does not vary within the levels of {name!r}: there is no residual variance to "
            "estimate; remove the term or check that the factor is not the response itself"
        )


def _within(gram: Gram, term: TermBlock) -> float | None:
    """Sum of squares of the response within the levels of a plain random intercept; None for other terms."""
    plain = gram.one is not None and term.width == 1 and bool(np.all(term.basis == 1.0))
    if not plain or term.diagonal.min(initial=1.0) <= 0:
        return None
    # Z is the constant exactly when the weights of its levels add up to the constant's own sum of squares.
    is_intercept = np.isclose(float(term.diagonal.sum()), float(gram.xy[0, 0])) if len(gram.xy) > 1 else False
    if not is_intercept:
        return None
    return float(gram.xy[-1, -1] - np.sum(term.dense[:, 0, -1] ** 2 / term.diagonal[:, 0, 0]))
