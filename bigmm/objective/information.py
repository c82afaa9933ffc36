"""Average information: the curvature of the criterion in the covariance, from n_theta forward solves.

Gilmour, Thompson and Cullis (1995), Biometrics 51, 1440-1450.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bigmm.blocks.solve import multiply, tall_product
from bigmm.blocks.structure import Structure


def average_information(
    structure: Structure,
    quadratic: Callable[[tuple[np.ndarray, ...], np.ndarray], np.ndarray],
    lams: tuple[np.ndarray, ...],
    score: tuple[np.ndarray, ...],
    places: list[tuple[int, int, int]],
) -> np.ndarray:
    """f_i'P f_j with f_i = (dV/dtheta_i) P y = Z g_i, g_i = (dLambda Lambda' + Lambda dLambda') Z'P y; (nt, nt).

    quadratic: (rhs per term (q, k, nt), rhs_x (p, nt)) -> rhs'Omega^-1 rhs;
    lams: per term (k, k) in the working basis; score: Z'W residual per term (q, k); places: (term, row, column).
    """
    gram, nt = structure.gram, len(places)
    directions = [np.zeros((t.n_levels, t.width, nt)) for t in gram.terms]
    for i, (j, row, column) in enumerate(places):
        change = np.outer(gram.terms[j].basis[:, row], lams[j][:, column])
        directions[j][:, :, i] = score[j] @ (change + change.T)
    image = multiply(structure, tuple(directions))
    n_dense = len(gram.xy) - 1
    rhs_x = np.zeros((n_dense, nt))
    total = np.zeros((nt, nt))
    for j, t in enumerate(gram.terms):
        if t.penalized:
            flat = directions[j].reshape(-1, nt)
            rhs_x += tall_product(t.dense.reshape(-1, n_dense + 1), flat)[:-1]
            total += tall_product(flat, image[j].reshape(-1, nt))
    return total - quadratic(image, rhs_x)
