"""The mode of one level's random effects by Newton's method."""

from __future__ import annotations

import numpy as np
from numba import njit

from bigmm.families.scores import score
from bigmm.laplace.small import column, copy, factor_scaled, multiply, multiply_transposed, solve

MAX_LOOKS = 200
MAX_HALVINGS = 30
SETTLED = 1e-11
"""A mode is found when a Newton step gains less than this share of the log-likelihood; that step is still taken."""
CLOSE = 1e-3
"""A step that should gain less cannot overshoot: where it seems to lose, that is rounding."""


@njit(cache=True, nogil=True)
def modes(lo, hi, family, link, indptr, columns, xc, zc, y, w, offset, beta, lam, phi, u, eta0, values):
    """Modes of levels lo..hi: u (q, k) in and out; eta0 (rows of the block,) X beta + offset; values (hi - lo,) the sum
    of ll less |u|^2 / 2. Returns the number of levels without a mode."""
    k = len(zc)
    zs, step, b, ul, old = np.empty(k), np.empty(k), np.empty(k), np.empty(k), np.empty(k)
    observed, expected, low, h = np.empty((k, k)), np.empty((k, k)), np.empty((k, k)), np.empty((k, k))
    start, failures = indptr[lo], 0
    for level in range(lo, hi):
        first, last = indptr[level], indptr[level + 1]
        for i in range(first, last):
            t = offset[i] if len(offset) else 0.0
            for j in range(len(xc)):
                t += beta[j] * column(columns, xc[j], i)
            eta0[i - start] = t
        for a in range(k):
            ul[a] = u[level, a] if first < last else 0.0
        found = False
        for attempt in range(2):  # from where it was, then from zero
            values[level - lo], found = find_mode(
                family,
                link,
                columns,
                zc,
                y,
                w,
                first,
                last,
                eta0,
                start,
                lam,
                phi,
                ul,
                zs,
                observed,
                expected,
                low,
                h,
                step,
                b,
                old,
            )
            if found:
                break
            if attempt == 0:
                ul[:] = 0.0
        failures += 0 if found else 1
        for a in range(k):
            u[level, a] = ul[a]
    return failures


@njit(cache=True, nogil=True)
def find_mode(
    family, link, columns, zc, y, w, first, last, eta0, start, lam, phi, u, zs, observed, expected, low, h, step, b, old
):
    """Newton's method for rows first..last, u in and out; returns (sum ll - |u|^2 / 2, converged). The rest:
    scratch."""
    k = len(u)
    best, gain, halvings = -np.inf, np.inf, 0
    for _ in range(MAX_LOOKS):
        multiply(lam, u, b)
        value = level_sums(family, link, columns, zc, y, w, first, last, eta0, start, b, phi, zs, observed, expected)
        for a in range(k):
            value -= 0.5 * u[a] * u[a]
        if not value > -np.inf and best == -np.inf:
            return value, False
        if gain > CLOSE and not value >= best - 1e-12 * (1.0 + abs(best)):
            if halvings == MAX_HALVINGS:
                copy(old, u)
                return best, False
            for a in range(k):
                u[a] = 0.5 * (u[a] + old[a])
            halvings += 1
            continue
        # observed weights where they make H positive definite, expected ones elsewhere
        if not factor_scaled(observed, lam, low, step, h) and not factor_scaled(expected, lam, low, step, h):
            return value, False
        multiply_transposed(lam, zs, step)
        for a in range(k):
            step[a] -= u[a]
            b[a] = step[a]
        solve(low, step)
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
def level_sums(family, link, columns, zc, y, w, first, last, eta0, start, b, phi, zs, observed, expected):
    """Sum of ll at eta0 + z'b; Z's, Z'WoZ and Z'WeZ (lower triangles) into the buffers."""
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
            for c in range(a + 1):
                zz = za * column(columns, zc[c], i)
                observed[a, c] += zz * wo
                expected[a, c] += zz * we
    return total
