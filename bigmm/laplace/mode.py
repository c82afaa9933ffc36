"""The mode of one level's random effects by Newton's method (docs/theory/laplace.md, "The mode")."""

from __future__ import annotations

import numpy as np

from bigmm.families.scores import score
from bigmm.kernel import njit
from bigmm.laplace.records import LevelSums, NewtonScratch
from bigmm.laplace.small import column, copy, factor_scaled, multiply, multiply_transposed, solve

MAX_LOOKS = 200
MAX_HALVINGS = 30
SETTLED = 1e-11
"""A mode is found when a Newton step gains less than this share of the log-likelihood; that step is still taken."""
CLOSE = 1e-3
"""A step that should gain less cannot overshoot: where it seems to lose, that is rounding."""


@njit(cache=True, nogil=True)
def modes(block, rows, model, point, u, eta0, value):
    """Modes of the levels of a block.

    Parameters
    ----------
    block, rows, model, point : `records.Block`, `LevelRows`, `LevelModel`, `Point`.
    u : (q, k) starts, replaced by the modes.
    eta0 : (rows of the block,) receives X beta + offset.
    value : (levels of the block,) receives sum ll - |u|^2 / 2.

    Returns
    -------
    int : number of levels without a mode.
    """
    columns, offset, indptr, xc, beta = rows.columns, rows.offset, rows.indptr, model.xc, point.beta
    k, (lo, hi) = len(model.zc), block
    scratch = NewtonScratch(
        LevelSums(np.empty(k), np.empty((k, k)), np.empty((k, k))),
        np.empty((k, k)),
        np.empty((k, k)),
        np.empty(k),
        np.empty(k),
        np.empty(k),
        np.empty(k),
    )
    ul = scratch.u
    start, failures = indptr[lo], 0
    for level in range(lo, hi):
        first, last = indptr[level], indptr[level + 1]
        for i in range(first, last):
            t = offset[i] if len(offset) else 0.0
            for j in range(len(xc)):
                t += beta[j] * column(columns, xc[j], i)
            eta0[i - start] = t
        for a in range(k):
            # Without rows the mode is that of the prior.
            ul[a] = u[level, a] if first < last else 0.0
        settled = False
        for attempt in range(2):  # from the start, then from zero
            value[level - lo], settled = find_mode(level, start, rows, model, point, eta0, scratch)
            if settled:
                break
            if attempt == 0:
                ul[:] = 0.0
        failures += 0 if settled else 1
        for a in range(k):
            u[level, a] = ul[a]
    return failures


@njit(cache=True, nogil=True)
def find_mode(level, start, rows, model, point, eta0, scratch):
    """Newton's method for the rows of one level, scratch.u in and out; eta0 begins at row ``start``.

    Returns (sum ll - |u|^2 / 2, converged).
    """
    lam, u, old, b, step = point.lam, scratch.u, scratch.old, scratch.effects, scratch.step
    sums, chol, h = scratch.sums, scratch.chol, scratch.h
    first, last, k = rows.indptr[level], rows.indptr[level + 1], len(u)
    best, gain, halvings = -np.inf, np.inf, 0
    for _ in range(MAX_LOOKS):
        multiply(lam, u, b)
        value = level_sums(first, last, start, rows, model, point.phi, eta0, b, sums)
        for a in range(k):
            value -= 0.5 * u[a] * u[a]
        # `not >` is true of NaN too. A start outside of the domain has no point before it to return to.
        if not value > -np.inf and best == -np.inf:
            return value, False
        # A loss within rounding of the sums is no loss, else an end would spend its halvings on it.
        if gain > CLOSE and not value >= best - 1e-12 * (1.0 + abs(best)):
            if halvings == MAX_HALVINGS:
                # The best point is returned, not the last trial.
                copy(old, u)
                return best, False
            for a in range(k):
                u[a] = 0.5 * (u[a] + old[a])
            halvings += 1
            continue
        # observed weights where they make H positive definite, expected ones elsewhere
        good = factor_scaled(sums.observed, lam, chol, step, h) or factor_scaled(sums.expected, lam, chol, step, h)
        if not good:
            return value, False
        # The right-hand side is lambda'Z's - u; its product with the step is the gain.
        multiply_transposed(lam, sums.score, step)
        for a in range(k):
            step[a] -= u[a]
            b[a] = step[a]
        solve(chol, step)
        gain = 0.0
        for a in range(k):
            gain += step[a] * b[a]
            old[a] = u[a]
            u[a] += step[a]
        if gain <= SETTLED * (1.0 + abs(value)):  # the step just taken squares the error, and needs no further look
            return value + 0.5 * gain, True
        best, halvings = value, 0
    return best, False


@njit(cache=True, nogil=True)
def level_sums(first, last, start, rows, model, phi, eta0, b, sums):
    """Sum of ll at eta0 + z'b over rows first .. last.

    sums : `records.LevelSums`, receives Z's, Z'WoZ and Z'WeZ (lower triangles).
    """
    columns, y, w = rows.columns, rows.y, rows.w
    family, link, zc = model.family, model.link, model.zc
    zs, observed, expected = sums.score, sums.observed, sums.expected
    k = len(zc)
    zs[:] = 0.0
    observed[:] = 0.0
    expected[:] = 0.0
    total = 0.0
    for i in range(first, last):
        eta = eta0[i - start]
        for a in range(k):
            eta += b[a] * column(columns, zc[a], i)
        ll, d1, we, wo = score(family, link, y[i], w[i] if len(w) else 1.0, eta, phi)
        total += ll
        for a in range(k):
            za = column(columns, zc[a], i)
            zs[a] += za * d1
            # The lower triangles are all that `factor_scaled` reads.
            for c in range(a + 1):
                zz = za * column(columns, zc[c], i)
                observed[a, c] += zz * wo
                expected[a, c] += zz * we
    return total
