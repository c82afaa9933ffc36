"""numba kernels of the selected inverse; each has a NumPy twin in the tests.

Every kernel works on a range of levels (or of tail columns) that no other call writes to, releases the GIL and
touches only the buffers it was given. Shapes: k width of the term, m dense columns (X then y), nnz sparse entries.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def invert(lo, hi, lam, multiplicity, diagonal, dense, pattern, factors, tail, widest, parents, own, keep):
    """Selected inverse of levels lo..hi, and their part of sum_l (Z'PZ)_ll.

    pattern = (indptr, columns, data) and factors = (h, f, v) of the stage; tail = (its unscaled inverse, r_raw, p);
    widest: most columns of a level; parents: see `_gather`. own = (diag (q, k, k), columns (nnz, k), dense (q, k, p))
    receives this stage's own unscaled inverse where keep[0] (diag) and keep[1] (all).

    With A = I + diagonal lam lam' (no cancellation, singular lam allowed): (Z'PZ)_ll = A^-1 diagonal - E J E', where
    E = A^-1 [data, dense] and J the inverse of everything eliminated later. Returns the sum (k, k).
    """
    k, p = lam.shape[0], tail[2]
    indptr, columns, data = pattern
    h, f, v = factors
    n_max = widest + p
    joint = np.empty((n_max, n_max))
    rows = np.empty((k, n_max))
    product = np.empty((k, n_max))
    a_inv = np.empty((k, k))
    sigma = times_own_transpose(lam)
    units = units_of(lo, hi, diagonal)
    work = np.empty((k, 2 * k))
    total = np.zeros((k, k))
    for i in range(lo, hi):
        first, last = indptr[i], indptr[i + 1]
        n = last - first + p
        if k == 1:
            a_inv[0, 0] = 1.0 / (1.0 + diagonal[i, 0, 0] * sigma[0, 0])
        else:
            inverse_plus_identity(diagonal[i], sigma, units, work, a_inv)
        for a in range(k):
            for b in range(k):
                t = 0.0
                for c in range(k):
                    t += a_inv[a, c] * diagonal[i, c, b]
                total[a, b] += multiplicity[i] * t
        if n > 0:
            _gather(first, last, i, columns, tail, parents, joint)
            _transform(a_inv, data, dense, i, first, last, p, rows)
            _multiply_joint(rows, joint, n, product)
            for a in range(k):
                for b in range(k):
                    t = 0.0
                    for j in range(n):
                        t += product[a, j] * rows[b, j]
                    total[a, b] -= t
        if keep[0]:
            _copy_factor(f, v, i, first, last, p, rows)
            _multiply_joint(rows, joint, n, product)
            _keep_diagonal(h, product, rows, n, i, own[0])
            if keep[1]:
                _keep_between(h, product, n, i, first, last, own[1], own[2])
    return total


@njit(cache=True, nogil=True)
def times_own_transpose(lam):
    """lam lam'."""
    k = lam.shape[0]
    out = np.zeros((k, k))
    for a in range(k):
        for b in range(k):
            for c in range(k):
                out[a, b] += lam[a, c] * lam[b, c]
    return out


@njit(cache=True, nogil=True)
def units_of(lo, hi, diagonal):
    """(k,) powers of two near the scales of effects that levels lo..hi with diagonal blocks (q, k, k) can tell, in
    which covariates of very different size have effects of one size, so that pivots can be compared."""
    units = np.ones(diagonal.shape[1])
    for a in range(len(units)):
        total = 0.0
        for i in range(lo, hi):
            total += diagonal[i, a, a]
        if 0.0 < total < np.inf:
            units[a] = 2.0 ** np.round(-0.5 * np.log2(total / (hi - lo)))
    return units


@njit(inline="always")
def _gather(first, last, i, columns, tail, parents, out):
    """The inverse between all columns that level i touches (entries first..last, then the fixed effects) -> out.

    parents = (plevel (np, q), ppos (np, nnz), pwidth (np,), pdiag, pcol, px (np,), jdiag, jcol, jx (flat)): parents'
    level, entry positions, widths, and where each parent's values begin in jdiag, jcol, jx. tail = ((r_raw + p, r_raw
    + p) unscaled inverse, r_raw, p).
    """
    plevel, ppos, pwidth, pdiag, pcol, px, jdiag, jcol, jx = parents
    inverse, r_raw, p = tail
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
            out[e - first, e2 - first] = inverse[c, columns[e2]]
        for j in range(p):
            x = inverse[c, r_raw + j]
            out[e - first, nc + j] = x
            out[nc + j, e - first] = x
    for j in range(p):
        for j2 in range(p):
            out[nc + j, nc + j2] = inverse[r_raw + j, r_raw + j2]


@njit(inline="always")
def _transform(a_inv, data, dense, i, first, last, p, out):
    """out (k, n) = a_inv [data of the level, its first p dense columns]."""
    k = a_inv.shape[0]
    nc = last - first
    for a in range(k):
        for j in range(nc):
            t = 0.0
            for c in range(k):
                t += a_inv[a, c] * data[first + j, c]
            out[a, j] = t
        for j in range(p):
            t = 0.0
            for c in range(k):
                t += a_inv[a, c] * dense[i, c, j]
            out[a, nc + j] = t


@njit(inline="always")
def _copy_factor(f, v, i, first, last, p, out):
    """out (k, n) = [f of the level transposed, its first p columns of v]."""
    nc = last - first
    for a in range(v.shape[1]):
        for j in range(nc):
            out[a, j] = f[first + j, a]
        for j in range(p):
            out[a, nc + j] = v[i, a, j]


@njit(inline="always")
def _multiply_joint(rows, joint, n, out):
    """out = rows joint, on the first n columns."""
    for a in range(rows.shape[0]):
        for j in range(n):
            out[a, j] = 0.0
        for c in range(n):
            t = rows[a, c]
            for j in range(n):
                out[a, j] += t * joint[c, j]


@njit(inline="always")
def _keep_diagonal(h, product, rows, n, i, out):
    """out[i] = h'(I + product rows')h."""
    k = h.shape[1]
    for a in range(k):
        for b in range(k):
            t = 0.0
            for c in range(k):
                t += h[i, c, a] * h[i, c, b]
                for d in range(k):
                    u = 0.0
                    for j in range(n):
                        u += product[c, j] * rows[d, j]
                    t += h[i, c, a] * u * h[i, d, b]
            out[i, a, b] = t


@njit(inline="always")
def _keep_between(h, product, n, i, first, last, out_columns, out_dense):
    """-h'product: between the level's effects and its columns, and the fixed effects."""
    k = h.shape[1]
    nc = last - first
    for b in range(k):
        for j in range(n):
            t = 0.0
            for c in range(k):
                t -= h[i, c, b] * product[c, j]
            if j < nc:
                out_columns[first + j, b] = t
            else:
                out_dense[i, b, j - nc] = t


@njit(inline="always")
def inverse_plus_identity(diagonal, sigma, units, work, out):
    """out = (I + diagonal sigma)^-1 by Gauss-Jordan with partial pivoting; units (k,): see `units_of`; work (k, 2k).

    NaN where there is no inverse in floating point.
    """
    k = sigma.shape[0]
    for a in range(k):
        for b in range(k):
            t = 1.0 if a == b else 0.0
            for c in range(k):
                t += diagonal[a, c] * sigma[c, b]
            work[a, b] = t * (units[a] / units[b])
            work[a, k + b] = 1.0 if a == b else 0.0
    for c in range(k):
        pivot = c
        for a in range(c + 1, k):
            if abs(work[a, c]) > abs(work[pivot, c]):
                pivot = a
        if pivot != c:
            for b in range(2 * k):
                work[c, b], work[pivot, b] = work[pivot, b], work[c, b]
        scale = 1.0 / work[c, c] if work[c, c] != 0.0 else np.nan
        for b in range(2 * k):
            work[c, b] *= scale
        for a in range(k):
            if a != c:
                t = work[a, c]
                for b in range(2 * k):
                    work[a, b] -= t * work[c, b]
    for a in range(k):
        for b in range(k):
            out[a, b] = work[a, k + b] * (units[b] / units[a])


@njit(cache=True, nogil=True)
def scale_mirrored(lo, hi, lower, scale, out):
    """Rows and columns lo..hi of out = diag(scale) symmetric(lower) diag(scale), both triangles."""
    for i in range(lo, hi):
        s = scale[i]
        for j in range(i + 1):
            t = lower[i, j] * (s * scale[j])
            out[i, j] = t
            out[j, i] = t
