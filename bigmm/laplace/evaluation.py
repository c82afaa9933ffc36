"""The parameters psi = (beta, theta, log phi) of a GLMM's objective, and its value there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class GlmmEvaluation:
    """value: the deviance -2 log L; gradient (P,); hessian (P, P): an approximation that a search starts from."""

    value: float
    gradient: np.ndarray
    hessian: np.ndarray


@dataclass(frozen=True, slots=True)
class Parameters:
    """What psi holds: p coefficients (none when profile), n_theta, and log phi when with_phi; rows: number of rows."""

    p: int
    n_theta: int
    with_phi: bool
    profile: bool
    rows: int

    @property
    def n_beta(self) -> int:
        return 0 if self.profile else self.p

    @property
    def size(self) -> int:
        return self.n_beta + self.n_theta + self.with_phi

    def split(self, psi: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """(beta, theta, phi); phi is 1 for families without dispersion, beta is empty when profiled."""
        beta, theta = psi[: self.n_beta], psi[self.n_beta : self.n_beta + self.n_theta]
        return beta, theta, float(np.exp(psi[-1])) if self.with_phi else 1.0

    def join(self, beta: np.ndarray, theta: np.ndarray, log_phi: float) -> np.ndarray:
        """One vector in the order of psi."""
        return np.concatenate([beta[: self.n_beta], theta, [log_phi] if self.with_phi else []])

    def lower(self, theta_lower: np.ndarray) -> np.ndarray:
        """Bounds of psi: only template diagonals have one."""
        return self.join(np.full(self.p, -np.inf), theta_lower, -np.inf)

    def blocks(self, beta: np.ndarray, theta: np.ndarray, log_phi: float) -> np.ndarray:
        """A block-diagonal (P, P) matrix."""
        out = np.zeros((self.size, self.size))
        n = self.n_beta
        out[:n, :n] = beta[:n, :n]
        out[n : n + self.n_theta, n : n + self.n_theta] = theta
        if self.with_phi:
            out[-1, -1] = log_phi
        return out
