"""numba kernels of the blocked Cholesky factor; each has a NumPy twin in the tests.

Every kernel works on a range of levels (or of tail columns, or of parents) that no other call writes to, releases the GIL
and touches only the buffers it was given. Shapes: k width of the term, m dense columns (X then y), nnz sparse entries.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def eliminate(lo, hi, lam, multiplicity, diagonal, dense, indptr, data, h, f, v):
    """Factor levels lo..hi: D = lam' diagonal lam + I = L L', then h = L^-1 lam', f = h data, v = h dense.

    lam (k, k); diagonal (q, k, k); dense (q, k, m); data (nnz, k); out: h (q, k, k), f (nnz, k), v (q, k, m).
    Returns (sum of log|D|, sum of v'v as (m, m), lower triangle).
    """
    k, m = lam.shape[0], dense.shape[2]
    logdet = 0.0
    vv = np.zeros((m, m))
    if k == 1:
        s = lam[0, 0]
        for i in range(lo, hi):
            d = s * s * diagonal[i, 0, 0] + 1.0
            logdet += multiplicity[i] * np.log(d)
            g = s / np.sqrt(d)
            h[i, 0, 0] = g
            for e in range(indptr[i], indptr[i + 1]):
                f[e, 0] = g * data[e, 0]
            for a in range(m):
                v[i, 0, a] = g * dense[i, 0, a]
            for a in range(m):
                va = v[i, 0, a]
                for b in range(a + 1):
                    vv[a, b] += va * v[i, 0, b]
        return logdet, vv
    low = np.empty((k, k))
    part = np.empty((k, k))
    for i in range(lo, hi):
        for a in range(k):
            for b in range(k):
                t = 0.0
                for c in range(k):
                    t += diagonal[i, a, c] * lam[c, b]
                part[a, b] = t
        for a in range(k):
            for b in range(a + 1):
                t = 1.0 if a == b else 0.0
                for c in range(k):
                    t += lam[c, a] * part[c, b]
                for c in range(b):
                    t -= low[a, c] * low[b, c]
                if a == b:
                    low[a, a] = np.sqrt(t)
                    logdet += multiplicity[i] * np.log(t)
                else:
                    low[a, b] = t / low[b, b]
        for b in range(k):
            for a in range(k):
                t = lam[b, a]
                for c in range(a):
                    t -= low[a, c] * h[i, c, b]
                h[i, a, b] = t / low[a, a]
        for e in range(indptr[i], indptr[i + 1]):
            for a in range(k):
                t = 0.0
                for c in range(k):
                    t += h[i, a, c] * data[e, c]
                f[e, a] = t
        for a in range(k):
            for b in range(m):
                t = 0.0
                for c in range(k):
                    t += h[i, a, c] * dense[i, c, b]
                v[i, a, b] = t
            for b in range(m):
                t = v[i, a, b]
                for c in range(b + 1):
                    vv[b, c] += t * v[i, a, c]
    return logdet, vv


@njit(cache=True, nogil=True)
def update_tail(lo, hi, colptr, entry, level, tail_start, columns, f, v, s):
    """Rows lo..hi of the tail: s[r, c] -= sum over levels f_r'f_c for c <= r; s[r_raw + j, r] -= f_r'v_j.

    colptr, entry, level: column-wise view of a stage's tail entries; s (r_raw + m, r_raw + m), lower triangle updated.
    """
    k, m = f.shape[1], v.shape[2]
    r_raw = s.shape[0] - m
    for r in range(lo, hi):
        for t in range(colptr[r], colptr[r + 1]):
            e, i = entry[t], level[t]
            for a in range(k):
                x = f[e, a]
                for e2 in range(tail_start[i], e + 1):
                    s[r, columns[e2]] -= x * f[e2, a]
                for j in range(m):
                    s[r_raw + j, r] -= x * v[i, a, j]


@njit(cache=True, nogil=True)
def update_parent(lo, hi, order, start, block, position, indptr, f, v, diagonal, dense, data):
    """Parents lo..hi: subtract their children's f f' from diagonal (q, k, k), dense (q, k, m) and data (nnz, k)."""
    k, m, kp = f.shape[1], v.shape[2], diagonal.shape[1]
    for p in range(lo, hi):
        for t in range(start[p], start[p + 1]):
            i = order[t]
            b = block[i]
            for a in range(k):
                for r in range(kp):
                    x = f[b + r, a]
                    for c in range(kp):
                        diagonal[p, r, c] -= x * f[b + c, a]
                    for j in range(m):
                        dense[p, r, j] -= x * v[i, a, j]
                    for e in range(indptr[i], indptr[i + 1]):
                        if position[e] >= 0:
                            data[position[e], r] -= x * f[e, a]


@njit(cache=True, nogil=True)
def scale_lower(lo, hi, matrix, scale, n_random, out):
    """Rows lo..hi of out = diag(scale) matrix diag(scale) + I on the first n_random; lower triangles."""
    for i in range(lo, hi):
        s = scale[i]
        for j in range(i + 1):
            out[i, j] = matrix[i, j] * (s * scale[j])
        if i < n_random:
            out[i, i] += 1.0


@njit(cache=True, nogil=True)
def scale_mirrored(lo, hi, lower, scale, out):
    """Rows and columns lo..hi of out = diag(scale) symmetric(lower) diag(scale), both triangles."""
    for i in range(lo, hi):
        s = scale[i]
        for j in range(i + 1):
            t = lower[i, j] * (s * scale[j])
            out[i, j] = t
            out[j, i] = t


@njit(cache=True, nogil=True)
def backsolve(lo, hi, h, f, v, indptr, columns, solution, coefficients, out):
    """Random effects of levels lo..hi: out = h'(v coefficients - f solution).

    coefficients (m,) = (-beta, 1); solution: values of all global columns (later stages and tail), unscaled; out (q, k).
    """
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
    """out[i] += sum over entries data x[indices]: block-CSR (nnz, kj, kk) times x (qk, kk, nr) into out (qj, kj, nr)."""
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
    """out[i] = diagonal[i] x[i]: (q, k, k) times (q, k, nr)."""
    k, nr = diagonal.shape[1], x.shape[2]
    for i in range(lo, hi):
        for a in range(k):
            for c in range(nr):
                t = 0.0
                for b in range(k):
                    t += diagonal[i, a, b] * x[i, b, c]
                out[i, a, c] = t


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


@njit(cache=True, nogil=True)
def _gather(i, indptr, columns, r_raw, p, plevel, ppos, pwidth, pdiag, pcol, px, jdiag, jcol, jx, tail, out):
    """The inverse between all columns that level i touches: parents, tail, fixed effects -> out (n, n); returns n.

    plevel (np, q), ppos (np, nnz), pwidth (np,): parents' level, entry positions, widths; pdiag/pcol/px: where each
    parent's values begin in jdiag, jcol, jx (flat). tail (r_raw + p, r_raw + p) unscaled inverse of the tail.
    """
    first, last = indptr[i], indptr[i + 1]
    nc = last - first
    at = 0
    for q in range(len(pwidth)):
        kp = pwidth[q]
        level = plevel[q, i]
        for a in range(kp):
            for b in range(kp):
                out[at + a, at + b] = jdiag[pdiag[q] + (level * kp + a) * kp + b]
            for e in range(first + at + kp, last):
                x = jcol[pcol[q] + ppos[q, e] * kp + a]
                out[at + a, e - first] = x
                out[e - first, at + a] = x
            for j in range(p):
                x = jx[px[q] + (level * kp + a) * p + j]
                out[at + a, nc + j] = x
                out[nc + j, at + a] = x
        at += kp
    for e in range(first + at, last):
        c = columns[e]
        for e2 in range(first + at, last):
            out[e - first, e2 - first] = tail[c, columns[e2]]
        for j in range(p):
            x = tail[c, r_raw + j]
            out[e - first, nc + j] = x
            out[nc + j, e - first] = x
    for j in range(p):
        for j2 in range(p):
            out[nc + j, nc + j2] = tail[r_raw + j, r_raw + j2]
    return nc + p


@njit(cache=True, nogil=True)
def invert(
    lo,
    hi,
    lam,
    multiplicity,
    diagonal,
    dense,
    indptr,
    columns,
    data,
    h,
    f,
    v,
    r_raw,
    p,
    widest,
    parents,
    j_own,
    tail,
    keep,
):
    """Selected inverse of levels lo..hi, and their part of sum_l (Z'PZ)_ll.

    parents = (plevel, ppos, pwidth, pdiag, pcol, px, jdiag, jcol, jx), see `_gather`; j_own = (diag (q, k, k),
    columns (nnz, k), dense (q, k, p)) receives this stage's own unscaled inverse where keep[0] (diag) and keep[1] (all).
    With A = I + diagonal lam lam' (no cancellation, singular lam allowed): (Z'PZ)_ll = A^-1 diagonal - E J E', where
    E = A^-1 [data, dense] and J the inverse of everything eliminated later. Returns the sum (k, k).
    """
    k = lam.shape[0]
    plevel, ppos, pwidth, pdiag, pcol, px, jdiag, jcol, jx = parents
    own_diag, own_col, own_dense = j_own
    total = np.zeros((k, k))
    n_max = widest + p
    joint = np.empty((n_max, n_max))
    e_rows = np.empty((k, n_max))
    f_rows = np.empty((k, n_max))
    ej = np.empty((k, n_max))
    a_inv = np.empty((k, k))
    sigma = np.zeros((k, k))
    for a in range(k):
        for b in range(k):
            for c in range(k):
                sigma[a, b] += lam[a, c] * lam[b, c]
    work = np.empty((k, 2 * k))
    for i in range(lo, hi):
        if k == 1:
            a_inv[0, 0] = 1.0 / (1.0 + diagonal[i, 0, 0] * sigma[0, 0])
        else:
            _inverse_plus_identity(diagonal[i], sigma, work, a_inv)
        for a in range(k):
            for b in range(k):
                t = 0.0
                for c in range(k):
                    t += a_inv[a, c] * diagonal[i, c, b]
                total[a, b] += multiplicity[i] * t
        first = indptr[i]
        nc = indptr[i + 1] - first
        n = nc + p
        if n > 0:
            _gather(i, indptr, columns, r_raw, p, plevel, ppos, pwidth, pdiag, pcol, px, jdiag, jcol, jx, tail, joint)
            for a in range(k):
                for j in range(nc):
                    t = 0.0
                    for c in range(k):
                        t += a_inv[a, c] * data[first + j, c]
                    e_rows[a, j] = t
                for j in range(p):
                    t = 0.0
                    for c in range(k):
                        t += a_inv[a, c] * dense[i, c, j]
                    e_rows[a, nc + j] = t
            for a in range(k):
                for j in range(n):
                    t = 0.0
                    for c in range(n):
                        t += e_rows[a, c] * joint[c, j]
                    ej[a, j] = t
                for b in range(k):
                    t = 0.0
                    for j in range(n):
                        t += ej[a, j] * e_rows[b, j]
                    total[a, b] -= t
        if keep[0]:
            for a in range(k):
                for j in range(nc):
                    f_rows[a, j] = f[first + j, a]
                for j in range(p):
                    f_rows[a, nc + j] = v[i, a, j]
                for j in range(n):
                    t = 0.0
                    for c in range(n):
                        t += (f[first + c, a] if c < nc else v[i, a, c - nc]) * joint[c, j]
                    ej[a, j] = t
            for a in range(k):
                for b in range(k):
                    t = 0.0
                    for c in range(k):
                        t += h[i, c, a] * h[i, c, b]
                        for d in range(k):
                            u = 0.0
                            for j in range(n):
                                u += ej[c, j] * f_rows[d, j]
                            t += h[i, c, a] * u * h[i, d, b]
                    own_diag[i, a, b] = t
            if keep[1]:
                for b in range(k):
                    for j in range(n):
                        t = 0.0
                        for c in range(k):
                            t -= h[i, c, b] * ej[c, j]
                        if j < nc:
                            own_col[first + j, b] = t
                        else:
                            own_dense[i, b, j - nc] = t
    return total


@njit(cache=True, nogil=True)
def _inverse_plus_identity(diagonal, sigma, work, out):
    """out = (I + diagonal sigma)^-1 by Gauss-Jordan with partial pivoting; work (k, 2k)."""
    k = sigma.shape[0]
    for a in range(k):
        for b in range(k):
            t = 1.0 if a == b else 0.0
            for c in range(k):
                t += diagonal[a, c] * sigma[c, b]
            work[a, b] = t
            work[a, k + b] = 1.0 if a == b else 0.0
    for c in range(k):
        pivot = c
        for a in range(c + 1, k):
            if abs(work[a, c]) > abs(work[pivot, c]):
                pivot = a
        if pivot != c:
            for b in range(2 * k):
                work[c, b], work[pivot, b] = work[pivot, b], work[c, b]
        scale = 1.0 / work[c, c]
        for b in range(2 * k):
            work[c, b] *= scale
        for a in range(k):
            if a != c:
                t = work[a, c]
                for b in range(2 * k):
                    work[a, b] -= t * work[c, b]
    for a in range(k):
        for b in range(k):
            out[a, b] = work[a, k + b]
