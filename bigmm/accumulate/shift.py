"""The shift: every column is summed about a number near its mean, so that squares lose no digits.

Everybody uses the same shift, so that sums stay additive; `assemble` undoes it in the small algebra.
"""

from __future__ import annotations

import numpy as np

from bigmm.design.layout import DesignChunk, Layout, joint_terms


def shift_vector(layout: Layout, head: DesignChunk) -> np.ndarray:
    """(m,) the shift of [1, columns[1:]..., y - offset]: 0 or the mean over the rows of `head`.

    A shifted column is x - s; s comes back only through a constant. So a column moves when the columns of X before it
    make the constant (if X uses it), when every term that uses it has the constant, and when no `FixedFactor`
    multiplies with it; y moves when the constant is in the span of X. Columns of zeros and ones stay, so that their
    sums are exact counts.
    """
    shift = np.zeros(len(layout.columns) + 1)
    if head.rows == 0:
        return shift
    for column in range(1, len(layout.columns)):
        values = head.columns[column - 1]
        if _may_shift(layout, column) and not np.all((values == 0.0) | (values == 1.0)):
            shift[column] = values.mean()
    if layout.one is not None:
        shift[-1] = (head.y if head.offset is None else head.y - head.offset).mean()
    shift[~np.isfinite(shift)] = 0.0
    return shift


def _may_shift(layout: Layout, column: int) -> bool:
    """Whether the constant is at hand wherever the column is used."""
    for term in joint_terms(layout):
        if column in term.covariates and (term.fixed_factor is not None or 0 not in term.covariates):
            return False
    uses = [position for position, used in enumerate(layout.fixed_columns) if used == column]
    if not uses:
        return True
    # Moved before the constant is there, a column would change what "depends on earlier columns" means in X.
    return layout.one is not None and bool(min(uses) > np.flatnonzero(layout.one).max())
