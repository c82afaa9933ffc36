"""Columns whose squares are too large for float64, named before anything is computed from them."""

from __future__ import annotations

import numpy as np

from bigmm.accumulate.crossproducts import CrossProducts
from bigmm.design.layout import DesignChunk, Layout
from bigmm.errors import DataError

LARGEST = 1e150
"""Sum of squares whose own square is still a number."""
OUTWEIGHED = 1e8
"""Arithmetic over geometric mean of the weights, above which few rows are all that counts."""
LOST = 1e10
"""The same, above which sums of float64 give the estimates to fewer than four digits of their standard errors where the
heavy rows are few."""
SAME = 1e-6
"""Share of its sum of squares about the first rows' mean that a response varies by in rows that agree on it. By this
few heavy rows are told from many."""


def check_size(cross: CrossProducts, layout: Layout) -> None:
    """Raises DataError that names a column, the response or the weights where sums of squares overflow."""
    squares = np.diagonal(cross.gram)
    large = np.flatnonzero(~(squares <= LARGEST))
    if not len(large):
        return
    if large[0] == 0:
        raise DataError(
            f"the weights {amount(squares[0])}, which is too large to compute with: check their largest values, "
            "or divide all weights by the same number (estimates do not change)"
        )
    last, column = len(squares) - 1, int(large[0])
    if len(layout.columns) <= column < last:
        column = cross.shift.copies[column - len(layout.columns)]
    name = f"the response {layout.response!r}" if column == last else f"column {layout.columns[column]!r}"
    raise DataError(
        f"the squares of {name} {amount(squares[large[0]])}, which is too large to compute with: check its "
        "largest values, or use a larger unit (divide the column by a power of ten)"
    )


def amount(total: float) -> str:
    """A sum in words."""
    return f"add up to {total:.3g}" if np.isfinite(total) else "add up to more than 1.8e308"


def check_weights(cross: CrossProducts) -> None:
    """Raises DataError where few rows have so much of the weight that the others are lost in rounding.

    cross: of a first pass, whose response is summed about the mean of the first rows, whatever they weigh.
    """
    spread = cross.gram[-1, -1] - cross.gram[0, -1] ** 2 / cross.gram[0, 0]
    if are_outweighed(cross, LOST) and spread <= SAME * cross.gram[-1, -1]:
        raise DataError(
            f"nearly all of the weight is on so few of the {cross.n} rows that the others are lost in rounding: check "
            "the largest weights"
        )


def fits(head: DesignChunk) -> bool:
    """Can the columns of these rows be computed with? A pass over all rows tells which of them cannot."""
    rows = [*head.columns, head.y, *([] if head.offset is None else [head.offset])]
    return all(float(np.max(np.abs(row), initial=0.0)) <= np.sqrt(LARGEST) for row in rows)


def are_outweighed(cross: CrossProducts, limit: float) -> bool:
    """Do so few rows have nearly all of the weight that the others do not count?"""
    return bool(np.log(cross.gram[0, 0] / cross.n) - cross.sum_log_w / cross.n > np.log(limit))
