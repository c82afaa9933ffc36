"""Coefficients in coordinates where X'WX is the identity, so that badly scaled columns do not slow the search."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.linalg import solve_triangular

from bigmm.laplace.evaluation import GlmmEvaluation


class Whitened:
    """psi = (beta, rest) seen as (R beta, rest) with X'WX = R'R; wraps value and evaluate."""

    def __init__(self, value: Callable, evaluate: Callable, information: np.ndarray, size: int):
        self._value, self._evaluate = value, evaluate
        n = len(information)
        scale = np.sqrt(np.maximum(np.diagonal(information), 1e-300))
        root = (
            np.linalg.qr(np.linalg.cholesky(information / scale[:, None] / scale + 1e-12 * np.eye(n)).T, mode="r")
            * scale
        )
        self.matrix, self.n, self.size = root, n, size

    def inward(self, psi: np.ndarray) -> np.ndarray:
        """psi to working coordinates."""
        return np.concatenate([self.matrix @ psi[: self.n], psi[self.n :]])

    def outward(self, working: np.ndarray) -> np.ndarray:
        """Working coordinates to psi."""
        beta = solve_triangular(self.matrix, working[: self.n], check_finite=False)  # what is not finite stays so
        return np.concatenate([beta, working[self.n :]])

    def jacobian(self) -> np.ndarray:
        """d psi / d working (P, P)."""
        out = np.eye(self.size)
        out[: self.n, : self.n] = solve_triangular(self.matrix, np.eye(self.n))
        return out

    def value(self, working: np.ndarray) -> float:
        """The function in working coordinates."""
        return self._value(self.outward(working))

    def evaluate(self, working: np.ndarray) -> GlmmEvaluation:
        """Value, gradient and curvature in working coordinates."""
        model, jacobian = self._evaluate(self.outward(working)), self.jacobian()
        return GlmmEvaluation(model.value, jacobian.T @ model.gradient, jacobian.T @ model.hessian @ jacobian)
