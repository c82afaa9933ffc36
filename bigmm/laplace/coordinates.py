"""Coordinates of the search of a generalized model, in which neither origin nor unit of a covariate matters.

Coefficients are searched for where X'WX is the identity. The covariance of a term is searched for in columns that are
orthonormal over the rows, as `objective.frame` does it for linear models: with Z F for Z the template is eta, and the
engine is given the matrix F eta. That matrix is not triangular. The likelihood depends on Lambda Lambda' alone, so the
engine takes any square root of it, and its gradient by every element of that root gives the gradient by eta.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from scipy.linalg import block_diag, solve_triangular

from bigmm.laplace.evaluation import GlmmEvaluation, Parameters
from bigmm.objective.frame import Frame, orthonormal
from bigmm.objective.templates import Templates


def row_frame(templates: Templates, covariates: Sequence[Sequence[int]], root: np.ndarray) -> Frame:
    """Columns of each term that are orthonormal over the rows.

    Parameters
    ----------
    templates : the model's templates.
    covariates : per user term (k,) numbers of its columns.
    root : (c, c), root'root = C'WC / sum W of all columns C, the constant first.
    """
    pairs = [orthonormal(root[:, list(columns)]) for columns in covariates]
    return Frame(templates, tuple(factor for factor, _ in pairs), tuple(inverse for _, inverse in pairs))


class Coordinates:
    """The search's point (R beta, eta, log phi), the user's psi (beta, theta, log phi), and the engine's psi
    (beta, elements of F eta, log phi).

    Parameters
    ----------
    value, evaluate : the engine's functions of its psi.
    information : (n_beta, n_beta) X'WX = R'R.
    parameters : of the user's psi.
    frame : F of each term.
    """

    def __init__(
        self, value: Callable, evaluate: Callable, information: np.ndarray, parameters: Parameters, frame: Frame
    ):
        self._value, self._evaluate = value, evaluate
        self.parameters, self.frame, self.roots = parameters, frame, frame.templates.square()
        self.matrix = _root(information)
        self._jacobian = block_diag(
            solve_triangular(self.matrix, np.eye(len(self.matrix))),
            self._elements(),
            np.eye(int(parameters.with_phi)),
        )

    def _elements(self) -> np.ndarray:
        """(elements of the roots, n_theta): the linear map from eta to F eta."""
        templates, units = self.frame.templates, np.eye(self.parameters.n_theta)
        columns = [
            self.roots.elements([f @ eta for f, eta in zip(self.frame.factors, templates.lambdas(unit), strict=True)])
            for unit in units
        ]
        return np.array(columns).reshape(len(units), self.roots.n_theta).T

    def inward(self, psi: np.ndarray) -> np.ndarray:
        """The search's point of the user's psi."""
        n, end = self.parameters.n_beta, self.parameters.n_beta + self.parameters.n_theta
        return np.concatenate([self.matrix @ psi[:n], self.frame.inward(psi[n:end]), psi[end:]])

    def outward(self, point: np.ndarray) -> np.ndarray:
        """The user's psi at the search's point."""
        n, end = self.parameters.n_beta, self.parameters.n_beta + self.parameters.n_theta
        return np.concatenate([self.coefficients(point), self.frame.outward(point[n:end]), point[end:]])

    def coefficients(self, point: np.ndarray) -> np.ndarray:
        """(n_beta,) beta at the search's point."""
        # a point that is not finite stays so
        return solve_triangular(self.matrix, point[: self.parameters.n_beta], check_finite=False)

    def eta(self, point: np.ndarray) -> np.ndarray:
        """(n_theta,) the covariances' part of the search's point."""
        return point[self.parameters.n_beta : self.parameters.n_beta + self.parameters.n_theta]

    def engine(self, point: np.ndarray) -> np.ndarray:
        """The engine's psi at the search's point."""
        return self._jacobian @ point

    def engine_parameters(self) -> Parameters:
        """What the engine's psi holds."""
        return replace(self.parameters, n_theta=self.roots.n_theta)

    def jacobian(self) -> np.ndarray:
        """(engine's P, P): derivative of the engine's psi by the search's point."""
        return self._jacobian

    def user_jacobian(self, point: np.ndarray) -> np.ndarray:
        """(P, P): derivative of the user's psi by the search's point."""
        n = self.parameters.n_beta
        return block_diag(
            self._jacobian[:n, :n], self.frame.jacobian(self.eta(point)), np.eye(int(self.parameters.with_phi))
        )

    def square_roots(self, point: np.ndarray) -> tuple[np.ndarray, ...]:
        """Per joint term (k, k) F eta, as the engine has it."""
        return self.roots.joint(self.engine_parameters().split(self.engine(point))[1])

    def rotations(self, point: np.ndarray) -> tuple[np.ndarray, ...]:
        """Per joint term (k, k) orthogonal Q with F eta = lambda Q: the engine's u are Q'u of the user's template."""
        templates, out = self.frame.templates, [np.eye(k) for k in self.frame.templates.widths]
        lambdas = templates.lambdas(self.eta(point))
        for term, factor, eta in zip(templates.terms, self.frame.factors, lambdas, strict=True):
            out[term.joint][np.ix_(term.slots, term.slots)] = _rotation(factor @ eta)
        return tuple(out)

    def value(self, point: np.ndarray) -> float:
        """The deviance at the search's point."""
        return self._value(self.engine(point))

    def evaluate(self, point: np.ndarray) -> GlmmEvaluation:
        """Value, gradient and curvature at the search's point."""
        model, jacobian = self._evaluate(self.engine(point)), self._jacobian
        return GlmmEvaluation(model.value, jacobian.T @ model.gradient, jacobian.T @ model.hessian @ jacobian)


def _root(information: np.ndarray) -> np.ndarray:
    """(n, n) upper triangular R with R'R = information, columns on any scale."""
    scale = np.sqrt(np.maximum(np.diagonal(information), 1e-300))
    correlation = information / scale[:, None] / scale
    # the ridge only keeps the coordinates regular where columns are nearly dependent
    return np.linalg.qr(np.linalg.cholesky(correlation + 1e-12 * np.eye(len(scale))).T, mode="r") * scale


def _rotation(root: np.ndarray) -> np.ndarray:
    """(k, k) orthogonal Q with root = L Q, L lower triangular with a non-negative diagonal."""
    q, upper = np.linalg.qr(root.T)
    return q.T * np.where(np.diagonal(upper) < 0, -1.0, 1.0)[:, None]
