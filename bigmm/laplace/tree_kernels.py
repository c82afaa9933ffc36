"""The multifrontal factor of one tree of nested levels: elimination, solves and the inverse along paths to the root.

A node's *front* is its part of the Schur complement over the covariates of itself and of all levels above it, in the
slots of one path vector z = (leaf's covariates, ..., root's): slots depths[t] .. depths[t + 1] are those of depth t. As
rows meet only the levels of one path, everything they have to say stands in the fronts of the leaves (Duff and Reid
1983; without fill, because the trees are). Fronts are unscaled: Lambda is applied to whole Schur complements.

Arguments everywhere: nodes, a `records.TreeNodes`; factor, a `records.TreeFactor`; lam (D, D) = blockdiag(lambda_t)
over the slots of a path. Arrays over nodes begin with node nodes.first[0].
"""

from __future__ import annotations

import numpy as np

from bigmm.kernel import njit
from bigmm.laplace.small import cholesky


@njit(cache=True, nogil=True)
def spread(nodes, lam, u, b):
    """b (n, D) <- the unscaled effects Lambda u on each node's path; u (n, K) by node."""
    first, parent, depths = nodes
    base, n_depths = first[0], len(depths) - 1
    for t in range(n_depths - 1, -1, -1):
        o, e = depths[t], depths[t + 1]
        for i in range(first[t] - base, first[t + 1] - base):
            for a in range(o, e):
                s = 0.0
                for c in range(o, e):
                    s += lam[a, c] * u[i, c - o]
                b[i, a] = s
            if t + 1 < n_depths:
                p = parent[base + i] - base
                for a in range(e, depths[n_depths]):
                    b[i, a] = b[p, a]


@njit(cache=True, nogil=True)
def gather(nodes, u, path):
    """path (n, D) <- u (n, K) on each node's path, as it is."""
    first, parent, depths = nodes
    base, n_depths = first[0], len(depths) - 1
    for t in range(n_depths - 1, -1, -1):
        o, e = depths[t], depths[t + 1]
        for i in range(first[t] - base, first[t + 1] - base):
            for a in range(o, e):
                path[i, a] = u[i, a - o]
            if t + 1 < n_depths:
                p = parent[base + i] - base
                for a in range(e, depths[n_depths]):
                    path[i, a] = path[p, a]


@njit(cache=True, nogil=True)
def sums_on_paths(nodes, sums):
    """sums (n, D): in, the leaves' sums over their rows (others 0); out, on each path every node's sums over all its
    rows."""
    first, parent, depths = nodes
    base, n_depths = first[0], len(depths) - 1
    for t in range(n_depths - 1):
        for i in range(first[t] - base, first[t + 1] - base):
            p = parent[base + i] - base
            for a in range(depths[t + 1], depths[n_depths]):
                sums[p, a] += sums[i, a]
    for t in range(n_depths - 2, -1, -1):
        for i in range(first[t] - base, first[t + 1] - base):
            p = parent[base + i] - base
            for a in range(depths[t + 1], depths[n_depths]):
                sums[i, a] = sums[p, a]


@njit(cache=True, nogil=True)
def eliminate(nodes, lam, front, factor, dense, gram):
    """Leaves to root. Returns log|M|, or nan where M is not positive definite.

    front (n, D, D), dense (n, D, R): in, the leaves' Z'WZ and Z'W[R columns], 0 elsewhere; out, before each node's own
    elimination; gram (R, R): in, the columns' products; out, less what the random effects explain; factor: out.
    """
    first, parent, depths = nodes
    chol, half = factor
    base, n_depths, n_dense = first[0], len(depths) - 1, dense.shape[2]
    d, widest = depths[n_depths], chol.shape[1]
    scaled, h = np.empty((widest, widest)), np.empty((widest, widest))
    # Scratch of one node: what the dense columns become is needed only until the parent has it.
    right = np.empty((widest, n_dense))
    logdet = 0.0
    for t in range(n_depths):
        o, e = depths[t], depths[t + 1]
        k = e - o
        for i in range(first[t] - base, first[t + 1] - base):
            for a in range(k):
                for c in range(k):
                    s = 0.0
                    for m in range(k):
                        s += front[i, o + a, o + m] * lam[o + m, o + c]
                    scaled[a, c] = s
            for a in range(k):
                for c in range(a + 1):
                    s = 1.0 if a == c else 0.0
                    for m in range(k):
                        s += lam[o + m, o + a] * scaled[m, c]
                    h[a, c] = s
            # The identity in M keeps the pivots above 0 for any lambda, if the weights are not negative.
            if not cholesky(h, k, chol[i]):
                return np.nan
            for a in range(k):
                logdet += 2.0 * np.log(chol[i, a, a])
            for c in range(e, d):
                for a in range(k):
                    s = 0.0
                    for m in range(k):
                        s += lam[o + m, o + a] * front[i, o + m, c]
                    for m in range(a):
                        s -= chol[i, a, m] * half[i, m, c]
                    half[i, a, c] = s / chol[i, a, a]
            for r in range(n_dense):
                for a in range(k):
                    s = 0.0
                    for m in range(k):
                        s += lam[o + m, o + a] * dense[i, o + m, r]
                    for m in range(a):
                        s -= chol[i, a, m] * right[m, r]
                    right[a, r] = s / chol[i, a, a]
            for r in range(n_dense):
                for r2 in range(n_dense):
                    for a in range(k):
                        gram[r, r2] -= right[a, r] * right[a, r2]
            if e < d:
                p = parent[base + i] - base
                for c in range(e, d):
                    for c2 in range(e, d):
                        # A front has the sums of all its leaves, so the parent's is the children's less what they
                        # eliminated.
                        s = front[i, c, c2]
                        for a in range(k):
                            s -= half[i, a, c] * half[i, a, c2]
                        front[p, c, c2] += s
                    for r in range(n_dense):
                        s = dense[i, c, r]
                        for a in range(k):
                            s -= half[i, a, c] * right[a, r]
                        dense[p, c, r] += s
    return logdet


@njit(cache=True, nogil=True)
def solve_tree(nodes, lam, factor, rhs, x):
    """x <- M^-1 (Lambda'r + x) by node (n, K), r the sum of the leaves' path vectors rhs (n, D; overwritten).

    Returns the squared length of L^-1 times the right-hand side.
    """
    first, parent, depths = nodes
    chol, half = factor
    base, n_depths = first[0], len(depths) - 1
    d, length = depths[n_depths], 0.0
    for t in range(n_depths):
        o, e = depths[t], depths[t + 1]
        k = e - o
        for i in range(first[t] - base, first[t + 1] - base):
            for a in range(k):
                s = x[i, a]
                for m in range(k):
                    s += lam[o + m, o + a] * rhs[i, o + m]
                for m in range(a):
                    s -= chol[i, a, m] * x[i, m]
                x[i, a] = s / chol[i, a, a]
                length += x[i, a] * x[i, a]
            if e < d:
                p = parent[base + i] - base
                for c in range(e, d):
                    s = rhs[i, c]
                    for a in range(k):
                        s -= half[i, a, c] * x[i, a]
                    rhs[p, c] += s
    # rhs now receives the unscaled solution on each path
    for t in range(n_depths - 1, -1, -1):
        o, e = depths[t], depths[t + 1]
        k = e - o
        for i in range(first[t] - base, first[t + 1] - base):
            if e < d:
                p = parent[base + i] - base
                for c in range(e, d):
                    rhs[i, c] = rhs[p, c]
            for a in range(k - 1, -1, -1):
                s = x[i, a]
                for c in range(e, d):
                    s -= half[i, a, c] * rhs[i, c]
                for m in range(a + 1, k):
                    s -= chol[i, m, a] * x[i, m]
                x[i, a] = s / chol[i, a, a]
            for a in range(k):
                s = 0.0
                for m in range(k):
                    s += lam[o + a, o + m] * x[i, m]
                rhs[i, o + a] = s
    return length


@njit(cache=True, nogil=True)
def invert(nodes, lam, factor, front, inverse, projected):
    """inverse (n, D, D) <- Lambda M^-1 Lambda' on the slots of each node and those above it (Takahashi's recursion,
    root to leaves); projected (D, D) += sum over the nodes of each depth of Z_l'V^-1 Z_l."""
    first, parent, depths = nodes
    chol, half = factor
    base, n_depths, widest = first[0], len(depths) - 1, chol.shape[1]
    d = depths[n_depths]
    y, b, row = np.empty((widest, widest)), np.empty((widest, d)), np.empty(d)
    for t in range(n_depths - 1, -1, -1):
        o, e = depths[t], depths[t + 1]
        k = e - o
        for i in range(first[t] - base, first[t + 1] - base):
            # From the root down: a node needs the inverse of its parent only (Takahashi, Fagan and Chin 1973).
            for c in range(k):  # y = L^-1 lambda'
                for a in range(k):
                    s = lam[o + c, o + a]
                    for m in range(a):
                        s -= chol[i, a, m] * y[m, c]
                    y[a, c] = s / chol[i, a, a]
            for a in range(k):
                for c in range(e, d):
                    s = 0.0
                    for m in range(k):
                        s += y[m, a] * half[i, m, c]
                    b[a, c] = s
            if e < d:
                p = parent[base + i] - base
                for c in range(e, d):
                    for c2 in range(e, d):
                        inverse[i, c, c2] = inverse[p, c, c2]
                for a in range(k):
                    for c in range(e, d):
                        s = 0.0
                        for m in range(e, d):
                            s -= b[a, m] * inverse[i, m, c]
                        inverse[i, o + a, c] = s
                        inverse[i, c, o + a] = s
            for a in range(k):
                for c in range(a + 1):
                    s = 0.0
                    for m in range(k):
                        s += y[m, a] * y[m, c]
                    for m in range(e, d):
                        s -= inverse[i, o + a, m] * b[c, m]
                    inverse[i, o + a, o + c] = s
                    inverse[i, o + c, o + a] = s
            for a in range(o, e):
                for c in range(o, d):
                    s = 0.0
                    for m in range(o, d):
                        s += front[i, a, m] * inverse[i, m, c]
                    # Z'V^-1Z = Z'WZ - Z'WZ J Z'WZ within the node's path.
                    row[c] = s
                for c in range(o, e):
                    s = front[i, a, c]
                    for m in range(o, d):
                        s -= row[m] * front[i, m, c]
                    projected[a, c] += s
