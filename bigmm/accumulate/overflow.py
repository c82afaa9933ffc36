"""Columns whose squares are too large for float64, named before anything is computed from them."""

from __future__ import annotations

import numpy as np

from bigmm.accumulate.crossproducts import CrossProducts
from bigmm.design.layout import DesignChunk, Layout
from bigmm.errors import DataError

LARGEST = 1e150
"""Sum of squares whose own square is still a number."""
LOST = 1e10
"""Limit of the ratio of the arithmetic to the geometric mean of the weights. Above it, and where the heavy rows are
few, sums in float64 give estimates to fewer than four digits of their standard errors."""
SAME = 1e-6
"""Limit of the weighted variation of the response, as a share of its sum of squares about the mean of the first rows.
Few heavy rows agree on the response to within this share; many do not."""


def check_size(cross: CrossProducts, layout: Layout) -> None:
    """Raises DataError that names a column, the response or the weights where sums of squares overflow."""
    squares = np.diagonal(cross.gram)
    # Negated, so that NaN counts as too large.
    large = np.flatnonzero(~(squares <= LARGEST))
    if not len(large):
        return
    # Column 0 is the constant, whose sum of squares is the sum of the weights.
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


def check_weights(cross: CrossProducts, variation: float) -> None:
    """Refuse weights of which few rows have so much that the others are lost in rounding.

    The rule is asked after a first pass, where the response is summed about the mean of the first rows whatever they
    weigh, and where the response turns out to be constant.

    Parameters
    ----------
    cross: sums of the pass.
    variation: weighted sum of squares of the response about its mean.

    Raises
    ------
    DataError
    """
    # Logarithms of the means: a product of all weights would overflow.
    ratio = np.log(cross.gram[0, 0] / cross.n) - cross.sum_log_w / cross.n
    if ratio > np.log(LOST) and variation <= SAME * cross.gram[-1, -1]:
        raise DataError(
            f"nearly all of the weight is on so few of the {cross.n} rows that the others are lost in rounding: check "
            "the largest weights"
        )


def fits(head: DesignChunk) -> bool:
    """Can the columns of these rows be computed with? A pass over all rows tells which of them cannot."""
    rows = [*head.columns, head.y, *([] if head.offset is None else [head.offset])]
    return all(float(np.max(np.abs(row), initial=0.0)) <= np.sqrt(LARGEST) for row in rows)
