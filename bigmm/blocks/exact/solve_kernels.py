"""numba kernels of solves and products; each has a NumPy twin in the tests.

Every kernel works on a range of levels (or of tail columns, or of parents) that no other call writes to, releases the
GIL and touches only the buffers it was given. Shapes: k width of the term, m dense columns (X then y), nnz sparse
entries.
"""

from __future__ import annotations

import numpy as np

from bigmm.kernel import njit


@njit(cache=True, nogil=True)
def backsolve(lo, hi, factor, indptr, columns, solution, coefficients, out):
    """Random effects of levels lo..hi: out = h'(v coefficients - f solution).

    Parameters
    ----------
    factor: `StageFactor`.
    indptr, columns: (q + 1,) and (nnz,), the stage's rows.
    solution: values of all global columns (later stages and tail), unscaled.
    coefficients: (m,) (-beta, 1).
    out: (q, k), written.
    """
    h, f, v = factor.h, factor.f, factor.v
    k, m = h.shape[1], v.shape[2]
    w = np.empty(k)
    for i in range(lo, hi):
        for a in range(k):
            t = 0.0
            for j in range(m):
                t += v[i, a, j] * coefficients[j]
            for e in range(indptr[i], indptr[i + 1]):
                t -= f[e, a] * solution[columns[e]]
            w[a] = t
        for b in range(k):
            t = 0.0
            for a in range(k):
                t += h[i, a, b] * w[a]
            out[i, b] = t


@njit(cache=True, nogil=True)
def forward_levels(lo, hi, h, v, rhs, w):
    """w = h rhs for levels lo..hi; returns (sum of v'w (m, nr), sum of w'w (nr, nr)). rhs, w: (q, k, nr)."""
    k, m, nr = h.shape[1], v.shape[2], rhs.shape[2]
    # Sums over levels are returned and not added to shared arrays: the caller adds the ranges in their order.
    vw = np.zeros((m, nr))
    ww = np.zeros((nr, nr))
    for i in range(lo, hi):
        for a in range(k):
            for c in range(nr):
                t = 0.0
                for b in range(k):
                    t += h[i, a, b] * rhs[i, b, c]
                w[i, a, c] = t
            for c in range(nr):
                t = w[i, a, c]
                for d in range(nr):
                    ww[c, d] += t * w[i, a, d]
                for j in range(m):
                    vw[j, c] += v[i, a, j] * t
    return vw, ww


@njit(cache=True, nogil=True)
def forward_tail(lo, hi, colptr, entry, level, f, w, rhs):
    """rhs[r] -= sum over levels f_r'w for tail columns lo..hi; rhs (r_raw, nr)."""
    k, nr = f.shape[1], w.shape[2]
    for r in range(lo, hi):
        for t in range(colptr[r], colptr[r + 1]):
            e, i = entry[t], level[t]
            for a in range(k):
                for c in range(nr):
                    rhs[r, c] -= f[e, a] * w[i, a, c]


@njit(cache=True, nogil=True)
def forward_parent(lo, hi, order, start, block, f, w, rhs):
    """rhs of parents lo..hi -= their children's f'w; rhs (q, k, nr)."""
    k, nr, kp = f.shape[1], w.shape[2], rhs.shape[1]
    for p in range(lo, hi):
        for t in range(start[p], start[p + 1]):
            i = order[t]
            for a in range(k):
                for r in range(kp):
                    x = f[block[i] + r, a]
                    for c in range(nr):
                        rhs[p, r, c] -= x * w[i, a, c]


@njit(cache=True, nogil=True)
def multiply(lo, hi, indptr, indices, data, x, out):
    """out[i] += sum over entries data x[indices]: block-CSR (nnz, kj, kk) times x (qk, kk, nr) into out (qj, kj,
    nr)."""
    kj, kk, nr = data.shape[1], data.shape[2], x.shape[2]
    for i in range(lo, hi):
        for e in range(indptr[i], indptr[i + 1]):
            j = indices[e]
            for a in range(kj):
                for b in range(kk):
                    t = data[e, a, b]
                    for c in range(nr):
                        out[i, a, c] += t * x[j, b, c]


@njit(cache=True, nogil=True)
def multiply_own(lo, hi, diagonal, x, out):
    """out[i] += diagonal[i] x[i]: (q, k, k) times (q, k, nr)."""
    k, nr = diagonal.shape[1], x.shape[2]
    for i in range(lo, hi):
        for a in range(k):
            for c in range(nr):
                t = 0.0
                for b in range(k):
                    t += diagonal[i, a, b] * x[i, b, c]
                out[i, a, c] += t


@njit(cache=True, nogil=True)
def score(lo, hi, shrinkage, dense, residual, out):
    """out[i] = shrinkage[i - lo] (dense[i] residual - out[i]) for levels lo..hi.

    shrinkage (hi - lo, k, k); dense (q, k, m); residual (m,); out (q, k).
    """
    k, m = dense.shape[1], len(residual)
    rhs = np.empty(k)
    for i in range(lo, hi):
        for a in range(k):
            # out[i] comes in as what the other terms fit and goes out as the score.
            t = -out[i, a]
            for j in range(m):
                t += dense[i, a, j] * residual[j]
            rhs[a] = t
        for a in range(k):
            t = 0.0
            for b in range(k):
                t += shrinkage[i - lo, a, b] * rhs[b]
            out[i, a] = t


@njit(cache=True, nogil=True)
def score_scalars(lo, hi, lam, diagonal, dense, residual, out):
    """out[i] = (dense[i] residual - out[i]) / (1 + diagonal[i] lam lam') for width 1; see `score`."""
    sigma = lam[0, 0] * lam[0, 0]
    for i in range(lo, hi):
        t = -out[i, 0]
        for j in range(len(residual)):
            t += dense[i, 0, j] * residual[j]
        # This division replaces the difference y - X beta - Z b, which cancels where levels have many rows.
        out[i, 0] = t / (1.0 + diagonal[i, 0, 0] * sigma)


@njit(cache=True, nogil=True)
def tall_product(lo, hi, a, b):
    """a[lo:hi]'b[lo:hi] for tall arrays (n, i) and (n, j)."""
    ni, nj = a.shape[1], b.shape[1]
    out = np.zeros((ni, nj))
    for r in range(lo, hi):
        for i in range(ni):
            t = a[r, i]
            for j in range(nj):
                out[i, j] += t * b[r, j]
    return out
