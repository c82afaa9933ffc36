"""Nested factors: every tree of levels is an integral of its own, so one look at its rows gives everything.

For the rows of one tree, eta = X beta + offset + z'Lambda u with z in the slots of a path (`tree_kernels`):

    d_tree = min_u [-2 sum ll_i + |u|^2] + log|M|,    M = Lambda'Z'WZ Lambda + I

and its exact gradient (docs/theory/laplace.md), with leverages from the inverse on paths. All of Newton's steps for a
tree are taken while its rows are in the cache. Records and symbols are those of `bigmm.laplace.records`.
"""

from __future__ import annotations

import numpy as np

from bigmm.families.scores import score_full
from bigmm.kernel import njit
from bigmm.laplace.levelwise import row_sums
from bigmm.laplace.records import Block, Gradients, LevelRows, RowScratch, TreeFactor, TreeNodes, TreeScratch
from bigmm.laplace.small import column
from bigmm.laplace.tree_kernels import eliminate, gather, invert, solve_tree, spread, sums_on_paths
from bigmm.laplace.tree_mode import newton


@njit(cache=True, nogil=True)
def tree_deviance(rows, trees, model, point, want_gradient, u, out, gram, pull):
    """Deviance of all trees of a shard, its gradient, and what a curvature is made of.

    Parameters
    ----------
    rows, trees, model, point : `records.LevelRows` by leaf, `Trees`, `LevelModel`, `Point`.
    u : (N, K) starts, replaced by the modes.
    out : (1 + P,) receives the value and the gradient, added to what it holds; out[0] is inf where there is no M.
    gram : (p + m, p + m) receives [X, F]'V^-1[X, F], lower triangle, added; F = dV V^-1 (y* - X beta) by the m elements
        of lam.
    pull : (D, D) receives by depth half the curvature in columns of lam that are 0, added.

    Returns
    -------
    int : number of trees without a mode.
    """
    indptr, offset, columns = rows.indptr, rows.offset, rows.columns
    leaves, parent, lam, xc, beta = trees.leaves, trees.parent, point.lam, model.xc, point.beta
    d, widest, p, n_lam = len(model.zc), u.shape[1], len(xc), len(model.elements)
    # Buffers fit the largest tree and serve all of them.
    n_nodes, n_leaves, n_rows = 0, 0, 0
    for g in range(len(trees.first)):
        n_nodes = max(n_nodes, trees.first[g, -1] - trees.first[g, 0])
        n_leaves = max(n_leaves, leaves[g + 1] - leaves[g])
        n_rows = max(n_rows, indptr[leaves[g + 1]] - indptr[leaves[g]])
    by_row = RowScratch(np.empty(n_rows), np.empty(n_rows), np.empty(n_rows), np.empty(n_rows), np.empty(n_rows))
    factor = TreeFactor(np.empty((n_nodes, widest, widest)), np.empty((n_nodes, widest, d)))
    scratch = TreeScratch(
        np.empty((n_nodes, d, d)),
        np.empty((n_nodes, d, d)),
        np.empty((n_nodes, d, p + n_lam if want_gradient else 0)),
        np.empty((n_nodes if want_gradient else 0, d, d)),
        np.empty((n_nodes, d)),
        np.empty((n_nodes, d)),
        np.empty((n_nodes, widest)),
        np.empty((n_nodes, widest)),
    )
    front, front_o, dense, inverse, score, rhs, x, _ = scratch
    no_dense, no_gram = np.empty((n_nodes, d, 0)), np.empty((0, 0))
    n_par = p + n_lam + (1 if model.with_phi else 0)
    gradients = Gradients(np.empty((n_leaves, n_par)), np.empty((n_leaves, n_par)), rhs, np.empty((n_nodes, d)))
    u_paths, projected = np.empty((n_nodes, d)), np.zeros((d, d))
    failures = 0
    for g in range(len(trees.first)):
        nodes = TreeNodes(trees.first[g], parent, model.depths)
        tree_rows = LevelRows(columns, rows.y, rows.w, offset, indptr[leaves[g] : leaves[g + 1] + 1])
        # A view: Newton's method leaves the modes in u.
        u_tree, inner = u[nodes.first[0] : nodes.first[-1]], leaves[g + 1] - leaves[g]
        start, n = tree_rows.indptr[0], len(u_tree)
        for i in range(start, tree_rows.indptr[-1]):
            eta = offset[i] if len(offset) else 0.0
            for j in range(p):
                eta += beta[j] * column(columns, xc[j], i)
            by_row.eta0[i - start] = eta
        value, settled = -np.inf, False
        for attempt in range(2):  # from the start, then from zero
            value, settled = newton(tree_rows, nodes, model, point, u_tree, by_row.eta0, factor, scratch)
            if settled:
                break
            if attempt == 0:
                # A start from other parameters may lie where Newton's steps lose; zero is the mode of the prior.
                u_tree[:] = 0.0
        if not settled:
            failures += 1
            continue
        spread(nodes, lam, u_tree, rhs)
        at_mode(tree_rows, model, point.phi, by_row, scratch, gram, want_gradient)
        # Leaves have their sums; elimination adds to the fronts of the other nodes.
        front[inner:n] = 0.0
        if want_gradient:
            dense[inner:n] = 0.0
            score[inner:n] = 0.0
            information_columns(nodes, model, lam, inner, scratch, gram)
        logdet = eliminate(nodes, lam, front, factor, dense, gram)
        out[0] += logdet - 2.0 * value
        if not np.isfinite(logdet):
            out[0] = np.inf
            return failures
        if not want_gradient:
            continue
        projected[:] = 0.0
        # front is what each node had before its own elimination, so Z'V^-1Z can be read off it.
        invert(nodes, lam, factor, front, inverse, projected)
        rhs[:n] = 0.0
        path_leverages(tree_rows, model.zc, inverse, by_row, rhs)
        if not model.same:  # the mode moves by the observed weights where these make a maximum
            front_o[inner:n] = 0.0
            if not np.isfinite(eliminate(nodes, lam, front_o, factor, no_dense, no_gram)):
                # No maximum by observed weights: the factor of the expected ones is made again, since it was
                # overwritten.
                front[inner:n] = 0.0
                eliminate(nodes, lam, front, factor, no_dense, no_gram)
        x[:n] = 0.0
        solve_tree(nodes, lam, factor, rhs, x)
        gather(nodes, x, rhs)
        gather(nodes, u_tree, u_paths)
        row_sums(Block(0, inner), tree_rows, model, point, u_paths, by_row, gradients)
        # row_sums filled the leaves only.
        gradients.pull[inner:n] = 0.0
        sums_on_paths(nodes, gradients.pull)
        for leaf in range(inner):
            for m in range(n_par):
                out[1 + m] += gradients.deviance[leaf, m] + gradients.logdet[leaf, m]
        path_scale_sums(nodes, model, lam, projected, scratch, gradients.pull, out, pull)
    return failures


@njit(cache=True, nogil=True)
def at_mode(rows, model, phi, by_row, scratch, gram, want_gradient):
    """Derivatives by row of one tree and their sums by leaf.

    scratch.rhs (n, D) holds the effects on paths. scratch.score <- Z's, front <- Z'WZ with the weights of log|M|,
    front_obs <- with the observed ones; where a gradient is wanted dense <- Z'WX, and gram += X'WX.
    """
    columns, y, w, indptr = rows.columns, rows.y, rows.w, rows.indptr
    family, link, xc, zc, observed = model.family, model.link, model.xc, model.zc, model.observed
    eta0, d1s, slope, weight_obs, _ = by_row
    front, front_o, dense, score, b = scratch.front, scratch.front_obs, scratch.dense, scratch.score, scratch.rhs
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
            d1s[r], weight_obs[r], slope[r] = d1, wo, dwo if observed else dwe
            for a in range(d):
                score[leaf, a] += z[a] * d1
                for c in range(a + 1):
                    front[leaf, a, c] += z[a] * z[c] * weight
                    # Lower triangles by row, mirrored once by leaf.
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
def information_columns(nodes, model, lam, n_leaves, scratch, gram):
    """Average information as `objective.information`, by element of lam.

    scratch.dense[:, p:] <- Z'W F for F = Z g, g = (dLambda Lambda' + Lambda dLambda') Z's; gram += its products (lower
    triangle); scratch.score becomes the nodes' sums on each path.
    """
    front, dense, score, elements, p = scratch.front, scratch.dense, scratch.score, model.elements, len(model.xc)
    sums_on_paths(nodes, score)
    d, n_lam = len(lam), len(elements)
    g = np.zeros((n_lam, d))
    for leaf in range(n_leaves):
        for m in range(n_lam):
            row, col = elements[m, 0], elements[m, 1]
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
        for m in range(n_lam):
            for j in range(p + m + 1):
                for a in range(d):
                    # The lower triangle, where rows of theta follow those of beta.
                    gram[p + m, j] += g[m, a] * dense[leaf, a, j]


@njit(cache=True, nogil=True)
def path_leverages(rows, zc, inverse, by_row, z_c):
    """by_row.leverage <- h_i = z_i'J z_i with J = Lambda M^-1 Lambda' on the leaf's path; by_row.slope <- h_i times the
    slope of the weight; z_c (n, D) += the leaves' Z'c."""
    columns, indptr, slope, leverage = rows.columns, rows.indptr, by_row.slope, by_row.leverage
    d, start = len(zc), indptr[0]
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
                # J is symmetric, so products off the diagonal count twice.
                h += z[a] * (2.0 * s + inverse[leaf, a, a] * z[a])
            leverage[r] = h
            slope[r] *= h
            for a in range(d):
                z_c[leaf, a] += z[a] * slope[r]


@njit(cache=True, nogil=True)
def path_scale_sums(nodes, model, lam, projected, scratch, pulls, out, pull):
    """out[elements of lam] += the part of d log|M| that does not pass through eta, 2 (sum Z_l'V^-1 Z_l) lambda + (Z's)
    t'; pull += half the curvature in columns of lambda that are 0, where modes are u = lambda'Z's.

    scratch.x (n, K) holds t by node; on paths (n, D): scratch.score = Z's and pulls = Z' times the gradient of log|M|
    in eta.
    """
    first, _, depths = nodes
    score, t, elements, p = scratch.score, scratch.x, model.elements, len(model.xc)
    base = first[0]
    for m in range(len(elements)):
        row, col = elements[m, 0], elements[m, 1]
        depth = 0
        while depths[depth + 1] <= row:
            depth += 1
        s = 0.0
        for a in range(depths[depth], depths[depth + 1]):
            s += 2.0 * projected[row, a] * lam[a, col]
        for i in range(first[depth] - base, first[depth + 1] - base):
            s += score[i, row] * t[i, col - depths[depth]]
        out[1 + p + m] += s
    for depth in range(len(depths) - 1):
        for a in range(depths[depth], depths[depth + 1]):
            for c in range(depths[depth], depths[depth + 1]):
                pull[a, c] += projected[a, c]
                for i in range(first[depth] - base, first[depth + 1] - base):
                    pull[a, c] -= score[i, a] * score[i, c]
                    pull[a, c] += 0.5 * (pulls[i, a] * score[i, c] + score[i, a] * pulls[i, c])
