"""The linear mixed model that a GLMM is at its mode: what standard errors and predictions are read off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.linalg import solve_triangular

from bigmm.blocks.gram import Gram
from bigmm.objective.covariances import ModelCovariance
from bigmm.objective.criterion import Criterion
from bigmm.objective.factorization import Factorization
from bigmm.objective.solvers import recorded_solver


class WorkingModel(Criterion):
    """`Criterion` of the working blocks at the mode, whose residual variance is 1 by construction."""

    def residual_variance(self, factor: Factorization) -> float:
        """1: working weights already hold the variance."""
        return 1.0

    def fixed_errors(self, theta: np.ndarray) -> np.ndarray:
        """(rank,) standard errors of the coefficients of the working columns at theta."""
        lower = self.factor(theta).fixed_root()
        inverse = solve_triangular(lower, np.eye(len(lower)), lower=True)
        return np.linalg.norm(inverse, axis=0)

    def log_determinant(self, theta: np.ndarray) -> float:
        """log|M| at theta, to check a saved fit."""
        return self.factor(theta).logdet_z


def working_model(gram: Gram, covariances: ModelCovariance, probed: Mapping[str, Any] | None) -> WorkingModel:
    """The working model of these blocks.

    Parameters
    ----------
    probed : probes, deflation and seed of the iterative solver, as in the record of its error. None: the exact one.
    """
    # Probes are made at the first theta of an evaluation, so a saved fit has the same ones.
    # Never REML, which is a criterion of linear models.
    return WorkingModel(gram, covariances, False, recorded_solver(gram, probed))
