"""Kernels over the rows of a shard for any number of terms: working weights and scores.

Arrays over levels are flat: term t's level l, covariate a lies at ``start[t] + l * width[t] + a`` of a vector over
random effects. Pairs of terms are addressed by ``entries`` (n_pairs, n): the entry of the block-CSR cross block a row
adds to. Records are those of `bigmm.laplace.records`; the sums are those of docs/theory/laplace.md, "PIRLS".
"""

from __future__ import annotations

import numpy as np

from bigmm.families.scores import score
from bigmm.kernel import njit
from bigmm.laplace.records import FlatSums, KernelModel, KernelPoint, KernelRows
from bigmm.laplace.small import column

LAST_CORNER = 1e100
"""Stands for y*'Wy*, which nothing needs: it only keeps the last pivot of a working factor positive."""


def add_working_sums(rows: KernelRows, model: KernelModel, point: KernelPoint, with_x: bool, sums: FlatSums) -> None:
    """Add one shard's working cross-products at eta = X beta + offset + Z b.

    Parameters
    ----------
    with_x : whether the sums hold X beside y*, the working response Z b (+ X beta when with_x) + s / W.
    sums : receives the sums, added to what it holds; xy without its last corner.
    """
    # chosen here, so that a fit compiles one of the two
    intercepts = not np.any(model.zc) and bool(np.all(model.width == 1))
    (_intercept_sums if intercepts else _covariate_sums)(rows, model, point, with_x, sums)


@njit(cache=True, nogil=True)
def _covariate_sums(rows, model, point, with_x, sums):
    """`add_working_sums` for any covariates."""
    columns, y, w, offset, refs, entries = rows
    family, link, xc, zc, width, start, diagonal_start, dense_start, pair_first, pair_second, cross_start = model
    beta, b, phi, observed = point
    total, vectors, diagonal, dense, cross, xy = sums
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
            x[j] = column(columns, xc[j], i)
            fixed += x[j] * beta[j]
        random = 0.0
        for t in range(n_terms):
            position = start[t] + refs[t, i] * width[t]
            for a in range(width[t]):
                z[first[t] + a] = column(columns, zc[first[t] + a], i)
                random += z[first[t] + a] * b[position + a]
        eta = fixed + random + (offset[i] if len(offset) else 0.0)
        # y may be in single precision, and the row functions are compiled for doubles only.
        ll, s, we, wo = score(family, link, float(y[i]), w[i] if len(w) else 1.0, eta, phi)
        weight = wo if observed else we
        # W y* and never y* itself: a weight may be 0.
        target = weight * (random + (fixed if with_x else 0.0)) + s
        total[0] += ll
        for t in range(n_terms):
            k = width[t]
            position = start[t] + refs[t, i] * k
            diagonal_at = diagonal_start[t] + refs[t, i] * k * k
            dense_at = dense_start[t] + refs[t, i] * k * m
            for a in range(k):
                za = z[first[t] + a]
                vectors[position + a] += za * s
                for c in range(k):
                    diagonal[diagonal_at + a * k + c] += weight * za * z[first[t] + c]
                if with_x:
                    for j in range(p):
                        dense[dense_at + a * m + j] += weight * za * x[j]
                dense[dense_at + a * m + m - 1] += za * target
        for q in range(len(pair_first)):
            t1, t2 = pair_first[q], pair_second[q]
            position = cross_start[q] + entries[q, i] * width[t1] * width[t2]
            for a in range(width[t1]):
                for c in range(width[t2]):
                    cross[position + a * width[t2] + c] += weight * z[first[t1] + a] * z[first[t2] + c]
        if with_x:
            for j in range(p):
                for j2 in range(p):
                    xy[j, j2] += weight * x[j] * x[j2]
                xy[j, m - 1] += x[j] * target
                xy[m - 1, j] += x[j] * target


@njit(cache=True, nogil=True)
def _intercept_sums(rows, model, point, with_x, sums):
    """`add_working_sums` where every term is a random intercept, in half the time: no covariates, no blocks."""
    columns, y, w, offset, refs, entries = rows
    family, link, xc, _, width, start, diagonal_start, dense_start, pair_first, _, cross_start = model
    beta, b, phi, observed = point
    total, vectors, diagonal, dense, cross, xy = sums
    p, n_terms = len(xc), len(width)
    m = (p if with_x else 0) + 1
    x = np.empty(p)
    for i in range(len(y)):
        fixed = 0.0
        for j in range(p):
            x[j] = column(columns, xc[j], i)
            fixed += x[j] * beta[j]
        random = 0.0
        for t in range(n_terms):
            random += b[start[t] + refs[t, i]]
        eta = fixed + random + (offset[i] if len(offset) else 0.0)
        ll, s, we, wo = score(family, link, float(y[i]), w[i] if len(w) else 1.0, eta, phi)
        weight = wo if observed else we
        target = weight * (random + (fixed if with_x else 0.0)) + s
        total[0] += ll
        for t in range(n_terms):
            level = refs[t, i]
            vectors[start[t] + level] += s
            diagonal[diagonal_start[t] + level] += weight
            position = dense_start[t] + level * m
            for j in range(m - 1):
                dense[position + j] += weight * x[j]
            dense[position + m - 1] += target
        for q in range(len(pair_first)):
            cross[cross_start[q] + entries[q, i]] += weight
        if with_x:
            for j in range(p):
                for j2 in range(p):
                    xy[j, j2] += weight * x[j] * x[j2]
                xy[j, m - 1] += x[j] * target
                xy[m - 1, j] += x[j] * target
