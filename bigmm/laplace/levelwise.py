"""One grouping factor: every level is an integral of its own, so one look at its rows gives everything.

For a level with rows i, eta = X beta + offset + z'lam u:

    Laplace:     d_l = min_u [-2 sum ll_i + |u|^2] + log|H|,    H = lam'Z'W Z lam + I
    quadrature:  d_l = -2 log sum_q w_q tau exp(sum ll_i(u_q) - u_q^2 / 2 + x_q^2),  u_q = u + tau x_q (scalar u only)

and their exact gradients (DESIGN section 5; quadrature with the nodes' own movement: Stringer 2024, arXiv:2202.07864).
The parameters are psi = (beta, theta, log phi); a level's gradient is one row g_l, and sum g_l g_l' is the curvature that
a quasi-Newton search starts from (Berndt, Hall, Hall and Hausman 1974).
"""

from __future__ import annotations

import numpy as np
from numba import njit

from bigmm.families.scores import dispersion_derivatives, score, score_full

MAX_STEPS = 100
SETTLED = 1e-11
"""A mode is found when a Newton step gains less than this share of the log-likelihood; that step is still taken."""


@njit(cache=True, nogil=True)
def _cholesky(h, low):
    """low low' = h for a small matrix; returns False where h is not positive definite."""
    k = h.shape[0]
    for a in range(k):
        for b in range(a + 1):
            t = h[a, b]
            for c in range(b):
                t -= low[a, c] * low[b, c]
            if a == b:
                if not t > 0.0:
                    return False
                low[a, a] = np.sqrt(t)
            else:
                low[a, b] = t / low[b, b]
    return True


@njit(cache=True, nogil=True)
def _solve(low, x):
    """x <- (low low')^-1 x."""
    k = len(x)
    for a in range(k):
        t = x[a]
        for c in range(a):
            t -= low[a, c] * x[c]
        x[a] = t / low[a, a]
    for a in range(k - 1, -1, -1):
        t = x[a]
        for c in range(a + 1, k):
            t -= low[c, a] * x[c]
        x[a] = t / low[a, a]


@njit(cache=True, nogil=True)
def _linear(columns, which, coefficients, offset, first, last, eta):
    """eta[i - first] = offset[i] + sum_j coefficients[j] * column which[j]; column 0 is the constant."""
    for i in range(first, last):
        t = offset[i] if len(offset) else 0.0
        for j in range(len(which)):
            c = which[j]
            t += coefficients[j] * (columns[c - 1, i] if c > 0 else 1.0)
        eta[i - first] = t


@njit(cache=True, nogil=True)
def _value_at(family, link, columns, zc, y, w, first, last, eta0, b, phi):
    """sum ll at eta0 + z'b."""
    total = 0.0
    for i in range(first, last):
        eta = eta0[i - first]
        for a in range(len(zc)):
            eta += b[a] * (columns[zc[a] - 1, i] if zc[a] > 0 else 1.0)
        total += score(family, link, y[i], w[i] if len(w) else 1.0, eta, phi)[0]
    return total


@njit(cache=True, nogil=True)
def _find_mode(family, link, columns, zc, y, w, first, last, eta0, lam, phi, u, work):
    """Newton's method for one level, u in and out; returns (sum ll - |u|^2 / 2, converged).

    Observed weights where they make H positive definite, expected ones elsewhere; steps are halved until they gain.
    """
    k = len(u)
    zs, h, h_expected, low, step, b, trial = work
    best = -np.inf
    for _ in range(MAX_STEPS):
        for a in range(k):
            t = 0.0
            for c in range(k):
                t += lam[a, c] * u[c]
            b[a] = t
        ll = 0.0
        zs[:] = 0.0
        h[:] = 0.0
        h_expected[:] = 0.0
        for i in range(first, last):
            eta = eta0[i - first]
            for a in range(k):
                eta += b[a] * (columns[zc[a] - 1, i] if zc[a] > 0 else 1.0)
            one, d1, we, wo = score(family, link, y[i], w[i] if len(w) else 1.0, eta, phi)
            ll += one
            for a in range(k):
                za = columns[zc[a] - 1, i] if zc[a] > 0 else 1.0
                zs[a] += za * d1
                for c in range(a + 1):
                    zz = za * (columns[zc[c] - 1, i] if zc[c] > 0 else 1.0)
                    h[a, c] += zz * wo
                    h_expected[a, c] += zz * we
        value = ll
        for a in range(k):
            value -= 0.5 * u[a] * u[a]
        if not _factor_scaled(h, lam, low, trial) and not _factor_scaled(h_expected, lam, low, trial):
            return value, False
        for a in range(k):
            t = -u[a]
            for c in range(k):
                t += lam[c, a] * zs[c]
            step[a] = t
            trial[a] = t
        _solve(low, step)
        gain = 0.0
        for a in range(k):
            gain += step[a] * trial[a]
        best = value
        if gain <= SETTLED * (1.0 + abs(value)):  # one more step squares the error, and needs no further look
            for a in range(k):
                u[a] += step[a]
            return value + 0.5 * gain, True
        factor = 1.0
        accepted = False
        for _ in range(30):
            for a in range(k):
                trial[a] = u[a] + factor * step[a]
            for a in range(k):
                t = 0.0
                for c in range(k):
                    t += lam[a, c] * trial[c]
                b[a] = t
            if gain < 1e-3:  # close by, Newton steps cannot overshoot
                accepted = True
                break
            new = _value_at(family, link, columns, zc, y, w, first, last, eta0, b, phi)
            for a in range(k):
                new -= 0.5 * trial[a] * trial[a]
            if new >= value - 1e-12 * (1.0 + abs(value)):
                accepted = True
                break
            factor *= 0.5
        if not accepted:
            return best, gain < 1e-8
        for a in range(k):
            u[a] = trial[a]
    return best, False


@njit(cache=True, nogil=True)
def _factor_scaled(zwz, lam, low, row):
    """Cholesky factor of lam'zwz lam + I from the lower triangle of zwz (k, k)."""
    k = lam.shape[0]
    h = np.zeros((k, k))
    for a in range(k):
        for d in range(k):
            t = 0.0
            for c in range(k):
                t += (zwz[d, c] if c <= d else zwz[c, d]) * lam[c, a]
            row[d] = t
        for b in range(k):
            t = 1.0 if a == b else 0.0
            for d in range(k):
                t += lam[d, b] * row[d]
            h[b, a] = t
    return _cholesky(h, low)


@njit(cache=True, nogil=True)
def levels(lo, hi, family, link, observed, nodes, log_weights, indptr, columns, xc, zc, y, w, offset, beta, lam, places,
           phi, with_phi, want_gradient, u, out, outer):
    """Levels lo..hi of a shard: adds to ``out`` (1 + P,) the value and gradient of the deviance, to ``outer`` (P, P) the
    levels' outer products; u (q, k) holds the start and receives the modes.

    observed: log|H| with observed weights, else expected ones; nodes, log_weights: (Q,) Gauss-Hermite (Q = 0: Laplace);
    columns (c - 1, n); xc (p,), zc (k,) column numbers; places (n_theta, 2): row and column of each theta in lam; P counts
    beta, theta and log phi (when with_phi). Returns the number of levels without a mode.
    """
    p, k, nt = len(xc), len(zc), len(places)
    n_par = p + nt + (1 if with_phi else 0)
    widest = 0
    for l in range(lo, hi):
        widest = max(widest, indptr[l + 1] - indptr[l])
    eta0 = np.empty(widest)
    d1s, wes, wos, cs = np.empty(widest), np.empty(widest), np.empty(widest), np.empty(widest)
    work = (np.empty(k), np.empty((k, k)), np.empty((k, k)), np.empty((k, k)), np.empty(k), np.empty(k), np.empty(k))
    low, low_o = np.empty((k, k)), np.empty((k, k))
    b, ul, z, row, t_vec, hz = np.empty(k), np.empty(k), np.empty(k), np.empty(k), np.empty(k), np.empty(k)
    zwe, zwo, zs, zc_sum, right = np.empty((k, k)), np.empty((k, k)), np.empty(k), np.empty(k), np.empty((k, k))
    g, logdet_g, du = np.empty(n_par), np.empty(n_par), np.empty(n_par)
    failures = 0
    for l in range(lo, hi):
        first, last = indptr[l], indptr[l + 1]
        if first == last:
            u[l, :] = 0.0
            continue
        _linear(columns, xc, beta, offset, first, last, eta0)
        for a in range(k):
            ul[a] = u[l, a]
        value, found = _find_mode(family, link, columns, zc, y, w, first, last, eta0, lam, phi, ul, work)
        if not found:
            for a in range(k):
                ul[a] = 0.0
            value, found = _find_mode(family, link, columns, zc, y, w, first, last, eta0, lam, phi, ul, work)
            if not found:
                failures += 1
        for a in range(k):
            u[l, a] = ul[a]
            t = 0.0
            for c in range(k):
                t += lam[a, c] * ul[c]
            b[a] = t
        # derivatives at the mode
        zwe[:] = 0.0
        zwo[:] = 0.0
        zs[:] = 0.0
        for i in range(first, last):
            eta = eta0[i - first]
            for a in range(k):
                z[a] = columns[zc[a] - 1, i] if zc[a] > 0 else 1.0
                eta += b[a] * z[a]
            _, d1, we, wo, dwe, dwo = score_full(family, link, y[i], w[i] if len(w) else 1.0, eta, phi)
            d1s[i - first], wes[i - first], wos[i - first] = d1, we, wo
            cs[i - first] = dwo if observed else dwe
            for a in range(k):
                zs[a] += z[a] * d1
                for c in range(a + 1):
                    zwe[a, c] += z[a] * z[c] * we
                    zwo[a, c] += z[a] * z[c] * wo
        for a in range(k):
            for c in range(a):
                zwe[c, a] = zwe[a, c]
                zwo[c, a] = zwo[a, c]
        good = _factor_scaled(zwo, lam, low_o, row)
        if observed:
            if not good:
                out[0] += np.inf
                continue
            low[:] = low_o
        elif not _factor_scaled(zwe, lam, low, row):
            out[0] += np.inf
            continue
        if not good:
            low_o[:] = low
        logdet = 0.0
        for a in range(k):
            logdet += 2.0 * np.log(low[a, a])
        n_nodes = len(nodes)
        if n_nodes == 0:
            out[0] += -2.0 * value + logdet
            if not want_gradient:
                continue
        # d log|H| with the mode's movement: c_i = h_i dw_i, t = Ho^-1 lam'Z'c
        zc_sum[:] = 0.0
        for i in range(first, last):
            for a in range(k):
                z[a] = columns[zc[a] - 1, i] if zc[a] > 0 else 1.0
            for a in range(k):
                t = 0.0
                for c in range(k):
                    t += lam[c, a] * z[c]
                hz[a] = t
                row[a] = t
            _solve(low, hz)
            h = 0.0
            for a in range(k):
                h += hz[a] * row[a]
            if with_phi:
                wes[i - first] = h
            cs[i - first] *= h
            for a in range(k):
                zc_sum[a] += z[a] * cs[i - first]
        for a in range(k):
            t = 0.0
            for c in range(k):
                t += lam[c, a] * zc_sum[c]
            t_vec[a] = t
        _solve(low_o, t_vec)
        for a in range(k):  # lam t, so that q_i = z_i'lam t
            t = 0.0
            for c in range(k):
                t += lam[a, c] * t_vec[c]
            hz[a] = t
        # right = (Z'WZ lam H^-1)
        zwz = zwo if observed else zwe
        for a in range(k):
            for d in range(k):
                t = 0.0
                for c in range(k):
                    t += zwz[a, c] * lam[c, d]
                row[d] = t
            _solve(low, row)
            for d in range(k):
                right[a, d] = row[d]
        logdet_g[:] = 0.0
        g[:] = 0.0
        for i in range(first, last):
            q = 0.0
            for a in range(k):
                z[a] = columns[zc[a] - 1, i] if zc[a] > 0 else 1.0
                q += z[a] * hz[a]
            r = i - first
            along = cs[r] - wos[r] * q
            for j in range(p):
                x = columns[xc[j] - 1, i] if xc[j] > 0 else 1.0
                logdet_g[j] += x * along
                g[j] -= 2.0 * x * d1s[r]
            for m in range(nt):
                zu = z[places[m, 0]] * ul[places[m, 1]]
                logdet_g[p + m] += zu * along
                g[p + m] -= 2.0 * zu * d1s[r]
            if with_phi:
                eta = eta0[r]
                for a in range(k):
                    eta += b[a] * z[a]
                dll, dd1, dwo = dispersion_derivatives(family, link, y[i], w[i] if len(w) else 1.0, eta, phi)
                g[n_par - 1] -= 2.0 * dll
                logdet_g[n_par - 1] += wes[r] * dwo + q * dd1
        for m in range(nt):
            a, c = places[m, 0], places[m, 1]
            logdet_g[p + m] += 2.0 * right[a, c] + zs[a] * t_vec[c]
        if n_nodes == 0:
            for m in range(n_par):
                g[m] += logdet_g[m]
        else:
            total = _quadrature(family, link, columns, xc, zc, y, w, first, last, eta0, lam[0, 0], phi, with_phi, places,
                                ul[0], low[0, 0], low_o[0, 0], nodes, log_weights, wos, logdet_g, du, g)
            out[0] += total
            if not want_gradient:
                continue
        for m in range(n_par):
            out[1 + m] += g[m]
            for m2 in range(m + 1):
                outer[m, m2] += g[m] * g[m2]
    return failures


@njit(cache=True, nogil=True)
def _quadrature(family, link, columns, xc, zc, y, w, first, last, eta0, lam, phi, with_phi, places, mode, root, root_o, nodes,
                log_weights, wos, logdet_g, du, g):
    """Adaptive Gauss-Hermite value of one level with a scalar effect, and its exact gradient into g.

    root: sqrt(H) that scales the nodes; root_o: sqrt of the observed H that moves the mode; logdet_g: total derivative of
    log H. The nodes are u_q = mode + x_q / root, so du_q = du - x_q / (2 root) d log H.
    """
    p, n_par = len(xc), len(g)
    n_nodes = len(nodes)
    logs = np.empty(n_nodes)
    top = -np.inf
    for q in range(n_nodes):
        u = mode + nodes[q] / root
        ll = 0.0
        for i in range(first, last):
            z = columns[zc[0] - 1, i] if zc[0] > 0 else 1.0
            ll += score(family, link, y[i], w[i] if len(w) else 1.0, eta0[i - first] + z * lam * u, phi)[0]
        logs[q] = ll - 0.5 * u * u + 0.5 * nodes[q] * nodes[q] + log_weights[q]
        top = max(top, logs[q])
    total = 0.0
    for q in range(n_nodes):
        logs[q] = np.exp(logs[q] - top)
        total += logs[q]
    # movement of the mode: Ho du = d(lam Z's - u)
    du[:] = 0.0
    scale = 1.0 / (root_o * root_o)
    for i in range(first, last):
        z = columns[zc[0] - 1, i] if zc[0] > 0 else 1.0
        r = i - first
        for j in range(p):
            x = columns[xc[j] - 1, i] if xc[j] > 0 else 1.0
            du[j] -= scale * lam * z * wos[r] * x
        eta = eta0[r] + z * lam * mode
        d1 = score(family, link, y[i], w[i] if len(w) else 1.0, eta, phi)[1]
        du[p] += scale * (z * d1 - lam * z * wos[r] * z * mode)
        if with_phi:
            dd1 = dispersion_derivatives(family, link, y[i], w[i] if len(w) else 1.0, eta, phi)[1]
            du[n_par - 1] += scale * lam * z * dd1
    g[:] = logdet_g  # -2 d log tau = d log H
    for q in range(n_nodes):
        share = logs[q] / total
        u = mode + nodes[q] / root
        slope = -u
        for i in range(first, last):
            z = columns[zc[0] - 1, i] if zc[0] > 0 else 1.0
            eta = eta0[i - first] + z * lam * u
            weight = w[i] if len(w) else 1.0
            d1 = score(family, link, y[i], weight, eta, phi)[1]
            slope += lam * z * d1
            for j in range(p):
                x = columns[xc[j] - 1, i] if xc[j] > 0 else 1.0
                g[j] -= 2.0 * share * d1 * x
            g[p] -= 2.0 * share * d1 * z * u
            if with_phi:
                g[n_par - 1] -= 2.0 * share * dispersion_derivatives(family, link, y[i], weight, eta, phi)[0]
        for m in range(n_par):
            g[m] -= 2.0 * share * slope * (du[m] - 0.5 * nodes[q] / root * logdet_g[m])
    return -2.0 * (top + np.log(total)) + 2.0 * np.log(root)
