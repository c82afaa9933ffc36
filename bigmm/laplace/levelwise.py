"""One grouping factor: every level is an integral of its own, so one look at its rows gives everything.

For a level with rows i, eta = X beta + offset + z'lam u:

    Laplace:     d_l = min_u [-2 sum ll_i + |u|^2] + log|H|,    H = lam'Z'W Z lam + I
    quadrature:  see `bigmm.laplace.quadrature` (scalar u only)

and their exact gradients (docs/glmm.md). The parameters are psi = (beta, theta, log phi); a level's gradient is one row
g_l, and sum g_l g_l' is the curvature that a quasi-Newton search starts from (Berndt, Hall, Hall and Hausman 1974).
Where theta is near 0 every g_l is, though the curvature is not: what is missing there, and vanishes at an inner
optimum, is added.

Levels go through the kernels in blocks: small enough for the cache, large enough that a call costs nothing.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from bigmm.families.scores import dispersion_derivatives, score_full
from bigmm.laplace.mode import modes
from bigmm.laplace.quadrature import quadrature_gradient, quadrature_sums
from bigmm.laplace.small import column, factor_scaled, multiply, multiply_transposed, solve

BLOCK = 128


@njit(cache=True, nogil=True)
def levels(
    lo,
    hi,
    family,
    link,
    observed,
    nodes,
    log_weights,
    indptr,
    columns,
    xc,
    zc,
    y,
    w,
    offset,
    beta,
    lam,
    places,
    phi,
    with_phi,
    want_gradient,
    u,
    out,
    outer,
):
    """Levels lo..hi of a shard: adds to ``out`` (1 + P,) the value and gradient of the deviance, to ``outer`` (P, P),
    lower triangle, twice a curvature; u (q, k) holds the start and receives the modes.

    observed: log|H| with observed weights, else expected ones; nodes, log_weights: (Q,) Gauss-Hermite (Q = 0: Laplace);
    columns (c - 1, n); xc (p,), zc (k,) column numbers; places (n_theta, 2): row and column of each theta in lam; P
    counts beta, theta and log phi (when with_phi). Returns the number of levels without a mode; out[0] is inf where
    there is no H.
    """
    k, n_nodes = len(zc), len(nodes)
    n_par = len(xc) + len(places) + (1 if with_phi else 0)
    widest = 0
    for start in range(lo, hi, BLOCK):
        widest = max(widest, indptr[min(start + BLOCK, hi)] - indptr[start])
    # by row: linear predictor without effects, score, slope of the weight in log|H|, observed weight, leverage
    eta0, d1s, cs, wos, hs = np.empty(widest), np.empty(widest), np.empty(widest), np.empty(widest), np.empty(widest)
    # by level: value, Z's, Z'WZ, factors of the H in log|H| and of the H that moves the mode, Ho^-1 lam'Z'c
    values, zs, zwz = np.empty(BLOCK), np.empty((BLOCK, k)), np.empty((BLOCK, k, k))
    low, low_o, t = np.empty((BLOCK, k, k)), np.empty((BLOCK, k, k)), np.empty((BLOCK, k))
    pulls = np.empty((BLOCK, k))
    g, logdet_g = np.empty((BLOCK, n_par)), np.empty((BLOCK, n_par))
    du, shares, pull = np.empty(n_par), np.empty((BLOCK, n_nodes)), np.zeros((k, k))
    failures = 0
    for start in range(lo, hi, BLOCK):
        stop = min(start + BLOCK, hi)
        failures += modes(
            start, stop, family, link, indptr, columns, xc, zc, y, w, offset, beta, lam, phi, u, eta0, values
        )
        if not at_modes(
            start,
            stop,
            family,
            link,
            observed,
            indptr,
            columns,
            zc,
            y,
            w,
            lam,
            phi,
            u,
            eta0,
            d1s,
            cs,
            wos,
            zs,
            zwz,
            low,
            low_o,
        ):
            out[0] = np.inf
            return failures
        if n_nodes == 0:
            out[0] += laplace(stop - start, values, low)
        else:
            out[0] += quadrature_sums(
                start,
                stop,
                family,
                link,
                indptr,
                columns,
                zc,
                y,
                w,
                eta0,
                lam[0, 0],
                phi,
                u,
                low,
                nodes,
                log_weights,
                shares,
            )
        if not want_gradient:
            continue
        leverages(start, stop, indptr, columns, zc, lam, low, low_o, cs, hs, t)
        row_sums(
            start,
            stop,
            family,
            link,
            indptr,
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
            u,
            d1s,
            cs,
            wos,
            hs,
            t,
            g,
            logdet_g,
            pulls,
        )
        scale_sums(stop - start, lam, places, len(xc), zs, zwz, low, t, pulls, logdet_g, pull)
        if n_nodes == 0:
            for s in range(stop - start):
                for m in range(n_par):
                    g[s, m] += logdet_g[s, m]
        else:
            quadrature_gradient(
                start,
                stop,
                family,
                link,
                indptr,
                columns,
                xc,
                zc,
                y,
                w,
                eta0,
                lam[0, 0],
                phi,
                with_phi,
                u,
                low,
                low_o,
                nodes,
                shares,
                wos,
                logdet_g,
                du,
                g,
            )
        for s in range(stop - start):
            for m in range(n_par):
                out[1 + m] += g[s, m]
                for m2 in range(m + 1):
                    outer[m, m2] += g[s, m] * g[s, m2]
    for m in range(len(places)):
        for m2 in range(m + 1):
            if places[m, 1] == places[m2, 1]:
                outer[len(xc) + m, len(xc) + m2] += 4.0 * pull[places[m, 0], places[m2, 0]]
    return failures


@njit(cache=True, nogil=True)
def laplace(count, values, low):
    """Deviances of a block: -2 (sum ll - |u|^2 / 2) + log|H|."""
    total = 0.0
    for s in range(count):
        total -= 2.0 * values[s]
        for a in range(low.shape[1]):
            total += 2.0 * np.log(low[s, a, a])
    return total


@njit(cache=True, nogil=True)
def at_modes(
    lo, hi, family, link, observed, indptr, columns, zc, y, w, lam, phi, u, eta0, d1s, cs, wos, zs, zwz, low, low_o
):
    """Derivatives at the modes by row, their sums by level, and the factors; False where an H is not positive
    definite."""
    k = len(zc)
    b, row = np.empty(k), np.empty(k)
    zwe, zwo, h, low_l, low_ol = (
        np.empty((k, k)),
        np.empty((k, k)),
        np.empty((k, k)),
        np.empty((k, k)),
        np.empty((k, k)),
    )
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
            d1s[r], wos[r], cs[r] = d1, wo, dwo if observed else dwe
            for a in range(k):
                za = column(columns, zc[a], i)
                zs[s, a] += za * d1
                for c in range(a + 1):
                    zz = za * column(columns, zc[c], i)
                    zwe[a, c] += zz * we
                    zwo[a, c] += zz * wo
        good = factor_scaled(zwo, lam, low_ol, row, h)
        if not (good if observed else factor_scaled(zwe, lam, low_l, row, h)):
            return False
        for a in range(k):
            for c in range(k):
                lower = (a, c) if a >= c else (c, a)
                zwz[s, a, c] = zwo[lower] if observed else zwe[lower]
                low[s, a, c] = low_ol[a, c] if observed else low_l[a, c]
                low_o[s, a, c] = low_ol[a, c] if good else low_l[a, c]
    return True


@njit(cache=True, nogil=True)
def leverages(lo, hi, indptr, columns, zc, lam, low, low_o, cs, hs, t):
    """hs <- h_i = z_i'lam H^-1 lam'z_i; cs <- c_i = h_i times the slope of the weight; t <- Ho^-1 lam'Z'c by level."""
    k = len(zc)
    z, scaled, solved, z_c, factor = np.empty(k), np.empty(k), np.empty(k), np.empty(k), np.empty((k, k))
    for level in range(lo, hi):
        s = level - lo
        z_c[:] = 0.0
        for a in range(k):
            for c in range(k):
                factor[a, c] = low[s, a, c]
        for i in range(indptr[level], indptr[level + 1]):
            r = i - indptr[lo]
            for a in range(k):
                z[a] = column(columns, zc[a], i)
            multiply_transposed(lam, z, scaled)
            for a in range(k):
                solved[a] = scaled[a]
            solve(factor, solved)
            leverage = 0.0
            for a in range(k):
                leverage += solved[a] * scaled[a]
            hs[r] = leverage
            cs[r] *= leverage
            for a in range(k):
                z_c[a] += z[a] * cs[r]
        for a in range(k):
            for c in range(k):
                factor[a, c] = low_o[s, a, c]
        multiply_transposed(lam, z_c, solved)
        solve(factor, solved)
        for a in range(k):
            t[s, a] = solved[a]


@njit(cache=True, nogil=True)
def row_sums(
    lo,
    hi,
    family,
    link,
    indptr,
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
    u,
    d1s,
    cs,
    wos,
    hs,
    t,
    g,
    logdet_g,
    pulls,
):
    """g <- gradients of -2 sum ll + |u|^2 by level; logdet_g <- the rows' part of d log|H|, with q_i = z_i'lam t;
    pulls (., k) <- Z' times the gradient of log|H| in eta."""
    p, nt, k = len(xc), len(places), len(zc)
    b, lam_t = np.empty(k), np.empty(k)
    for level in range(lo, hi):
        s = level - lo
        multiply(lam, u[level], b)
        multiply(lam, t[s], lam_t)
        for m in range(g.shape[1]):
            g[s, m], logdet_g[s, m] = 0.0, 0.0
        for a in range(k):
            pulls[s, a] = 0.0
        for i in range(indptr[level], indptr[level + 1]):
            r = i - indptr[lo]
            q = 0.0
            for a in range(k):
                q += column(columns, zc[a], i) * lam_t[a]
            along, direct = cs[r] - wos[r] * q, -2.0 * d1s[r]
            for a in range(k):
                pulls[s, a] += column(columns, zc[a], i) * along
            for j in range(p):
                x = column(columns, xc[j], i)
                logdet_g[s, j] += x * along
                g[s, j] += x * direct
            for m in range(nt):
                zu = column(columns, zc[places[m, 0]], i) * u[level, places[m, 1]]
                logdet_g[s, p + m] += zu * along
                g[s, p + m] += zu * direct
            if with_phi:
                eta = eta0[r]
                for a in range(k):
                    eta += b[a] * column(columns, zc[a], i)
                dll, dd1, dwo = dispersion_derivatives(family, link, y[i], w[i] if len(w) else 1.0, eta, phi)
                g[s, p + nt] -= 2.0 * dll
                logdet_g[s, p + nt] += hs[r] * dwo + q * dd1


@njit(cache=True, nogil=True)
def scale_sums(count, lam, places, p, zs, zwz, low, t, pulls, logdet_g, pull):
    """logdet_g[theta] += the part of d log|H| that does not pass through eta: 2 (Z'WZ lam H^-1) + (Z's) t'; pull (k, k)
    += half the curvature in a column of lam that is 0, where modes are u = lam'Z's: Z'WZ - Z'WZ lam H^-1 lam'Z'WZ -
    (Z's)(Z's)' + (pulls (Z's)' + (Z's) pulls') / 2."""
    k = lam.shape[0]
    row, right, factor = np.empty(k), np.empty((k, k)), np.empty((k, k))
    for s in range(count):
        for a in range(k):
            for c in range(k):
                factor[a, c] = low[s, a, c]
        for a in range(k):
            for d in range(k):
                row[d] = 0.0
                for c in range(k):
                    row[d] += zwz[s, a, c] * lam[c, d]
            solve(factor, row)
            for d in range(k):
                right[a, d] = row[d]
        for m in range(len(places)):
            a, c = places[m, 0], places[m, 1]
            logdet_g[s, p + m] += 2.0 * right[a, c] + zs[s, a] * t[s, c]
        for a in range(k):
            multiply(lam, right[a], row)
            for c in range(k):
                pull[a, c] += zwz[s, a, c] - zs[s, a] * zs[s, c]
                pull[a, c] += 0.5 * (pulls[s, a] * zs[s, c] + zs[s, a] * pulls[s, c])
                for d in range(k):
                    pull[a, c] -= row[d] * zwz[s, d, c]
