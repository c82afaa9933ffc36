"""The protocol of a covariance structure: how theta makes the relative covariance lambda lambda' of a random term.

A term with k columns has the covariance sigma^2 lambda lambda', where sigma is 1 in a generalized model. A structure
has n parameters theta. Engines return derivatives with respect to the (k, k) elements of lambda, and `pullback` and
`second_order` carry them to theta. See docs/extending/covariance.md.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

NEAR = 1e-4
"""A scale or a correlation is at its bound within this distance (lme4's tolerance of isSingular)."""


@dataclass(frozen=True)
class Covariance(ABC):
    """A structure over the columns of one term.

    Attributes
    ----------
    width : int
        The number k of columns.
    name : str
        The name in formulas.
    is_invariant : bool
        Whether the structure is the same in any basis of the columns. The search then uses columns that are orthonormal
        within an average level, and lambda of those columns as its point.
    is_correlated : bool
        Whether effects of different columns may be correlated.
    parts_from_residual : bool
        Whether the parameters can be told apart from the residual variance when each random effect has one row.
    """

    width: int
    name: ClassVar[str]
    is_invariant: ClassVar[bool] = False
    is_correlated: ClassVar[bool] = True
    parts_from_residual: ClassVar[bool] = False

    @property
    @abstractmethod
    def columns(self) -> tuple[tuple[int, ...], ...]:
        """Columns of the term whose effects each parameter scales or relates, one tuple for each parameter."""

    @property
    @abstractmethod
    def lower(self) -> Array:
        """(n,) lower bounds of theta."""

    @property
    def upper(self) -> Array:
        """(n,) upper bounds of theta."""
        return np.full(self.n_parameters, np.inf)

    @property
    def n_parameters(self) -> int:
        """The number n of parameters."""
        return len(self.columns)

    @abstractmethod
    def names(self, group: str, columns: Sequence[str]) -> tuple[str, ...]:
        """(n,) names of theta for a term by `group` with named columns."""

    @abstractmethod
    def lam(self, theta: Array) -> Array:
        """(k, k) lower triangular relative factor."""

    @abstractmethod
    def directions(self, theta: Array) -> Array:
        """(n, k, k) derivatives of lambda with respect to each parameter."""

    def pullback(self, theta: Array, dlam: Array) -> Array:
        """(n,) gradient with respect to theta, from the gradient dlam (k, k) with respect to the elements of lambda."""
        return np.asarray(np.einsum("nij,ij->n", self.directions(theta), dlam))

    @abstractmethod
    def second_order(self, theta: Array, dcov: Array, dlam: Array) -> Array:
        """Return the curvature in theta that a gradient in the covariance alone makes.

        Parameters
        ----------
        theta : (n,)
        dcov : (k, k) gradient G with respect to lambda lambda'.
        dlam : (k, k) gradient with respect to the elements of lambda.

        Returns
        -------
        (n, n) 2 tr(D_a' G D_b) + <dlam, d^2 lambda / d theta_a d theta_b>, D_a as in `directions`.
        """

    @abstractmethod
    def start(self, root: Array) -> Array:
        """(n,) theta whose standard deviations are those of a root (k, k) of a relative covariance."""

    @abstractmethod
    def scaled(self, theta: Array, factor: float) -> Array:
        """(n,) theta of factor times lambda."""

    # The search's own coordinates: a point with elements that may have any value.

    @property
    @abstractmethod
    def search_lower(self) -> Array:
        """(n,) 0 for elements of a search point in whose sign the model is even, -inf for the others."""

    @abstractmethod
    def canonical(self, point: Array) -> Array:
        """(n,) the search point of the same model whose elements with a bound of 0 are not negative."""

    def to_search(self, theta: Array, units: Array) -> Array:
        """(n,) search point of theta; units (k,) are the sizes of the columns."""
        return theta

    def from_search(self, point: Array, units: Array) -> Array:
        """(n,) theta of a search point; units (k,) are the sizes of the columns."""
        return point

    def slopes(self, point: Array, units: Array) -> tuple[Array, Array]:
        """(n,) first and (n,) second derivatives of each element of `from_search` by its own element of the point."""
        return np.ones(self.n_parameters), np.zeros(self.n_parameters)

    def at_boundary(self, theta: Array, tolerance: float = NEAR) -> NDArray[np.bool_]:
        """(n,) parameters within a tolerance of their bounds, for columns of size 1."""
        # The tolerance is absolute, as in lme4: parameters are for columns of size 1.
        at_lower = np.isfinite(self.lower) & (theta <= self.lower + tolerance)
        return np.asarray(at_lower | (np.isfinite(self.upper) & (theta >= self.upper - tolerance)))

    def correlation(self, theta: Array) -> float | None:
        """The one correlation parameter of the structure; None where it has none or several."""
        return None

    @property
    def has_one_variance(self) -> bool:
        """Whether all columns have the same variance, which one parameter says."""
        return self.width == 1
