"""Row kernels of the pass: the dense Gram matrix and one record per level.

A row is v = [1, columns..., y - offset] - shift, m numbers. Rows are taken in blocks that stay in the L1 cache: a block
is shifted once, then used twice, for the Gram matrix and for the records. Records are added row by row, four rows
turned from columns in registers (`vector`), or by dot products over runs of rows of one level where these are long.
Sums are formed in an order that depends on the rows alone, never on threads. Twins in plain NumPy live in
tests/accumulate/twins.py.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from bigmm.accumulate.vector import BLOCK, STRIDE, add_four_rows, add_four_rows_once, add_four_rows_twice, prefetch
from bigmm.kernel import njit

# Rows per run from which a dot product beats adding row by row.
_LONG_RUN = 16
# Records are asked for this many rows before they are needed (when they are too many for the cache).
_AHEAD = 32
_CACHED = 1 << 15
# Sums may be regrouped into vector lanes (fixed when compiled), but NaN and infinity keep their meaning.
_REGROUP = {"reassoc", "contract", "nsz"}

# A part of a kernel is called by kernels only. Without the code that makes it callable from Python it compiles faster.
_njit: Any = njit
_part = _njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
_regrouping_part = _njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, fastmath=_REGROUP)

# Inner loops run over views from 0: an index like `start + i` could be negative for all numba knows, and the check for
# it keeps a loop from being vectorized (measured: 4 to 6 times slower).


class ChunkRows(NamedTuple):
    """The rows of a chunk: columns (m - 2, n); y (n,); offset and w (n,) or empty; shift (m,). All but the shift are
    read-only views, see `read_only`."""

    columns: np.ndarray
    y: np.ndarray
    offset: np.ndarray
    w: np.ndarray
    shift: np.ndarray


def read_only(array: np.ndarray) -> np.ndarray:
    """A view that cannot be written. Columns of a table are read-only or not, which numba takes for two types: kernels
    that are always called with read-only views compile once."""
    view = array.view()
    view.flags.writeable = False
    return view


def padded(m: int) -> int:
    """Numbers that a row of a record takes: 7, 11, 15, ... are rounded up, so that vectors of four fit."""
    return m + 1 if m >= 7 and m % 4 == 3 else m


def zero_records(q: int, k: int, m: int) -> np.ndarray:
    """(q, k, padded(m)) zeros on a boundary of cache lines."""
    # NumPy promises no boundary of 64 bytes. Eight numbers more leave room to move up to one.
    size = q * k * padded(m)
    raw = np.zeros(size + 8)
    first = (-raw.ctypes.data // 8) % 8
    return raw[first : first + size].reshape(q, k, padded(m))


@_part
def _shift_into(source, shift, target):
    for i in range(source.shape[0]):
        target[i] = source[i] - shift


@_part
def _fill(columns, y, offset, shift, start, stop, block):
    """block (m, >= rows) = the shifted rows start <= i < stop, one row of `block` per dense column."""
    m = shift.shape[0]
    block[0, : stop - start] = 1.0
    for j in range(1, m - 1):
        _shift_into(columns[j - 1, start:stop], shift[j], block[j])
    if offset.shape[0]:
        y_rows, offset_rows, target, s = y[start:stop], offset[start:stop], block[m - 1], shift[m - 1]
        for i in range(y_rows.shape[0]):
            # The offset comes off first, because s was chosen for y - offset.
            target[i] = (y_rows[i] - offset_rows[i]) - s
    else:
        _shift_into(y[start:stop], shift[m - 1], block[m - 1])


@_part
def _multiply_into(block, w, target):
    """target[j] = block[j] * w for every row j of the block."""
    for j in range(target.shape[0]):
        source, into = block[j], target[j]
        for i in range(w.shape[0]):
            into[i] = source[i] * w[i]


@_regrouping_part
def _dot(a, b):
    total = 0.0
    for i in range(a.shape[0]):
        total += a[i] * b[i]
    return total


@_regrouping_part
def _four_dots(a0, a1, b0, b1):
    s00 = s01 = s10 = s11 = 0.0
    for i in range(a0.shape[0]):
        s00 += a0[i] * b0[i]
        s01 += a0[i] * b1[i]
        s10 += a1[i] * b0[i]
        s11 += a1[i] * b1[i]
    return s00, s01, s10, s11


@_part
def _block_gram(plain, right, rows, out):
    """out (m, m) upper triangle = plain[:, :rows] @ right[:, :rows]', two by two so that loads are shared."""
    m = plain.shape[0]
    for a in range(0, m - 1, 2):
        # The first pair of a row also writes out[a + 1, a], below the diagonal, which nobody reads.
        for b in range(a, m - 1, 2):
            out[a, b], out[a, b + 1], out[a + 1, b], out[a + 1, b + 1] = _four_dots(
                plain[a, :rows], plain[a + 1, :rows], right[b, :rows], right[b + 1, :rows]
            )
    if m % 2:
        for a in range(m):
            out[a, m - 1] = _dot(plain[a, :rows], right[m - 1, :rows])


@_part
def _add_compensated(high, low, term):
    """high + low (m, m) += term, upper triangle only, keeping the rounding errors in low (Knuth's TwoSum)."""
    for a in range(high.shape[0]):
        for b in range(a, high.shape[0]):
            old = high[a, b]
            new = old + term[a, b]
            part = new - old
            low[a, b] += (old - (new - part)) + (term[a, b] - part)
            high[a, b] = new


@_part
def _count_runs(refs):
    runs = 1
    for i in range(1, refs.shape[0]):
        runs += refs[i] != refs[i - 1]
    return runs


@_part
def _add_runs(block, right, refs, covariates, records):
    """records[level, a, c] += block[covariates[a]] . right[c] over each run of rows of one level."""
    rows, start = refs.shape[0], 0
    while start < rows:
        stop, level = start + 1, refs[start]
        while stop < rows and refs[stop] == level:
            stop += 1
        for a in range(covariates.shape[0]):
            z = block[covariates[a], start:stop]
            for c in range(right.shape[0]):
                records[level, a, c] += _dot(z, right[c, start:stop])
        start = stop


@_part
def _ask_for(records, levels):
    width = records.shape[1] * records.shape[2]
    for i in range(levels.shape[0]):
        first = np.int64(levels[i]) * width
        for c in range(0, width, 8):
            prefetch(records, first + c)


@_part
def _add_single(block, right, i, level, covariates, first, stop, records):
    """records[level, a, c] += block[covariates[a], i] * right[c, i] for first <= c < stop."""
    for a in range(covariates.shape[0]):
        z = block[covariates[a], i]
        for c in range(first, stop):
            records[level, a, c] += z * right[c, i]


@_part
def _add_one_by_one(block, right, m, refs, ahead, covariates, records):
    """records[level, a, :m] += block[covariates[a], i] * right[:, i] row by row; `ahead` are levels to come.

    Four rows at a time are turned from columns into rows in registers. ``block`` and ``right`` have zeros up to the
    padded width of a record.
    """
    step, rows = records.shape[2], refs.shape[0]
    width, whole, fours = records.shape[1] * step, step - step % 4, rows - rows % 4
    far = records.size > _CACHED
    for i in range(0, fours, 4):
        if far:
            _ask_for(records, ahead[i : i + 4])
        r0, r1 = np.int64(refs[i]) * width, np.int64(refs[i + 1]) * width
        r2, r3 = np.int64(refs[i + 2]) * width, np.int64(refs[i + 3]) * width
        for c in range(0, whole, 4):
            starts = r0 + c, r1 + c, r2 + c, r3 + c
            if covariates.shape[0] == 2:
                add_four_rows_twice(records, starts, step, right, c * STRIDE + i, block, covariates, i)
            elif covariates.shape[0] == 1:
                add_four_rows_once(records, starts, step, right, c * STRIDE + i, block, covariates, i)
            else:
                add_four_rows(records, starts, step, right, c * STRIDE + i, block, covariates, i)
        if whole < m:
            for r in range(i, i + 4):
                _add_single(block, right, r, refs[r], covariates, whole, m, records)
    none = np.int64(0)  # a literal 0 would be a type, and a signature, of its own
    for r in range(fours, rows):
        _add_single(block, right, r, refs[r], covariates, none, m, records)


@njit(cache=True, nogil=True)
def add_rows(rows, with_gram, high, low, with_records, refs, covariates, records):
    """Add a chunk to the Gram matrix and to the records of one joint term.

    Parameters
    ----------
    rows: `ChunkRows`.
    with_gram, with_records: switch the two halves on.
    high, low: (m, m) Gram matrix as the sum of two numbers, of which the upper triangle is written.
    refs: (n,) int32 level of each row, read-only.
    covariates: (k,) int64 columns of the row that are the term's.
    records: (q, k, >= m), see `zero_records`.
    """
    columns, y, offset, w, shift = rows
    m, n = shift.shape[0], y.shape[0]
    wide = max(m, records.shape[2])
    block, weighted = np.zeros((wide, STRIDE)), np.zeros((wide, STRIDE))
    # A block's sums have the rounding errors of 256 additions; the total over all blocks is compensated.
    partial = np.zeros((m, m))
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        _fill(columns, y, offset, shift, start, stop, block)
        right = block
        if w.shape[0]:
            _multiply_into(block, w[start:stop], weighted[:m])
            right = weighted
        if with_gram:
            _block_gram(block[:m], right[:m], stop - start, partial)
            _add_compensated(high, low, partial)
        if with_records:
            levels = refs[start:stop]
            # Decided by the rows of the block alone: the bits are the same wherever the block is summed.
            if _count_runs(levels) * _LONG_RUN <= stop - start:
                _add_runs(block, right[:m], levels, covariates, records)
            else:
                ahead = refs[start + _AHEAD : stop + _AHEAD]
                _add_one_by_one(block, right, m, levels, ahead, covariates, records)


@njit(cache=True, nogil=True)
def count_levels(refs, counts):
    """counts (q,) int64 += rows of each level."""
    for i in range(refs.shape[0]):
        counts[refs[i]] += 1
