"""The fixed-effects part of A: X'WX of all coefficients, which of them depend on others, and the shift undone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from bigmm.accumulate.crossproducts import CrossProducts
from bigmm.accumulate.origin import sequence_of
from bigmm.accumulate.rank import MIXED_TOLERANCE, TOLERANCE, Rank, in_order, sequential_rank, squares_of
from bigmm.accumulate.shift import Shift
from bigmm.design.layout import FixedFactor, JointTerm, Layout

# Share of a sum of squares that rounding of the stored values can leave: a few units in the last place, squared.
ROUNDING_SQUARED = 1e-30


def response_squares(cross: CrossProducts) -> float:
    """Weighted sum of squares of the response (less any offset) about its weighted mean."""
    response = (np.eye(len(cross.shift)) + cross.shift.mix)[:, [-1]]
    # Column 0 of v is the constant: through it the weighted mean comes off.
    response[0] -= cross.gram[0] @ response / cross.gram[0, 0]
    return float(squares_of(cross.gram, response)[0])


def original_squares(cross: CrossProducts, column: int) -> float:
    """Sum of squares of a column before the shift."""
    return float(squares_of(cross.gram, cross.shift.back[:, [column]])[0])


@dataclass(frozen=True, slots=True)
class FixedEffectsPart:
    """Coefficients in working order: dense ones first, then those of each fixed factor.

    Attributes
    ----------
    dense: (p_dense,) columns of the dense coefficients.
    factors: {joint term: (FixedFactor, (m,) working positions)}.
    order: (p,) working position of each coefficient in the user's order.
    rank: the independent coefficients, in the user's order.
    """

    dense: np.ndarray
    factors: dict[int, tuple[FixedFactor, np.ndarray]]
    order: np.ndarray
    rank: Rank


def fixed_part(
    cross: CrossProducts, layout: Layout, joint: tuple[JointTerm, ...], order: Sequence[int]
) -> FixedEffectsPart:
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
    spread, floor, tolerance = _column_scales(cross, dense, gram)
    sequence = sequence_of(layout, cross.shift)
    subtracted = position[sequence]
    rank = sequential_rank(
        gram[np.ix_(subtracted, subtracted)], spread[subtracted], floor[subtracted], tolerance[subtracted]
    )
    return FixedEffectsPart(dense, factors, position, in_order(sequence, rank))


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


def _column_scales(
    cross: CrossProducts, dense: np.ndarray, gram: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(p,) sums of squares about the mean, before other columns are taken off; (p,) what rounding of the original
    values can leave; (p,) tolerance of the rank."""
    spread, tolerance = np.diagonal(gram).copy(), np.full(len(gram), TOLERANCE)
    floor = np.zeros(len(gram))
    shift = cross.shift
    unmixed = (np.eye(len(shift)) + shift.mix)[:, dense]
    means = cross.gram[0] @ unmixed / cross.gram[0, 0]
    unmixed[0] -= means
    spread[: len(dense)] = squares_of(cross.gram, unmixed)
    floor[: len(dense)] = ROUNDING_SQUARED * _rounded_squares(cross, dense)
    mixed = np.flatnonzero(np.isin(dense, shift.order))
    tolerance[mixed] = MIXED_TOLERANCE * shift.share[dense[mixed]]
    return spread, floor, tolerance


def _rounded_squares(cross: CrossProducts, dense: np.ndarray) -> np.ndarray:
    """(p,) sums of squares of the largest numbers from which each column is made, of shifted factors those of the
    products in which one of them is not."""
    shift = cross.shift
    origin, factors = shift.origin.copy(), np.ones(len(shift), np.int64)
    factors[0] = 0
    factors[[column for column, _ in shift.products]] = [len(factor_columns) for _, factor_columns in shift.products]
    for column, factor_columns in shift.products:
        origin[factors < len(factor_columns) - 1, column] = 0.0
    back = ((np.eye(len(shift)) + shift.mix) @ (np.eye(len(shift)) + origin))[:, dense]
    return np.maximum(squares_of(cross.gram, back), np.diagonal(cross.gram) @ back**2)


def x_basis(shift: Shift, layout: Layout, fixed: FixedEffectsPart) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """(p, p) B with X = X_working B, (p,) c with X c = 1 or None, and (p,) c_y in y = y_working + X c_y; all in
    working order, using independent columns only.

    X = Xw M + 1 s'. From X c = 1 follows Xw a = 1 with a = M c / (1 - s'c), hence B = M + a s'. A dropped column that
    is used is replaced by its expansion in independent ones, and c = B^-1 a.
    """
    p, n, back = len(fixed.order), len(fixed.dense), shift.back
    m, s, y = np.eye(p), np.zeros(p), np.zeros(p)
    m[:n, :n] = back[np.ix_(fixed.dense, fixed.dense)]
    y[:n] = back[fixed.dense, -1]
    constant = fixed.dense == 0
    s[:n], m[:n, :n][constant] = back[0, fixed.dense], np.eye(n)[constant]
    s[:n][constant], y[:n][constant] = 0.0, 0.0
    one = None
    if layout.one is not None:
        one = np.zeros(p)
        one[fixed.order] = layout.one
        one = m @ one / (1.0 - s @ one)
    whole = m if one is None else m + np.outer(one, s)
    y_coefficients = y if one is None else y + back[0, -1] * one
    for column in np.flatnonzero(~fixed.rank.independent):
        place, expansion = fixed.order[column], np.zeros(p)
        expansion[fixed.order] = fixed.rank.coefficients(column)
        others = np.arange(p) != place
        whole[:, others] += np.outer(expansion, whole[place, others])
        whole[place, others] = 0.0
        for vector in (y_coefficients,) if one is None else (y_coefficients, one):
            vector += vector[place] * expansion
            vector[place] = 0.0
    solved = np.linalg.solve(whole, np.column_stack([y_coefficients] if one is None else [y_coefficients, one]))
    return whole, None if one is None else solved[:, 1], solved[:, 0]
