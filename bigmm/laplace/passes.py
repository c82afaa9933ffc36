"""Kernels over the rows of a shard for any number of terms: working weights and scores, and third-order sums.

Arrays over levels are flat: term t's level l, covariate a lies at ``start[t] + l * width[t] + a`` of a vector over
random effects. Pairs of terms are addressed by ``entries`` (n_pairs, n): the entry of the block-CSR cross block a row
adds to.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from bigmm.families.scores import dispersion_derivatives, score, score_full

LAST_CORNER = 1e100
"""Stands for y*'Wy*, which nothing needs: it only keeps the last pivot of a working factor positive."""


@njit(cache=True, nogil=True)
def _column(columns, c, i):
    return columns[c - 1, i] if c > 0 else 1.0


@njit(cache=True, nogil=True)
def working_sums(rows, model, beta, b, phi, observed, with_x, total, vectors, diagonal, dense, cross, xy):
    """Add one shard's working cross-products at eta = X beta + offset + Z b.

    rows = (columns, y, w, offset, refs (T, n), entries (n_pairs, n)); model = (family, link, xc, zc, width, start,
    diagonal_start, dense_start, pair_first, pair_second, cross_start); observed: which weights;
    total (1,) += log-likelihood; vectors (q,) += Z's; diagonal, dense, cross: Z'WZ, Z'W[X y*], pairs, flat; xy
    (p + 1, p + 1) += [X y*]'W[X y*] without its last corner, y* = Z b (+ X beta when with_x) + s / W.
    """
    columns, y, w, offset, refs, entries = rows
    family, link, xc, zc, width, start, diagonal_start, dense_start, pair_first, pair_second, cross_start = model
    p, n_terms = len(xc), len(width)
    m = (p if with_x else 0) + 1
    n_z = len(zc)
    x, z = np.empty(p), np.empty(n_z)
    first = np.zeros(n_terms, np.int64)
    for t in range(1, n_terms):
        first[t] = first[t - 1] + width[t - 1]
    for i in range(len(y)):
        fixed = 0.0
        for j in range(p):
            x[j] = _column(columns, xc[j], i)
            fixed += x[j] * beta[j]
        random = 0.0
        for t in range(n_terms):
            at = start[t] + refs[t, i] * width[t]
            for a in range(width[t]):
                z[first[t] + a] = _column(columns, zc[first[t] + a], i)
                random += z[first[t] + a] * b[at + a]
        eta = fixed + random + (offset[i] if len(offset) else 0.0)
        ll, s, we, wo = score(family, link, y[i], w[i] if len(w) else 1.0, eta, phi)
        weight = wo if observed else we
        target = weight * (random + (fixed if with_x else 0.0)) + s
        total[0] += ll
        for t in range(n_terms):
            k = width[t]
            at = start[t] + refs[t, i] * k
            at_diagonal = diagonal_start[t] + refs[t, i] * k * k
            at_dense = dense_start[t] + refs[t, i] * k * m
            for a in range(k):
                za = z[first[t] + a]
                vectors[at + a] += za * s
                for c in range(k):
                    diagonal[at_diagonal + a * k + c] += weight * za * z[first[t] + c]
                if with_x:
                    for j in range(p):
                        dense[at_dense + a * m + j] += weight * za * x[j]
                dense[at_dense + a * m + m - 1] += za * target
        for q in range(len(pair_first)):
            t1, t2 = pair_first[q], pair_second[q]
            at = cross_start[q] + entries[q, i] * width[t1] * width[t2]
            for a in range(width[t1]):
                for c in range(width[t2]):
                    cross[at + a * width[t2] + c] += weight * z[first[t1] + a] * z[first[t2] + c]
        if with_x:
            for j in range(p):
                for j2 in range(p):
                    xy[j, j2] += weight * x[j] * x[j2]
                xy[j, m - 1] += x[j] * target
                xy[m - 1, j] += x[j] * target


@njit(cache=True, nogil=True)
def log_likelihood(rows, model, beta, b, phi):
    """Sum of ll at eta = X beta + offset + Z b."""
    columns, y, w, offset, refs, _ = rows
    family, link, xc, zc, width, start = model[0], model[1], model[2], model[3], model[4], model[5]
    total = 0.0
    for i in range(len(y)):
        eta = offset[i] if len(offset) else 0.0
        for j in range(len(xc)):
            eta += beta[j] * _column(columns, xc[j], i)
        first = 0
        for t in range(len(width)):
            at = start[t] + refs[t, i] * width[t]
            for a in range(width[t]):
                eta += b[at + a] * _column(columns, zc[first + a], i)
            first += width[t]
        total += score(family, link, y[i], w[i] if len(w) else 1.0, eta, phi)[0]
    return total


@njit(cache=True, nogil=True)
def third_order_sums(
    rows, model, beta, b, phi, observed, with_phi, j_diagonal, j_cross, xs, xc_sum, zc_sum, phi_sums, z_phi
):
    """Sums with c_i = h_i dW_i / d eta, h_i = z_i'J z_i the leverage on the linear predictor (J on the pattern of
    pairs).

    j_diagonal, j_cross: covariance blocks, flat like diagonal and cross; out: xs (p,) += X's; xc_sum (p,) += X'c;
    zc_sum (q,) += Z'c; with_phi: phi_sums (2 + p,) += [sum d ll, sum h dW, X' d s] / d log phi and z_phi (q,) += Z' d s
    / d log phi.
    """
    columns, y, w, offset, refs, entries = rows
    family, link, xc, zc, width, start, diagonal_start, _, pair_first, pair_second, cross_start = model
    p, n_terms = len(xc), len(width)
    x, z = np.empty(p), np.empty(len(zc))
    first = np.zeros(n_terms, np.int64)
    for t in range(1, n_terms):
        first[t] = first[t - 1] + width[t - 1]
    for i in range(len(y)):
        eta = offset[i] if len(offset) else 0.0
        for j in range(p):
            x[j] = _column(columns, xc[j], i)
            eta += x[j] * beta[j]
        h = 0.0
        for t in range(n_terms):
            k = width[t]
            at = start[t] + refs[t, i] * k
            at_diagonal = diagonal_start[t] + refs[t, i] * k * k
            for a in range(k):
                z[first[t] + a] = _column(columns, zc[first[t] + a], i)
                eta += z[first[t] + a] * b[at + a]
            for a in range(k):
                for c in range(k):
                    h += z[first[t] + a] * z[first[t] + c] * j_diagonal[at_diagonal + a * k + c]
        for q in range(len(pair_first)):
            t1, t2 = pair_first[q], pair_second[q]
            at = cross_start[q] + entries[q, i] * width[t1] * width[t2]
            for a in range(width[t1]):
                for c in range(width[t2]):
                    h += 2.0 * z[first[t1] + a] * z[first[t2] + c] * j_cross[at + a * width[t2] + c]
        weight = w[i] if len(w) else 1.0
        _, s, _, _, dwe, dwo = score_full(family, link, y[i], weight, eta, phi)
        c_i = h * (dwo if observed else dwe)
        for j in range(p):
            xs[j] += x[j] * s
            xc_sum[j] += x[j] * c_i
        ds = 0.0
        if with_phi:
            dll, ds, dw = dispersion_derivatives(family, link, y[i], weight, eta, phi)
            phi_sums[0] += dll
            phi_sums[1] += h * dw
            for j in range(p):
                phi_sums[2 + j] += x[j] * ds
        for t in range(n_terms):
            at = start[t] + refs[t, i] * width[t]
            for a in range(width[t]):
                zc_sum[at + a] += z[first[t] + a] * c_i
                if with_phi:
                    z_phi[at + a] += z[first[t] + a] * ds
