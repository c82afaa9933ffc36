"""A = [Z X y]'W[Z X y] as blocks: the value that `accumulate` makes and `objective` consumes.

Everything is stored in a *working basis*: columns may be shifted by a constant so that squares lose no digits; the
fields ``basis`` and ``x_basis`` say how to come back. Knows no data, no formula, no scheduler.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class TermBlock:
    """One grouping factor's part of A: q levels, width k (terms of the same grouping are joined).

    Attributes
    ----------
    name: label for messages.
    diagonal: (q, k, k) float64, Z_l'W Z_l per level.
    dense: (q, k, p + 1) float64, Z_l'W [X y], y last.
    basis: (k, k) T with Z = Z_working T, so that Lambda acts as T lambda.
    penalized: True for random effects. False for a factor among the fixed effects with many levels, to which neither
        an identity nor Lambda is applied.
    contrast: None, or for the unpenalized factor (q * k, m) the map to its m coefficients.
    multiplicity: None, or (q,) number of levels that an entry's diagonal block stands for (`blocks.compress`).
    """

    name: str
    diagonal: np.ndarray
    dense: np.ndarray
    basis: np.ndarray
    penalized: bool = True
    contrast: np.ndarray | None = None
    # It multiplies log|D| and its derivative alone: the rows of `dense` already hold the second moments of all levels.
    multiplicity: np.ndarray | None = None

    @property
    def n_levels(self) -> int:
        """q, the number of levels (of classes of levels after `compress`)."""
        return self.diagonal.shape[0]

    @property
    def width(self) -> int:
        """k, the number of covariates."""
        return self.diagonal.shape[1]


@dataclass(frozen=True, slots=True)
class CrossBlock:
    """Z_j'W Z_k for a pair of terms j < k as block-CSR over the levels of term j.

    indptr: (q_j + 1,) int64; indices: (nnz,) int32 level of term k, increasing within a row;
    data: (nnz, k_j, k_k) float64.
    """

    indptr: np.ndarray
    indices: np.ndarray
    data: np.ndarray


@dataclass(frozen=True, slots=True)
class Gram:
    """The whole of A for one model.

    Attributes
    ----------
    terms: the grouping factors by decreasing number of levels, penalized ones first.
    cross: {(j, k): CrossBlock} for every pair j < k.
    xy: (p + 1, p + 1) float64, [X y]'W[X y] of the p dense, linearly independent columns.
    n: number of rows with a weight above zero.
    sum_log_w: sum of log weights.
    x_basis: (p_all, p_all) B with X = X_working B. p_all counts dense columns, then those of unpenalized factors.
    y_shift: s with y = y_working + s X one.
    one: (p_all,) or None.
    active: (p_all,) bool, False for columns that are dropped because they depend on earlier ones.
    fixed_order: (p_total,) for every coefficient in the user's order its position in [dense (p_all), factors...].
    y_sum_squares_total: y'Wy about its weighted mean.
    """

    terms: tuple[TermBlock, ...]
    # Every pair is there, also one without common rows: its block then has no entries.
    cross: dict[tuple[int, int], CrossBlock]
    xy: np.ndarray
    n: int
    sum_log_w: float
    x_basis: np.ndarray
    y_shift: float
    one: np.ndarray | None
    active: np.ndarray
    fixed_order: np.ndarray
    y_sum_squares_total: float
