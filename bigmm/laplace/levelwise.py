"""One grouping factor: every level is an integral of its own, so one look at its rows gives everything.

For a level with rows i, eta = X beta + offset + z'lam u:

    Laplace:     d_l = min_u [-2 sum ll_i + |u|^2] + log|H|,    H = lam'Z'W Z lam + I
    quadrature:  see `bigmm.laplace.quadrature` (scalar u only)

and their exact gradients (docs/glmm.md). The parameters are psi = (beta, theta, log phi); a level's gradient is one row
g_l, and sum g_l g_l' is the curvature that a quasi-Newton search starts from (Berndt, Hall, Hall and Hausman 1974).
"""

from __future__ import annotations

import numpy as np
from numba import njit

from bigmm.families.scores import dispersion_derivatives, score_full
from bigmm.laplace.mode import find_mode, linear, scratch
from bigmm.laplace.quadrature import quadrature_gradient, quadrature_sums
from bigmm.laplace.small import column, factor_scaled, multiply, multiply_transposed, solve


@njit(cache=True, nogil=True)
def levels(lo, hi, family, link, observed, nodes, log_weights, indptr, columns, xc, zc, y, w, offset, beta, lam, places,
           phi, with_phi, want_gradient, u, out, outer):
    """Levels lo..hi of a shard: adds to ``out`` (1 + P,) the value and gradient of the deviance, to ``outer`` (P, P) the
    levels' outer products; u (q, k) holds the start and receives the modes.

    observed: log|H| with observed weights, else expected ones; nodes, log_weights: (Q,) Gauss-Hermite (Q = 0: Laplace);
    columns (c - 1, n); xc (p,), zc (k,) column numbers; places (n_theta, 2): row and column of each theta in lam; P counts
    beta, theta and log phi (when with_phi). Returns the number of levels without a mode.
    """
    k, n_nodes = len(zc), len(nodes)
    n_par = len(xc) + len(places) + (1 if with_phi else 0)
    widest = 0
    for l in range(lo, hi):
        widest = max(widest, indptr[l + 1] - indptr[l])
    eta0 = np.empty(widest)
    # per row: score, slope of the weight in log|H| (times leverage later), observed weight, leverage
    d1s, cs, wos, hs = np.empty(widest), np.empty(widest), np.empty(widest), np.empty(widest)
    zs, zwo, zwe, low, step, b, trial, h = scratch(k)
    right, low_o, ul, t_vec, lam_t = np.empty((k, k)), np.empty((k, k)), np.empty(k), np.empty(k), np.empty(k)
    z, scaled = np.empty(k), np.empty(k)
    g, logdet_g, du, shares = np.empty(n_par), np.empty(n_par), np.empty(n_par), np.empty(n_nodes)
    failures = 0
    for l in range(lo, hi):
        first, last = indptr[l], indptr[l + 1]
        if first == last:
            u[l, :] = 0.0
            continue
        linear(columns, xc, beta, offset, first, last, eta0)
        for a in range(k):
            ul[a] = u[l, a]
        value, found = 0.0, False
        for _ in range(2):
            value, found = find_mode(family, link, columns, zc, y, w, first, last, eta0, lam, phi, ul, zs, zwo, zwe, low,
                                     step, b, trial, h)
            if found:
                break
            ul[:] = 0.0  # once more, from zero
        failures += 0 if found else 1
        for a in range(k):
            u[l, a] = ul[a]
        multiply(lam, ul, b)
        derivatives(family, link, observed, columns, zc, y, w, first, last, eta0, b, phi, d1s, cs, wos, zs, zwe, zwo)
        if not factors(observed, zwe, zwo, lam, low, low_o, trial, h):
            out[0] += np.inf
            continue
        if n_nodes == 0:
            out[0] += -2.0 * value + logdet(low)
        else:
            out[0] += quadrature_sums(family, link, columns, zc, y, w, first, last, eta0, lam[0, 0], phi, ul[0], low[0, 0],
                                      nodes, log_weights, shares)
        if not want_gradient:
            continue
        mode_movement(columns, zc, first, last, lam, low, low_o, cs, hs, t_vec, lam_t, step, z, scaled, trial)
        row_sums(family, link, columns, xc, zc, y, w, first, last, eta0, b, ul, places, phi, with_phi, d1s, cs, wos, hs, lam_t,
                 g, logdet_g)
        scale_sums(zwo if observed else zwe, lam, low, places, zs, t_vec, len(xc), right, trial, logdet_g)
        if n_nodes == 0:
            for m in range(n_par):
                g[m] += logdet_g[m]
        else:
            quadrature_gradient(family, link, columns, xc, zc, y, w, first, last, eta0, lam[0, 0], phi, with_phi, ul[0],
                                low[0, 0], low_o[0, 0], nodes, shares, wos, logdet_g, du, g)
        for m in range(n_par):
            out[1 + m] += g[m]
            for m2 in range(m + 1):
                outer[m, m2] += g[m] * g[m2]
    return failures


@njit(cache=True, nogil=True)
def derivatives(family, link, observed, columns, zc, y, w, first, last, eta0, b, phi, d1s, cs, wos, zs, zwe, zwo):
    """At the mode: scores, slopes of the weights in log|H| and observed weights by row; Z's, Z'WeZ and Z'WoZ in full."""
    k = len(zc)
    zwe[:] = 0.0
    zwo[:] = 0.0
    zs[:] = 0.0
    for i in range(first, last):
        eta = eta0[i - first]
        for a in range(k):
            eta += b[a] * column(columns, zc[a], i)
        _, d1, we, wo, dwe, dwo = score_full(family, link, y[i], w[i] if len(w) else 1.0, eta, phi)
        d1s[i - first], wos[i - first], cs[i - first] = d1, wo, dwo if observed else dwe
        for a in range(k):
            za = column(columns, zc[a], i)
            zs[a] += za * d1
            for c in range(a + 1):
                zz = za * column(columns, zc[c], i)
                zwe[a, c] += zz * we
                zwo[a, c] += zz * wo
    for a in range(k):
        for c in range(a):
            zwe[c, a] = zwe[a, c]
            zwo[c, a] = zwo[a, c]


@njit(cache=True, nogil=True)
def factors(observed, zwe, zwo, lam, low, low_o, trial, h):
    """low: factor of the H in log|H|; low_o: of the H that moves the mode. False where there is none."""
    good = factor_scaled(zwo, lam, low_o, trial, h)
    if observed:
        low[:] = low_o
        return good
    if not factor_scaled(zwe, lam, low, trial, h):
        return False
    if not good:
        low_o[:] = low
    return True


@njit(cache=True, nogil=True)
def logdet(low):
    """log|low low'|."""
    total = 0.0
    for a in range(low.shape[0]):
        total += np.log(low[a, a])
    return 2.0 * total


@njit(cache=True, nogil=True)
def mode_movement(columns, zc, first, last, lam, low, low_o, cs, hs, t_vec, lam_t, zc_sum, z, scaled, solved):
    """c_i = h_i dw_i (over dw_i, by row) with the leverage h_i = z_i'lam H^-1 lam'z_i; t = Ho^-1 lam'Z'c and lam t."""
    k = len(zc)
    for a in range(k):
        zc_sum[a] = 0.0
    for i in range(first, last):
        for a in range(k):
            z[a] = column(columns, zc[a], i)
        multiply_transposed(lam, z, scaled)
        for a in range(k):
            solved[a] = scaled[a]
        solve(low, solved)
        h = 0.0
        for a in range(k):
            h += solved[a] * scaled[a]
        hs[i - first] = h
        cs[i - first] *= h
        for a in range(k):
            zc_sum[a] += z[a] * cs[i - first]
    multiply_transposed(lam, zc_sum, t_vec)
    solve(low_o, t_vec)
    multiply(lam, t_vec, lam_t)


@njit(cache=True, nogil=True)
def row_sums(family, link, columns, xc, zc, y, w, first, last, eta0, b, ul, places, phi, with_phi, d1s, cs, wos, hs, lam_t,
             g, logdet_g):
    """g <- gradient of -2 sum ll + |u|^2; logdet_g <- the rows' part of d log|H|, q_i = z_i'lam t."""
    p, nt, k = len(xc), len(places), len(zc)
    logdet_g[:] = 0.0
    g[:] = 0.0
    for i in range(first, last):
        r = i - first
        q = 0.0
        for a in range(k):
            q += column(columns, zc[a], i) * lam_t[a]
        along = cs[r] - wos[r] * q
        for j in range(p):
            x = column(columns, xc[j], i)
            logdet_g[j] += x * along
            g[j] -= 2.0 * x * d1s[r]
        for m in range(nt):
            zu = column(columns, zc[places[m, 0]], i) * ul[places[m, 1]]
            logdet_g[p + m] += zu * along
            g[p + m] -= 2.0 * zu * d1s[r]
        if with_phi:
            eta = eta0[r]
            for a in range(k):
                eta += b[a] * column(columns, zc[a], i)
            dll, dd1, dwo = dispersion_derivatives(family, link, y[i], w[i] if len(w) else 1.0, eta, phi)
            g[p + nt] -= 2.0 * dll
            logdet_g[p + nt] += hs[r] * dwo + q * dd1


@njit(cache=True, nogil=True)
def scale_sums(zwz, lam, low, places, zs, t_vec, p, right, row, logdet_g):
    """logdet_g[theta] += the part of d log|H| that does not pass through eta: 2 (Z'WZ lam H^-1) + (Z's) t'."""
    k = lam.shape[0]
    for a in range(k):
        for d in range(k):
            t = 0.0
            for c in range(k):
                t += zwz[a, c] * lam[c, d]
            row[d] = t
        solve(low, row)
        for d in range(k):
            right[a, d] = row[d]
    for m in range(len(places)):
        a, c = places[m, 0], places[m, 1]
        logdet_g[p + m] += 2.0 * right[a, c] + zs[a] * t_vec[c]
