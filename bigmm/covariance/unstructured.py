"""Any covariance matrix: theta is the lower triangle of lambda, as in lme4."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar

import numpy as np

from bigmm.covariance.protocol import Array, Covariance


class Unstructured(Covariance):
    """Theta (k (k + 1) / 2,) is the lower triangle of lambda, column by column."""

    name: ClassVar[str] = "us"
    is_invariant: ClassVar[bool] = True

    @cached_property
    def elements(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows (n,) and columns (n,) of theta in lambda."""
        # The upper triangle row by row, transposed: numpy has no lower triangle column by column.
        columns, rows = np.triu_indices(self.width)
        return rows, columns

    @property
    def columns(self) -> tuple[tuple[int, ...], ...]:
        """See `Covariance.columns`."""
        return tuple((int(row),) for row in self.elements[0])

    @property
    def n_parameters(self) -> int:
        """See `Covariance.n_parameters`."""
        return self.width * (self.width + 1) // 2

    @property
    def lower(self) -> Array:
        """0 for diagonal elements, -inf below the diagonal."""
        rows, columns = self.elements
        return np.where(rows == columns, 0.0, -np.inf)

    def names(self, group: str, columns: Sequence[str]) -> tuple[str, ...]:
        """lme4's names: "g.(covariate)" on the diagonal, "g.row.column" below it."""
        pairs = zip(*self.elements, strict=True)
        return tuple(".".join([group, *([columns[c]] if r == c else [columns[r], columns[c]])]) for r, c in pairs)

    def lam(self, theta: Array) -> Array:
        """See `Covariance.lam`."""
        out = np.zeros((self.width, self.width))
        out[self.elements] = theta
        return out

    def directions(self, theta: Array) -> Array:
        """See `Covariance.directions`."""
        rows, columns = self.elements
        out = np.zeros((self.n_parameters, self.width, self.width))
        out[np.arange(self.n_parameters), rows, columns] = 1.0
        return out

    def pullback(self, theta: Array, dlam: Array) -> Array:
        """See `Covariance.pullback`."""
        return np.asarray(dlam[self.elements])

    def second_order(self, theta: Array, dcov: Array, dlam: Array) -> Array:
        """See `Covariance.second_order`."""
        rows, columns = self.elements
        # lambda lambda' is a sum over columns, so elements of two columns do not meet; lambda itself is linear in
        # theta.
        return np.where(columns[:, None] == columns, 2.0 * dcov[np.ix_(rows, rows)], 0.0)

    def start(self, root: Array) -> Array:
        """The lower triangle of a root that is lower triangular."""
        return np.asarray(root[self.elements])

    def scaled(self, theta: Array, factor: float) -> Array:
        """See `Covariance.scaled`."""
        return factor * theta

    @property
    def search_lower(self) -> Array:
        """See `Covariance.search_lower`."""
        return self.lower

    def canonical(self, point: Array) -> Array:
        """The sign of a whole column of lambda does not change the covariance."""
        rows, columns = self.elements
        negative = point[rows == columns] < 0.0
        return np.where(negative[columns], -point, point)
