"""Average information: the curvature of the criterion in the covariance, from n_theta forward solves.

Gilmour, Thompson and Cullis (1995), Biometrics 51, 1440-1450.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from bigmm.blocks.exact.solve import multiply, tall_product
from bigmm.blocks.structure import Structure

Changes = Sequence[tuple[int, np.ndarray]]
"""Per parameter (term, (k, k) derivative of Lambda Lambda' of that term, working basis)."""


def changes_of(
    bases: Sequence[np.ndarray], lams: Sequence[np.ndarray], places: Sequence[tuple[int, int, int]]
) -> Changes:
    """Changes by single elements of the terms' roots.

    Parameters
    ----------
    bases : per term (k, k) B.
    lams : per term (k, k) B times the root.
    places : (term, row, column) of each element.
    """
    halves = [(j, np.outer(bases[j][:, row], lams[j][:, column])) for j, row, column in places]
    return [(j, half + half.T) for j, half in halves]


def average_information(
    structure: Structure,
    quadratic: Callable[[tuple[np.ndarray, ...], np.ndarray], np.ndarray],
    changes: Changes,
    score: tuple[np.ndarray, ...],
) -> np.ndarray:
    """(nt, nt) f_i'P f_j with f_i = (dV/dtheta_i) P y = Z g_i, g_i = (dLambda Lambda' + Lambda dLambda') Z'P y.

    Parameters
    ----------
    quadratic : (rhs per term (q, k, nt), rhs_x (p, nt)) to rhs'Omega^-1 rhs.
    changes : of Lambda Lambda' by every parameter.
    score : per term (q, k) Z'W residual.
    """
    gram, nt = structure.gram, len(changes)
    # f_i = Z g_i has a number per row and is never formed: f'Wf = g'A_ZZ g, and the rest goes through A as well.
    directions = [np.zeros((t.n_levels, t.width, nt)) for t in gram.terms]
    for i, (j, change) in enumerate(changes):
        directions[j][:, :, i] = score[j] @ change
    image = multiply(structure, tuple(directions))
    n_dense = len(gram.xy) - 1
    rhs_x = np.zeros((n_dense, nt))
    total = np.zeros((nt, nt))
    for j, t in enumerate(gram.terms):
        if t.penalized:
            # Fixed factors have no variance, so their part of every g_i is zero.
            flat = directions[j].reshape(-1, nt)
            rhs_x += tall_product(t.dense.reshape(-1, n_dense + 1), flat)[:-1]
            total += tall_product(flat, image[j].reshape(-1, nt))
    # f'Pf is f'Wf less what Z Lambda and X explain of f.
    return np.asarray(total - quadratic(image, rhs_x))
