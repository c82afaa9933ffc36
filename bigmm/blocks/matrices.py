"""A = [Z X y]'W[Z X y] of model matrices given as such: no grouping factors, so Z'WZ is one sparse matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp


@dataclass(frozen=True, slots=True)
class MatrixGram:
    """Sums over rows in a working basis (columns of X and y may be shifted by multiples of a constant column).

    Attributes
    ----------
    zz: (q, q) csr Z'WZ.
    zxy: (q, r + 1) Z'W[X y], y last, for the r independent columns of X.
    xy: (r + 1, r + 1) [X y]'W[X y].
    n: number of rows.
    sum_log_w: sum of log weights.
    active: (p,) bool, False for columns that depend on earlier ones.
    to_user, y_shift: (p, r) and (p,) with beta = to_user @ beta_working + y_shift, zero for dropped columns.
    """

    zz: sp.csr_array
    zxy: np.ndarray
    xy: np.ndarray
    n: int
    sum_log_w: float
    active: np.ndarray
    to_user: np.ndarray
    y_shift: np.ndarray

    @property
    def q(self) -> int:
        """Number of random effects."""
        return self.zz.shape[0]

    @property
    def rank(self) -> int:
        """Number of independent columns of X."""
        return self.to_user.shape[1]
