"""The mode of one tree's random effects by Newton's method, all its levels together."""

from __future__ import annotations

import numpy as np
from numba import njit

from bigmm.laplace.mode import CLOSE, MAX_HALVINGS, MAX_LOOKS, SETTLED, level_sums
from bigmm.laplace.small import column
from bigmm.laplace.tree_kernels import eliminate, solve_tree, spread


@njit(cache=True, nogil=True)
def tree_mode(rows, indptr, first, parent, model, beta, lam, phi, u, eta0, front_o, front_e, low, half, rhs, x, none):
    """Newton's method for one tree; u (n, K) in and out, eta0 <- X beta + offset; the rest: scratch.

    Returns (sum of ll less |u|^2 / 2, converged)."""
    columns, _, _, offset, _ = rows
    xc = model[2]
    start = indptr[0]
    for i in range(start, indptr[-1]):
        t = offset[i] if len(offset) else 0.0
        for j in range(len(xc)):
            t += beta[j] * column(columns, xc[j], i)
        eta0[i - start] = t
    value, found = -np.inf, False
    old = np.empty_like(u)
    for attempt in range(2):  # from where it was, then from zero
        value, found = newton(
            rows, indptr, first, parent, model, lam, phi, u, eta0, front_o, front_e, low, half, rhs, x, old, none
        )
        if found:
            break
        if attempt == 0:
            u[:] = 0.0
    return value, found


@njit(cache=True, nogil=True)
def newton(rows, indptr, first, parent, model, lam, phi, u, eta0, front_o, front_e, low, half, rhs, x, old, none):
    """`tree_mode` from one start; steps and safeguards are those of `mode.find_mode`."""
    columns, y, w, _, _ = rows
    family, link, _, zc, at, _, _ = model
    d, n, n_leaves, start = len(zc), len(u), len(indptr) - 1, indptr[0]
    zs, observed, expected, no_gram = np.empty(d), np.empty((d, d)), np.empty((d, d)), np.empty((0, 0))
    best, gain, halvings = -np.inf, np.inf, 0
    for _ in range(MAX_LOOKS):
        spread(first, parent, at, lam, u, rhs)
        value = 0.0
        for leaf in range(n_leaves):
            value += level_sums(
                family, link, columns, zc, y, w, indptr[leaf], indptr[leaf + 1], eta0, start, rhs[leaf], phi, zs,
                observed, expected
            )  # fmt: skip
            for a in range(d):
                rhs[leaf, a] = zs[a]
                for c in range(a + 1):
                    front_o[leaf, a, c], front_o[leaf, c, a] = observed[a, c], observed[a, c]
                    front_e[leaf, a, c], front_e[leaf, c, a] = expected[a, c], expected[a, c]
        for i in range(n):
            for a in range(u.shape[1]):
                value -= 0.5 * u[i, a] * u[i, a]
        if not value > -np.inf and best == -np.inf:
            return value, False
        if gain > CLOSE and not value >= best - 1e-12 * (1.0 + abs(best)):
            if halvings == MAX_HALVINGS:
                u[:] = old
                return best, False
            for i in range(n):
                for a in range(u.shape[1]):
                    u[i, a] = 0.5 * (u[i, a] + old[i, a])
            halvings += 1
            continue
        front_o[n_leaves:n] = 0.0
        # observed weights where they make M positive definite, expected ones elsewhere
        if not np.isfinite(eliminate(first, parent, at, lam, front_o, low, half, none, no_gram)):
            front_e[n_leaves:n] = 0.0
            if not np.isfinite(eliminate(first, parent, at, lam, front_e, low, half, none, no_gram)):
                return value, False
        rhs[n_leaves:n] = 0.0
        for i in range(n):
            for a in range(u.shape[1]):
                x[i, a] = -u[i, a]
        gain = solve_tree(first, parent, at, lam, low, half, rhs, x)
        for i in range(n):
            for a in range(u.shape[1]):
                old[i, a] = u[i, a]
                u[i, a] += x[i, a]
        if gain <= SETTLED * (1.0 + abs(value)):  # the step just taken squares the error, and needs no further look
            return value + 0.5 * gain, True
        best, halvings = value, 0
    return best, False
