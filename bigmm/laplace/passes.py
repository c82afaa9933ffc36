"""Kernel over the rows of a shard for any number of terms: working weights and scores.

Arrays over levels are flat: term t's level l, covariate a lies at ``start[t] + l * width[t] + a`` of a vector over
random effects. Pairs of terms are addressed by ``entries`` (n_pairs, n): the entry of the block-CSR cross block a row
adds to.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from bigmm.families.scores import score

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
    if not np.any(model[3]) and np.all(model[4] == 1):
        _intercept_sums(rows, model, beta, b, phi, observed, with_x, total, vectors, diagonal, dense, cross, xy)
        return
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
def _intercept_sums(rows, model, beta, b, phi, observed, with_x, total, vectors, diagonal, dense, cross, xy):
    """The same where every term is a random intercept, in half the time: no covariates, no blocks."""
    columns, y, w, offset, refs, entries = rows
    family, link, xc, _, width, start, diagonal_start, dense_start, pair_first, _, cross_start = model
    p, n_terms = len(xc), len(width)
    m = (p if with_x else 0) + 1
    x = np.empty(p)
    for i in range(len(y)):
        fixed = 0.0
        for j in range(p):
            x[j] = _column(columns, xc[j], i)
            fixed += x[j] * beta[j]
        random = 0.0
        for t in range(n_terms):
            random += b[start[t] + refs[t, i]]
        eta = fixed + random + (offset[i] if len(offset) else 0.0)
        ll, s, we, wo = score(family, link, y[i], w[i] if len(w) else 1.0, eta, phi)
        weight = wo if observed else we
        target = weight * (random + (fixed if with_x else 0.0)) + s
        total[0] += ll
        for t in range(n_terms):
            level = refs[t, i]
            vectors[start[t] + level] += s
            diagonal[diagonal_start[t] + level] += weight
            at = dense_start[t] + level * m
            for j in range(m - 1):
                dense[at + j] += weight * x[j]
            dense[at + m - 1] += target
        for q in range(len(pair_first)):
            cross[cross_start[q] + entries[q, i]] += weight
        if with_x:
            for j in range(p):
                for j2 in range(p):
                    xy[j, j2] += weight * x[j] * x[j2]
                xy[j, m - 1] += x[j] * target
                xy[m - 1, j] += x[j] * target
