"""numba kernels of the elimination; each has a NumPy twin in the tests.

Every kernel works on a range of levels (or of tail columns, or of parents) that no other call writes to, releases the
GIL and touches only the buffers it was given. Shapes: k width of the term, m dense columns (X then y), nnz sparse
entries.
"""

from __future__ import annotations

import numpy as np

from bigmm.kernel import njit


# With NumPy's error model a pivot of zero gives infinity, which the caller finds in the sum, and not an exception.
@njit(cache=True, nogil=True, error_model="numpy")
def eliminate(lo, hi, lam, multiplicity, indptr, factor):
    """Factor levels lo..hi: D = lam' diagonal lam + I = L L', then h = L^-1 lam', f = h data, v = h dense.

    Parameters
    ----------
    lam: (k, k), k > 1; `eliminate_scalar` is for width 1.
    multiplicity: (q,) number of levels that each entry stands for.
    indptr: (q + 1,) where the entries of each level begin.
    factor: `StageFactor`, of which h, f and v are written.

    Returns
    -------
    Sum of log|D|, and sum of v'v (m, m), lower triangle. The first is not finite where rounding of a huge lam has left
    a pivot that is not positive.
    """
    diagonal, dense, data, h, f, v = factor
    k, m = lam.shape[0], dense.shape[2]
    logdet = 0.0
    vv = np.zeros((m, m))
    low = np.empty((k, k))
    part = np.empty((k, k))
    # The loop calls no function: a call per level costs a seventh of the time.
    for i in range(lo, hi):
        for a in range(k):
            for b in range(k):
                t = 0.0
                for c in range(k):
                    t += diagonal[i, a, c] * lam[c, b]
                part[a, b] = t
        for a in range(k):
            for b in range(a + 1):
                # D = lam'(diagonal lam) + I is factored entry by entry as it is formed, and never stored.
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
                # Forward substitution. Nothing divides by lam, so a variance of zero is an ordinary value.
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
def eliminate_scalar(lo, hi, lam, multiplicity, indptr, factor):
    """`eliminate` for width 1."""
    diagonal, dense, data, h, f, v = factor
    s, m = lam[0, 0], dense.shape[2]
    logdet = 0.0
    vv = np.zeros((m, m))
    for i in range(lo, hi):
        # On the boundary, s = 0, this is 1: no case of its own.
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


@njit(cache=True, nogil=True)
def update_tail(lo, hi, entries, factor, s):
    """Rows lo..hi of the tail: s[r, c] -= sum over levels f_r'f_c for c <= r; s[r_raw + j, r] -= f_r'v_j.

    Parameters
    ----------
    entries: `TailEntries` of the stage.
    factor: `StageFactor` of the stage.
    s: (r_raw + m, r_raw + m), of which the lower triangle is updated.
    """
    colptr, entry, level, tail_start, columns = entries
    f, v = factor.f, factor.v
    k, m = f.shape[1], v.shape[2]
    r_raw = s.shape[0] - m
    for r in range(lo, hi):
        for t in range(colptr[r], colptr[r + 1]):
            # Row r is written by this call alone, level by level in increasing order: no lock, the same bits always.
            e, i = entry[t], level[t]
            for a in range(k):
                x = f[e, a]
                # A level's entries are sorted by column: those up to e are the columns c <= r.
                for e2 in range(tail_start[i], e + 1):
                    s[r, columns[e2]] -= x * f[e2, a]
                for j in range(m):
                    s[r_raw + j, r] -= x * v[i, a, j]


@njit(cache=True, nogil=True)
def update_parent(lo, hi, parent, indptr, factor, above):
    """Parents lo..hi: subtract their children's f f' from the diagonal, dense and data of the stage above.

    Parameters
    ----------
    parent: `Parent` of the children's stage.
    indptr: (q + 1,) where the entries of each child begin.
    factor, above: `StageFactor` of the children's stage and of the parents'.
    """
    order, start, block, position = parent.order, parent.start, parent.block, parent.position
    f, v = factor.f, factor.v
    diagonal, dense, data = above.diagonal, above.dense, above.data
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
                        # -1 marks the parent's own columns and those that come before them.
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
