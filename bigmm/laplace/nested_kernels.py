"""Nested factors: every tree of levels is an integral of its own, so one look at its rows gives everything.

For the rows of one tree, eta = X beta + offset + z'Lambda u with z in the slots of a path (`tree_kernels`):

    d_tree = min_u [-2 sum ll_i + |u|^2] + log|M|,    M = Lambda'Z'WZ Lambda + I

and its exact gradient (docs/glmm.md), with leverages from the inverse on paths. All of Newton's steps for a tree are
taken while its rows are in the cache.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from bigmm.families.scores import score_full
from bigmm.laplace.levelwise import row_sums
from bigmm.laplace.small import column
from bigmm.laplace.tree_kernels import eliminate, gather, invert, solve_tree, spread, sums_on_paths
from bigmm.laplace.tree_mode import tree_mode


@njit(cache=True, nogil=True)
def trees(rows, forest, model, beta, lam, phi, places, with_phi, want_gradient, u, out, gram, pull):
    """Adds to ``out`` (1 + P,) the value and gradient of the deviance of all trees; u (N, K): starts, then modes.

    rows = (columns, y, w, offset, indptr); forest = (leaves, first, parent); model = (family, link, xc, zc, at,
    observed, same): which weights log|M| takes, and whether the two kinds are the same; places (n_theta, 2): slots of
    each theta in lam (D, D). gram (p + n_theta)^2 += [X, F]'V^-1[X, F], lower triangle, F = dV V^-1 (y* - X beta) by
    theta; pull (D, D) += by depth, half the curvature in columns of lam that are 0. Returns the number of trees without
    a mode; out[0] is inf where there is no M.
    """
    columns, y, w, _, indptr = rows
    leaves, first, parent = forest
    family, link, xc, zc, at, _, same = model
    d, widest, p, nt = len(zc), u.shape[1], len(xc), len(places)
    n_nodes, n_leaves, n_rows = 0, 0, 0
    for g in range(len(first)):
        n_nodes = max(n_nodes, first[g, -1] - first[g, 0])
        n_leaves = max(n_leaves, leaves[g + 1] - leaves[g])
        n_rows = max(n_rows, indptr[leaves[g + 1]] - indptr[leaves[g]])
    n_dense = p + nt if want_gradient else 0
    # by row: linear predictor without effects, score, slope of the weight in log|M|, observed weight, leverage
    eta0, d1s, cs, wos, hs = np.empty(n_rows), np.empty(n_rows), np.empty(n_rows), np.empty(n_rows), np.empty(n_rows)
    # by node: fronts of the M in log|M| and of the M that moves the mode, columns beside them, what elimination leaves
    front, front_o = np.empty((n_nodes, d, d)), np.empty((n_nodes, d, d))
    dense, low, half = (
        np.empty((n_nodes, d, n_dense)),
        np.empty((n_nodes, widest, widest)),
        np.empty((n_nodes, widest, d)),
    )
    none, no_gram = np.empty((n_nodes, d, 0)), np.empty((0, 0))
    rhs, x, score = np.empty((n_nodes, d)), np.empty((n_nodes, widest)), np.empty((n_nodes, d))
    inverse = np.empty((n_nodes if want_gradient else 0, d, d))
    n_par = p + nt + (1 if with_phi else 0)
    gradients, logdet_gradients = np.empty((n_leaves, n_par)), np.empty((n_leaves, n_par))
    u_paths, pulls, projected = np.empty((n_nodes, d)), np.empty((n_nodes, d)), np.zeros((d, d))
    failures = 0
    for g in range(len(first)):
        tree, base = first[g], first[g, 0]
        own_leaves = indptr[leaves[g] : leaves[g + 1] + 1]
        u_tree = u[base : first[g, -1]]
        value, found = tree_mode(
            rows, own_leaves, tree, parent, model, beta, lam, phi, u_tree, eta0, front_o, front, low, half, rhs, x, none
        )
        if not found:
            failures += 1
            continue
        spread(tree, parent, at, lam, u_tree, rhs)
        at_mode(
            rows, own_leaves, model, phi, rhs, eta0, d1s, cs, wos, score, front, front_o, dense, gram, want_gradient
        )
        n = len(u_tree)
        inner = len(own_leaves) - 1
        front[inner:n] = 0.0
        if want_gradient:
            dense[inner:n] = 0.0
            score[inner:n] = 0.0
            information_columns(tree, parent, at, lam, places, p, inner, score, front, dense, gram)
        logdet = eliminate(tree, parent, at, lam, front, low, half, dense, gram)
        out[0] += logdet - 2.0 * value
        if not np.isfinite(logdet):
            out[0] = np.inf
            return failures
        if not want_gradient:
            continue
        projected[:] = 0.0
        invert(tree, parent, at, lam, low, half, front, inverse, projected)
        rhs[:n] = 0.0
        leverages(rows, own_leaves, zc, inverse, cs, hs, rhs)
        if not same:  # the mode moves by the observed weights where these make a maximum
            front_o[inner:n] = 0.0
            if not np.isfinite(eliminate(tree, parent, at, lam, front_o, low, half, none, no_gram)):
                front[inner:n] = 0.0
                eliminate(tree, parent, at, lam, front, low, half, none, no_gram)
        x[:n] = 0.0
        solve_tree(tree, parent, at, lam, low, half, rhs, x)
        gather(tree, parent, at, x, rhs)
        gather(tree, parent, at, u_tree, u_paths)
        row_sums(
            0,
            inner,
            family,
            link,
            own_leaves,
            columns,
            xc,
            zc,
            y,
            w,
            eta0,
            lam,
            places,
            phi,
            with_phi,
            u_paths,
            d1s,
            cs,
            wos,
            hs,
            rhs,
            gradients,
            logdet_gradients,
            pulls,
        )
        pulls[inner:n] = 0.0
        sums_on_paths(tree, parent, at, pulls)
        for leaf in range(inner):
            for m in range(n_par):
                out[1 + m] += gradients[leaf, m] + logdet_gradients[leaf, m]
        scale_sums(tree, at, lam, places, p, projected, score, pulls, x, out, pull)
    return failures


@njit(cache=True, nogil=True)
def at_mode(rows, indptr, model, phi, b, eta0, d1s, cs, wos, score, front, front_o, dense, gram, want_gradient):
    """Derivatives by row of one tree and their sums by leaf, effects b (n, D) on paths: score <- Z's, front <- Z'WZ
    with the weights of log|M|, front_o <- with the observed ones; want_gradient: dense <- Z'WX and gram += X'WX too."""
    columns, y, w, _, _ = rows
    family, link, xc, zc, _, observed, _ = model
    d, p, start = len(zc), len(xc), indptr[0]
    z, x = np.empty(d), np.empty(p)
    for leaf in range(len(indptr) - 1):
        for a in range(d):
            score[leaf, a] = 0.0
            for c in range(d):
                front[leaf, a, c], front_o[leaf, a, c] = 0.0, 0.0
            for j in range(dense.shape[2]):
                dense[leaf, a, j] = 0.0
        for i in range(indptr[leaf], indptr[leaf + 1]):
            r = i - start
            eta = eta0[r]
            for a in range(d):
                z[a] = column(columns, zc[a], i)
                eta += b[leaf, a] * z[a]
            _, d1, we, wo, dwe, dwo = score_full(family, link, y[i], w[i] if len(w) else 1.0, eta, phi)
            weight = wo if observed else we
            d1s[r], wos[r], cs[r] = d1, wo, dwo if observed else dwe
            for a in range(d):
                score[leaf, a] += z[a] * d1
                for c in range(a + 1):
                    front[leaf, a, c] += z[a] * z[c] * weight
                    front_o[leaf, a, c] += z[a] * z[c] * wo
            if want_gradient:
                for j in range(p):
                    x[j] = column(columns, xc[j], i)
                    for a in range(d):
                        dense[leaf, a, j] += z[a] * x[j] * weight
                    for j2 in range(j + 1):
                        gram[j, j2] += x[j] * x[j2] * weight
        for a in range(d):
            for c in range(a):
                front[leaf, c, a], front_o[leaf, c, a] = front[leaf, a, c], front_o[leaf, a, c]


@njit(cache=True, nogil=True)
def information_columns(first, parent, at, lam, places, p, n_leaves, score, front, dense, gram):
    """dense[:, p:] <- Z'W F for F = Z g, g = (dLambda Lambda' + Lambda dLambda') Z's by theta, gram += its products
    (lower triangle): average information as `objective.information`; score becomes the nodes' sums on each path."""
    sums_on_paths(first, parent, at, score)
    d, nt = len(lam), len(places)
    g = np.zeros((nt, d))
    for leaf in range(n_leaves):
        for m in range(nt):
            row, col = places[m, 0], places[m, 1]
            pulled = 0.0
            for a in range(d):
                pulled += score[leaf, a] * lam[a, col]
            for a in range(d):
                g[m, a] = score[leaf, row] * lam[a, col]
            g[m, row] += pulled
            for a in range(d):
                s = 0.0
                for c in range(d):
                    s += front[leaf, a, c] * g[m, c]
                dense[leaf, a, p + m] = s
        for m in range(nt):
            for j in range(p + m + 1):
                for a in range(d):
                    gram[p + m, j] += g[m, a] * dense[leaf, a, j]


@njit(cache=True, nogil=True)
def leverages(rows, indptr, zc, inverse, cs, hs, z_c):
    """hs <- h_i = z_i'J z_i with J = Lambda M^-1 Lambda' on the leaf's path; cs <- h_i times the slope of the weight;
    z_c (n, D) <- the leaves' Z'c."""
    columns, d, start = rows[0], len(zc), indptr[0]
    z = np.empty(d)
    for leaf in range(len(indptr) - 1):
        for i in range(indptr[leaf], indptr[leaf + 1]):
            r = i - start
            h = 0.0
            for a in range(d):
                z[a] = column(columns, zc[a], i)
                s = 0.0
                for c in range(a):
                    s += inverse[leaf, a, c] * z[c]
                h += z[a] * (2.0 * s + inverse[leaf, a, a] * z[a])
            hs[r] = h
            cs[r] *= h
            for a in range(d):
                z_c[leaf, a] += z[a] * cs[r]


@njit(cache=True, nogil=True)
def scale_sums(first, at, lam, places, p, projected, score, pulls, t, out, pull):
    """out[theta] += the part of d log|M| that does not pass through eta, 2 (sum Z_l'V^-1 Z_l) lambda + (Z's) t'; pull
    += half the curvature in columns of lambda that are 0, where modes are u = lambda'Z's. t (n, K) by node; on paths
    (n, D): score = Z's and pulls = Z' times the gradient of log|M| in eta."""
    base = first[0]
    for m in range(len(places)):
        row, col = places[m, 0], places[m, 1]
        depth = 0
        while at[depth + 1] <= row:
            depth += 1
        s = 0.0
        for a in range(at[depth], at[depth + 1]):
            s += 2.0 * projected[row, a] * lam[a, col]
        for i in range(first[depth] - base, first[depth + 1] - base):
            s += score[i, row] * t[i, col - at[depth]]
        out[1 + p + m] += s
    for depth in range(len(at) - 1):
        for a in range(at[depth], at[depth + 1]):
            for c in range(at[depth], at[depth + 1]):
                pull[a, c] += projected[a, c]
                for i in range(first[depth] - base, first[depth + 1] - base):
                    pull[a, c] -= score[i, a] * score[i, c]
                    pull[a, c] += 0.5 * (pulls[i, a] * score[i, c] + score[i, a] * pulls[i, c])
