"""The profiled deviance and the REML criterion of a linear mixed model, with gradient and curvature, from blocks alone.

Equations: Bates, Maechler, Bolker and Walker (2015), J. Stat. Softw. 67(1), eq. 34 (deviance) and 41 (REML criterion);
the gradient and the average information follow Gilmour, Thompson and Cullis (1995), Biometrics 51, in the form of
docs/theory/criterion.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import lapack

from bigmm.blocks.exact.factor import NotPositiveDefiniteError
from bigmm.blocks.exact.solve import Solution
from bigmm.blocks.gram import Gram
from bigmm.blocks.iterative.probes import standard_error
from bigmm.blocks.structure import Structure
from bigmm.objective.cholesky import CholeskySolver
from bigmm.objective.covariances import ModelCovariance
from bigmm.objective.evaluation import Evaluation, no_evaluation
from bigmm.objective.factorization import Factorization, Solver

Matrices = tuple[np.ndarray, ...]
Blocks = Sequence[np.ndarray | None]
"""One matrix for each term, None for terms without random effects."""


@dataclass(frozen=True, slots=True)
class Estimates:
    """What follows from theta, in the original basis and the user's order.

    Attributes
    ----------
    beta, vcov : (p,) coefficients and (p, p) covariance, NaN where a column was dropped.
    sigma : residual standard deviation.
    pwrss, logdet_z, logdet_x : r2, log|M| and log|X'V^-1X|.
    objective : the criterion.
    u, b : per joint term (q, k) spherical and original conditional modes. Where workers hold the levels, the sequences
        fetch them.
    """

    beta: np.ndarray
    vcov: np.ndarray
    sigma: float
    pwrss: float
    logdet_z: float
    logdet_x: float
    objective: float
    u: Sequence[np.ndarray]
    b: Sequence[np.ndarray]


class Criterion:
    """-2 log L(theta) (ML) or the REML criterion for one A; remembers the last factor, holds no other state.

    solver: exact by default; one with probes makes log|M| and the gradient estimates (see `monte_carlo_error`).
    """

    def __init__(self, gram: Gram, covariances: ModelCovariance, reml: bool, solver: Solver | None = None):
        self.gram, self.covariances, self.reml = gram, covariances, reml
        self.solver: Solver = CholeskySolver(gram) if solver is None else solver
        self.n_theta, self.lower = covariances.n_theta, covariances.lower
        self._last: tuple[bytes, Factorization] | None = None
        self._evaluated: tuple[bytes, Evaluation] | None = None

    def __getstate__(self) -> dict[str, Any]:
        # What loads a criterion has no workers to ask, so all levels travel. Factors do not: they are made again.
        solver = self.solver.gathered()
        return {"gram": solver.gram, "covariances": self.covariances, "reml": self.reml, "solver": solver}

    def __setstate__(self, state: dict[str, Any]) -> None:
        Criterion.__init__(self, state["gram"], state["covariances"], state["reml"], state["solver"])

    @property
    def whole_gram(self) -> Gram:
        """The Gram with all levels, which shards may have to send to the driver."""
        return self.solver.gathered().gram

    @property
    def structure(self) -> Structure:
        """Elimination order and kinds of blocks."""
        return self.solver.structure

    @property
    def rank(self) -> int:
        """Number of independent fixed-effects columns."""
        return int(np.count_nonzero(self.gram.active))

    @property
    def dof(self) -> int:
        """The m in m log(r2): n for ML, n - p for REML."""
        return self.gram.n - (self.rank if self.reml else 0)

    def factor(self, theta: np.ndarray) -> Factorization:
        """The factor at theta (the last one is kept)."""
        theta = np.asarray(theta, float)
        # Bytes have no tolerance and no NaN that differs from itself. 0.0 and -0.0 are two keys, which costs a factor
        # only.
        key = theta.tobytes()
        last = self._last
        if last is None or last[0] != key:
            last = self._last = None  # the old factor is freed before the new one is made
            last = (key, self.solver.factor(self.covariances.working(self.gram, theta)))
            self._last = last
        return last[1]

    def residual_variance(self, factor: Factorization) -> float:
        """sigma^2 at the factor's theta: r2 / n (ML) or r2 / (n - p) (REML)."""
        return factor.pwrss / self.dof

    def value(self, theta: np.ndarray) -> float:
        """The criterion at theta; inf where it has no value."""
        try:
            return self.value_of(self.factor(theta))
        except NotPositiveDefiniteError:
            return np.inf

    def value_of(self, factor: Any) -> float:
        """The criterion at anything that has logdet_z, logdet_x and pwrss; inf where it has no value."""
        m = self.dof
        # "not >" is true for NaN too, "<=" would not be.
        if not factor.pwrss > 0:
            return np.inf
        logdet = factor.logdet_z + (factor.logdet_x if self.reml else 0.0)
        return float(logdet + m * (1.0 + np.log(2.0 * np.pi * factor.pwrss / m)) - self.gram.sum_log_w)

    def evaluate(self, theta: np.ndarray) -> Evaluation:
        """Value, gradient and curvature at theta, for one factor, one selected inverse and n_theta solves."""
        theta = np.asarray(theta, float)
        return self.evaluate_along(theta, tuple(map(np.eye, self.covariances.widths)), theta)

    def evaluate_along(self, theta: np.ndarray, frames: Matrices, point: np.ndarray) -> Evaluation:
        """Evaluate at theta, with derivatives by another point of the same model. The last evaluation is kept.

        Parameters
        ----------
        theta : (n_theta,)
        frames : per joint term (k, k) F. The covariance of its effects is F R R' F'.
        point : (n_theta,) parameters of the structures that make R.
        """
        key = b"".join(a.tobytes() for a in (theta, *frames, point))
        if self._evaluated is None or self._evaluated[0] != key:
            self._evaluated = (key, self._evaluate(theta, frames, point))
        return self._evaluated[1]

    def _evaluate(self, theta: np.ndarray, frames: Matrices, point: np.ndarray) -> Evaluation:
        try:
            factor = self.factor(theta)
            value = self.value_of(factor)  # a solver with probes solves for them here
        except NotPositiveDefiniteError:
            return no_evaluation(self.n_theta)
        lams = self.covariances.working(self.gram, theta)
        sigma2 = self.residual_variance(factor)
        bases, roots = self._bases(frames), self.covariances.joint(point)
        # d(Lambda Lambda') = H + H' with H = T F dR (T F R)'.
        halves = [basis @ root for basis, root in zip(bases, roots, strict=True)]
        changes = [(j, bases[j] @ along @ halves[j].T) for j, along in self.covariances.directions(point)]
        changes = [(j, half + half.T) for j, half in changes]
        levels = factor.moments(factor.solution(), lams, changes, self.reml)
        slopes = self._covariance_slopes(bases, levels.projected, levels.outer, sigma2)
        gradient = self._pulled_back(point, roots, slopes)
        # H_ab of docs/theory/criterion.md, Curvature: profiling sigma^2 takes t_a t_b off, V's second derivative adds
        # G.
        quadratics = self._pulled_back(point, roots, [b.T @ levels.outer[j] @ b for j, b in enumerate(bases)])
        hessian = levels.information / sigma2 - np.outer(quadratics, quadratics) / (self.dof * sigma2**2)
        along_roots = [2.0 * (slope @ root) for slope, root in zip(slopes, roots, strict=True)]
        hessian = hessian + self.covariances.second_order(point, slopes, along_roots)
        return Evaluation(value, gradient, hessian)

    def gradient_of(
        self, frames: Matrices, point: np.ndarray, projected: Blocks, outer: Sequence[np.ndarray], sigma2: float
    ) -> np.ndarray:
        """(n_theta,) gradient as in `evaluate_along`, from the (k, k) sums of `LevelMoments`."""
        slopes = self._covariance_slopes(self._bases(frames), projected, outer, sigma2)
        return self._pulled_back(point, self.covariances.joint(point), slopes)

    def _bases(self, frames: Matrices) -> list[np.ndarray]:
        """Per joint term (k, k) T F."""
        # Not strict: fixed factors stand last among the terms and have no frame.
        return [term.basis @ frame for term, frame in zip(self.gram.terms, frames, strict=False)]

    def _covariance_slopes(
        self, bases: Sequence[np.ndarray], projected: Blocks, outer: Sequence[np.ndarray], sigma2: float
    ) -> list[np.ndarray]:
        """Per joint term (k, k) G = sum_l (Z'PZ)_ll - s_l s_l' / sigma^2, the derivative by R R', in the bases T F."""
        pairs = zip(bases, projected, outer, strict=False)
        return [b.T @ (sums - products / sigma2) @ b for b, sums, products in pairs if sums is not None]

    def _pulled_back(self, point: np.ndarray, roots: Matrices, slopes: Sequence[np.ndarray]) -> np.ndarray:
        """(n_theta,) derivative by the point, from derivatives (k, k) by R R'."""
        return self.covariances.pullback(point, [2.0 * (g @ root) for g, root in zip(slopes, roots, strict=True)])

    # ------------------------------------------------------------------------------------------ estimates

    def estimates(self, theta: np.ndarray) -> Estimates:
        """Coefficients, covariance, residual scale and conditional modes at theta."""
        factor = self.factor(theta)
        solution = factor.solution()
        sigma2 = self.residual_variance(factor)
        beta, vcov = self._fixed_effects(factor, solution, sigma2)
        lams = self.covariances.working(self.gram, np.asarray(theta, float))
        modes = factor.modes(solution, lams, self.covariances.joint(np.asarray(theta, float)))
        return Estimates(
            beta,
            vcov,
            float(np.sqrt(sigma2)),
            factor.pwrss,
            factor.logdet_z,
            factor.logdet_x,
            self.value_of(factor),
            modes.u,
            modes.b,
        )

    def _fixed_effects(self, factor: Any, solution: Solution, sigma2: float) -> tuple[np.ndarray, np.ndarray]:
        """(p,) coefficients and (p, p) covariance in the user's order and basis, NaN where a column was dropped."""
        gram = self.gram
        lower = factor.fixed_root()
        # LAPACK prints an error for an empty matrix.
        inverse = lapack.dtrtri(lower, lower=1)[0] if len(lower) else lower
        to_user = fixed_map(gram)
        beta = to_user @ solution.beta
        if gram.one is not None:
            # The sums are about y_shift, and `one` is the combination of columns that is the constant.
            beta = beta + gram.y_shift * gram.one
        # A product of a matrix and its own transpose is symmetric, and no variance is negative.
        half = to_user @ np.tril(inverse).T
        vcov = sigma2 * half @ half.T
        beta, vcov = beta[gram.fixed_order], vcov[np.ix_(gram.fixed_order, gram.fixed_order)]
        # Only now: a dropped column still has a place in the map to the user's order.
        dropped = ~gram.active[gram.fixed_order]
        beta[dropped] = np.nan
        vcov[dropped] = np.nan
        vcov[:, dropped] = np.nan
        return beta, vcov

    def effective_df(self, theta: np.ndarray) -> tuple[float, float, float]:
        """(total, fixed, random): trace of the map from y to fitted values, its fixed part p and the rest."""
        theta = np.asarray(theta, float)
        factor = self.factor(theta)
        lams = self.covariances.working(self.gram, theta)
        random = sum(
            float(np.trace(lam.T @ projected @ lam))
            for lam, projected in zip(lams, factor.projected(True), strict=True)
            if projected is not None
        )
        return self.rank + random, float(self.rank), random

    def effective_df_error(self, theta: np.ndarray) -> float | None:
        """Standard error of `effective_df` from the spread over probes; None where it is exact."""
        lams = self.covariances.working(self.gram, np.asarray(theta, float))
        values = [
            sum(float(np.trace(lam.T @ projected @ lam)) for lam, projected in zip(lams, sums, strict=True))
            for sums in self.factor(theta).spread(True)
        ]
        return standard_error(np.array(values)) if values else None

    def prediction_variance(
        self, theta: np.ndarray, x: np.ndarray, refs: Sequence[np.ndarray], z: Sequence[np.ndarray]
    ) -> np.ndarray:
        """Variance of x'beta_hat + z'b_hat - (x'beta + z'b), per row, at theta (Henderson 1975, eq. 12).

        Parameters
        ----------
        x : (n, p) in the user's order.
        refs : per joint term (n,) level, or -1, for which the prior covariance is used.
        z : per joint term (n, k).

        Returns
        -------
        (n,) variances.
        """
        theta = np.asarray(theta, float)
        factor = self.factor(theta)
        forms = factor.rows(*self.working_rows(x, refs, z))
        return np.asarray(self.residual_variance(factor) * (forms + self.unseen_variance(theta, refs, z)))

    def working_rows(
        self, x: np.ndarray, refs: Sequence[np.ndarray], z: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, Matrices, Matrices]:
        """(x, refs, z) of `prediction_variance` in the working basis, factor columns of x first."""
        user = np.zeros((len(x), len(self.gram.active)))
        user[:, self.gram.fixed_order] = x
        random_terms = [t for t in self.gram.terms if t.penalized]
        # Z = Z_working T, so the effects of Z_working are T b.
        z_working = [np.linalg.solve(t.basis.T, zj.T).T for t, zj in zip(random_terms, z, strict=True)]
        return user @ fixed_map(self.gram), tuple(refs), tuple(z_working)

    def unseen_variance(self, theta: np.ndarray, refs: Sequence[np.ndarray], z: Sequence[np.ndarray]) -> np.ndarray:
        """(n,) prior variance over sigma^2 of the effects of levels that were never seen (-1)."""
        out = np.zeros(len(refs[0]) if refs else 0)
        for joint, ref, zj in zip(self.covariances.joint(theta), refs, z, strict=False):
            unseen = ref < 0
            out[unseen] += ((zj[unseen] @ joint) ** 2).sum(axis=1)
        return out


def fixed_map(gram: Gram) -> np.ndarray:
    """(p, rank) from the factor's fixed columns (factors', then dense) to the original basis, [dense, factors]."""
    active = np.flatnonzero(gram.active)
    n_dense = len(gram.xy) - 1
    columns = np.concatenate([active[n_dense:], active[:n_dense]])
    return _inverse_basis(gram.x_basis)[:, columns]


def _inverse_basis(basis: np.ndarray) -> np.ndarray:
    """B^-1 of a matrix that differs from the identity in few rows R: [[B_RR, B_RO], [0, I]]^-1."""
    # A general inverse takes p^3 operations for what may be thousands of levels, and rounds the rows of the identity.
    inverse = np.eye(len(basis))
    changed = np.flatnonzero((basis != inverse).any(axis=1))
    block = np.linalg.inv(basis[np.ix_(changed, changed)])
    inverse[changed] = -block @ basis[changed]
    inverse[np.ix_(changed, changed)] = block
    return inverse
