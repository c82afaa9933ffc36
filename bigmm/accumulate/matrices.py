"""Sums over the rows of model matrices: partitions -> `MatrixSums` -> `MatrixGram`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp

from bigmm.accumulate.fixedpart import ROUNDING_SQUARED
from bigmm.accumulate.nearness import MIX, NOTHING, ROUNDED, mixture_of
from bigmm.accumulate.overflow import LARGEST, amount
from bigmm.accumulate.rank import MIXED_TOLERANCE, TOLERANCE, pivots, sequential_rank, squares_of
from bigmm.blocks.matrices import MatrixGram
from bigmm.errors import DataError
from bigmm.execute.discipline import one_thread_each
from bigmm.execute.lanes import Lane
from bigmm.source.matrices import MatrixPartition, is_sparse

Y, X, Z, WEIGHTS, OFFSET = "y", "X", "Z", "weights", "offset"


@dataclass(frozen=True, slots=True)
class MatrixShift:
    """Columns of [X y] are summed less a multiple of X one, which the small algebra undoes exactly whatever X one is.

    Attributes
    ----------
    one: (p,) weights with X one = 1 in the first rows, zero when there are none.
    shift: (p + 1,) multiples of X one. It is 0 up to the last column that `one` uses, so that a column that depends on
        earlier ones still does.
    mix: (p + 1, p + 1) C, the combinations of earlier columns that are taken off too: shifted columns are v (I + C).
    """

    one: np.ndarray
    shift: np.ndarray
    mix: np.ndarray

    def apply(self, xy: np.ndarray) -> None:
        """Shift the rows of [X y] (n, p + 1) in place."""
        if self.shift.any():
            xy -= np.outer(xy[:, :-1] @ self.one, self.shift)
        # In the order of columns: what is taken off is a combination of earlier columns that are final.
        for column in np.flatnonzero(self.mix.any(axis=0)):
            xy[:, column] -= xy @ self.mix[:, column]


@dataclass(frozen=True, slots=True)
class MatrixSums:
    """Sums over rows of [Z Xy]'W[Z Xy] with shifted Xy.

    Attributes
    ----------
    zz, zxy, xy: (q, q) csr, (q, p + 1) and (p + 1, p + 1), the three blocks.
    squares: (p + 1,) sums of w x^2 before the shift.
    n: number of rows.
    sum_log_w: sum of log weights.
    """

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


def merge(one: MatrixSums, right: MatrixSums) -> MatrixSums:
    """`MatrixSums.merge`, as the executor wants it."""
    return one.merge(right)


def matrix_shift(partition: MatrixPartition) -> MatrixShift:
    """Shift by the means of the first partition; columns of zeros and ones stay."""
    x, y = partition.read(X), _response(partition)
    x = x.toarray() if is_sparse(x) else x
    xy = np.column_stack([x, y])
    binary = ((xy == 0.0) | (xy == 1.0)).all(axis=0)
    one = _constant(x, binary[:-1])
    last = int(np.flatnonzero(one).max(initial=-1))
    means = xy.mean(axis=0)
    moved = (np.arange(len(means)) > last) & ~binary & np.isfinite(means) & bool(one.any())
    plain = MatrixShift(one, np.where(moved, means, 0.0), np.zeros((len(means), len(means))))
    return replace(plain, mix=_mix(plain, xy, ~binary))


def _mix(plain: MatrixShift, xy: np.ndarray, may: np.ndarray) -> np.ndarray:
    """(p + 1, p + 1) what earlier columns nearly give, by the rows of xy, which change."""
    mix = np.zeros_like(plain.mix)
    plain.apply(xy)
    if len(xy) <= xy.shape[1] + 2:  # too few to tell
        return mix
    with np.errstate(over="ignore", invalid="ignore"):
        about = xy - xy.mean(axis=0) if plain.one.any() else xy
        sizes = np.einsum("ij,ij->j", about, about)
    if not np.all(np.isfinite(sizes)):
        return mix
    scale = np.where(sizes > 0.0, np.sqrt(sizes), 1.0)
    one = pivots((xy / scale).T @ (xy / scale))
    if not ((one < MIX) & (sizes > 0.0) & (may | (one > ROUNDED))).any():
        return mix
    with one_thread_each():
        nearness = mixture_of(xy, sizes, may)
    for column, weights in nearness.weights.items():
        if column < len(sizes) - 1 or nearness.residual[column] > NOTHING:
            mix[list(weights), column] = list(weights.values())
    return mix


def _constant(x: np.ndarray, binary: np.ndarray) -> np.ndarray:
    """(p,) weights that make ones: of the first constant column, else of indicator columns, else zeros."""
    one = np.zeros(x.shape[1])
    constant = np.flatnonzero((x == x[0]).all(axis=0) & (x[0] != 0) & np.isfinite(x[0]))
    if len(constant):
        one[constant[0]] = 1.0 / x[0, constant[0]]
        return one
    if not binary.any():
        return one
    weights = np.linalg.lstsq(x[:, binary], np.ones(len(x)), rcond=1e-8)[0]
    if np.allclose(x[:, binary] @ weights, 1.0, rtol=0.0, atol=1e-9):
        one[binary] = np.where(np.abs(weights) > 1e-9, weights, 0.0)
    return one


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
    x = x.toarray() if is_sparse(x) else x
    _refuse_nonfinite(partition, X, x)
    _refuse_nonfinite(partition, Z, z)
    xy = np.column_stack([x, _response(partition)])
    w = _weights(partition)
    with np.errstate(over="ignore", invalid="ignore"):  # what is too large is named when all rows are summed
        return _products(shift, xy, z, w)


def _products(shift: MatrixShift, xy: np.ndarray, z: Any, w: np.ndarray | None) -> MatrixSums:
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
    data = values.data if is_sparse(values) else values
    # A sum is infinite for large finite numbers too, so the slow test has the last word.
    if np.isfinite(data.sum()) or np.isfinite(data).all():
        return
    entry = int(np.argmax(~np.isfinite(data)))
    value = data.flat[entry]
    place: tuple[int, ...] = tuple(int(i) for i in np.unravel_index(entry, data.shape))
    if is_sparse(values):
        row = int(np.searchsorted(np.asarray(values.indptr), entry, side="right")) - 1
        place = (row, int(values.indices[entry]))
    column = f", column {place[1]}" if len(place) > 1 else ""
    raise DataError(
        f"{name} is {value} in row {partition.start + place[0]}{column} (counted from 0): leave the row out or mend it"
    )


def assemble_matrices(sums: MatrixSums, shift: MatrixShift) -> MatrixGram:
    """Drop columns of X that depend on earlier ones, undo the shift.

    Raises DataError for columns that are too large to square, a constant response, or as many coefficients as rows.
    """
    p, one = len(sums.xy) - 1, shift.one
    large = np.flatnonzero(~(sums.squares <= LARGEST))
    if len(large):
        column = large[-1]
        name = "y, less any offset," if column == p else f"column {column} of X (counted from 0)"
        raise DataError(
            f"the squares of {name} {amount(sums.squares[column])}, times any weights, which is too large to compute "
            "with: check the largest values, or use a larger unit"
        )
    spread = _spread(sums, one)
    unmixed = np.eye(p + 1) + shift.mix
    mixed = shift.mix.any(axis=0)
    if mixed.any():
        spread = np.where(mixed, squares_of(sums.xy, unmixed), spread)
    floor = ROUNDING_SQUARED * sums.squares
    if spread[p] <= max(floor[p], 1e-14 * sums.xy[p, p]):
        raise DataError(
            f"the response (less any offset) is constant in all {sums.n} rows, so there is no variance to explain"
        )
    tolerance = np.where(mixed, MIXED_TOLERANCE, TOLERANCE)
    rank = sequential_rank(sums.xy[:p, :p], spread[:p], floor[:p], tolerance[:p])
    independent = np.flatnonzero(rank.independent)
    if len(independent) >= sums.n:
        raise DataError(
            f"X has {len(independent)} independent columns but only {sums.n} rows; use fewer columns or more rows"
        )
    back = np.where(rank.independent, one, 0.0)
    for column in np.flatnonzero(
        ~rank.independent & (one != 0.0)
    ):  # expanded in earlier columns, which are not shifted
        back += one[column] * rank.coefficients(column)
    whole, y_coefficients = unmixed[:p, :p].copy(), unmixed[:p, p].copy()
    for column in np.flatnonzero(~rank.independent):
        expansion, others = rank.coefficients(column), np.arange(p) != column
        whole[:, others] += np.outer(expansion, whole[column, others])
        y_coefficients += y_coefficients[column] * expansion
        whole[column, others] = y_coefficients[column] = 0.0
    unshift = np.eye(p) - np.outer(back, np.where(rank.independent, shift.shift[:p], 0.0))
    to_user = unshift @ np.linalg.inv(whole)[:, independent]
    picked = np.append(independent, p)
    return MatrixGram(
        sums.zz,
        sums.zxy[:, picked],
        sums.xy[np.ix_(picked, picked)],
        sums.n,
        sums.sum_log_w,
        rank.independent,
        to_user,
        shift.shift[p] * back + unshift @ np.linalg.solve(whole, y_coefficients),
    )


def _spread(sums: MatrixSums, one: np.ndarray) -> np.ndarray:
    """(p + 1,) sums of squares, about the mean for y and the columns of X after those that make the constant."""
    spread = np.diagonal(sums.xy).copy()
    if not one.any():
        return spread
    along = sums.xy[:, :-1] @ one
    about = np.maximum(spread - along**2 / (one @ along[:-1]), 0.0)
    return np.where(np.arange(len(spread)) > np.flatnonzero(one).max(), about, spread)
