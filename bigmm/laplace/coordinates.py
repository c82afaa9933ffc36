"""Coordinates of the search of a generalized model, in which neither origin nor unit of a covariate matters.

Coefficients are searched for where X'WX is the identity. The covariance of a term is searched for in columns that are
orthonormal over the rows, as `objective.frame` does it for linear models: with Z F for Z the root is eta. The
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
from bigmm.objective.covariances import ModelCovariance, RootElements, TermCovariance
from bigmm.objective.evaluation import Evaluation
from bigmm.objective.frame import Frame, orthonormal


@dataclass(frozen=True, slots=True)
class RowFrame:
    """The search's columns and the engine's.

    Attributes
    ----------
    frame : of the user's columns, orthonormal over the rows.
    roots : elements of the joint terms' matrices that are the engine's parameters.
    factors : per user term (k of its joint term, k) T F, which makes the engine's root of that over the frame.
    """

    frame: Frame
    roots: RootElements
    factors: tuple[np.ndarray, ...]

    @property
    def is_linear(self) -> bool:
        """Whether the engine's parameters are linear in the search point."""
        return all(term.covariance.is_invariant for term in self.frame.covariances.terms)

    def matrices(self, point: np.ndarray) -> tuple[np.ndarray, ...]:
        """Per joint term (k, k) T F R; point (n_theta,): a search point of the covariances."""
        covariances = self.frame.covariances
        out = tuple(np.zeros((k, k)) for k in covariances.widths)
        lambdas = covariances.lambdas(self.frame.parameters(point))
        for term, factor, block in zip(covariances.terms, self.factors, lambdas, strict=True):
            out[term.joint][:, term.slots] = factor @ block
        return out

    def jacobian(self, point: np.ndarray) -> np.ndarray:
        """(n of the roots, n_theta) derivative of the engine's parameters by a search point."""
        frame, first = self.frame, self.frame.slopes(point)[0]
        parameters, columns = frame.parameters(point), []
        for term, factor in zip(frame.covariances.terms, self.factors, strict=True):
            for along in term.covariance.directions(parameters[term.part]):
                matrices = [np.zeros((k, k)) for k in frame.covariances.widths]
                matrices[term.joint][:, term.slots] = factor @ along
                columns.append(self.roots.values(matrices))
        return np.array(columns).reshape(len(first), self.roots.n_theta).T * first

    def curvature(self, point: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        """(n_theta, n_theta) what the curvature of the roots adds to that of the deviance, whose gradient by the roots'
        elements is given."""
        frame, droots = self.frame, self.roots.joint(gradient)
        out, parameters = np.zeros((len(point), len(point))), frame.parameters(point)
        first, second = frame.slopes(point)
        for term, factor in zip(frame.covariances.terms, self.factors, strict=True):
            if not term.covariance.is_invariant:
                part, block = term.part, parameters[term.part]
                dlam = factor.T @ droots[term.joint][:, term.slots]
                curved = term.covariance.second_order(block, np.zeros_like(dlam), dlam)
                # The search's coordinates are functions of one element each, so their second derivatives are a
                # diagonal.
                straight = np.diag(second[part] * term.covariance.pullback(block, dlam))
                out[part, part] = first[part, None] * curved * first[part] + straight
        return out


def row_frame(
    covariances: ModelCovariance,
    covariates: Sequence[Sequence[int]],
    root: np.ndarray,
    bases: Sequence[np.ndarray] | None = None,
) -> RowFrame:
    """Columns of each term that are orthonormal over the rows.

    Parameters
    ----------
    covariances : the model's covariance.
    covariates : per joint term (k,) numbers of its working columns.
    root : (c, c), root'root = C'WC / sum W of all working columns C, the constant first.
    bases : per joint term (k, k) T with Z = Z_working T; None: the identity.
    """
    bases = [np.eye(len(block)) for block in covariates] if bases is None else bases
    parts = [_term_frame(t, root[:, list(covariates[t.joint])], bases[t.joint]) for t in covariances.terms]
    factors, inverses, engine, sizes = zip(*parts, strict=True)
    return RowFrame(Frame(covariances, factors, inverses, sizes), _roots(covariances, bases), engine)


def _term_frame(
    term: TermCovariance, columns: np.ndarray, basis: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(F, F^-1, T F, sizes of the covariates) of a user term. A term that T maps to itself is orthonormal in working
    columns, which lose nothing to the origin of a covariate."""
    slots, sizes = list(term.slots), np.ones(term.width)
    if not term.covariance.is_invariant:
        size = np.linalg.norm(columns @ basis[:, slots], axis=0)
        # A column of zeros has no size to divide by.
        return np.eye(term.width), np.eye(term.width), basis[:, slots], np.where(size > 0.0, size, 1.0)
    block = basis[np.ix_(slots, slots)]
    # T takes in columns of other terms, so the user's columns are made orthonormal and not the working ones.
    if not _is_closed(term, basis):
        factor, inverse = orthonormal(columns @ basis[:, slots])
        return factor, inverse, basis[:, slots] @ factor, sizes
    working, inverse = orthonormal(columns[:, slots])
    engine = np.zeros((len(basis), term.width))
    engine[slots] = working
    return np.linalg.solve(block, working), inverse @ block, engine, sizes


def _is_closed(term: TermCovariance, basis: np.ndarray) -> bool:
    """Whether T makes a user term's columns of its own working columns alone."""
    others = np.setdiff1d(np.arange(len(basis)), term.slots)
    return not basis[others][:, list(term.slots)].any()


def _roots(covariances: ModelCovariance, bases: Sequence[np.ndarray]) -> RootElements:
    """Elements of T F R: of each user term where T maps all terms of its factor to themselves, and otherwise of the
    whole joint term."""
    elements: list[tuple[int, int, int]] = []
    done: set[int] = set()
    for term in covariances.terms:
        # Fewer elements are fewer derivatives in the kernels, so the whole joint term is the exception.
        if all(_is_closed(other, bases[term.joint]) for other in covariances.terms if other.joint == term.joint):
            elements += [(term.joint, row, column) for column in term.slots for row in term.slots]
        elif term.joint not in done:
            done.add(term.joint)
            width = range(covariances.widths[term.joint])
            elements += [(term.joint, row, column) for column in width for row in width]
    return RootElements(tuple(elements), covariances.widths)


class Coordinates:
    """The search's point (R B beta, point of the covariances, log phi), the user's psi (beta, theta, log phi), and the
    engine's psi (B beta, elements of T F R, log phi).

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
        self._jacobian: np.ndarray | None = None
        self._coefficients = solve_triangular(self.matrix, np.eye(len(self.matrix)))

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
        # A linear map is its own Jacobian; other structures need the square roots themselves.
        psi = self.jacobian(point) @ point
        if not self.rows.is_linear:
            psi[self._elements] = self.roots.values(self.square_roots(point))
        return psi

    @property
    def _elements(self) -> slice:
        """Where the roots' elements stand in the engine's psi."""
        return slice(self.parameters.n_beta, self.parameters.n_beta + self.roots.n_theta)

    def _dispersion(self, point: np.ndarray) -> np.ndarray:
        """(0 or 1,) log phi."""
        return point[self.parameters.n_beta + self.parameters.n_theta :]

    def engine_point(self, point: np.ndarray) -> EnginePoint:
        """All that the engine knows of the search's point."""
        phi = self.parameters.split(point)[2]
        return EnginePoint(self.engine(point), self.coefficients(point), self.square_roots(point), phi)

    def engine_parameters(self) -> Parameters:
        """The parts of the engine's psi."""
        return replace(self.parameters, n_theta=self.roots.n_theta)

    def jacobian(self, point: np.ndarray) -> np.ndarray:
        """(engine's P, P): derivative of the engine's psi by the search's point."""
        if self._jacobian is not None and self.rows.is_linear:
            return self._jacobian
        # A linear map has one Jacobian, which is kept after the first point.
        elements = self.rows.jacobian(self.eta(point))
        self._jacobian = block_diag(self._coefficients, elements, np.eye(len(self._dispersion(point))))
        return self._jacobian

    def user_jacobian(self, point: np.ndarray) -> np.ndarray:
        """(P, P): derivative of the user's psi by the search's point."""
        beta = self.back @ self._coefficients
        return block_diag(beta, self.frame.jacobian(self.eta(point)), np.eye(int(self.parameters.with_phi)))

    def square_roots(self, point: np.ndarray) -> tuple[np.ndarray, ...]:
        """Per joint term (k, k) T F eta, as the engine has it."""
        return self.rows.matrices(self.eta(point))

    def rotations(self, point: np.ndarray) -> tuple[np.ndarray, ...]:
        """Per joint term (k, k) orthogonal Q with F eta = lambda Q: the engine's u are Q'u of the user's lambda, for
        T lambda u are the effects in working columns."""
        covariances, out = self.frame.covariances, [np.eye(k) for k in self.frame.covariances.widths]
        lambdas = covariances.lambdas(self.frame.parameters(self.eta(point)))
        for term, factor, root in zip(covariances.terms, self.frame.factors, lambdas, strict=True):
            if term.covariance.is_invariant:
                out[term.joint][term.block] = _rotation(factor @ root)
        return tuple(out)

    def value(self, point: np.ndarray) -> float:
        """The deviance at the search's point."""
        return self._value(self.engine(point))

    def evaluate(self, point: np.ndarray) -> Evaluation:
        """Value, gradient and curvature at the search's point."""
        model, jacobian = self._evaluate(self.engine(point)), self.jacobian(point)
        n, end = self.parameters.n_beta, self.parameters.n_beta + self.parameters.n_theta
        # Chain rule of second order: a map that is not linear adds its own curvature times the gradient.
        hessian = jacobian.T @ model.hessian @ jacobian
        hessian[n:end, n:end] += self.rows.curvature(self.eta(point), model.gradient[self._elements])
        return Evaluation(model.value, jacobian.T @ model.gradient, hessian)


def _root(information: np.ndarray) -> np.ndarray:
    """(n, n) upper triangular R with R'R = information, columns on any scale."""
    # A unit diagonal first, so that the ridge below means the same for columns on any scale.
    scale = np.sqrt(np.maximum(np.diagonal(information), 1e-300))
    correlation = information / scale[:, None] / scale
    # the ridge only keeps the coordinates regular where columns are nearly dependent
    return np.linalg.qr(np.vstack([square_root(correlation), 1e-6 * np.eye(len(scale))]), mode="r") * scale


def _rotation(root: np.ndarray) -> np.ndarray:
    """(k, k) orthogonal Q with root = L Q, L lower triangular with a non-negative diagonal."""
    # root' = Q R is root = R'Q'. The signs make the factors unique.
    q, upper = np.linalg.qr(root.T)
    return q.T * np.where(np.diagonal(upper) < 0, -1.0, 1.0)[:, None]
