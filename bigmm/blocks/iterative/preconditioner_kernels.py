"""numba kernels of the preconditioner: what the stages' rows say on the trees of nested terms of the tail."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bigmm.kernel import njit


class FlatTree(NamedTuple):
    """The factor of P on one chain of T nested terms of the tail, finer terms first, in flat arrays.

    first, stop, width: (T,) columns of each term in the tail, first .. stop, and its covariates.
    h, h_start: (q, width, width) of each term from h_start on.
    above: (T,) number of columns that contain a level.
    link, f, f_start: (.,) these columns in the tail, and (., widest) the factor there, of each term from f_start on.
    """

    first: np.ndarray
    stop: np.ndarray
    width: np.ndarray
    h_start: np.ndarray
    h: np.ndarray
    above: np.ndarray
    f_start: np.ndarray
    link: np.ndarray
    f: np.ndarray


@njit(cache=True, nogil=True)
def scatter_nested(lo, hi, rows, term, container, level, out):
    """out[m] += f_m f_p' for each level m of one tail term and the level p = level[m] that contains it; rows:
    `TailRows`; term, container: `TermColumns`; out (n_levels, width, container's width). Rows that meet m meet p."""
    first, indptr, columns, f = rows
    offset, stop, width = term
    above, above_stop, above_width = container
    k = f.shape[1]
    # Never cleared: a row that meets m meets the level p that contains it, so entry[p] is of this row when it is read.
    entry = np.zeros((above_stop - above) // above_width, np.int64)
    for i in range(lo, hi):
        e = first[i]
        while e < indptr[i + 1]:
            c = columns[e]
            if c >= above and c < above_stop:
                entry[(c - above) // above_width] = e
                e += above_width
            else:
                e += 1
        e = first[i]
        while e < indptr[i + 1]:
            c = columns[e]
            if c < offset or c >= stop:
                e += 1
                continue
            m = (c - offset) // width
            position = entry[level[m]]
            for a in range(width):
                for b in range(above_width):
                    t = 0.0
                    for d in range(k):
                        t += f[e + a, d] * f[position + b, d]
                    out[m, a, b] += t
            e += width
    return 0


@njit(cache=True, nogil=True)
def tree_norms(lo, hi, rows, tree, size):
    """Sum over rows lo..hi of |L^-1 Lambda'f'|^2 for the factor L of a tree.

    rows: `TailRows`; tree: `FlatTree`; size: number of tail columns.
    """
    start, indptr, columns, f = rows
    first, stop, width, h_start, h, above, f_start, link, tree_f = tree
    k = f.shape[1]
    y = np.zeros((size, k))
    total = 0.0
    for i in range(lo, hi):
        e = start[i]
        while e < indptr[i + 1]:
            c, t = columns[e], 0
            while t < len(first) and (c < first[t] or c >= stop[t]):
                t += 1
            if t == len(first):
                e += 1
                continue
            w, m = width[t], (c - first[t]) // width[t]
            for a in range(w):
                for d in range(k):
                    y[c + a, d] += f[e + a, d]
            for a in range(w):
                for d in range(k):
                    x = 0.0
                    for b in range(w):
                        x += h[h_start[t] + (m * w + a) * w + b] * y[c + b, d]
                    total += x * x
                    for j in range(f_start[t] + m * above[t], f_start[t] + (m + 1) * above[t]):
                        # Finer terms come first in a row: a coarser level is complete when its turn comes.
                        y[link[j], d] -= tree_f[j, a] * x
            e += w
        # What the tree links to is among the row's own columns, so clearing these is enough.
        for e in range(start[i], indptr[i + 1]):
            for d in range(k):
                y[columns[e], d] = 0.0
    return total
