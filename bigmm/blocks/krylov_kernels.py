"""numba kernels that apply the Schur complement of the tail without forming it: two sparse passes over the
cross-blocks.

Vectors stand side by side: x (rows, nv) in C order, so the inner loop runs over contiguous numbers. Each range
writes to its own rows only.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def to_levels(lo, hi, tail_start, indptr, columns, f, x, w):
    """w[l] = sum over a level's tail entries f_e x[column e]; f (nnz, k), x (r_raw, nv), w (q, k, nv)."""
    k, nv = f.shape[1], x.shape[1]
    for i in range(lo, hi):
        for a in range(k):
            for v in range(nv):
                w[i, a, v] = 0.0
        for e in range(tail_start[i], indptr[i + 1]):
            c = columns[e]
            for a in range(k):
                t = f[e, a]
                for v in range(nv):
                    w[i, a, v] += t * x[c, v]


@njit(cache=True, nogil=True)
def own_blocks(lo, hi, first, width, colptr, entry, f, out):
    """out[l] -= sum over stages' levels f f' within the columns of tail level l; columns first + l * width + a are
    neighbours in every row. out (n_levels, width, width)."""
    k = f.shape[1]
    for i in range(lo, hi):
        c = first + i * width
        for t in range(colptr[c], colptr[c + 1]):
            e = entry[t]
            for a in range(width):
                for b in range(width):
                    x = 0.0
                    for d in range(k):
                        x += f[e + a, d] * f[e + b, d]
                    out[i, a, b] -= x


@njit(cache=True, nogil=True)
def block_multiply(lo, hi, blocks, transposed, x, out):
    """out[l] = blocks[l] x[l] (or its transpose): blocks (q, k, k), x and out (q, k, nv)."""
    k, nv = blocks.shape[1], x.shape[2]
    for i in range(lo, hi):
        for a in range(k):
            for v in range(nv):
                out[i, a, v] = 0.0
            for b in range(k):
                t = blocks[i, b, a] if transposed else blocks[i, a, b]
                for v in range(nv):
                    out[i, a, v] += t * x[i, b, v]


@njit(cache=True, nogil=True)
def back_levels(lo, hi, h, f, v, indptr, columns, solution, out):
    """out[l] = h'(v - f solution) for many right-hand sides: v (q, k, nv) or empty, solution (columns, nv), out (q,
    k, nv)."""
    k, nv = h.shape[1], out.shape[2]
    w = np.empty((k, nv))
    for i in range(lo, hi):
        for a in range(k):
            for c in range(nv):
                w[a, c] = v[i, a, c] if len(v) else 0.0
        for e in range(indptr[i], indptr[i + 1]):
            for a in range(k):
                t = f[e, a]
                for c in range(nv):
                    w[a, c] -= t * solution[columns[e], c]
        for b in range(k):
            for c in range(nv):
                t = 0.0
                for a in range(k):
                    t += h[i, a, b] * w[a, c]
                out[i, b, c] = t


@njit(cache=True, nogil=True)
def pairwise_products(lo, hi, x, y):
    """(nv, k, k) sums over levels lo..hi of x[l, :, v] y[l, :, v]'; x, y (q, k, nv)."""
    k, nv = x.shape[1], x.shape[2]
    out = np.zeros((nv, k, k))
    for i in range(lo, hi):
        for a in range(k):
            for b in range(k):
                for v in range(nv):
                    out[v, a, b] += x[i, a, v] * y[i, b, v]
    return out


@njit(cache=True, nogil=True)
def column_dots(lo, hi, x, y):
    """(nv,) dot products of the columns of x and y over rows lo..hi."""
    nv = x.shape[1]
    out = np.zeros(nv)
    for i in range(lo, hi):
        for v in range(nv):
            out[v] += x[i, v] * y[i, v]
    return out


@njit(cache=True, nogil=True)
def cg_update(lo, hi, alpha, p, ap, x, r):
    """x += alpha p, r -= alpha ap; returns the new squared norms (nv,) of r over rows lo..hi."""
    nv = p.shape[1]
    out = np.zeros(nv)
    for i in range(lo, hi):
        for v in range(nv):
            x[i, v] += alpha[v] * p[i, v]
            t = r[i, v] - alpha[v] * ap[i, v]
            r[i, v] = t
            out[v] += t * t
    return out


@njit(cache=True, nogil=True)
def cg_direction(lo, hi, beta, r, p):
    """p = r + beta p."""
    nv = p.shape[1]
    for i in range(lo, hi):
        for v in range(nv):
            p[i, v] = r[i, v] + beta[v] * p[i, v]


@njit(cache=True, nogil=True)
def stage_identity(lo, hi, tail_start, indptr, columns, h, f, first, stop, width, product):
    """sum over levels of h'f product f'h within one tail term's columns; product (n_levels, width, width)."""
    k = h.shape[1]
    total = np.zeros((k, k))
    inner = np.empty((k, k))
    for i in range(lo, hi):
        for a in range(k):
            for b in range(k):
                inner[a, b] = 0.0
        e = tail_start[i]
        while e < indptr[i + 1]:
            c = columns[e]
            if c < first or c >= stop:
                e += 1
                continue
            level = (c - first) // width
            for a in range(k):
                for b in range(k):
                    t = 0.0
                    for p in range(width):
                        for q in range(width):
                            t += f[e + p, a] * product[level, p, q] * f[e + q, b]
                    inner[a, b] += t
            e += width
        for a in range(k):
            for b in range(k):
                t = 0.0
                for p in range(k):
                    for q in range(k):
                        t += h[i, p, a] * inner[p, q] * h[i, q, b]
                total[a, b] += t
    return total
