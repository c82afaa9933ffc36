"""Compound symmetry: a variance for each column, and one correlation of all pairs of columns."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from bigmm.covariance.protocol import Array
from bigmm.covariance.scaled import ScaledCorrelation


class CompoundSymmetry(ScaledCorrelation):
    """Theta (k + 1,) is the k scales and the correlation rho, with -1 / (k - 1) < rho < 1.

    Below the diagonal a column of the Cholesky factor of the correlation matrix is constant. With j = 0, 1, ... for the
    columns, the diagonal and the constant are

        d_j = sqrt((1 - rho) (1 + j rho) / (1 + (j - 1) rho)),
        c_j = rho sqrt((1 - rho) / ((1 + (j - 1) rho) (1 + j rho))).
    """

    name: ClassVar[str] = "cs"
    is_even: ClassVar[bool] = False
    parts_from_residual: ClassVar[bool] = True

    @property
    def selection(self) -> Array:
        """See `ScaledCorrelation.selection`."""
        return np.eye(self.width)

    @property
    def rho_bounds(self) -> tuple[float, float]:
        """See `ScaledCorrelation.rho_bounds`."""
        return -1.0 / (self.width - 1), 1.0

    def roots(self, rho: float) -> tuple[Array, Array, Array]:
        """See `ScaledCorrelation.roots`; by logarithmic derivatives."""
        j = np.arange(self.width)
        low, high = self.rho_bounds
        rho = float(np.clip(rho, low + 1e-13, high - 1e-13))  # the derivatives have no limit at the bounds
        # All factors are positive inside the bounds of rho, so their logarithms have derivatives.
        factors = np.array([np.full(self.width, 1.0 - rho), 1.0 + (j - 1.0) * rho, 1.0 + j * rho])
        rates = np.array([np.full(self.width, -1.0), j - 1.0, j + 0.0]) / factors
        d, g = (_power(factors, rates, np.array(powers)) for powers in ((0.5, -0.5, 0.5), (0.5, -0.5, -0.5)))
        # c = rho g by the product rule. c has no logarithm at rho = 0, g has.
        c = rho * g[0], g[0] + rho * g[1], 2.0 * g[1] + rho * g[2]
        below = np.tril(np.ones((self.width, self.width)), -1)
        first, second, third = (np.diag(on) + below * off for on, off in zip(d, c, strict=True))
        return first, second, third


def _power(factors: Array, rates: Array, powers: Array) -> tuple[Array, Array, Array]:
    """(k,) products of powers of linear factors, and their first and second derivatives; rates are those of the
    logarithms of the factors."""
    value = np.prod(factors ** powers[:, None], axis=0)
    rate, change = powers @ rates, -powers @ rates**2
    return value, value * rate, value * (rate**2 + change)
