"""What the kernels of `bigmm.blocks` compute, in plain NumPy, one level at a time, on the same buffers."""

from __future__ import annotations

import numpy as np


def eliminate(lo, hi, lam, multiplicity, indptr, factor):
    diagonal, dense, data, h, f, v = factor
    logdet, vv = 0.0, 0.0
    for i in range(lo, hi):
        lower = np.linalg.cholesky(lam.T @ diagonal[i] @ lam + np.eye(len(lam)))
        logdet += multiplicity[i] * 2 * np.log(np.diagonal(lower)).sum()
        h[i] = np.linalg.solve(lower, lam.T)
        row = slice(indptr[i], indptr[i + 1])
        f[row] = data[row] @ h[i].T
        v[i] = h[i] @ dense[i]
        vv = vv + v[i].T @ v[i]
    return logdet, np.tril(vv)


eliminate_scalar = eliminate


def update_tail(lo, hi, entries, factor, s):
    colptr, entry, level, tail_start, columns = entries
    f, v = factor.f, factor.v
    r_raw = len(s) - v.shape[2]
    for r in range(lo, hi):
        for t in range(colptr[r], colptr[r + 1]):
            e, i = entry[t], level[t]
            before = slice(tail_start[i], e + 1)
            s[r, columns[before]] -= f[before] @ f[e]
            s[r_raw:, r] -= v[i].T @ f[e]


def update_parent(lo, hi, parent, indptr, factor, above):
    _, _, order, start, block, position = parent
    f, v = factor.f, factor.v
    diagonal, dense, data = above[:3]
    kp = diagonal.shape[1]
    for p in range(lo, hi):
        for i in order[start[p] : start[p + 1]]:
            own = f[block[i] : block[i] + kp]
            diagonal[p] -= own @ own.T
            dense[p] -= own @ v[i]
            for e in range(indptr[i], indptr[i + 1]):
                if position[e] >= 0:
                    data[position[e]] -= own @ f[e]


def backsolve(lo, hi, factor, indptr, columns, solution, coefficients, out):
    h, f, v = factor[3:]
    for i in range(lo, hi):
        row = slice(indptr[i], indptr[i + 1])
        out[i] = h[i].T @ (v[i] @ coefficients - f[row].T @ solution[columns[row]])


def forward_levels(lo, hi, h, v, rhs, w):
    w[lo:hi] = h[lo:hi] @ rhs[lo:hi]
    return np.einsum("qkm,qkn->mn", v[lo:hi], w[lo:hi]), np.einsum("qkm,qkn->mn", w[lo:hi], w[lo:hi])


def forward_tail(lo, hi, colptr, entry, level, f, w, rhs):
    for r in range(lo, hi):
        for t in range(colptr[r], colptr[r + 1]):
            rhs[r] -= f[entry[t]] @ w[level[t]]


def forward_parent(lo, hi, order, start, block, f, w, rhs):
    kp = rhs.shape[1]
    for p in range(lo, hi):
        for i in order[start[p] : start[p + 1]]:
            rhs[p] -= f[block[i] : block[i] + kp] @ w[i]


def multiply(lo, hi, indptr, indices, data, x, out):
    for i in range(lo, hi):
        for e in range(indptr[i], indptr[i + 1]):
            out[i] += data[e] @ x[indices[e]]


def inverse_plus_identity(diagonal, sigma, work, out):
    out[:] = np.linalg.inv(np.eye(len(sigma)) + diagonal @ sigma)


def sum_moments(number, rows, out):
    np.add.at(out, number, rows[:, :, None] * rows[:, None, :])


def joint_inverse(i, indptr, columns, r_raw, p, parents, tail):
    """(n, n) the inverse between the columns that level i touches, looked up parent by parent."""
    plevel, ppos, pwidth, pdiag, pcol, px, jdiag, jcol, jx = parents or ([],) * 9
    touched = columns[indptr[i] : indptr[i + 1]]
    n = len(touched) + p
    out, at = np.zeros((n, n)), 0
    for q, kp in enumerate(pwidth):
        level, own = plevel[q, i], slice(at, at + kp)
        size = pdiag[q] + level * kp * kp
        out[own, own] = jdiag[size : size + kp * kp].reshape(kp, kp)
        later = np.arange(at + kp, len(touched))
        entries = jcol[pcol[q] :].reshape(-1)[: (ppos[q].max(initial=-1) + 1) * kp].reshape(-1, kp)
        out[own, later] = entries[ppos[q, indptr[i] + later]].T
        x = jx[px[q] + level * kp * p : px[q] + (level + 1) * kp * p].reshape(kp, p)
        out[own, len(touched) :] = x
        at += kp
    places = np.append(touched[at:], r_raw + np.arange(p)).astype(int)
    out[at:, at:] = tail[np.ix_(places, places)]
    return np.triu(out) + np.triu(out, 1).T


def invert_levels(lo, hi, lam, rows, factor, tail, parents, own):
    multiplicity, indptr, columns = rows
    diagonal, dense, data, h, f, v = factor
    tail, r_raw, p, _ = tail
    k, total = len(lam), 0.0
    for i in range(lo, hi):
        row = slice(indptr[i], indptr[i + 1])
        joint = joint_inverse(i, indptr, columns, r_raw, p, parents, tail)
        inverse = np.linalg.inv(np.eye(k) + diagonal[i] @ lam @ lam.T)
        e = inverse @ np.hstack([data[row].T, dense[i, :, :p]])
        total = total + multiplicity[i] * inverse @ diagonal[i] - e @ joint @ e.T
        g = np.hstack([f[row].T, v[i, :, :p]])
        if own:
            own[0][i] = h[i].T @ (np.eye(k) + g @ joint @ g.T) @ h[i]
        if own and own.with_columns:
            between = -h[i].T @ g @ joint
            own[1][row] = between[:, : len(data[row])].T
            own[2][i] = between[:, len(data[row]) :]
    return total


def scale_lower(lo, hi, matrix, scale, n_random, out):
    scaled = matrix * np.outer(scale, scale) + np.diag(np.arange(len(scale)) < n_random)
    rows = np.tril(np.ones_like(out, bool))
    rows[:lo] = rows[hi:] = False
    out[rows] = scaled[rows]


def scale_mirrored(lo, hi, lower, scale, out):
    scaled = (np.tril(lower) + np.tril(lower, -1).T) * np.outer(scale, scale)
    out[lo:hi, :hi] = scaled[lo:hi, :hi]
    out[:hi, lo:hi] = scaled[:hi, lo:hi]


def multiply_own(lo, hi, diagonal, x, out):
    out[lo:hi] += diagonal[lo:hi] @ x[lo:hi]


def tall_product(lo, hi, a, b):
    return a[lo:hi].T @ b[lo:hi]


def score_levels(lo, hi, lam, diagonal, dense, residual, out):
    for i in range(lo, hi):
        system = np.eye(len(lam)) + diagonal[i] @ lam @ lam.T
        out[i] = np.linalg.solve(system, dense[i] @ residual - out[i])


score_scalars = score_levels
