"""numba kernels of conjugate gradients and of what is read off their solutions; the sparse passes themselves are in
`coupling_kernels`.

Vectors stand side by side: x (rows, nv) in C order, so the inner loop runs over contiguous numbers. Each range
writes to its own rows only.
"""

from __future__ import annotations

import numpy as np

from bigmm.kernel import njit


@njit(cache=True, nogil=True)
def block_multiply(lo, hi, blocks, transposed, x, out):
    """out[l] = blocks[l] x[l] (or its transpose): blocks (q, k, k), x and out (q, k, nv)."""
    k, nv = blocks.shape[1], x.shape[2]
    for i in range(lo, hi):
        for a in range(k):
            for v in range(nv):
                # out is new memory with any content. It must not be x.
                out[i, a, v] = 0.0
            for b in range(k):
                t = blocks[i, b, a] if transposed else blocks[i, a, b]
                for v in range(nv):
                    out[i, a, v] += t * x[i, b, v]


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
            # out is float64 also where the columns are float32.
            out[v] += x[i, v] * y[i, v]
    return out


@njit(cache=True, nogil=True)
def cg_update(lo, hi, alpha, p, ap, x, r):
    """x += alpha p, r -= alpha ap; returns the new squared norms (nv,) of r over rows lo..hi."""
    nv = p.shape[1]
    out = np.zeros(nv)
    for i in range(lo, hi):
        for v in range(nv):
            # One sweep where three operations would take three: memory is the limit, not arithmetic.
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
