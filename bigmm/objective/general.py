"""The profiled deviance and the REML criterion for a Lambda(theta) of any structure, written by the user.

The same equations as `criterion` (Bates, Maechler, Bolker and Walker 2015, eq. 34 and 41), with
M = Lambda'Z'WZ Lambda + I as one matrix and no derivative: nothing is known about how Lambda depends on theta.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.linalg import solve_triangular

from bigmm.blocks.exact.definite import DENSE_SHARE, FACTORS, DefiniteFactor, choose_kind, inverse_products
from bigmm.blocks.exact.factor import NotPositiveDefiniteError
from bigmm.blocks.matrices import MatrixGram

Lambda = Callable[[np.ndarray], sp.csr_array]


@dataclass(frozen=True, slots=True)
class GeneralEstimates:
    """What follows from theta, in the user's columns.

    Attributes
    ----------
    beta, vcov : (p,) coefficients and (p, p) covariance, NaN where a column was dropped.
    sigma : residual standard deviation.
    pwrss, logdet_z, logdet_x : r2, log|M| and log|X'V^-1X|.
    objective : the criterion.
    u, b : (q,) spherical and original conditional modes.
    """

    beta: np.ndarray
    vcov: np.ndarray
    sigma: float
    pwrss: float
    logdet_z: float
    logdet_x: float
    objective: float
    u: np.ndarray
    b: np.ndarray


@dataclass(frozen=True, slots=True)
class Elimination:
    """The random effects taken out of the equations at one theta.

    Attributes
    ----------
    lam : (q, q) Lambda.
    factor : of M.
    z : (q, r + 1) M^-1 Lambda'Z'W[X y].
    tail : (r + 1, r + 1) lower Cholesky factor of [X y]'V^-1[X y].
    """

    lam: sp.csr_array
    factor: DefiniteFactor
    z: np.ndarray
    tail: np.ndarray

    @property
    def logdet_x(self) -> float:
        """log|X'V^-1X|."""
        return float(2.0 * np.log(np.diagonal(self.tail)[:-1]).sum())

    @property
    def pwrss(self) -> float:
        """r2, the penalized weighted residual sum of squares."""
        return float(self.tail[-1, -1]) ** 2


def factor_kind(gram: MatrixGram, lam: sp.csr_array) -> tuple[str, int]:
    """How M is factored, given Lambda at the start ("dense" or "sparse"), and the bytes of a factor."""
    try:
        return choose_kind(_penalized(gram.zz, lam))
    except NotPositiveDefiniteError:
        return "dense", 8 * gram.q**2


class GeneralCriterion:
    """-2 log L(theta) (ML) or the REML criterion for one `MatrixGram` and one Lambda(theta)."""

    def __init__(self, gram: MatrixGram, lambda_fn: Lambda, reml: bool, kind: str):
        self.gram, self.lambda_fn, self.reml, self.kind = gram, lambda_fn, reml, kind
        self._zz: Any = self._stored(gram.zz)

    def _stored(self, matrix: sp.csr_array) -> Any:
        """As an ndarray where that multiplies faster."""
        filled = matrix.nnz > DENSE_SHARE * self.gram.q**2
        return matrix.toarray() if self.kind == "dense" and filled else matrix

    @property
    def dof(self) -> int:
        """The m in m log(r2): n for ML, n - rank(X) for REML."""
        return self.gram.n - (self.gram.rank if self.reml else 0)

    def eliminate(self, theta: np.ndarray) -> Elimination:
        """Factor M and take the random effects out; raises NotPositiveDefiniteError."""
        lam = self.lambda_fn(theta)
        acting = self._stored(lam)
        factor = FACTORS[self.kind](_penalized(self._zz, acting))
        rhs = acting.T @ self.gram.zxy
        z = factor.solve(rhs)
        try:
            # A Schur complement by subtraction: rounding can leave it indefinite where X nearly lies in the span of Z.
            tail = np.linalg.cholesky(self.gram.xy - rhs.T @ z)
        except np.linalg.LinAlgError as error:
            raise NotPositiveDefiniteError(str(error)) from error
        return Elimination(lam, factor, z, tail)

    def value(self, theta: np.ndarray) -> float:
        """The criterion at theta; inf where it has no value."""
        try:
            return self._value(self.eliminate(theta))
        except NotPositiveDefiniteError:
            return np.inf

    def _value(self, elimination: Elimination) -> float:
        m = self.dof
        logdet = elimination.factor.logdet + (elimination.logdet_x if self.reml else 0.0)
        value = logdet + m * (1.0 + np.log(2.0 * np.pi * elimination.pwrss / m)) - self.gram.sum_log_w
        return value if np.isfinite(value) else np.inf

    def estimates(self, theta: np.ndarray) -> GeneralEstimates:
        """Coefficients, covariance, residual scale and conditional modes at theta."""
        gram, elimination = self.gram, self.eliminate(theta)
        lower = elimination.tail[:-1, :-1]
        working = solve_triangular(lower, elimination.tail[-1, :-1], lower=True, trans=1)
        sigma2 = elimination.pwrss / self.dof
        # half'half = B (X'V^-1X)^-1 B' without an inverse, symmetric by construction.
        half = solve_triangular(lower, gram.to_user.T, lower=True)
        beta = gram.to_user @ working + gram.y_shift
        vcov = sigma2 * half.T @ half
        dropped = ~gram.active
        beta[dropped] = np.nan
        vcov[dropped] = np.nan
        vcov[:, dropped] = np.nan
        u = elimination.z[:, -1] - elimination.z[:, :-1] @ working
        return GeneralEstimates(
            beta,
            vcov,
            float(np.sqrt(sigma2)),
            elimination.pwrss,
            elimination.factor.logdet,
            elimination.logdet_x,
            self._value(elimination),
            u,
            elimination.lam @ u,
        )

    def conditional_sd(self, theta: np.ndarray) -> np.ndarray:
        """(q,) sd of b given y at theta, sigma and beta: sigma sqrt(diag(Lambda M^-1 Lambda'))."""
        elimination = self.eliminate(theta)
        return np.asarray(
            np.sqrt(
                elimination.pwrss / self.dof * np.maximum(inverse_products(elimination.factor, elimination.lam), 0.0)
            )
        )

    def effective_df(self, theta: np.ndarray) -> tuple[float, float, float]:
        """(total, fixed, random): trace of the map from y to fitted values, its fixed part and the rest.

        With G = M - I the random part is tr(G M^-1) - tr((X'V^-1X)^-1 K'K), K = M^-1 Lambda'Z'WX.
        """
        elimination = self.eliminate(theta)
        identity = sp.eye_array(self.gram.q, format="csr")
        # G M^-1 = I - M^-1, so the diagonal of M^-1 is enough.
        trace = float((1.0 - inverse_products(elimination.factor, identity)).sum())
        half = solve_triangular(elimination.tail[:-1, :-1], elimination.z[:, :-1].T, lower=True)
        random = trace - float((half * half).sum())
        return self.gram.rank + random, float(self.gram.rank), random

    def effective_df_error(self, theta: np.ndarray) -> None:
        """There are no probes: `effective_df` is exact."""


def _penalized(zz: Any, lam: Any) -> Any:
    """Lambda'Z'WZ Lambda + I, sparse when both are, else dense."""
    product = lam.T @ (zz @ lam)
    if not isinstance(product, np.ndarray):
        return product + sp.eye_array(product.shape[0], format="csr")
    product[np.diag_indices(len(product))] += 1.0
    return product
