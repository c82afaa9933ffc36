"""Independent effects: a variance for each column, and no correlation."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from bigmm.covariance.protocol import Array
from bigmm.covariance.scaled import ScaledCorrelation


class Diagonal(ScaledCorrelation):
    """Theta (k,) is the diagonal of lambda."""

    name: ClassVar[str] = "diag"
    is_correlated: ClassVar[bool] = False

    @property
    def selection(self) -> Array:
        """See `ScaledCorrelation.selection`."""
        return np.eye(self.width)

    def roots(self, rho: float) -> tuple[Array, Array, Array]:
        """See `ScaledCorrelation.roots`."""
        nothing = np.zeros((self.width, self.width))
        # One array stands for both derivatives. Callers read it only.
        return np.eye(self.width), nothing, nothing
