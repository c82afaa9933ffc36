"""`CrossProducts` -> `Gram`: picks the columns of X and Z, drops empty levels and dependent columns, orders terms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bigmm.accumulate.crossproducts import CrossProducts
from bigmm.accumulate.fixedpart import (
    ROUNDING_SQUARED,
    FixedEffectsPart,
    fixed_part,
    original_squares,
    response_squares,
    x_basis,
)
from bigmm.accumulate.overflow import check_size, check_weights
from bigmm.accumulate.shift import Shift
from bigmm.blocks.gram import CrossBlock, Gram, TermBlock
from bigmm.blocks.structure import transposed
from bigmm.design.layout import JointTerm, Layout
from bigmm.errors import DataError
from bigmm.execute.memory import give_back


@dataclass(frozen=True, slots=True)
class Assembled:
    """The blocks of A, and how they relate to the layout.

    Attributes
    ----------
    term_order: per term of the gram, the joint term that it is.
    level_numbers: per term of the gram, the numbers (q,) of the levels that have rows: an array, or what fetches it
        from the workers that have the levels.
    dropped_columns: names of the coefficients that depend on earlier ones, in the user's order.
    """

    gram: Gram
    term_order: tuple[int, ...]
    level_numbers: tuple[Any, ...]
    dropped_columns: tuple[str, ...]


def assemble(cross: CrossProducts, layout: Layout) -> Assembled:
    """The blocks of A. Raises DataError for no rows, a constant response, or as many coefficients as rows."""
    give_back()  # what partitions took, kept for the next one: the pass is over
    joint = layout.joint
    _check_response(cross, layout)
    order = _term_order(cross, joint)
    levels_of = tuple(np.flatnonzero(cross.counts[j]) for j in order)
    fixed = fixed_part(cross, layout, joint, order)
    rank = fixed.rank
    if rank.independent.sum() >= cross.n:
        raise DataError(
            f"the model has p = {rank.independent.sum()} fixed-effect coefficients but only n = {cross.n} rows; "
            "use fewer fixed effects or more rows"
        )
    active = np.zeros(len(rank.independent), bool)
    active[fixed.order] = rank.independent
    dense = fixed.dense[active[: len(fixed.dense)]]
    # y is the last column of the sums, behind any copies.
    picked = np.append(dense, len(cross.shift) - 1)
    basis, one, response_mix = x_basis(cross.shift, layout, fixed)
    y_shift = float(cross.shift.numbers[-1])
    if cross.shift.order and cross.shift.order[-1] == len(cross.shift) - 1:  # more than the constant was taken off y
        y_shift, one = 1.0, response_mix
    terms = tuple(
        _term_block(cross, joint[j], j, levels, picked, fixed, active, joint[j].name)
        for j, levels in zip(order, levels_of)
    )
    gram = Gram(
        terms=terms,
        cross=_cross_blocks(cross, order, levels_of),
        xy=cross.gram[np.ix_(picked, picked)],
        n=cross.n,
        sum_log_w=cross.sum_log_w,
        x_basis=basis,
        y_shift=y_shift,
        one=one,
        active=active,
        fixed_order=fixed.order,
        y_sum_squares_total=response_squares(cross),
    )
    dropped = tuple(name for name, keep in zip(layout.fixed_names, rank.independent) if not keep)
    return Assembled(gram, tuple(order), levels_of, dropped)


def _term_order(cross: CrossProducts, joint: tuple[JointTerm, ...]) -> list[int]:
    """Random effects before fixed factors, each by decreasing number of levels that have rows (stable)."""
    levels = [int(np.count_nonzero(count)) for count in cross.counts]
    return sorted(range(len(joint)), key=lambda j: (joint[j].fixed_factor is not None, -levels[j]))


def _check_response(cross: CrossProducts, layout: Layout) -> None:
    if cross.n == 0:
        raise DataError(f"there are no rows to fit: {_why_none(cross)}")
    check_size(cross, layout)
    y = len(cross.shift) - 1
    spread = response_squares(cross)
    # Stored values leave 1e-30 of their squares where y is constant, sums about a shift 1e-14 of theirs.
    if spread <= max(ROUNDING_SQUARED * original_squares(cross, y), 1e-14 * cross.gram[y, y]):
        check_weights(cross, 0.0)
        mean = float(cross.gram[0] @ cross.shift.back[:, y]) / cross.gram[0, 0]
        raise DataError(
            f"the response is constant: '{layout.response}' (less any offset) is {mean:.15g} in all {cross.n} rows, "
            "so there is no variance to explain; check the response column and the filter"
        )


def _why_none(cross: CrossProducts) -> str:
    """What became of the rows, in words."""
    if not cross.rows_read:
        return "none was read, or the weights of all are zero; check the data and the filter"
    dropped = dict(cross.dropped)
    zero = dropped.pop("(zero weight)", 0)
    if zero == cross.rows_read:
        return f"the weights of all {zero:,} rows are zero"
    parts = [f"{count:,} where {name!r} is missing" for name, count in dropped.items() if count]
    parts += [f"{zero:,} whose weight is zero"] if zero else []
    return f"{cross.rows_read:,} rows were read, and all are dropped: {', '.join(parts)}"


def _term_block(
    cross: CrossProducts,
    joint: JointTerm,
    j: int,
    levels: np.ndarray,
    picked: np.ndarray,
    fixed: FixedEffectsPart,
    active: np.ndarray,
    name: str,
) -> TermBlock:
    covariates = cross.shift.covariates[j]
    record = cross.records[j] if len(levels) == len(cross.records[j]) else cross.records[j][levels]
    basis = term_basis(covariates, cross.shift)
    contrast = None
    if j in fixed.factors:
        factor, places = fixed.factors[j]
        contrast = factor.contrast[np.ix_(levels, active[places])]
    # `take` gives C order, where an index array gives a transposed one: kernels are compiled for one order alone.
    diagonal, dense = np.take(record, covariates, axis=2), np.take(record, picked, axis=2)
    return TermBlock(name, diagonal, dense, basis, contrast is None, contrast)


def term_basis(covariates: np.ndarray, shift: Shift) -> np.ndarray:
    """(k, k) T with Z = Z_working T: shifted covariates come back through the constant, which is the first, and through
    covariates before them; covariates: of `Shift.covariates`."""
    basis = np.eye(len(covariates)) + shift.mix[np.ix_(covariates, covariates)]
    basis[0] += np.where(np.arange(len(covariates)) > 0, shift.numbers[covariates], 0.0)
    return basis


def _cross_blocks(
    cross: CrossProducts, order: list[int], levels_of: tuple[np.ndarray, ...]
) -> dict[tuple[int, int], CrossBlock]:
    blocks = {}
    for b, k in enumerate(order):
        for a, j in enumerate(order[:b]):
            if (j, k) in cross.pairs:
                block = cross.pairs[j, k].block()
            else:
                block = transposed(cross.pairs[k, j].block(), len(cross.counts[j]))
            blocks[a, b] = _of_levels(block, levels_of[a], levels_of[b], len(cross.counts[k]))
    return blocks


def _of_levels(block: CrossBlock, rows: np.ndarray, columns: np.ndarray, q_k: int) -> CrossBlock:
    """The block without the levels that have no rows; rows, columns: the numbers of those that have."""
    indptr, indices = block.indptr, block.indices
    if len(rows) < len(indptr) - 1:
        # A level without rows has no entries, so its pointer goes and no entry with it.
        indptr = np.append(indptr[rows], indptr[-1])
    if len(columns) < q_k:
        place = np.zeros(q_k, np.int32)
        place[columns] = np.arange(len(columns))
        indices = place[indices]
    return CrossBlock(indptr, indices, block.data)
