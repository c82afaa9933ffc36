"""Coordinates of the search of a linear model.

A term without a structure is the same model in any basis of its columns. With Z F for Z its root is eta instead of
lambda, lambda lambda' = F eta eta' F'. A covariate that is far from zero makes lambda nearly singular, and one that
varies little makes the elements of lambda differ much in size. The columns of Z F are orthonormal within an average
level, so eta depends on neither. Columns that depend on others within every level get no covariance, because the data
do not say how to divide it.

A scalar term has no basis to choose, but a unit: where its covariate is very large or small (bytes, populations, square
metres of a leaf), the search is for its scale in units of the covariate's root mean square. A term with another
structure has the coordinates of that structure (`Covariance.to_search`), in such units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bigmm.covariance.protocol import NEAR
from bigmm.objective.boundary import square_root
from bigmm.objective.covariances import ModelCovariance, TermCovariance, lower_factor
from bigmm.objective.criterion import Blocks, Criterion
from bigmm.objective.evaluation import Evaluation
from bigmm.objective.twofold import exact_gradient

NO_COLUMN = 1e-14
"""Share of a column's size below which what other columns leave of it is rounding."""


ORDINARY = 128.0
"""A covariate with a root mean square up to this, and down to its inverse, is of ordinary size."""


@dataclass(frozen=True)
class Frame:
    """Search points of theta.

    An invariant structure has the elements of eta for its point, any other one its own search coordinates.

    Attributes
    ----------
    covariances : the model's covariance.
    factors : per user term (k, k) upper triangular F, with a column of zeros where one is not identified. The identity
        for a structure that is not invariant.
    inverses : per user term (k, k) F^-1, with rows of zeros there.
    units : per user term (k,) sizes of its covariates, 1 for ordinary ones.
    """

    covariances: ModelCovariance
    factors: tuple[np.ndarray, ...]
    inverses: tuple[np.ndarray, ...]
    units: tuple[np.ndarray, ...] = ()

    @cached_property
    def is_trivial(self) -> bool:
        """Whether theta itself is the point: all terms are scalar, with covariates of ordinary size."""
        return all(len(factor) < 2 and np.all(factor == 1.0) for factor in self.factors)

    @cached_property
    def sizes(self) -> tuple[np.ndarray, ...]:
        """Per user term (k,) sizes of its covariates."""
        return self.units or tuple(np.ones(len(factor)) for factor in self.factors)

    @property
    def identity(self) -> np.ndarray:
        """(n_theta,) theta of lambdas that are the identity, in units of the covariates."""
        pairs = zip(self.covariances.terms, self.sizes, strict=True)
        # A covariate that is twice as large has effects that are half as large.
        starts = [term.covariance.start(np.diag(1.0 / size)) for term, size in pairs]
        return np.concatenate(starts) if starts else np.zeros(0)

    @property
    def unidentified(self) -> tuple[tuple[TermCovariance, str], ...]:
        """(term, covariate) of every column that depends on the ones before it within each level."""
        return tuple(
            (term, name)
            for term, factor in zip(self.covariances.terms, self.factors, strict=True)
            for name, column in zip(term.names, factor.T, strict=True)
            if not column.any()
        )

    def outward(self, point: np.ndarray) -> np.ndarray:
        """(n_theta,) theta of a search point."""
        theta = self._in_frames(self.factors, point)
        for term, size in self._others():
            theta[term.part] = term.covariance.from_search(point[term.part], size)
        return theta

    def inward(self, theta: np.ndarray) -> np.ndarray:
        """(n_theta,) search point of theta."""
        point = self._in_frames(self.inverses, theta)
        for term, size in self._others():
            point[term.part] = term.covariance.to_search(theta[term.part], size)
        return point

    def parameters(self, point: np.ndarray) -> np.ndarray:
        """(n_theta,) eta of invariant terms, theta of the others: what the structures make R of, with lambda = F R but
        for a rotation."""
        out = np.array(point, float)
        for term, size in self._others():
            out[term.part] = term.covariance.from_search(out[term.part], size)
        return out

    def slopes(self, point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n_theta,) first and second derivatives of `parameters`, which has no others."""
        first, second = np.ones(len(point)), np.zeros(len(point))
        for term, size in self._others():
            first[term.part], second[term.part] = term.covariance.slopes(point[term.part], size)
        return first, second

    def unit_free(self, point: np.ndarray) -> np.ndarray:
        """(n_theta,) `parameters` for covariates of size 1."""
        out = np.array(point, float)
        for term, size in self._others():
            out[term.part] = term.covariance.from_search(out[term.part], np.ones(len(size)))
        return out

    def at_boundary(self, point: np.ndarray, tolerance: float = NEAR) -> np.ndarray:
        """(n_theta,) bool, parameters within a tolerance of their bounds, in units of the covariates."""
        parameters, out = self.unit_free(self.covariances.rectified(point)), np.zeros(len(point), bool)
        for term in self.covariances.terms:
            out[term.part] = term.covariance.at_boundary(parameters[term.part], tolerance)
        return out

    def start(self, deviation: float) -> np.ndarray:
        """(n_theta,) search point at which each column has this deviation, in units of the covariates."""
        starts = []
        for term in self.covariances.terms:
            structure, ones = term.covariance, np.ones(term.width)
            starts.append(structure.to_search(structure.start(deviation * np.eye(term.width)), ones))
        return np.concatenate(starts) if starts else np.zeros(0)

    def deviations(self, point: np.ndarray) -> np.ndarray:
        """(n_theta,) deviation of the columns of a scale, in units of the covariates; 0 for other parameters."""
        lambdas = self.covariances.lambdas(self.unit_free(point))
        out = np.zeros(len(point))
        for term, lam in zip(self.covariances.terms, lambdas, strict=True):
            rows, structure = np.linalg.norm(lam, axis=1), term.covariance
            scales = [rows[columns[0]] for columns in structure.columns]
            out[term.part] = np.where(structure.search_lower == 0.0, scales, 0.0)
        return out

    def _others(self) -> list[tuple[TermCovariance, np.ndarray]]:
        """Terms whose structure is not invariant, and the sizes of their covariates."""
        pairs = zip(self.covariances.terms, self.sizes, strict=True)
        return [(term, size) for term, size in pairs if not term.covariance.is_invariant]

    def _in_frames(self, matrices: Sequence[np.ndarray], vector: np.ndarray) -> np.ndarray:
        """(n,) the vector with lambda of invariant terms multiplied by the matrices, and made triangular again."""
        if self.is_trivial:
            return np.asarray(vector, float)
        out = np.array(vector, float)
        for term, matrix in zip(self.covariances.terms, matrices, strict=True):
            structure = term.covariance
            if structure.is_invariant:
                lam = structure.lam(out[term.part])
                # F is upper and lambda lower triangular: a rotation makes their product triangular again. It makes
                # diagonals positive too, but a scalar keeps its sign, because a search may step across zero.
                root = matrix @ lam if term.width == 1 else lower_factor(matrix @ lam)
                out[term.part] = structure.start(root)
        return out

    @cached_property
    def joint(self) -> tuple[np.ndarray, ...]:
        """Per joint term the (k, k) matrix F of its members side by side."""
        return self.covariances.side_by_side(self.factors)

    def jacobian(self, point: np.ndarray) -> np.ndarray:
        """(n_theta, n_theta) d theta / d point, by differences of small factorizations."""
        n = len(point)
        if self.is_trivial:
            return np.eye(n)
        # Central differences lose least at the cube root of the rounding unit, 6e-6 of the size.
        steps = 1e-6 * np.maximum(np.abs(point), 1e-3 * np.abs(point).max(initial=1e-3))
        # scales have no other side at zero
        back = np.where((self.covariances.search_lower == 0) & (point <= steps), 0.0, steps)
        columns = [
            (self.outward(point + step * unit) - self.outward(point - less * unit)) / (step + less)
            for step, less, unit in zip(steps, back, np.eye(n), strict=True)
        ]
        return np.array(columns).T


def frame_of(
    covariances: ModelCovariance,
    bases: Sequence[np.ndarray],
    squares: Sequence[np.ndarray],
    rows: Sequence[float] | None = None,
) -> Frame:
    """The coordinates of a search.

    Parameters
    ----------
    bases : per joint term (k, k) T with Z = Z_working T.
    squares : per joint term (k, k) Z_working'W Z_working of an average level.
    rows : per joint term the rows of an average level; None takes all covariates to be of ordinary size.
    """
    factors, inverses, units = [], [], []
    for term in covariances.terms:
        columns = square_root(squares[term.joint]) @ bases[term.joint][:, term.slots]
        size = np.ones(term.width) if rows is None else _units(columns, rows[term.joint])
        if not term.covariance.is_invariant:
            factor = inverse = np.eye(term.width)
        elif term.width == 1:
            factor, inverse = np.diag(1.0 / size), np.diag(size)
        else:
            factor, inverse = orthonormal(columns)
        factors.append(factor)
        inverses.append(inverse)
        units.append(size)
    return Frame(covariances, tuple(factors), tuple(inverses), tuple(units))


def _units(columns: np.ndarray, rows: float) -> np.ndarray:
    """(k,) powers of two near the root mean squares of columns (m, k) that stand for so many rows; 1 for ordinary ones,
    whose search then has the same bits as ever."""
    # Multiplying by a power of two is exact, so the unit itself adds no rounding.
    size = np.linalg.norm(columns, axis=0) / np.sqrt(rows)
    unusual = (size > 0.0) & np.isfinite(size) & ((size > ORDINARY) | (size * ORDINARY < 1.0))
    return np.where(unusual, np.exp2(np.round(np.log2(np.where(unusual, size, 1.0)))), 1.0)


def orthonormal(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(F, R): columns F has orthonormal columns, and zeros for a column that depends on earlier ones; columns = Q R."""
    # columns' = L Q', so R = L' has the zeros of dependent columns on its diagonal.
    inverse = lower_factor(columns.T, NO_COLUMN).T
    independent = np.flatnonzero(np.diagonal(inverse))
    factor = np.zeros_like(inverse)
    factor[np.ix_(independent, independent)] = np.linalg.inv(inverse[np.ix_(independent, independent)])
    return factor, inverse


@dataclass(frozen=True, slots=True)
class Framed:
    """A criterion as a function of a search point."""

    criterion: Criterion
    frame: Frame

    def value(self, point: np.ndarray) -> float:
        """See `Criterion.value`."""
        return self.criterion.value(self.frame.outward(point))

    def evaluate(self, point: np.ndarray) -> Evaluation:
        """See `Criterion.evaluate`; gradient and curvature with respect to the point."""
        if self.frame.is_trivial:
            return self.criterion.evaluate(point)
        frame, parameters = self.frame, self.frame.parameters(point)
        model = self.criterion.evaluate_along(frame.outward(point), frame.joint, parameters)
        first, second = frame.slopes(point)
        # Each element of the point makes its own parameter, so the chain rule's second-order term is diagonal.
        hessian = first[:, None] * model.hessian * first + np.diag(second * model.gradient)
        return Evaluation(model.value, first * model.gradient, hessian)

    def gradient_of(
        self, point: np.ndarray, projected: Blocks, outer: Sequence[np.ndarray], sigma2: float
    ) -> np.ndarray:
        """See `Criterion.gradient_of`; with respect to the point."""
        gradient = self.criterion.gradient_of(self.frame.joint, self.frame.parameters(point), projected, outer, sigma2)
        return np.asarray(self.frame.slopes(point)[0] * gradient)

    def exact_gradient(self, point: np.ndarray) -> np.ndarray:
        """See `twofold.exact_gradient`; with respect to the point."""
        frame, parameters = self.frame, self.frame.parameters(point)
        gradient = exact_gradient(self.criterion, frame.outward(point), frame.joint, parameters)
        return np.asarray(frame.slopes(point)[0] * gradient)
