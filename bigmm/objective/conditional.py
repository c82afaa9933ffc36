"""Variances of conditional modes and of predictions: exact where that is cheap, else estimated with their error.

Under the exact solver everything is exact. Under the iterative one a row costs a solve by conjugate gradients; what
would take more than about ten seconds is estimated from probes (`blocks.conditional`), and the error says so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bigmm.blocks.iterative import conditional
from bigmm.blocks.iterative.conditional import RowEstimator
from bigmm.blocks.iterative.probes import keys_of, make_probes
from bigmm.objective.algebra import IterativeAlgebra
from bigmm.objective.criterion import Criterion


@dataclass(frozen=True, slots=True)
class Variances:
    """value and error of the same shape: variances, and the Monte Carlo standard errors of them, None when exact."""

    value: np.ndarray
    error: np.ndarray | None

    def roots(self) -> Variances:
        """Standard deviations, with their errors by the delta method."""
        root = np.sqrt(np.maximum(self.value, 0.0))
        with np.errstate(divide="ignore", invalid="ignore"):
            error = None if self.error is None else np.where(root > 0, self.error / (2.0 * root), 0.0)
        return Variances(root, error)


@dataclass(frozen=True, slots=True)
class RowVariance:
    """Variance of predictions at theta, row by row; estimator: None where every row is solved for."""

    criterion: Criterion
    theta: np.ndarray
    estimator: RowEstimator | None

    def of(self, x: np.ndarray, refs: tuple[np.ndarray, ...], z: tuple[np.ndarray, ...]) -> Variances:
        """(n,) variances of x'beta_hat + z'b_hat - (x'beta + z'b); arguments as in `Criterion.prediction_variance`."""
        if self.estimator is None:
            return Variances(self.criterion.prediction_variance(self.theta, x, refs, z), None)
        sigma2 = self.criterion.residual_variance(self.estimator.factor)
        value, error = self.estimator.rows(*self.criterion.working_rows(x, refs, z))
        return Variances(sigma2 * (value + self.criterion.unseen_variance(self.theta, refs, z)), sigma2 * error)


def row_variance(criterion: Criterion, theta: np.ndarray, rows: int | None) -> RowVariance:
    """How to find the variances of so many rows (None: unknown, so perhaps very many)."""
    factor = criterion.factor(theta)  # once, here: the tasks' threads would each compute it
    estimated = isinstance(criterion.algebra, IterativeAlgebra) and (
        rows is None or rows > conditional.rows_within(factor)
    )
    return RowVariance(criterion, theta, _estimator(criterion, factor) if estimated else None)


def level_variances(criterion: Criterion, theta: np.ndarray) -> tuple[Variances, ...]:
    """Per joint term with random effects (q, k): variance of b given y at theta, sigma and beta (lme4's condVar)."""
    if not isinstance(criterion.algebra, IterativeAlgebra):
        blocks = criterion.conditional_covariances(theta)
        return tuple(Variances(np.array(np.diagonal(block, axis1=1, axis2=2)), None) for block in blocks)
    factor = criterion.factor(theta)
    terms = criterion.gram.terms
    if sum(term.n_levels * term.width for term in terms) <= conditional.rows_within(factor):
        return tuple(Variances(chosen_variances(criterion, theta, j), None) for j in range(len(terms)))
    estimator, sigma2 = _estimator(criterion, factor), criterion.residual_variance(factor)
    found = (estimator.levels(j, np.linalg.inv(term.basis)) for j, term in enumerate(terms))
    return tuple(Variances(sigma2 * value, sigma2 * error) for value, error in found)


def chosen_variances(
    criterion: Criterion, theta: np.ndarray, number: int, levels: np.ndarray | None = None
) -> np.ndarray:
    """(m, k) exact variances for the given levels (None: all) of one joint term, whatever the solver; a solve each."""
    if not isinstance(criterion.algebra, IterativeAlgebra):
        block = criterion.conditional_covariances(theta)[number]
        return np.diagonal(block if levels is None else block[levels], axis1=1, axis2=2)
    factor, term = criterion.factor(theta), criterion.gram.terms[number]
    chosen = np.arange(term.n_levels) if levels is None else np.asarray(levels)
    back = np.linalg.inv(term.basis)
    columns = [
        conditional.exact_rows(factor, None, *conditional.one_term(factor, number, chosen, direction))
        for direction in back
    ]
    return criterion.residual_variance(factor) * np.column_stack(columns)


def _estimator(criterion: Criterion, factor) -> RowEstimator:
    """With the seed's probes, more of them than the fit has: they are cheap beside the fit's many evaluations."""
    algebra = criterion.algebra
    assert isinstance(algebra, IterativeAlgebra)
    count, keys = conditional.affordable_probes(factor), keys_of(algebra.structure)
    probes = make_probes(factor.probes.basis, factor.operator.size, count, algebra.seed, keys)
    return conditional.row_estimator(factor, probes)
