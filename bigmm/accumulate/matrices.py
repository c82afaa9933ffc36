"""Sums over the rows of model matrices: partitions -> `MatrixSums` -> `MatrixGram`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from bigmm.accumulate.fixedpart import ROUNDING_SQUARED
from bigmm.accumulate.rank import sequential_rank
from bigmm.blocks.matrices import MatrixGram
from bigmm.errors import DataError
from bigmm.execute.discipline import one_thread_each
from bigmm.execute.lanes import Lane
from bigmm.source.matrices import MatrixPartition

Y, X, Z, WEIGHTS, OFFSET = "y", "X", "Z", "weights", "offset"


@dataclass(frozen=True, slots=True)
class MatrixShift:
    """Columns are summed as X_j - shift_j X_constant, y as y - shift_p X_constant: exactly undone whatever X_constant is.

    constant: a column of X that looked constant, or -1; shift: (p + 1,), 0 up to `constant`, so that what depends on
    earlier columns stays so.
    """

    constant: int
    shift: np.ndarray

    def apply(self, xy: np.ndarray) -> None:
        """Shift the rows of [X y] (n, p + 1) in place."""
        if self.constant >= 0:
            xy -= np.outer(xy[:, self.constant], self.shift)


@dataclass(frozen=True, slots=True)
class MatrixSums:
    """Sums over rows of [Z Xy]'W[Z Xy], Xy shifted: zz (q, q) csr, zxy (q, p + 1), xy (p + 1, p + 1);
    squares: (p + 1,) sums of w x^2 before the shift; n: rows; sum_log_w: sum of log weights."""

    zz: sp.csr_array
    zxy: np.ndarray
    xy: np.ndarray
    squares: np.ndarray
    n: int
    sum_log_w: float

    def merge(self, other: MatrixSums) -> MatrixSums:
        """Sums over the rows of both."""
        return MatrixSums(
            sp.csr_array(self.zz + other.zz),
            self.zxy + other.zxy,
            self.xy + other.xy,
            self.squares + other.squares,
            self.n + other.n,
            self.sum_log_w + other.sum_log_w,
        )


def merge(left: MatrixSums, right: MatrixSums) -> MatrixSums:
    """`MatrixSums.merge`, as the executor wants it."""
    return left.merge(right)


def matrix_shift(partition: MatrixPartition) -> MatrixShift:
    """Means of the first rows over the value of the first constant column; columns of zeros and ones stay."""
    x, y = partition.read(X), _response(partition)
    xy = np.column_stack([x, y])
    shift = np.zeros(xy.shape[1])
    first = xy[0]
    constant = np.flatnonzero((xy[:, :-1] == first[:-1]).all(axis=0) & (first[:-1] != 0))
    if not len(constant):
        return MatrixShift(-1, shift)
    at = int(constant[0])
    means = xy.mean(axis=0) / first[at]
    binary = ((xy == 0.0) | (xy == 1.0)).all(axis=0)
    moved = (np.arange(len(shift)) > at) & ~binary & np.isfinite(means)
    return MatrixShift(at, np.where(moved, means, 0.0))


def fold_matrices(shift: MatrixShift, lane: Lane, tick: Callable[[int], None]) -> MatrixSums:
    """Sum the partitions of a lane in order."""
    total: MatrixSums | None = None
    with one_thread_each():  # the order in which BLAS adds must not depend on how many threads it has
        for partition in lane.partitions:
            part = _partition_sums(shift, partition)
            total = part if total is None else total.merge(part)
            tick(partition.rows)
    assert total is not None
    return total


def _partition_sums(shift: MatrixShift, partition: MatrixPartition) -> MatrixSums:
    x, z = partition.read(X), partition.read(Z)
    x = x.toarray() if sp.issparse(x) else x
    _refuse_nonfinite(partition, X, x)
    _refuse_nonfinite(partition, Z, z)
    xy = np.column_stack([x, _response(partition)])
    w = _weights(partition)
    squares = np.einsum("ij,ij->j", xy, xy if w is None else xy * w[:, None])
    shift.apply(xy)
    weighted = xy if w is None else xy * w[:, None]
    log_w = 0.0 if w is None else float(np.log(w).sum())
    return MatrixSums(_cross(z, w), np.ascontiguousarray(z.T @ weighted), xy.T @ weighted, squares, len(xy), log_w)


def _cross(z: Any, w: np.ndarray | None) -> sp.csr_array:
    weighted = z if w is None else z * w[:, None]
    return sp.csr_array(z.T @ weighted)


def _response(partition: MatrixPartition) -> np.ndarray:
    """y - offset, checked."""
    y = partition.read(Y)
    _refuse_nonfinite(partition, Y, y)
    if OFFSET not in partition.loads:
        return y
    offset = partition.read(OFFSET)
    _refuse_nonfinite(partition, OFFSET, offset)
    return y - offset


def _weights(partition: MatrixPartition) -> np.ndarray | None:
    if WEIGHTS not in partition.loads:
        return None
    w = partition.read(WEIGHTS)
    _refuse_nonfinite(partition, WEIGHTS, w)
    if not np.all(w > 0):
        row = int(np.argmax(~(w > 0)))
        raise DataError(
            f"weights must be positive, but row {partition.start + row} has {w[row]:g}; leave such rows out"
        )
    return w


def _refuse_nonfinite(partition: MatrixPartition, name: str, values: Any) -> None:
    """Raise DataError with the first position (row, and column of a matrix, counted from 0) of a NaN or infinity."""
    data = values.data if sp.issparse(values) else values
    if np.isfinite(data.sum()) or np.isfinite(data).all():
        return
    if sp.issparse(values):
        entry = int(np.argmax(~np.isfinite(data)))
        place = (int(np.searchsorted(values.indptr, entry, side="right")) - 1, int(values.indices[entry]))
        value = data[entry]
    else:
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
        value = values[place]
    column = f", column {place[1]}" if len(place) > 1 else ""
    raise DataError(
        f"{name} is {value} in row {partition.start + place[0]}{column} (counted from 0): leave the row out or mend it"
    )


def assemble_matrices(sums: MatrixSums, shift: MatrixShift) -> MatrixGram:
    """Drop columns of X that depend on earlier ones, undo the shift. Raises DataError for no rows, a constant response or
    as many coefficients as rows."""
    p, c = len(sums.xy) - 1, shift.constant
    spread = np.diagonal(sums.xy).copy()
    if c >= 0:
        others = np.arange(p + 1) != c
        spread[others] = np.maximum(spread - sums.xy[c] ** 2 / sums.xy[c, c], 0.0)[others]
    floor = ROUNDING_SQUARED * sums.squares
    _check_response(spread[p], max(floor[p], 1e-14 * sums.xy[p, p]), c, sums.n)
    rank = sequential_rank(sums.xy[:p, :p], np.where(np.arange(p) > c, spread[:p], np.diagonal(sums.xy)[:p]), floor[:p])
    kept = np.flatnonzero(rank.kept)
    if len(kept) >= sums.n:
        raise DataError(f"X has {len(kept)} independent columns but only {sums.n} rows; use fewer columns or more rows")
    to_user = np.eye(p)[:, kept]
    back = np.zeros(p)
    if c >= 0:
        # X_c itself, or when it depends on earlier columns (which are not shifted) its expansion in them
        back = np.eye(p)[c] if rank.kept[c] else rank.coefficients(c)
        to_user = to_user - np.outer(back, shift.shift[:p][kept])
    picked = np.append(kept, p)
    return MatrixGram(
        sums.zz,
        sums.zxy[:, picked],
        sums.xy[np.ix_(picked, picked)],
        sums.n,
        sums.sum_log_w,
        rank.kept,
        to_user,
        shift.shift[p] * back,
    )


def _check_response(spread: float, floor: float, constant: int, n: int) -> None:
    if spread <= floor:
        what = "constant" if constant >= 0 else "zero everywhere"
        raise DataError(f"the response is {what} (less any offset) in all {n} rows, so there is no variance to explain")
