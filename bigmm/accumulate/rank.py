"""Which columns of X depend on earlier ones, read off X'WX (lme4 drops the later column)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# A column is dropped when the columns before it leave less than this share of its sum of squares. Squares carry 16
# digits, so about 1e-14 can be told from rounding; lme4's 1e-7 on lengths is 1e-14 on squares.
TOLERANCE = 1e-11
_ROUNDING = 1e-14
_PANEL = 64


@dataclass(frozen=True, slots=True)
class Rank:
    """kept: (p,) bool; factor: (p, p) lower triangle L with X'WX = L L' on the kept columns, zero columns elsewhere."""

    kept: np.ndarray
    factor: np.ndarray

    def coefficients(self, column: int | np.integer) -> np.ndarray:
        """(p,) c with X[:, column] = X c, using kept columns only."""
        kept = np.flatnonzero(self.kept)
        lower = self.factor[np.ix_(kept, kept)]
        c = np.zeros(len(self.kept))
        c[kept] = np.linalg.solve(lower.T, self.factor[column, kept])
        return c


def sequential_rank(gram: np.ndarray, spread: np.ndarray, floor: np.ndarray) -> Rank:
    """Cholesky of gram (p, p) in the given order, leaving out columns that depend on kept earlier ones.

    spread: (p,) sum of squares of each column about its mean; floor: (p,) sum of squares below which a column is zero.
    """
    p = len(gram)
    factor = np.zeros((p, p))
    kept = np.zeros(p, bool)
    limit = np.maximum(np.maximum(TOLERANCE * spread, _ROUNDING * np.diagonal(gram)), floor)
    for start in range(0, p, _PANEL):
        stop = min(start + _PANEL, p)
        panel = gram[start:, start:stop] - factor[start:, :start] @ factor[start:stop, :start].T
        for j in range(start, stop):
            column = panel[j - start :, j - start] - factor[j:, start:j] @ factor[j, start:j]
            if column[0] > limit[j]:
                kept[j] = True
                factor[j:, j] = column / np.sqrt(column[0])
    return Rank(kept, factor)
