"""First-order autoregression over the columns: one variance, and the correlation rho^|i - j| of columns i and j."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from bigmm.covariance.protocol import Array
from bigmm.covariance.scaled import ScaledCorrelation


class Autoregression(ScaledCorrelation):
    """Theta (2,) is the scale of all columns and the correlation rho of neighbours, with -1 < rho < 1.

    The Cholesky factor of the correlation matrix has rho^i in its first column, and rho^(i - j) sqrt(1 - rho^2) in
    column j > 0.
    """

    name: ClassVar[str] = "ar1"
    parts_from_residual: ClassVar[bool] = True

    @property
    def selection(self) -> Array:
        """See `ScaledCorrelation.selection`."""
        return np.ones((self.width, 1))

    @property
    def rho_bounds(self) -> tuple[float, float]:
        """See `ScaledCorrelation.rho_bounds`."""
        return -1.0, 1.0

    def roots(self, rho: float) -> tuple[Array, Array, Array]:
        """See `ScaledCorrelation.roots`."""
        rho = float(np.clip(rho, -1.0 + 1e-13, 1.0 - 1e-13))  # the derivatives have no limit at the bounds
        # Clipped at 0: a negative exponent is infinite at rho = 0, and infinity times the zeros of tril is NaN.
        lag = np.maximum(np.subtract.outer(np.arange(self.width), np.arange(self.width)), 0)
        power = np.tril(rho**lag)
        slope = np.tril(lag * rho ** np.maximum(lag - 1, 0))
        curvature = np.tril(lag * (lag - 1) * rho ** np.maximum(lag - 2, 0))
        size = np.sqrt(1.0 - rho * rho)
        sizes = np.array(
            [np.append(1.0, np.full(self.width - 1, factor)) for factor in (size, -rho / size, -(size**-3))]
        )
        # The first column is rho^i without the factor sqrt(1 - rho^2).
        sizes[1:, 0] = 0.0
        first = power * sizes[0]
        second = slope * sizes[0] + power * sizes[1]
        return first, second, curvature * sizes[0] + 2.0 * slope * sizes[1] + power * sizes[2]
