"""A dense oracle: everything a linear mixed model reports, from V = Z Lambda Lambda' Z' + W^-1, by textbook formulas.

Independent of the package: rows in, numbers out, no blocks, no factorization shared with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Dense:
    """y (n,), X (n, p) of full rank, Z (n, q), relative covariance factor Lambda (q, q), weights (n,)."""

    y: np.ndarray
    x: np.ndarray
    z: np.ndarray
    lam: np.ndarray
    w: np.ndarray
    reml: bool

    @property
    def v(self) -> np.ndarray:
        zl = self.z @ self.lam
        return zl @ zl.T + np.diag(1.0 / self.w)

    @property
    def information(self) -> np.ndarray:
        return self.x.T @ np.linalg.solve(self.v, self.x)

    @property
    def beta(self) -> np.ndarray:
        return np.linalg.solve(self.information, self.x.T @ np.linalg.solve(self.v, self.y))

    @property
    def dof(self) -> int:
        return len(self.y) - (self.x.shape[1] if self.reml else 0)

    @property
    def pwrss(self) -> float:
        r = self.y - self.x @ self.beta
        return float(r @ np.linalg.solve(self.v, r))

    @property
    def sigma(self) -> float:
        return float(np.sqrt(self.pwrss / self.dof))

    @property
    def vcov(self) -> np.ndarray:
        return self.sigma**2 * np.linalg.inv(self.information)

    @property
    def objective(self) -> float:
        logdet = np.linalg.slogdet(self.v)[1]
        if self.reml:
            logdet += np.linalg.slogdet(self.information)[1]
        return float(logdet + self.dof * (1.0 + np.log(2.0 * np.pi * self.pwrss / self.dof)))

    @property
    def prior(self) -> np.ndarray:
        """Lambda Lambda'."""
        return self.lam @ self.lam.T

    @property
    def b(self) -> np.ndarray:
        return self.prior @ self.z.T @ np.linalg.solve(self.v, self.y - self.x @ self.beta)

    @property
    def conditional_covariance(self) -> np.ndarray:
        """Var(b | y) given theta, sigma and beta."""
        gain = self.prior @ self.z.T
        return self.sigma**2 * (self.prior - gain @ np.linalg.solve(self.v, gain.T))

    def error_variance(self, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        """(m,) Var(x'beta_hat + z'b_hat - x'beta - z'b): conditional part plus what estimating beta adds."""
        gain = self.prior @ self.z.T
        d = x - z @ gain @ np.linalg.solve(self.v, self.x)
        given = np.einsum("ij,jk,ik->i", z, self.conditional_covariance, z)
        return given + np.einsum("ij,jk,ik->i", d, self.vcov, d)

    @property
    def hat(self) -> tuple[np.ndarray, np.ndarray]:
        """(n, n) Px and Pz with Px y = X beta_hat and Pz y = Z b_hat."""
        vi = np.linalg.inv(self.v)
        px = self.x @ np.linalg.solve(self.information, self.x.T @ vi)
        pz = self.z @ self.prior @ self.z.T @ vi @ (np.eye(len(self.y)) - px)
        return px, pz


def indicator(refs: np.ndarray, covariates: np.ndarray, n_levels: int) -> np.ndarray:
    """(n, n_levels * k) columns of Z, level after level; refs -1 gives a row of zeros."""
    n, k = covariates.shape
    z = np.zeros((n, n_levels, k))
    seen = refs >= 0
    z[np.flatnonzero(seen), refs[seen]] = covariates[seen]
    return z.reshape(n, -1)


def relative_factor(lambdas: list[np.ndarray], n_levels: list[int]) -> np.ndarray:
    """Lambda: blockdiag(I (x) lambda_j)."""
    blocks = [np.kron(np.eye(n), lam) for lam, n in zip(lambdas, n_levels, strict=True)]
    size = sum(len(block) for block in blocks)
    out, at = np.zeros((size, size)), 0
    for block in blocks:
        out[at : at + len(block), at : at + len(block)] = block
        at += len(block)
    return out
