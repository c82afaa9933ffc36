"""The mode of one tree's random effects by Newton's method, all its levels together."""

from __future__ import annotations

import numpy as np

from bigmm.kernel import njit
from bigmm.laplace.mode import CLOSE, MAX_HALVINGS, MAX_LOOKS, SETTLED, level_sums
from bigmm.laplace.records import LevelSums
from bigmm.laplace.tree_kernels import eliminate, solve_tree, spread


@njit(cache=True, nogil=True)
def newton(rows, nodes, model, point, u, eta0, factor, scratch):
    """Newton's method for one tree; steps and safeguards are those of `mode.find_mode`.

    Parameters
    ----------
    rows : `records.LevelRows` with the indptr of this tree's leaves.
    nodes, model, point : `records.TreeNodes`, `LevelModel`, `Point`.
    u : (n, K) start, replaced by the mode.
    eta0 : (rows of the tree,) X beta + offset.
    factor, scratch : `records.TreeFactor`, `TreeScratch`.

    Returns
    -------
    tuple : (sum of ll less |u|^2 / 2, converged).
    """
    indptr, lam, phi = rows.indptr, point.lam, point.phi
    front_o, front_e, rhs, x, old = scratch.front_obs, scratch.front, scratch.rhs, scratch.x, scratch.old
    d, n, widest, n_leaves, start = len(model.zc), len(u), u.shape[1], len(indptr) - 1, indptr[0]
    sums = LevelSums(np.empty(d), np.empty((d, d)), np.empty((d, d)))
    zs, observed, expected = sums
    no_dense, no_gram = np.empty((n, d, 0)), np.empty((0, 0))
    best, gain, halvings = -np.inf, np.inf, 0
    for _ in range(MAX_LOOKS):
        # rhs serves twice: first for the effects on paths, then for the scores, leaf by leaf.
        spread(nodes, lam, u, rhs)
        value = 0.0
        for leaf in range(n_leaves):
            value += level_sums(indptr[leaf], indptr[leaf + 1], start, rows, model, phi, eta0, rhs[leaf], sums)
            for a in range(d):
                rhs[leaf, a] = zs[a]
                for c in range(a + 1):
                    front_o[leaf, a, c], front_o[leaf, c, a] = observed[a, c], observed[a, c]
                    front_e[leaf, a, c], front_e[leaf, c, a] = expected[a, c], expected[a, c]
        for i in range(n):
            for a in range(widest):
                value -= 0.5 * u[i, a] * u[i, a]
        # NaN too: the start is outside of the domain, and there is no point before it.
        if not value > -np.inf and best == -np.inf:
            return value, False
        if gain > CLOSE and not value >= best - 1e-12 * (1.0 + abs(best)):
            overshot = halvings == MAX_HALVINGS
            for i in range(n):
                for a in range(widest):  # a loop: numba compiles the checks of a slice for seconds
                    u[i, a] = old[i, a] if overshot else 0.5 * (u[i, a] + old[i, a])
            if overshot:
                return best, False
            halvings += 1
            continue
        front_o[n_leaves:n] = 0.0
        # observed weights where they make M positive definite, expected ones elsewhere
        if not np.isfinite(eliminate(nodes, lam, front_o, factor, no_dense, no_gram)):
            front_e[n_leaves:n] = 0.0
            if not np.isfinite(eliminate(nodes, lam, front_e, factor, no_dense, no_gram)):
                return value, False
        rhs[n_leaves:n] = 0.0
        for i in range(n):
            for a in range(widest):
                # `solve_tree` adds Lambda'Z's to it, so the solution is the step and not the position.
                x[i, a] = -u[i, a]
        gain = solve_tree(nodes, lam, factor, rhs, x)
        for i in range(n):
            for a in range(widest):
                old[i, a] = u[i, a]
                u[i, a] += x[i, a]
        if gain <= SETTLED * (1.0 + abs(value)):  # the step just taken squares the error, and needs no further look
            return value + 0.5 * gain, True
        best, halvings = value, 0
    return best, False
