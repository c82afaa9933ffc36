"""Adaptive Gauss-Hermite quadrature of one level with a scalar effect, and its exact gradient.

    d_l = -2 log sum_q w_q tau exp(sum ll_i(u_q) - u_q^2 / 2 + x_q^2 / 2),   u_q = u + tau x_q,  tau = 1 / sqrt(H)

with nodes x_q and weights w_q for a standard normal (Pinheiro and Bates 1995); the gradient follows the nodes as they
move with the mode and with H (Stringer 2024, arXiv:2202.07864).
"""

from __future__ import annotations

import numpy as np
from numba import njit

from bigmm.families.scores import dispersion_derivatives, score
from bigmm.laplace.small import column


def gauss_hermite(n: int) -> tuple[np.ndarray, np.ndarray]:
    """(nodes (n,), log weights (n,)) with sum w f(x) ~ integral of f against the standard normal density.

    n <= 1 gives empty arrays: Laplace. Golub and Welsch (1969) as in `numpy.polynomial.hermite_e`.
    """
    if n <= 1:
        return np.empty(0), np.empty(0)
    nodes, weights = np.polynomial.hermite_e.hermegauss(n)
    return nodes, np.log(weights) - 0.5 * np.log(2.0 * np.pi)


@njit(cache=True, nogil=True)
def quadrature_sums(
    lo, hi, family, link, indptr, columns, zc, y, w, eta0, lam, phi, modes, low, nodes, log_weights, shares
):
    """Sum of d_l over levels lo..hi; shares (hi - lo, Q) receives each node's part of its integral.

    eta0 (rows of the block,); modes (q, 1); low (hi - lo, 1, 1): sqrt(H), which scales the nodes.
    """
    deviance = 0.0
    for level in range(lo, hi):
        s, root = level - lo, low[level - lo, 0, 0]
        top = -np.inf
        for q in range(len(nodes)):
            u = modes[level, 0] + nodes[q] / root
            ll = 0.0
            for i in range(indptr[level], indptr[level + 1]):
                eta = eta0[i - indptr[lo]] + column(columns, zc[0], i) * lam * u
                ll += score(family, link, y[i], w[i] if len(w) else 1.0, eta, phi)[0]
            shares[s, q] = ll - 0.5 * u * u + 0.5 * nodes[q] * nodes[q] + log_weights[q]
            top = max(top, shares[s, q])
        total = 0.0
        for q in range(len(nodes)):
            shares[s, q] = np.exp(shares[s, q] - top)
            total += shares[s, q]
        for q in range(len(nodes)):
            shares[s, q] /= total
        deviance += -2.0 * (top + np.log(total)) + 2.0 * np.log(root)
    return deviance


@njit(cache=True, nogil=True)
def quadrature_gradient(
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
    phi,
    with_phi,
    modes,
    low,
    low_o,
    nodes,
    shares,
    wos,
    logdet_g,
    du,
    g,
):
    """g (hi - lo, P) <- gradients of d_l.

    low_o: sqrt of the observed H; wos: observed weights at the mode, by row; logdet_g: total derivative of log H, so
    that du_q = du - x_q / (2 root) d log H; du (P,): scratch.
    """
    p, n_par = len(xc), g.shape[1]
    for level in range(lo, hi):
        s, root, mode = level - lo, low[level - lo, 0, 0], modes[level, 0]
        _mode_gradient(
            indptr[lo],
            indptr[level],
            indptr[level + 1],
            family,
            link,
            columns,
            xc,
            zc,
            y,
            w,
            eta0,
            lam,
            phi,
            with_phi,
            mode,
            low_o[s, 0, 0],
            wos,
            du,
        )
        for m in range(n_par):
            g[s, m] = logdet_g[s, m]  # -2 d log tau = d log H
        for q in range(len(nodes)):
            share = 2.0 * shares[s, q]
            u = mode + nodes[q] / root
            slope = -u
            for i in range(indptr[level], indptr[level + 1]):
                z = column(columns, zc[0], i)
                eta = eta0[i - indptr[lo]] + z * lam * u
                weight = w[i] if len(w) else 1.0
                d1 = score(family, link, y[i], weight, eta, phi)[1]
                slope += lam * z * d1
                for j in range(p):
                    g[s, j] -= share * d1 * column(columns, xc[j], i)
                g[s, p] -= share * d1 * z * u
                if with_phi:
                    g[s, p + 1] -= share * dispersion_derivatives(family, link, y[i], weight, eta, phi)[0]
            for m in range(n_par):
                g[s, m] -= share * slope * (du[m] - 0.5 * nodes[q] / root * logdet_g[s, m])


@njit(cache=True, nogil=True)
def _mode_gradient(
    start, first, last, family, link, columns, xc, zc, y, w, eta0, lam, phi, with_phi, mode, root_o, wos, du
):
    """du <- d mode / d psi, from Ho du = d(lam Z's - u)."""
    p = len(xc)
    du[:] = 0.0
    scale = 1.0 / (root_o * root_o)
    for i in range(first, last):
        z = column(columns, zc[0], i)
        weight = w[i] if len(w) else 1.0
        eta = eta0[i - start] + z * lam * mode
        pull = lam * z * wos[i - start]
        for j in range(p):
            du[j] -= scale * pull * column(columns, xc[j], i)
        du[p] += scale * (z * score(family, link, y[i], weight, eta, phi)[1] - pull * z * mode)
        if with_phi:
            du[p + 1] += scale * lam * z * dispersion_derivatives(family, link, y[i], weight, eta, phi)[1]
