"""Adaptive Gauss-Hermite quadrature of one level with a scalar effect, and its exact gradient.

    d_l = -2 log sum_q w_q tau exp(sum ll_i(u_q) - u_q^2 / 2 + x_q^2 / 2),   u_q = u + tau x_q,  tau = 1 / sqrt(H)

with nodes x_q and weights w_q for a standard normal (Pinheiro and Bates 1995); the gradient follows the nodes as they
move with the mode and with H (Stringer 2024, arXiv:2202.07864). See docs/theory/laplace.md, "Quadrature".
"""

from __future__ import annotations

import numpy as np

from bigmm.families.scores import dispersion_derivatives, score
from bigmm.kernel import njit
from bigmm.laplace.records import Quadrature
from bigmm.laplace.small import column


def gauss_hermite(n: int) -> tuple[np.ndarray, np.ndarray]:
    """(nodes (n,), log weights (n,)) with sum w f(x) ~ integral of f against the standard normal density.

    n <= 1 gives empty arrays: Laplace. Golub and Welsch (1969) as in `numpy.polynomial.hermite_e`.
    """
    if n <= 1:
        return np.empty(0), np.empty(0)
    nodes, weights = np.polynomial.hermite_e.hermegauss(n)
    # hermegauss is for the weight exp(-x^2 / 2), which lacks the constant of the normal density.
    return nodes, np.log(weights) - 0.5 * np.log(2.0 * np.pi)


def quadrature_rule(n: int) -> Quadrature | None:
    """The rule of n nodes; None where there is one, for then the approximation is Laplace's."""
    return Quadrature(*gauss_hermite(n)) if n > 1 else None


@njit(cache=True, nogil=True)
def quadrature_sums(block, rows, model, point, quadrature, u, by_row, by_level):
    """Sum of d_l over the levels of a block; by_level.shares receives each node's part of its integral.

    by_level.chol holds sqrt(H), which scales the nodes; u (q, 1) are the modes.
    """
    indptr, columns, y, w, eta0 = rows.indptr, rows.columns, rows.y, rows.w, by_row.eta0
    family, link, zc, lam, phi = model.family, model.link, model.zc, point.lam[0, 0], point.phi
    nodes, log_weights, shares, chol = quadrature.nodes, quadrature.log_weights, by_level.shares, by_level.chol
    lo, hi = block
    deviance = 0.0
    for level in range(lo, hi):
        s, root = level - lo, chol[level - lo, 0, 0]
        top = -np.inf
        for q in range(len(nodes)):
            u_q = u[level, 0] + nodes[q] / root
            ll = 0.0
            for i in range(indptr[level], indptr[level + 1]):
                eta = eta0[i - indptr[lo]] + column(columns, zc[0], i) * lam * u_q
                ll += score(family, link, y[i], w[i] if len(w) else 1.0, eta, phi)[0]
            shares[s, q] = ll - 0.5 * u_q * u_q + 0.5 * nodes[q] * nodes[q] + log_weights[q]
            top = max(top, shares[s, q])
        total = 0.0
        for q in range(len(nodes)):
            # The largest term is taken out first, so no sum of many rows overflows or vanishes.
            shares[s, q] = np.exp(shares[s, q] - top)
            total += shares[s, q]
        for q in range(len(nodes)):
            shares[s, q] /= total
        deviance += -2.0 * (top + np.log(total)) + 2.0 * np.log(root)
    return deviance


@njit(cache=True, nogil=True)
def quadrature_gradient(block, rows, model, point, quadrature, u, by_row, by_level, gradients):
    """gradients.deviance (., P) <- gradients of d_l of the levels of a block.

    gradients.logdet holds the total derivative of log H, so that du_q = du - x_q / (2 root) d log H.
    """
    indptr, columns, y, w, eta0 = rows.indptr, rows.columns, rows.y, rows.w, by_row.eta0
    family, link, xc, zc, with_phi = model.family, model.link, model.xc, model.zc, model.with_phi
    lam, phi, nodes, shares = point.lam[0, 0], point.phi, quadrature.nodes, by_level.shares
    g, logdet, chol, chol_obs = gradients.deviance, gradients.logdet, by_level.chol, by_level.chol_obs
    (lo, hi), p, n_par = block, len(xc), g.shape[1]
    du = np.empty(n_par)
    for level in range(lo, hi):
        s, root, mode = level - lo, chol[level - lo, 0, 0], u[level, 0]
        _mode_gradient(level, indptr[lo], rows, model, point, by_row, mode, chol_obs[s, 0, 0], du)
        for m in range(n_par):
            g[s, m] = logdet[s, m]  # -2 d log tau = d log H
        for q in range(len(nodes)):
            share = 2.0 * shares[s, q]
            u_q = mode + nodes[q] / root
            slope = -u_q
            for i in range(indptr[level], indptr[level + 1]):
                z = column(columns, zc[0], i)
                eta = eta0[i - indptr[lo]] + z * lam * u_q
                weight = w[i] if len(w) else 1.0
                # Computed again: kept from the value, it would take Q numbers by row.
                d1 = score(family, link, y[i], weight, eta, phi)[1]
                slope += lam * z * d1
                for j in range(p):
                    g[s, j] -= share * d1 * column(columns, xc[j], i)
                g[s, p] -= share * d1 * z * u_q
                if with_phi:
                    g[s, p + 1] -= share * dispersion_derivatives(family, link, y[i], weight, eta, phi)[0]
            for m in range(n_par):
                g[s, m] -= share * slope * (du[m] - 0.5 * nodes[q] / root * logdet[s, m])


@njit(cache=True, nogil=True)
def _mode_gradient(level, start, rows, model, point, by_row, mode, root_obs, du):
    """du (P,) <- d mode / d psi, from Ho du = d(lam Z's - u); by_row begins at row ``start``."""
    indptr, columns, y, w, eta0, wo = rows.indptr, rows.columns, rows.y, rows.w, by_row.eta0, by_row.weight_obs
    family, link, xc, zc, with_phi = model.family, model.link, model.xc, model.zc, model.with_phi
    lam, phi, p = point.lam[0, 0], point.phi, len(xc)
    du[:] = 0.0
    # root_obs belongs to observed weights, or to expected ones where the observed ones make no maximum.
    scale = 1.0 / (root_obs * root_obs)
    for i in range(indptr[level], indptr[level + 1]):
        z = column(columns, zc[0], i)
        weight = w[i] if len(w) else 1.0
        eta = eta0[i - start] + z * lam * mode
        pull = lam * z * wo[i - start]
        for j in range(p):
            du[j] -= scale * pull * column(columns, xc[j], i)
        du[p] += scale * (z * score(family, link, y[i], weight, eta, phi)[1] - pull * z * mode)
        if with_phi:
            du[p + 1] += scale * lam * z * dispersion_derivatives(family, link, y[i], weight, eta, phi)[1]
