"""The mode of one level's random effects by Newton's method."""

from __future__ import annotations

import numpy as np
from numba import njit

from bigmm.families.scores import score
from bigmm.laplace.small import column, copy, factor_scaled, multiply, multiply_transposed, solve

MAX_STEPS = 100
MAX_HALVINGS = 30
SETTLED = 1e-11
"""A mode is found when a Newton step gains less than this share of the log-likelihood; that step is still taken."""
CLOSE = 1e-3
"""A step that gains less cannot overshoot, and is taken unseen."""


@njit(cache=True, nogil=True)
def scratch(k):
    """Buffers for `find_mode`: (Z's, two (k, k) sums of Z'WZ, factor, step, b, trial, (k, k))."""
    return (
        np.empty(k),
        np.empty((k, k)),
        np.empty((k, k)),
        np.empty((k, k)),
        np.empty(k),
        np.empty(k),
        np.empty(k),
        np.empty((k, k)),
    )


@njit(cache=True, nogil=True)
def linear(columns, which, coefficients, offset, first, last, eta):
    """eta[i - first] = offset[i] + sum_j coefficients[j] * column which[j]."""
    for i in range(first, last):
        t = offset[i] if len(offset) else 0.0
        for j in range(len(which)):
            t += coefficients[j] * column(columns, which[j], i)
        eta[i - first] = t


@njit(cache=True, nogil=True)
def find_mode(family, link, columns, zc, y, w, first, last, eta0, lam, phi, u, zs, observed, expected, low, step, b,
              trial, h):
    """Newton's method for one level, u in and out; returns (sum ll - |u|^2 / 2, converged). The rest: `scratch`."""
    value = -np.inf
    for _ in range(MAX_STEPS):
        multiply(lam, u, b)
        value = _sums(family, link, columns, zc, y, w, first, last, eta0, b, phi, zs, observed, expected) - _penalty(u)
        # observed weights where they make H positive definite, expected ones elsewhere
        if not factor_scaled(observed, lam, low, trial, h) and not factor_scaled(expected, lam, low, trial, h):
            return value, False
        multiply_transposed(lam, zs, trial)
        for a in range(len(u)):
            trial[a] -= u[a]
            step[a] = trial[a]
        solve(low, step)
        gain = 0.0
        for a in range(len(u)):
            gain += step[a] * trial[a]
        if gain <= SETTLED * (1.0 + abs(value)):  # one more step squares the error, and needs no further look
            for a in range(len(u)):
                u[a] += step[a]
            return value + 0.5 * gain, True
        if not _halved(family, link, columns, zc, y, w, first, last, eta0, lam, phi, u, step, gain, value, b, trial):
            return value, gain < 1e-8
    return value, False


@njit(cache=True, nogil=True)
def _penalty(u):
    total = 0.0
    for a in range(len(u)):
        total += 0.5 * u[a] * u[a]
    return total


@njit(cache=True, nogil=True)
def _sums(family, link, columns, zc, y, w, first, last, eta0, b, phi, zs, observed, expected):
    """Sum of ll at eta0 + z'b; Z's, Z'WoZ and Z'WeZ (lower triangles) into the buffers."""
    k = len(zc)
    zs[:] = 0.0
    observed[:] = 0.0
    expected[:] = 0.0
    total = 0.0
    for i in range(first, last):
        eta = eta0[i - first]
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


@njit(cache=True, nogil=True)
def _halved(family, link, columns, zc, y, w, first, last, eta0, lam, phi, u, step, gain, value, b, trial):
    """u <- u + step, halved until it does not lose; False when no fraction of it does."""
    factor = 1.0
    for _ in range(MAX_HALVINGS):
        for a in range(len(u)):
            trial[a] = u[a] + factor * step[a]
        accepted = gain < CLOSE
        if not accepted:
            multiply(lam, trial, b)
            new = -_penalty(trial)
            for i in range(first, last):
                eta = eta0[i - first]
                for a in range(len(zc)):
                    eta += b[a] * column(columns, zc[a], i)
                new += score(family, link, y[i], w[i] if len(w) else 1.0, eta, phi)[0]
            accepted = new >= value - 1e-12 * (1.0 + abs(value))
        if accepted:
            copy(trial, u)
            return True
        factor *= 0.5
    return False
