"""Coordinates of the search: the covariance of a term, in columns that are orthonormal within an average level.

A term with a full covariance is the same model in any basis of its columns: with Z F for Z its template is eta instead
of lambda, lambda lambda' = F eta eta' F'. A covariate that is far from zero makes lambda nearly singular, and one that
varies little makes its elements of very different size; eta knows neither. Columns that depend on others within every
level get none of the covariance, for the data say nothing about how to divide it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bigmm.objective.boundary import square_root
from bigmm.objective.criterion import Criterion, Evaluation
from bigmm.objective.templates import Template, Templates, lower_factor

NO_COLUMN = 1e-14
"""Share of a column's size below which what other columns leave of it is rounding."""


@dataclass(frozen=True)
class Frame:
    """factors: per user term (k, k) upper triangular F, a column of zeros where one is not identified; inverses: per
    user term (k, k) F^-1, with rows of zeros there."""

    templates: Templates
    factors: tuple[np.ndarray, ...]
    inverses: tuple[np.ndarray, ...]

    @cached_property
    def is_trivial(self) -> bool:
        """Are all terms scalar and in their own unit, so that theta itself is searched for?"""
        return all(own.shape == (1, 1) and own[0, 0] == 1.0 for own in self.factors)

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


def frame_of(templates: Templates, bases: Sequence[np.ndarray], squares: Sequence[np.ndarray]) -> Frame:
    """bases: per joint term (k, k) T with Z = Z_working T; squares: per joint term (k, k) Z_working'W Z_working of an
    average level."""
    factors, inverses = [], []
    for term in templates.terms:
        if term.width == 1:
            own = inverse = np.eye(1)
        else:
            columns = square_root(squares[term.joint]) @ bases[term.joint][:, term.slots]
            own, inverse = orthonormal(columns)
        factors.append(own)
        inverses.append(inverse)
    return Frame(templates, tuple(factors), tuple(inverses))


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
