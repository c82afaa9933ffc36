"""numba kernels that assemble one tile of the tail's Schur complement from sparse columns; NumPy twins in the tests."""

from __future__ import annotations

import numpy as np

from bigmm.kernel import njit


@njit(cache=True, nogil=True)
def place(colptr, row, value, lo, hi, out):
    """out[row - lo, column] = value for the entries of CSC columns (rows increasing) with lo <= row < hi."""
    for c in range(len(colptr) - 1):
        first, last = colptr[c], colptr[c + 1]
        # Rows increase within a column (`reduce` sorts them), so bisection finds the first one of the tile.
        e = first + np.searchsorted(row[first:last], lo)
        while e < last and row[e] < hi:
            out[row[e] - lo, c] = value[e]
            e += 1


@njit(cache=True, nogil=True)
def by_level(colptr, level, values, n_levels):
    """The same entries level by level: (start (n_levels + 1,), column (nnz,) int32, values (nnz, k)); columns
    increase within a level."""
    start = np.zeros(n_levels + 1, np.int64)
    for e in range(len(level)):
        start[level[e] + 1] += 1
    for i in range(n_levels):
        start[i + 1] += start[i]
    # A counting sort. Columns are visited in increasing order, so they increase within a level.
    position = start[:-1].copy()
    column = np.empty(len(level), np.int32)
    out = np.empty(values.shape)
    for c in range(len(colptr) - 1):
        for e in range(colptr[c], colptr[c + 1]):
            t = position[level[e]]
            position[level[e]] = t + 1
            column[t] = c
            for a in range(values.shape[1]):
                out[t, a] = values[e, a]
    return start, column, out


@njit(cache=True, nogil=True)
def subtract_products(colptr, level, values, start, column, other, out):
    """out[r, c] -= sum over levels f_r'f_c: rows as CSC columns (colptr, level, values (nnz, k)), columns level by
    level (start, column, other (nnz, k))."""
    k = values.shape[1]
    # A number of the tile is summed in the order of the row's levels: its bits do not depend on who makes the tile.
    for r in range(len(colptr) - 1):
        for e in range(colptr[r], colptr[r + 1]):
            i = level[e]
            for a in range(k):
                x = values[e, a]
                for t in range(start[i], start[i + 1]):
                    out[r, column[t]] -= x * other[t, a]
