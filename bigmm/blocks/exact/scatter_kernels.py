"""numba kernels that pass once over the stages' sparse columns and scatter into the tail.

Reading the entries row by row needs no second copy of them sorted by column, which would be as large as the numbers
themselves, and keeps a row's entries in the cache between gathering and scattering. Every call adds to an ``out`` of
its own (`scatter.scattered` adds these up). Vectors stand side by side in C order: x (rows, nv).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bigmm.kernel import njit


class TailRows(NamedTuple):
    """A stage's entries in the tail, row by row: those of level l are first[l] .. indptr[l + 1].

    first: (q,); indptr: (q + 1,); columns: (nnz,) tail columns; f: (nnz, k) factor, see `StageFactor`.
    """

    first: np.ndarray
    indptr: np.ndarray
    columns: np.ndarray
    f: np.ndarray


class TermColumns(NamedTuple):
    """The columns of one tail term, offset .. stop, width for each level."""

    offset: int
    stop: int
    width: int


@njit(cache=True, nogil=True)
def scatter_own(lo, hi, rows, term, out):
    """out[m] += f f' within the columns of each tail level m of one term; rows: `TailRows`; term: `TermColumns`; out
    (n_levels, width, width). A level's columns are neighbours in every row."""
    first, indptr, columns, f = rows
    offset, stop, width = term
    k = f.shape[1]
    for i in range(lo, hi):
        e = first[i]
        while e < indptr[i + 1]:
            c = columns[e]
            if c < offset or c >= stop:
                e += 1
                continue
            # The columns of one level stand together, so the first one speaks for all.
            m = (c - offset) // width
            for a in range(width):
                for b in range(width):
                    t = 0.0
                    for d in range(k):
                        t += f[e + a, d] * f[e + b, d]
                    out[m, a, b] += t
            e += width
    return 0


@njit(cache=True, nogil=True)
def multiply_both(lo, hi, indptr, indices, data, x_j, x_k, out_j, out):
    """out_j += C x_k (rows lo..hi, which no other call has) and out += C'x_j for block-CSR C (nnz, kj, kk); x_j (qj,
    kj, nv), x_k and out (qk, kk, nv)."""
    kj, kk, nv = data.shape[1], data.shape[2], x_j.shape[2]
    for i in range(lo, hi):
        for e in range(indptr[i], indptr[i + 1]):
            # Rows of out_j belong to this range. The scattered out is this call's own; `scattered` adds these in order.
            m = indices[e]
            for a in range(kj):
                for b in range(kk):
                    t = data[e, a, b]
                    for v in range(nv):
                        out_j[i, a, v] += t * x_k[m, b, v]
                        out[m, b, v] += t * x_j[i, a, v]
    return 0


@njit(cache=True, nogil=True)
def identity_blocks(lo, hi, rows, h, term, product, out, cross, cross_first):
    """The blocks of the inverse for one stage and one tail term, where S^-1 = M M' is block-diagonal.

    Parameters
    ----------
    rows: `TailRows` of the stage.
    h: (q, k, k) of the stage's factor.
    term: `TermColumns`.
    product: (n_levels, width, width) MM' of the tail term.
    out: (q, k, k), to which h'F MM'F'h is added.
    cross: (nnz_pair, k, width), -h'f MM' of each entry of the pair, in the order of the stage's levels; or empty.
    cross_first: (q,) the first entry of each level in ``cross``.
    """
    first, indptr, columns, f = rows
    offset, stop, width = term
    k = h.shape[1]
    inner, moved, with_cross = np.empty((k, k)), np.empty((k, width)), len(cross) > 0
    for i in range(lo, hi):
        inner[:] = 0.0
        # e counts scalar entries of the row, position counts blocks of this pair.
        e, position = first[i], cross_first[i]
        while e < indptr[i + 1]:
            c = columns[e]
            if c < offset or c >= stop:
                e += 1
                continue
            m = (c - offset) // width
            for a in range(k):
                for q in range(width):
                    t = 0.0
                    for p in range(width):
                        t += f[e + p, a] * product[m, p, q]
                    moved[a, q] = t
            for a in range(k):
                for b in range(k):
                    for q in range(width):
                        inner[a, b] += moved[a, q] * f[e + q, b]
            for a in range(k if with_cross else 0):
                for q in range(width):
                    t = 0.0
                    for b in range(k):
                        t -= h[i, b, a] * moved[b, q]
                    cross[position, a, q] = t
            e += width
            position += 1
        for a in range(k):
            for b in range(k):
                t = 0.0
                for p in range(k):
                    for q in range(k):
                        t += h[i, p, a] * inner[p, q] * h[i, q, b]
                out[i, a, b] += t
