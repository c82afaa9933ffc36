"""Columns whose squares are too large for float64, and weights of which one drowns the others.

Both are named before anything is computed from the sums of a pass, another shift included: sums about the value of the
one row that counts would look like those of ordinary data.
"""

from __future__ import annotations

import numpy as np

from bigmm.accumulate.crossproducts import CrossProducts
from bigmm.design.layout import Layout
from bigmm.errors import DataError

LARGEST = 1e150
"""Sum of squares whose own square is still a number."""
OUTWEIGHED = 1e8
"""Arithmetic over geometric mean of the weights, above which few rows may be all that counts."""
SAME = 1e-6
"""Share of its sum of squares that a response varies by in rows that agree on it, by which few rows are told from half
of them: those without much weight then lose more digits than a fit has to spare."""


def check_size(cross: CrossProducts, layout: Layout) -> None:
    """Raises DataError that names a column, the response or the weights where sums of squares overflow, or where few
    rows have all the weight."""
    squares = np.diagonal(cross.gram)
    large = np.flatnonzero(~(squares <= LARGEST))
    if not len(large):
        _check_weights(cross, layout)
        return
    if large[0] == 0:
        raise DataError(
            f"the weights {_amount(squares[0])}, which is too large to compute with: check their largest values, "
            "or divide all weights by the same number (estimates do not change)"
        )
    last, columns = len(squares) - 1, [*layout.columns, *(layout.columns[column] for column in cross.shift.copies)]
    name = f"the response {layout.response!r}" if large[0] == last else f"column {columns[large[0]]!r}"
    raise DataError(
        f"the squares of {name} {_amount(squares[large[0]])}, which is too large to compute with: check its "
        "largest values, or use a larger unit (divide the column by a power of ten)"
    )


def _amount(total: float) -> str:
    return f"add up to {total:.3g}" if np.isfinite(total) else "add up to more than 1.8e308"


def _check_weights(cross: CrossProducts, layout: Layout) -> None:
    """Raises DataError where few rows have nearly all of the weight."""
    uneven = np.log(cross.gram[0, 0] / cross.n) - cross.sum_log_w / cross.n > np.log(OUTWEIGHED)
    spread = cross.gram[-1, -1] - cross.gram[0, -1] ** 2 / cross.gram[0, 0]
    if uneven and spread <= SAME * cross.gram[-1, -1]:
        raise DataError(
            f"nearly all of the weight is on so few of the {cross.n} rows that the others do not count, and on "
            f"these the response {layout.response!r} does not vary: check the largest weights"
        )
