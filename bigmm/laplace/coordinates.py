"""Coordinates of the search of a generalized model, in which neither origin nor unit of a covariate matters.

Coefficients are searched for where X'WX is the identity. The covariance of a term is searched for in columns that are
orthonormal over the rows, as `objective.frame` does it for linear models: with Z F for Z the template is eta. The
engine has working columns, with Z = Z_working T and X = X_working B (`accumulate.shift`), and is given the matrix T F
eta. That matrix is not triangular. The likelihood depends on Lambda Lambda' alone, so the engine takes any square root
of it, and its gradient by every element of that root gives the gradient by eta.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import block_diag, solve_triangular

from bigmm.laplace.objective import EnginePoint, Parameters
from bigmm.objective.boundary import square_root
from bigmm.objective.evaluation import Evaluation
from bigmm.objective.frame import Frame, orthonormal
from bigmm.objective.templates import Template, Templates


@dataclass(frozen=True, slots=True)
class RowFrame:
    """frame: of the user's columns, orthonormal over the rows; roots: the engine's templates; factors: per user term
    (k of its joint term, k) T F, which makes the engine's root of eta."""

    frame: Frame
    roots: Templates
    factors: tuple[np.ndarray, ...]

    def matrices(self, eta: np.ndarray) -> tuple[np.ndarray, ...]:
        """Per joint term (k, k) T F eta."""
        templates = self.frame.templates
        out = [np.zeros((k, k)) for k in templates.widths]
        for term, factor, own in zip(templates.terms, self.factors, templates.lambdas(eta), strict=True):
            out[term.joint][:, term.slots] = factor @ own
        return tuple(out)


def row_frame(
    templates: Templates,
    covariates: Sequence[Sequence[int]],
    root: np.ndarray,
    bases: Sequence[np.ndarray] | None = None,
) -> RowFrame:
    """Columns of each term that are orthonormal over the rows.

    Parameters
    ----------
    templates : the model's templates.
    covariates : per joint term (k,) numbers of its working columns.
    root : (c, c), root'root = C'WC / sum W of all working columns C, the constant first.
    bases : per joint term (k, k) T with Z = Z_working T; None: the identity.
    """
    bases = [np.eye(len(own)) for own in covariates] if bases is None else bases
    made = [_term_frame(t, root[:, list(covariates[t.joint])], bases[t.joint]) for t in templates.terms]
    factors, inverses, engine = zip(*made, strict=True)
    return RowFrame(Frame(templates, factors, inverses), _roots(templates, bases), engine)


def _term_frame(term: Template, columns: np.ndarray, basis: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(F, F^-1, T F) of a user term. A term that T maps to itself is orthonormal in working columns, which lose
    nothing to the origin of a covariate."""
    slots = list(term.slots)
    own = basis[np.ix_(slots, slots)]
    if not _is_closed(term, basis):
        factor, inverse = orthonormal(columns @ basis[:, slots])
        return factor, inverse, basis[:, slots] @ factor
    working, inverse = orthonormal(columns[:, slots])
    engine = np.zeros((len(basis), term.width))
    engine[slots] = working
    return np.linalg.solve(own, working), inverse @ own, engine


def _is_closed(term: Template, basis: np.ndarray) -> bool:
    """Whether T makes a user term's columns of its own working columns alone."""
    others = np.setdiff1d(np.arange(len(basis)), term.slots)
    return not basis[others][:, list(term.slots)].any()


def _roots(templates: Templates, bases: Sequence[np.ndarray]) -> Templates:
    """Templates of T F eta: of each user term where T maps all terms of its factor to themselves, and otherwise one of
    all its covariates together."""
    terms, done, start = [], set(), 0
    for term in templates.terms:
        if all(_is_closed(other, bases[term.joint]) for other in templates.terms if other.joint == term.joint):
            terms.append(replace(term, start=start, square=True))
        elif term.joint not in done:
            done.add(term.joint)
            width = templates.widths[term.joint]
            names = tuple(map(str, range(width)))
            terms.append(Template(term.group, names, term.joint, tuple(range(width)), start, True))
        else:
            continue
        start += terms[-1].size
    return Templates(tuple(terms), templates.widths)


class Coordinates:
    """The search's point (R B beta, eta, log phi), the user's psi (beta, theta, log phi), and the engine's psi
    (B beta, elements of T F eta, log phi).

    Parameters
    ----------
    value, evaluate : the engine's functions of its psi.
    information : (n_beta, n_beta) X'WX = R'R of working columns.
    parameters : of the user's psi.
    rows : F and T F of each term.
    back : (n_beta, n_beta) B^-1, which gives coefficients of the user's columns; None: the identity.
    """

    def __init__(
        self,
        value: Callable,
        evaluate: Callable,
        information: np.ndarray,
        parameters: Parameters,
        rows: RowFrame,
        back: np.ndarray | None = None,
    ):
        self._value, self._evaluate = value, evaluate
        self.parameters, self.rows, self.frame, self.roots = parameters, rows, rows.frame, rows.roots
        self.matrix = _root(information)
        self.back = np.eye(len(self.matrix)) if back is None else back
        self._jacobian = block_diag(
            solve_triangular(self.matrix, np.eye(len(self.matrix))),
            self._elements(),
            np.eye(int(parameters.with_phi)),
        )

    def _elements(self) -> np.ndarray:
        """(elements of the roots, n_theta): the linear map from eta to T F eta."""
        places, units = self.roots.places(), np.eye(self.parameters.n_theta)
        columns = [[matrices[j][r, c] for j, r, c in places] for matrices in map(self.rows.matrices, units)]
        return np.array(columns).reshape(len(units), self.roots.n_theta).T

    def inward(self, beta: np.ndarray, theta: np.ndarray, log_phi: float) -> np.ndarray:
        """The search's point of coefficients of working columns (p,), the user's theta, and log phi."""
        n = self.parameters.n_beta
        return self.parameters.join(self.matrix @ beta[:n], self.frame.inward(theta), log_phi)

    def outward(self, point: np.ndarray) -> np.ndarray:
        """The user's psi at the search's point."""
        end = self.parameters.n_beta + self.parameters.n_theta
        beta = self.back @ self.coefficients(point)
        return np.concatenate([beta, self.frame.outward(self.eta(point)), point[end:]])

    def coefficients(self, point: np.ndarray) -> np.ndarray:
        """(n_beta,) coefficients of working columns at the search's point."""
        # a point that is not finite stays so
        return solve_triangular(self.matrix, point[: self.parameters.n_beta], check_finite=False)

    def eta(self, point: np.ndarray) -> np.ndarray:
        """(n_theta,) the covariances' part of the search's point."""
        return point[self.parameters.n_beta : self.parameters.n_beta + self.parameters.n_theta]

    def engine(self, point: np.ndarray) -> np.ndarray:
        """The engine's psi at the search's point."""
        return self._jacobian @ point

    def engine_point(self, point: np.ndarray) -> EnginePoint:
        """All that the engine knows of the search's point."""
        phi = self.parameters.split(point)[2]
        return EnginePoint(self.engine(point), self.coefficients(point), self.square_roots(point), phi)

    def engine_parameters(self) -> Parameters:
        """What the engine's psi holds."""
        return replace(self.parameters, n_theta=self.roots.n_theta)

    def jacobian(self) -> np.ndarray:
        """(engine's P, P): derivative of the engine's psi by the search's point."""
        return self._jacobian

    def user_jacobian(self, point: np.ndarray) -> np.ndarray:
        """(P, P): derivative of the user's psi by the search's point."""
        n = self.parameters.n_beta
        beta = self.back @ self._jacobian[:n, :n]
        return block_diag(beta, self.frame.jacobian(self.eta(point)), np.eye(int(self.parameters.with_phi)))

    def square_roots(self, point: np.ndarray) -> tuple[np.ndarray, ...]:
        """Per joint term (k, k) T F eta, as the engine has it."""
        return self.rows.matrices(self.eta(point))

    def rotations(self, point: np.ndarray) -> tuple[np.ndarray, ...]:
        """Per joint term (k, k) orthogonal Q with F eta = lambda Q: the engine's u are Q'u of the user's template, for
        T lambda u are the effects in working columns."""
        templates, out = self.frame.templates, [np.eye(k) for k in self.frame.templates.widths]
        lambdas = templates.lambdas(self.eta(point))
        for term, factor, eta in zip(templates.terms, self.frame.factors, lambdas, strict=True):
            out[term.joint][np.ix_(term.slots, term.slots)] = _rotation(factor @ eta)
        return tuple(out)

    def value(self, point: np.ndarray) -> float:
        """The deviance at the search's point."""
        return self._value(self.engine(point))

    def evaluate(self, point: np.ndarray) -> Evaluation:
        """Value, gradient and curvature at the search's point."""
        model, jacobian = self._evaluate(self.engine(point)), self._jacobian
        return Evaluation(model.value, jacobian.T @ model.gradient, jacobian.T @ model.hessian @ jacobian)


def _root(information: np.ndarray) -> np.ndarray:
    """(n, n) upper triangular R with R'R = information, columns on any scale."""
    scale = np.sqrt(np.maximum(np.diagonal(information), 1e-300))
    correlation = information / scale[:, None] / scale
    # the ridge only keeps the coordinates regular where columns are nearly dependent
    return np.linalg.qr(np.vstack([square_root(correlation), 1e-6 * np.eye(len(scale))]), mode="r") * scale


def _rotation(root: np.ndarray) -> np.ndarray:
    """(k, k) orthogonal Q with root = L Q, L lower triangular with a non-negative diagonal."""
    q, upper = np.linalg.qr(root.T)
    return q.T * np.where(np.diagonal(upper) < 0, -1.0, 1.0)[:, None]
