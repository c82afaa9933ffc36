"""How far the probes of the iterative solver may have moved the objective and theta."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bigmm.blocks.solve import residual_products
from bigmm.objective.algebra import IterativeAlgebra
from bigmm.objective.criterion import Criterion


@dataclass(frozen=True, slots=True)
class MonteCarloError:
    """Standard errors that come from the probes alone, at one theta.

    objective: of -2 log L; theta (n_theta,): of the estimate, H^-1 Cov(gradient) H^-1 / t; statistical (n_theta,): the
    standard error of theta from the data, sqrt(2 H^-1), beside it; probes, deflation: their numbers; seed: theirs.
    """

    objective: float
    theta: np.ndarray
    statistical: np.ndarray
    probes: int
    deflation: int
    seed: int

    @property
    def share(self) -> float:
        """Largest Monte Carlo error of a theta in units of its statistical standard error."""
        return float(np.max(self.theta / np.maximum(self.statistical, 1e-300), initial=0.0))

    def as_record(self) -> dict:
        """Plain values."""
        return {
            "objective": self.objective,
            "theta": [float(x) for x in self.theta],
            "theta_statistical": [float(x) for x in self.statistical],
            "probes": self.probes,
            "deflation": self.deflation,
            "seed": self.seed,
        }


def monte_carlo_error(criterion: Criterion, theta: np.ndarray, hessian: np.ndarray) -> MonteCarloError:
    """From the spread over probes of log|M| and of the gradient; hessian (n_theta, n_theta) of the objective."""
    algebra = criterion.algebra
    assert isinstance(algebra, IterativeAlgebra)
    factor = criterion.factor(theta)
    lams = criterion.templates.working(criterion.gram, theta)
    score = residual_products(criterion.structure, lams, algebra.solve(factor))
    sigma2 = criterion.residual_variance(factor)
    gradients = np.array(
        [
            criterion.gradient_of(theta, projected, score, sigma2)[1]
            for projected in algebra.spread(factor, criterion.reml)
        ]
    )
    noise = np.atleast_2d(np.cov(gradients.T)) / len(gradients)
    values, vectors = np.linalg.eigh(hessian)
    inverse = (vectors / np.maximum(np.abs(values), 1e-12 * np.abs(values).max(initial=1e-300))) @ vectors.T
    moved = inverse @ noise @ inverse
    return MonteCarloError(
        factor.logdet_error,
        np.sqrt(np.maximum(np.diagonal(moved), 0.0)),
        np.sqrt(np.maximum(2.0 * np.diagonal(inverse), 0.0)),
        algebra.n_probes,
        algebra.n_deflation,
        algebra.seed,
    )
