"""What a pass can learn about an expression: moments, polynomial products, quantiles.

Each is a frozen value with ``update(table, where)`` and ``merge(other)`` (see `passes.ColumnSummary`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

Values = Callable[[pa.Table], np.ndarray]


@dataclass(frozen=True, slots=True)
class ColumnMoments:
    """Count, mean, sum of squares about the mean, and range of an expression (Chan, Golub and LeVeque 1983).

    The mean is ``mean + remainder``: one double would lose digits of the squares when the mean is large beside the
    spread.
    """

    columns: tuple[str, ...]
    values: Values
    n: int = 0
    mean: float = 0.0
    remainder: float = 0.0
    squares: float = 0.0
    low: float = np.inf
    high: float = -np.inf

    def update(self, table: pa.Table, where: str) -> ColumnMoments:
        """The summary with the rows of a table."""
        x = _finite(self.values(table))
        if not len(x):
            return self
        mean = float(x.mean())
        apart = x - mean
        # The rounding error of the mean, which the squares are corrected by: the corrected two-pass algorithm.
        remainder = float(apart.mean())
        squares = float((apart**2).sum()) - len(x) * remainder**2
        low, high = float(x.min()), float(x.max())
        return self.merge(replace(self, n=len(x), mean=mean, remainder=remainder, squares=squares, low=low, high=high))

    def merge(self, other: ColumnMoments) -> ColumnMoments:
        """The summary of the rows of both."""
        if self.n == 0 or other.n == 0:
            return other if self.n == 0 else self
        # Large parts are subtracted first: they cancel exactly or nearly so, and the small remainders are then added.
        n, gap = self.n + other.n, (other.mean - self.mean) + (other.remainder - self.remainder)
        step = self.remainder + gap * other.n / n
        mean = self.mean + step
        return replace(
            self,
            n=n,
            mean=mean,
            # What the rounding of `mean` lost, as in a compensated sum.
            remainder=step - (mean - self.mean),
            squares=self.squares + other.squares + gap * gap * self.n * other.n / n,
            low=min(self.low, other.low),
            high=max(self.high, other.high),
        )


def _finite(x: np.ndarray) -> np.ndarray:
    # The sum tells most chunks without a copy.
    return x if np.isfinite(x.sum()) else x[np.isfinite(x)]


@dataclass(frozen=True, slots=True)
class ChebyshevProducts:
    """(d + 1, d + 1) sums of products of Chebyshev polynomials of an expression scaled from [low, high] to [-1, 1]."""

    columns: tuple[str, ...]
    values: Values
    low: float
    high: float
    degree: int
    products: np.ndarray | None = None

    def update(self, table: pa.Table, where: str) -> ChebyshevProducts:
        """The summary with the rows of a table."""
        x = _finite(self.values(table))
        basis = np.polynomial.chebyshev.chebvander((2 * x - self.low - self.high) / (self.high - self.low), self.degree)
        return self.merge(replace(self, products=basis.T @ basis))

    def merge(self, other: ChebyshevProducts) -> ChebyshevProducts:
        """The summary of the rows of both."""
        if self.products is None or other.products is None:
            return other if self.products is None else self
        return replace(self, products=self.products + other.products)


_SKETCH = 1 << 20  # points kept: quantiles of fewer values are exact, of more within a few in a million


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Sorted values (m,) with weights (m,): exact up to 2^20 values, then neighbours are joined deterministically."""

    columns: tuple[str, ...]
    values: Values
    points: np.ndarray = field(default_factory=lambda: np.empty(0))
    weights: np.ndarray = field(default_factory=lambda: np.empty(0))
    low: float = np.inf
    high: float = -np.inf

    def update(self, table: pa.Table, where: str) -> Quantiles:
        """The summary with the rows of a table."""
        x, counts = np.unique(_finite(self.values(table)), return_counts=True)
        if not len(x):
            return self
        return self.merge(replace(self, points=x, weights=counts.astype(float), low=float(x[0]), high=float(x[-1])))

    def merge(self, other: Quantiles) -> Quantiles:
        """The summary of the rows of both."""
        points, where = np.unique(np.concatenate([self.points, other.points]), return_inverse=True)
        weights = np.bincount(where, np.concatenate([self.weights, other.weights]), minlength=len(points))
        # Half the limit remains, so that the next merges add points before the sketch is thinned again.
        if len(points) > _SKETCH:
            points, weights = _equal_masses(points, weights, _SKETCH // 2)
        return replace(
            self, points=points, weights=weights, low=min(self.low, other.low), high=max(self.high, other.high)
        )

    def quantiles(self, probabilities: np.ndarray) -> np.ndarray:
        """Quantiles as R's type 7 and NumPy's default, ties by weight."""
        # A point of weight w stands for w equal values of ranks first ... last; interpolation is between such runs.
        last = np.cumsum(self.weights) - 1.0
        first = last - self.weights + 1.0
        ranks = probabilities * last[-1]
        places = np.column_stack([first, last]).ravel()
        return np.interp(ranks, places, np.repeat(self.points, 2))


def _equal_masses(points: np.ndarray, weights: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Join neighbours that share one of `bins` equal shares of the total weight, each into its weighted mean."""
    # The middle of a point's own mass decides its bin. The result does not depend on the number of workers.
    middle = np.cumsum(weights) - weights / 2
    share = np.unique((middle * (bins / weights.sum())).astype(np.int64), return_inverse=True)[1]
    mass = np.bincount(share, weights)
    return np.bincount(share, points * weights) / mass, mass
