"""Variances of conditional modes and of predictions: exact where that is cheap, else estimated with their error.

An exact solver answers everything exactly. Under the iterative one a row costs a solve by conjugate gradients; what
would take more than about ten seconds is estimated from probes (`blocks.conditional`), and the error says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bigmm.blocks.iterative.conditional import RowEstimator
from bigmm.objective.criterion import Criterion
from bigmm.objective.factorization import Variances


@dataclass(frozen=True, slots=True)
class RowVariance:
    """Variance of predictions at theta, row by row.

    Attributes
    ----------
    sigma2 : residual variance.
    estimator : of the rows; None where every row is solved for.
    """

    criterion: Criterion
    theta: np.ndarray
    sigma2: float
    estimator: RowEstimator | None

    def of(self, x: np.ndarray, refs: tuple[np.ndarray, ...], z: tuple[np.ndarray, ...]) -> Variances:
        """(n,) variances of x'beta_hat + z'b_hat - (x'beta + z'b); arguments as in `Criterion.prediction_variance`."""
        if self.estimator is None:
            return Variances(self.criterion.prediction_variance(self.theta, x, refs, z), None)
        value, error = self.estimator.rows(*self.criterion.working_rows(x, refs, z))
        value = value + self.criterion.unseen_variance(self.theta, refs, z)
        return Variances(self.sigma2 * value, self.sigma2 * error)


def row_variance(criterion: Criterion, theta: np.ndarray, rows: int | None) -> RowVariance:
    """The variances of so many rows (None: of an unknown number, so perhaps of very many)."""
    # the factor is made once, here: each of the tasks' threads would make it again
    factor = criterion.factor(theta)
    return RowVariance(criterion, theta, criterion.residual_variance(factor), factor.row_estimator(rows))


def level_variances(criterion: Criterion, theta: np.ndarray) -> tuple[Variances, ...]:
    """Per joint term with random effects (q, k): variance of b given y at theta, sigma and beta (lme4's condVar)."""
    factor = criterion.factor(theta)
    return factor.level_variances(criterion.residual_variance(factor))


def selected_variances(criterion: Criterion, theta: np.ndarray, term: int, levels: Any = None) -> np.ndarray:
    """(m, k) exact variances of some levels (None: of all) of one joint term, whatever the solver."""
    factor = criterion.factor(theta)
    return factor.selected_variances(criterion.residual_variance(factor), term, levels)
