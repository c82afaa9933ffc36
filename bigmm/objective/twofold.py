"""The gradient of the criterion to the last digit, for the end of the search.

A constant lies in the span of Z as a rule. Then X'V^-1X = X'X - X'Z (...) Z'X is a small difference of large numbers:
with n rows a level and a variance of the size of the residual's, log10(n) digits are lost, and what is left depends on
the order in which a processor adds. Here V^-1[X y] is solved for again by iterative refinement, residuals in twofold
arithmetic (Higham 2002, Accuracy and Stability of Numerical Algorithms, section 12), with the factor that is there.
"""

from __future__ import annotations

import numpy as np

from bigmm.blocks.exact.factor import NotPositiveDefiniteError, triangular
from bigmm.blocks.exact.solve import tall_product
from bigmm.blocks.gram import Gram
from bigmm.objective.criterion import Criterion, Matrices

LARGEST = 1_000_000
"""Products of blocks, times columns of [X y], above which refinement would take longer than the search."""


def is_affordable(gram: Gram) -> bool:
    """Is refinement worth its time, and are all effects random? (A factor among the fixed effects has no column.)"""
    if not all(term.penalized for term in gram.terms):
        return False
    entries = sum(term.diagonal.size + term.dense.size for term in gram.terms)
    entries += 2 * sum(block.data.size for block in gram.cross.values())
    return entries * len(gram.xy) <= LARGEST


def exact_gradient(criterion: Criterion, theta: np.ndarray, frames: Matrices, point: np.ndarray) -> np.ndarray:
    """The gradient of `Criterion.evaluate_along`, to the last digit.

    Parameters
    ----------
    criterion: of a solver that has refined solutions.
    theta: (n_theta,) where the gradient is taken.
    frames: per joint term (k, k) F, of Z F.
    point: (n_theta,) parameters of the structures over the columns of Z F.

    Returns (n_theta,), NaN where there is no factor.
    """
    try:
        factor = criterion.factor(theta)
        whole = factor.refined()
        if whole is None:
            return np.full(criterion.n_theta, np.nan)
        root = np.linalg.cholesky(whole.squares[:-1, :-1])
        beta = np.linalg.solve(whole.squares[:-1, :-1], whole.squares[:-1, -1])
        # P of ML, also for REML: the part of X is the small difference, and comes from the refined solutions.
        projected = factor.projected(False)
    except (NotPositiveDefiniteError, np.linalg.LinAlgError):
        return np.full(criterion.n_theta, np.nan)
    contrast = np.append(-beta, 1.0)
    sigma2 = float(contrast @ whole.squares @ contrast) / criterion.dof
    scores = [weighted @ contrast for weighted in whole.weighted]
    if criterion.reml:
        projected = tuple(
            total - _fixed_part(weighted, root) for total, weighted in zip(projected, whole.weighted, strict=True)
        )
    return criterion.gradient_of(frames, point, projected, [tall_product(s, s) for s in scores], sigma2)


def _fixed_part(weighted: np.ndarray, root: np.ndarray) -> np.ndarray:
    """(k, k) sum over levels of Z'V^-1X (X'V^-1X)^-1 X'V^-1Z; root: (p, p) lower Cholesky factor of X'V^-1X."""
    q, k, _ = weighted.shape
    half = triangular(np.ascontiguousarray(root), np.asfortranarray(weighted[:, :, :-1].reshape(q * k, -1).T))
    rows = half.reshape(len(root), q, k)
    return np.asarray(np.einsum("pla,plb->ab", rows, rows))
