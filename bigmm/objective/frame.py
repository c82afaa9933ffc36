"""Coordinates of the search: the covariance of a term, in columns that are orthonormal within an average level.

A term with a full covariance is the same model in any basis of its columns: with Z F for Z its template is eta instead
of lambda, lambda lambda' = F eta eta' F'. A covariate that is far from zero makes lambda nearly singular, and one that
varies little makes its elements of very different size; eta knows neither. Columns that depend on others within every
level get none of the covariance, for the data say nothing about how to divide it.

A scalar term has no basis to choose, but a unit: where its covariate is very large or small (bytes, populations, square
metres of a leaf), the search is for its scale in units of the covariate's root mean square.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bigmm.objective.boundary import square_root
from bigmm.objective.criterion import Criterion
from bigmm.objective.evaluation import Evaluation
from bigmm.objective.templates import Template, Templates, lower_factor
from bigmm.objective.twofold import exact_gradient

NO_COLUMN = 1e-14
"""Share of a column's size below which what other columns leave of it is rounding."""


ORDINARY = 128.0
"""A covariate with a root mean square up to this, and down to its inverse, is of ordinary size."""


@dataclass(frozen=True)
class Frame:
    """factors: per user term (k, k) upper triangular F, a column of zeros where one is not identified; inverses: per
    user term (k, k) F^-1, with rows of zeros there; units: per user term (k,) size of its covariates, 1 for one of
    ordinary size."""

    templates: Templates
    factors: tuple[np.ndarray, ...]
    inverses: tuple[np.ndarray, ...]
    units: tuple[np.ndarray, ...] = ()

    @cached_property
    def is_trivial(self) -> bool:
        """Are all terms scalar and of ordinary size, so that theta itself is searched for?"""
        return all(len(factor) < 2 and np.all(factor == 1.0) for factor in self.factors)

    @property
    def identity(self) -> np.ndarray:
        """(n_theta,) templates that are the identity, in units of the covariates."""
        units = self.units or tuple(np.ones(len(own)) for own in self.factors)
        entries = [
            1.0 / own[row] if row == column else 0.0
            for term, own in zip(self.templates.terms, units, strict=True)
            for row, column in term.entries()
        ]
        return np.array(entries)

    @property
    def unidentified(self) -> tuple[tuple[Template, str], ...]:
        """(term, covariate) of every column that depends on the ones before it within each level."""
        return tuple(
            (term, name)
            for term, own in zip(self.templates.terms, self.factors, strict=True)
            for name, column in zip(term.names, own.T, strict=True)
            if not column.any()
        )

    def outward(self, eta: np.ndarray) -> np.ndarray:
        """(n_theta,) theta of eta."""
        return self._moved(self.factors, eta)

    def inward(self, theta: np.ndarray) -> np.ndarray:
        """(n_theta,) eta of theta."""
        return self._moved(self.inverses, theta)

    def _moved(self, by: Sequence[np.ndarray], vector: np.ndarray) -> np.ndarray:
        if self.is_trivial:
            return np.asarray(vector, float)
        out = np.array(vector, float)
        lams = self.templates.lambdas(out)
        for term, own, lam in zip(self.templates.terms, by, lams, strict=True):
            if term.width == 1:
                out[term.start] = own[0, 0] * lam[0, 0]
            else:
                template = lower_factor(own @ lam)
                out[term.start : term.start + term.size] = [template[r, c] for r, c in term.entries()]
        return out

    @cached_property
    def joint(self) -> tuple[np.ndarray, ...]:
        """Per joint term the (k, k) matrix F of its members side by side."""
        out = [np.zeros((k, k)) for k in self.templates.widths]
        for term, own in zip(self.templates.terms, self.factors, strict=True):
            out[term.joint][np.ix_(term.slots, term.slots)] = own
        return tuple(out)

    def jacobian(self, eta: np.ndarray) -> np.ndarray:
        """(n_theta, n_theta) d theta / d eta, by differences of small factorizations."""
        n = len(eta)
        if self.is_trivial:
            return np.eye(n)
        steps = 1e-6 * np.maximum(np.abs(eta), 1e-3 * np.abs(eta).max(initial=1e-3))
        back = np.where((self.templates.lower == 0) & (eta <= steps), 0.0, steps)  # scales have no other side at zero
        columns = [
            (self.outward(eta + step * unit) - self.outward(eta - less * unit)) / (step + less)
            for step, less, unit in zip(steps, back, np.eye(n), strict=True)
        ]
        return np.array(columns).T


def frame_of(
    templates: Templates,
    bases: Sequence[np.ndarray],
    squares: Sequence[np.ndarray],
    rows: Sequence[float] | None = None,
) -> Frame:
    """bases: per joint term (k, k) T with Z = Z_working T; squares: per joint term (k, k) Z_working'W Z_working of an
    average level; rows: per joint term the rows of one, None: all covariates are of ordinary size."""
    factors, inverses, units = [], [], []
    for term in templates.terms:
        columns = square_root(squares[term.joint]) @ bases[term.joint][:, term.slots]
        size = np.ones(term.width) if rows is None else _units(columns, rows[term.joint])
        if term.width == 1:
            factor, inverse = np.diag(1.0 / size), np.diag(size)
        else:
            factor, inverse = orthonormal(columns)
        factors.append(factor)
        inverses.append(inverse)
        units.append(size)
    return Frame(templates, tuple(factors), tuple(inverses), tuple(units))


def _units(columns: np.ndarray, rows: float) -> np.ndarray:
    """(k,) powers of two near the root mean squares of columns (m, k) that stand for so many rows; 1 for ordinary ones,
    whose search then has the same bits as ever."""
    size = np.linalg.norm(columns, axis=0) / np.sqrt(rows)
    unusual = (size > 0.0) & np.isfinite(size) & ((size > ORDINARY) | (size * ORDINARY < 1.0))
    return np.where(unusual, np.exp2(np.round(np.log2(np.where(unusual, size, 1.0)))), 1.0)


def orthonormal(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(F, R): columns F has orthonormal columns, and zeros for a column that depends on earlier ones; columns = Q R."""
    inverse = lower_factor(columns.T, NO_COLUMN).T
    kept = np.flatnonzero(np.diagonal(inverse))
    factor = np.zeros_like(inverse)
    factor[np.ix_(kept, kept)] = np.linalg.inv(inverse[np.ix_(kept, kept)])
    return factor, inverse


@dataclass(frozen=True, slots=True)
class Framed:
    """A criterion as a function of eta."""

    criterion: Criterion
    frame: Frame

    def value(self, eta: np.ndarray) -> float:
        """See `Criterion.value`."""
        return self.criterion.value(self.frame.outward(eta))

    def evaluate(self, eta: np.ndarray) -> Evaluation:
        """See `Criterion.evaluate`; gradient and curvature with respect to eta."""
        if self.frame.is_trivial:
            return self.criterion.evaluate(eta)
        along = self.frame.joint, self.criterion.templates.joint(eta)
        return self.criterion.evaluate_along(self.frame.outward(eta), *along)

    def exact_gradient(self, eta: np.ndarray) -> np.ndarray:
        """See `twofold.exact_gradient`; with respect to eta."""
        theta, roots = self.frame.outward(eta), self.criterion.templates.joint(eta)
        return exact_gradient(self.criterion, theta, self.frame.joint, roots)
