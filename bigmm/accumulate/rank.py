"""Which columns of X depend on earlier ones, read off X'WX (lme4 drops the later column)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# A column is dropped when the columns before it leave less than this share of its sum of squares. Squares carry 16
# digits, so about 1e-14 can be told from rounding; lme4's 1e-7 on lengths is 1e-14 on squares. A column that comes near
# has what the others give taken off before it is summed (`origin`), and then lme4's own limit can be kept.
TOLERANCE = 1e-11
MIXED_TOLERANCE = 1e-14
_ROUNDING = 1e-14
_PANEL = 64


@dataclass(frozen=True, slots=True)
class Rank:
    """The columns that do not depend on earlier ones, and the factor that tells how the others do.

    independent: (p,) bool; factor: (p, p) lower triangle L with X'WX = L L' on these columns, zero columns elsewhere.
    """

    independent: np.ndarray
    factor: np.ndarray

    def coefficients(self, column: int | np.integer) -> np.ndarray:
        """(p,) c with X[:, column] = X c, using independent columns only."""
        independent = np.flatnonzero(self.independent)
        lower = self.factor[np.ix_(independent, independent)]
        c = np.zeros(len(self.independent))
        c[independent] = np.linalg.solve(lower.T, self.factor[column, independent])
        return c


def sequential_rank(
    gram: np.ndarray, spread: np.ndarray, floor: np.ndarray, tolerance: np.ndarray | float = TOLERANCE
) -> Rank:
    """Cholesky of gram (p, p) in the given order, leaving out columns that depend on earlier ones.

    Parameters
    ----------
    spread: (p,) sum of squares of each column about its mean.
    floor: (p,) sum of squares below which a column is zero.
    tolerance: share of the spread, (p,) or one number.
    """
    p = len(gram)
    factor = np.zeros((p, p))
    independent = np.zeros(p, bool)
    limit = np.maximum(np.maximum(tolerance * spread, _ROUNDING * np.diagonal(gram)), floor)
    for start in range(0, p, _PANEL):
        stop = min(start + _PANEL, p)
        # All earlier panels at once, which is one product for BLAS.
        panel = gram[start:, start:stop] - factor[start:, :start] @ factor[start:stop, :start].T
        for j in range(start, stop):
            column = panel[j - start :, j - start] - factor[j:, start:j] @ factor[j, start:j]
            if column[0] > limit[j]:
                independent[j] = True
                factor[j:, j] = column / np.sqrt(column[0])
    return Rank(independent, factor)


def in_order(order: np.ndarray, rank: Rank) -> Rank:
    """The rank found of columns taken in another order; order: (p,) the column that was taken at each place."""
    independent, factor = np.zeros_like(rank.independent), np.zeros_like(rank.factor)
    independent[order], factor[np.ix_(order, order)] = rank.independent, rank.factor
    return Rank(independent, factor)


def pivots(gram: np.ndarray) -> np.ndarray:
    """(p,) what earlier columns leave of each column's sum of squares; those that are nearly nothing take no part."""
    p = len(gram)
    residual, factor = np.zeros(p), np.zeros((p, p))
    for j in range(p):
        column = gram[j:, j] - factor[j:, :j] @ factor[j, :j]
        residual[j] = column[0]
        if column[0] > _ROUNDING * gram[j, j]:
            factor[j:, j] = column / np.sqrt(column[0])
    return residual


def squares_of(gram: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(k,) sums of squares of columns (m, k) of combinations of the summed ones."""
    return np.maximum(np.einsum("ij,ij->j", columns, gram @ columns), 0.0)
