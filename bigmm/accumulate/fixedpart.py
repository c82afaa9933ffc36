"""The fixed-effects part of A: X'WX of all coefficients, which of them depend on others, and the shift undone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from bigmm.accumulate.crossproducts import CrossProducts
from bigmm.accumulate.rank import Rank, sequential_rank
from bigmm.design.layout import FixedFactor, JointTerm, Layout

# Share of a sum of squares that rounding of the stored values can leave: a few units in the last place, squared.
ROUNDING_SQUARED = 1e-30


def about_mean(gram: np.ndarray, column: int) -> float:
    """Weighted sum of squares of a column about its weighted mean."""
    return float(max(gram[column, column] - gram[0, column] ** 2 / gram[0, 0], 0.0))


def original_squares(cross: CrossProducts, column: int) -> float:
    """Sum of squares of a column before the shift."""
    g, s = cross.gram, cross.shift[column]
    return float(g[column, column] + 2.0 * s * g[0, column] + s * s * g[0, 0])


@dataclass(frozen=True, slots=True)
class FixedPart:
    """Coefficients in working order: dense ones first, then those of each fixed factor.

    dense: (p_dense,) columns of the dense coefficients; factors: {joint term: (FixedFactor, (m,) working positions)};
    order: (p,) working position of each coefficient in the user's order; rank: in the user's order.
    """

    dense: np.ndarray
    factors: dict[int, tuple[FixedFactor, np.ndarray]]
    order: np.ndarray
    rank: Rank


def fixed_part(cross: CrossProducts, layout: Layout, joint: tuple[JointTerm, ...], order: Sequence[int]) -> FixedPart:
    """Gather the coefficients (fixed factors in the order of `order`) and find the dependent ones."""
    columns = np.array(layout.fixed_columns, np.int64)
    dense = columns[columns >= 0]
    position = np.full(len(columns), -1)
    position[columns >= 0] = np.arange(len(dense))
    factors, start = {}, len(dense)
    for j in order:
        number = joint[j].fixed_factor
        if number is not None:
            factor = layout.fixed_factors[number]
            places = np.arange(start, start + len(factor.positions))
            position[list(factor.positions)] = places
            factors[j] = factor, places
            start += len(places)
    gram = _fixed_gram(cross, dense, factors)
    spread, floor = _column_scales(cross, dense, gram)
    rank = sequential_rank(gram[np.ix_(position, position)], spread[position], floor[position])
    return FixedPart(dense, factors, position, rank)


def _fixed_gram(cross: CrossProducts, dense: np.ndarray, factors: dict) -> np.ndarray:
    """(p, p) X'WX of all coefficients in working order."""
    p = len(dense) + sum(len(places) for _, places in factors.values())
    gram = np.zeros((p, p))
    first = slice(0, len(dense))
    gram[first, first] = cross.gram[np.ix_(dense, dense)]
    for j, (factor, places) in factors.items():
        record = cross.records[j][:, 0, :]
        square = record[:, factor.covariate]
        gram[np.ix_(places, places)] = factor.contrast.T @ (square[:, None] * factor.contrast)
        gram[places, first] = factor.contrast.T @ record[:, dense]
        gram[first, places] = gram[places, first].T
        for k, (other, other_places) in factors.items():
            if j < k:
                block = factor.contrast.T @ (_sparse(cross, j, k) @ other.contrast)
                gram[np.ix_(places, other_places)] = block
                gram[np.ix_(other_places, places)] = block.T
    return gram


def _sparse(cross: CrossProducts, j: int, k: int) -> Any:
    """(q_j, q_k) scipy sparse array of a scalar pair."""
    if (j, k) not in cross.pairs:
        return _sparse(cross, k, j).T
    pair = cross.pairs[j, k]
    block = pair.block()
    return sp.csr_array((block.data.reshape(-1), block.indices, block.indptr), shape=pair.n_levels)


def _column_scales(cross: CrossProducts, dense: np.ndarray, gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(p,) sums of squares about the mean, and (p,) what rounding of the original values can leave."""
    spread = np.diagonal(gram).copy()
    floor = np.zeros(len(gram))
    for i, column in enumerate(dense):
        spread[i] = about_mean(cross.gram, column)
        floor[i] = ROUNDING_SQUARED * original_squares(cross, column)
    return spread, floor


def x_basis(shift: np.ndarray, layout: Layout, fixed: FixedPart) -> tuple[np.ndarray, np.ndarray | None]:
    """(p, p) B with X = X_working B and (p,) c with X c = 1, both in working order, using kept columns only.

    X_j = Xw_j + s_j 1. From X c = 1 follows Xw a = 1 with a = c / (1 - s'c), hence B = I + a s'. A dropped column in
    the support of a is replaced by its expansion in kept ones; then c = a / (1 + s'a).
    """
    p = len(fixed.order)
    if layout.one is None:
        return np.eye(p), None
    s = np.zeros(p)
    s[: len(fixed.dense)] = shift[fixed.dense]
    one = np.asarray(layout.one, float)
    a = one / (1.0 - s[fixed.order] @ one)
    for column in np.flatnonzero(~fixed.rank.kept & (a != 0.0)):
        weight, a[column] = a[column], 0.0
        a += weight * fixed.rank.coefficients(column)
    working = np.zeros(p)
    working[fixed.order] = a
    return np.eye(p) + np.outer(working, s), working / (1.0 + s @ working)
