"""One grouping factor: every level is an integral of its own, so one look at its rows gives everything.

For a level with rows i, eta = X beta + offset + z'lam u:

    Laplace:     d_l = min_u [-2 sum ll_i + |u|^2] + log|H|,    H = lam'Z'W Z lam + I
    quadrature:  see `bigmm.laplace.quadrature` (scalar u only)

and their exact gradients (docs/theory/laplace.md). The parameters are psi = (beta, elements of lam, log phi); a level's
gradient is one row g_l, and sum g_l g_l' is the curvature that a quasi-Newton search starts from (Berndt, Hall, Hall
and Hausman 1974). Where theta is near 0 every g_l is, though the curvature is not: what is missing there, and vanishes
at an inner optimum, is added.

Levels go through the kernels in blocks: small enough for the cache, large enough that a call costs nothing. Records and
symbols are those of `bigmm.laplace.records`.
"""

from __future__ import annotations

import numpy as np

from bigmm.families.scores import dispersion_derivatives, score_full
from bigmm.kernel import njit
from bigmm.laplace.mode import modes
from bigmm.laplace.quadrature import quadrature_gradient, quadrature_sums
from bigmm.laplace.records import Block, Gradients, LevelScratch, RowScratch
from bigmm.laplace.small import column, factor_scaled, multiply, multiply_transposed, solve

BLOCK = 128


@njit(cache=True, nogil=True)
def level_deviance(rows, model, point, quadrature, want_gradient, u, out, outer):
    """Deviance of all levels of a shard, its gradient and a curvature.

    Parameters
    ----------
    rows, model, point : `records.LevelRows`, `LevelModel`, `Point`.
    quadrature : `records.Quadrature`, or None for Laplace. numba compiles one kernel for each, and Laplace's does not
        hold the other's code.
    u : (q, k) starts, replaced by the modes.
    out : (1 + P,) receives the value and the gradient, added to what it holds; out[0] is inf where there is no H.
    outer : (P, P) lower triangle, receives twice a curvature, added.

    Returns
    -------
    int : number of levels without a mode.
    """
    indptr, lam, elements = rows.indptr, point.lam, model.elements
    n_levels, k, p, n_nodes = len(indptr) - 1, len(model.zc), len(model.xc), 0
    if quadrature is not None:
        # numba prunes this branch where the type of quadrature is None.
        n_nodes = len(quadrature.nodes)
    n_par = p + len(elements) + (1 if model.with_phi else 0)
    widest = 0
    for first in range(0, n_levels, BLOCK):
        widest = max(widest, indptr[min(first + BLOCK, n_levels)] - indptr[first])
    by_row = RowScratch(np.empty(widest), np.empty(widest), np.empty(widest), np.empty(widest), np.empty(widest))
    by_level = LevelScratch(
        np.empty(BLOCK),
        np.empty((BLOCK, k)),
        np.empty((BLOCK, k, k)),
        np.empty((BLOCK, k, k)),
        np.empty((BLOCK, k, k)),
        np.empty((BLOCK, n_nodes)),
    )
    gradients = Gradients(
        np.empty((BLOCK, n_par)), np.empty((BLOCK, n_par)), np.empty((BLOCK, k)), np.empty((BLOCK, k))
    )
    g, logdet, pull = gradients.deviance, gradients.logdet, np.zeros((k, k))
    failures = 0
    for first in range(0, n_levels, BLOCK):
        block = Block(first, min(first + BLOCK, n_levels))
        count = block.stop - first
        failures += modes(block, rows, model, point, u, by_row.eta0, by_level.value)
        if not at_modes(block, rows, model, point, u, by_row, by_level):
            # The gradient is not read where the value is infinite, so what it holds does not matter.
            out[0] = np.inf
            return failures
        if quadrature is None:
            out[0] += laplace(count, by_level.value, by_level.chol)
        else:
            out[0] += quadrature_sums(block, rows, model, point, quadrature, u, by_row, by_level)
        if not want_gradient:
            continue
        leverages(block, rows, model, lam, by_row, by_level, gradients.response)
        row_sums(block, rows, model, point, u, by_row, gradients)
        scale_sums(count, model, lam, by_level, gradients, pull)
        if quadrature is None:
            for s in range(count):
                for m in range(n_par):
                    g[s, m] += logdet[s, m]
        else:
            quadrature_gradient(block, rows, model, point, quadrature, u, by_row, by_level, gradients)
        for s in range(count):
            for m in range(n_par):
                out[1 + m] += g[s, m]
                for m2 in range(m + 1):
                    # The lower triangle alone is half the work; `SingleFactor.evaluate` mirrors it.
                    outer[m, m2] += g[s, m] * g[s, m2]
    for m in range(len(elements)):
        for m2 in range(m + 1):
            if elements[m, 1] == elements[m2, 1]:
                # outer is twice a curvature, and pull is half of one. Columns of lambda have no curvature in common
                # here.
                outer[p + m, p + m2] += 4.0 * pull[elements[m, 0], elements[m2, 0]]
    return failures


@njit(cache=True, nogil=True)
def laplace(count, value, chol):
    """Deviances of a block: -2 (sum ll - |u|^2 / 2) + log|H|."""
    total = 0.0
    for s in range(count):
        total -= 2.0 * value[s]
        for a in range(chol.shape[1]):
            total += 2.0 * np.log(chol[s, a, a])
    return total


@njit(cache=True, nogil=True)
def at_modes(block, rows, model, point, u, by_row, by_level):
    """Derivatives at the modes by row, their sums by level, and the factors; False where an H is not positive
    definite."""
    indptr, columns, y, w, zc = rows.indptr, rows.columns, rows.y, rows.w, model.zc
    family, link, observed, lam, phi = model.family, model.link, model.observed, point.lam, point.phi
    eta0, d1s, slope, weight_obs = by_row.eta0, by_row.score, by_row.slope, by_row.weight_obs
    zs, zwz, chol, chol_obs = by_level.score, by_level.zwz, by_level.chol, by_level.chol_obs
    k, (lo, hi) = len(zc), block
    b, row = np.empty(k), np.empty(k)
    zwe, zwo, h = np.empty((k, k)), np.empty((k, k)), np.empty((k, k))
    factor, factor_o = np.empty((k, k)), np.empty((k, k))
    for level in range(lo, hi):
        s = level - lo
        for a in range(k):
            b[a], zs[s, a] = 0.0, 0.0
            for c in range(k):
                b[a] += lam[a, c] * u[level, c]
                zwe[a, c], zwo[a, c] = 0.0, 0.0
        for i in range(indptr[level], indptr[level + 1]):
            r = i - indptr[lo]
            eta = eta0[r]
            for a in range(k):
                eta += b[a] * column(columns, zc[a], i)
            _, d1, we, wo, dwe, dwo = score_full(family, link, y[i], w[i] if len(w) else 1.0, eta, phi)
            d1s[r], weight_obs[r], slope[r] = d1, wo, dwo if observed else dwe
            for a in range(k):
                za = column(columns, zc[a], i)
                zs[s, a] += za * d1
                for c in range(a + 1):
                    zz = za * column(columns, zc[c], i)
                    zwe[a, c] += zz * we
                    zwo[a, c] += zz * wo
        # Observed weights may make no maximum. With expected weights in H the mode then moves by these too.
        good = factor_scaled(zwo, lam, factor_o, row, h)
        if not (good if observed else factor_scaled(zwe, lam, factor, row, h)):
            return False
        for a in range(k):
            for c in range(k):
                # Sums have lower triangles only; the kernels after this one read whole blocks.
                lower = (a, c) if a >= c else (c, a)
                zwz[s, a, c] = zwo[lower] if observed else zwe[lower]
                chol[s, a, c] = factor_o[a, c] if observed else factor[a, c]
                chol_obs[s, a, c] = factor_o[a, c] if good else factor[a, c]
    return True


@njit(cache=True, nogil=True)
def leverages(block, rows, model, lam, by_row, by_level, response):
    """by_row.leverage <- h_i = z_i'lam H^-1 lam'z_i; by_row.slope <- c_i; response <- Ho^-1 lam'Z'c by level."""
    indptr, columns, zc, slope, leverage = rows.indptr, rows.columns, model.zc, by_row.slope, by_row.leverage
    chol, chol_obs = by_level.chol, by_level.chol_obs
    k, (lo, hi) = len(zc), block
    z, scaled, solved, z_c, factor = np.empty(k), np.empty(k), np.empty(k), np.empty(k), np.empty((k, k))
    for level in range(lo, hi):
        s = level - lo
        z_c[:] = 0.0
        for a in range(k):
            for c in range(k):
                # A loop, not a slice: see `small.copy`.
                factor[a, c] = chol[s, a, c]
        for i in range(indptr[level], indptr[level + 1]):
            r = i - indptr[lo]
            for a in range(k):
                z[a] = column(columns, zc[a], i)
            multiply_transposed(lam, z, scaled)
            for a in range(k):
                solved[a] = scaled[a]
            solve(factor, solved)
            h = 0.0
            for a in range(k):
                h += solved[a] * scaled[a]
            leverage[r] = h
            # From here on slope holds c_i = h_i dW_i / d eta_i, which every later sum needs.
            slope[r] *= h
            for a in range(k):
                z_c[a] += z[a] * slope[r]
        for a in range(k):
            for c in range(k):
                factor[a, c] = chol_obs[s, a, c]
        multiply_transposed(lam, z_c, solved)
        solve(factor, solved)
        for a in range(k):
            response[s, a] = solved[a]


@njit(cache=True, nogil=True)
def row_sums(block, rows, model, point, u, by_row, gradients):
    """The part of the gradients that passes through eta, with q_i = z_i'lam t.

    gradients.deviance <- of -2 sum ll + |u|^2 by level; gradients.logdet <- the rows' part of d log|H|; gradients.pull
    <- Z' times the gradient of log|H| in eta; gradients.response holds t.
    """
    indptr, columns, y, w = rows.indptr, rows.columns, rows.y, rows.w
    family, link, xc, zc, elements, with_phi = (
        model.family,
        model.link,
        model.xc,
        model.zc,
        model.elements,
        model.with_phi,
    )
    eta0, d1s, slope, weight_obs, leverage = by_row
    g, logdet, response, pulls = gradients
    lam, phi, (lo, hi) = point.lam, point.phi, block
    p, m_lam, k = len(xc), len(elements), len(zc)
    b, lam_t = np.empty(k), np.empty(k)
    for level in range(lo, hi):
        s = level - lo
        multiply(lam, u[level], b)
        multiply(lam, response[s], lam_t)
        for m in range(g.shape[1]):
            g[s, m], logdet[s, m] = 0.0, 0.0
        for a in range(k):
            pulls[s, a] = 0.0
        for i in range(indptr[level], indptr[level + 1]):
            r = i - indptr[lo]
            q = 0.0
            for a in range(k):
                q += column(columns, zc[a], i) * lam_t[a]
            # a_i and -2 s_i of docs/theory/laplace.md, "Gradient".
            along, direct = slope[r] - weight_obs[r] * q, -2.0 * d1s[r]
            for a in range(k):
                pulls[s, a] += column(columns, zc[a], i) * along
            for j in range(p):
                x = column(columns, xc[j], i)
                logdet[s, j] += x * along
                g[s, j] += x * direct
            for m in range(m_lam):
                zu = column(columns, zc[elements[m, 0]], i) * u[level, elements[m, 1]]
                logdet[s, p + m] += zu * along
                g[s, p + m] += zu * direct
            if with_phi:
                eta = eta0[r]
                for a in range(k):
                    eta += b[a] * column(columns, zc[a], i)
                # phi moves the weight directly, and the mode by way of the score: hence h_i dW_i + q_i d s_i.
                dll, dd1, dwo = dispersion_derivatives(family, link, y[i], w[i] if len(w) else 1.0, eta, phi)
                g[s, p + m_lam] -= 2.0 * dll
                logdet[s, p + m_lam] += leverage[r] * dwo + q * dd1


@njit(cache=True, nogil=True)
def scale_sums(count, model, lam, by_level, gradients, pull):
    """gradients.logdet += the part of d log|H| that does not pass through eta: 2 (Z'WZ lam H^-1) + (Z's) t'.

    pull (k, k) += half the curvature in a column of lam that is 0, where modes are u = lam'Z's: Z'WZ - Z'WZ lam H^-1
    lam'Z'WZ - (Z's)(Z's)' + (pulls (Z's)' + (Z's) pulls') / 2.
    """
    zs, zwz, chol = by_level.score, by_level.zwz, by_level.chol
    _, logdet, response, pulls = gradients
    elements, p, k = model.elements, len(model.xc), lam.shape[0]
    row, right, factor = np.empty(k), np.empty((k, k)), np.empty((k, k))
    for s in range(count):
        for a in range(k):
            for c in range(k):
                factor[a, c] = chol[s, a, c]
        for a in range(k):
            for d in range(k):
                row[d] = 0.0
                for c in range(k):
                    row[d] += zwz[s, a, c] * lam[c, d]
            solve(factor, row)
            for d in range(k):
                right[a, d] = row[d]
        for m in range(len(elements)):
            a, c = elements[m, 0], elements[m, 1]
            # The direct change of H, and the direct change of the mode's equation.
            logdet[s, p + m] += 2.0 * right[a, c] + zs[s, a] * response[s, c]
        for a in range(k):
            multiply(lam, right[a], row)
            for c in range(k):
                pull[a, c] += zwz[s, a, c] - zs[s, a] * zs[s, c]
                pull[a, c] += 0.5 * (pulls[s, a] * zs[s, c] + zs[s, a] * pulls[s, c])
                for d in range(k):
                    pull[a, c] -= row[d] * zwz[s, d, c]
