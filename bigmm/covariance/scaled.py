"""Structures of the form lambda = diag(s) C(rho): scales s of the columns, and the root C of a correlation matrix."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from bigmm.covariance.protocol import Array, Covariance

LARGEST = 14.0
"""Search points of a correlation beyond this size give the same correlation: 1e-12 from its bound."""


class ScaledCorrelation(Covariance):
    """Theta is m scales, relative standard deviations, and then a correlation rho if the structure has one.

    A subclass says which columns a scale belongs to, and what C and its derivatives by rho are. The search has
    tanh coordinates for rho. A scale is searched for itself where the model does not depend on its sign. Where it does,
    because other columns keep their sign, the point is the square root of the scale, in which every model is even.
    """

    is_even: ClassVar[bool] = True

    @property
    @abstractmethod
    def selection(self) -> Array:
        """(k, m) of zeros and ones: the scale of each column."""

    @property
    def rho_bounds(self) -> tuple[float, float] | None:
        """Open interval of the correlation; None for a structure without one."""
        return None

    @abstractmethod
    def roots(self, rho: float) -> tuple[Array, Array, Array]:
        """C (k, k), lower triangular, and its first and second derivatives by rho."""

    @property
    def n_scales(self) -> int:
        """The number m of scales."""
        return int(self.selection.shape[1])

    @property
    def columns(self) -> tuple[tuple[int, ...], ...]:
        """See `Covariance.columns`."""
        scales = tuple(tuple(np.flatnonzero(column).tolist()) for column in self.selection.T)
        return scales if self.rho_bounds is None else (*scales, tuple(range(self.width)))

    @property
    def lower(self) -> Array:
        """See `Covariance.lower`."""
        scales = np.zeros(self.n_scales)
        return scales if self.rho_bounds is None else np.append(scales, self.rho_bounds[0])

    @property
    def upper(self) -> Array:
        """See `Covariance.upper`."""
        scales = np.full(self.n_scales, np.inf)
        return scales if self.rho_bounds is None else np.append(scales, self.rho_bounds[1])

    def names(self, group: str, columns: Sequence[str]) -> tuple[str, ...]:
        """ "g.(covariate)" for the scale of one column, "g.sd" for that of all, "g.rho" for the correlation."""
        scales = (f"{group}.sd",) if self.has_one_variance else tuple(f"{group}.{name}" for name in columns)
        return scales if self.rho_bounds is None else (*scales, f"{group}.rho")

    def _parts(self, theta: Array) -> tuple[Array, tuple[Array, Array, Array]]:
        """Scales of the columns (k, 1), and `roots`."""
        rho = 0.0 if self.rho_bounds is None else float(theta[-1])
        return (self.selection @ theta[: self.n_scales])[:, None], self.roots(rho)

    def lam(self, theta: Array) -> Array:
        """See `Covariance.lam`."""
        scales, (root, _, _) = self._parts(theta)
        return scales * root

    def directions(self, theta: Array) -> Array:
        """See `Covariance.directions`."""
        scales, (root, slope, _) = self._parts(theta)
        out = self.selection.T[:, :, None] * root
        return out if self.rho_bounds is None else np.concatenate([out, (scales * slope)[None]])

    def second_order(self, theta: Array, dcov: Array, dlam: Array) -> Array:
        """See `Covariance.second_order`."""
        directions, m = self.directions(theta), self.n_scales
        flat = directions.reshape(len(directions), -1)
        out = 2.0 * flat @ (dcov @ directions).reshape(len(directions), -1).T
        if self.rho_bounds is not None:
            scales, (_, slope, curvature) = self._parts(theta)
            # lambda is linear in the scales, so only derivatives that involve rho are of second order.
            mixed = self.selection.T @ (slope * dlam).sum(axis=1)
            out[:m, -1] += mixed
            out[-1, :m] += mixed
            out[-1, -1] += float((scales * curvature * dlam).sum())
        return np.asarray(out)

    def start(self, root: Array) -> Array:
        """Root mean squares of the standard deviations of the columns, with a middle correlation.

        Without a correlation the residual and the effects could not be told apart where each effect has one row.
        """
        variances = np.square(root).sum(axis=1)
        scales = np.sqrt(self.selection.T @ variances / self.selection.sum(axis=0))
        return scales if self.rho_bounds is None else np.append(scales, 0.5)

    def scaled(self, theta: Array, factor: float) -> Array:
        """See `Covariance.scaled`."""
        return np.append(factor * theta[: self.n_scales], theta[self.n_scales :])

    @property
    def search_lower(self) -> Array:
        """See `Covariance.search_lower`."""
        scales = np.zeros(self.n_scales)
        return scales if self.rho_bounds is None else np.append(scales, -np.inf)

    def canonical(self, point: Array) -> Array:
        """See `Covariance.canonical`."""
        return np.append(np.abs(point[: self.n_scales]), point[self.n_scales :])

    def _units(self, units: Array) -> Array:
        """(m,) sizes of the columns of each scale."""
        # The geometric mean: columns that share a scale share one unit.
        return np.asarray(np.exp(self.selection.T @ np.log(units) / self.selection.sum(axis=0)))

    def to_search(self, theta: Array, units: Array) -> Array:
        """See `Covariance.to_search`."""
        scales = theta[: self.n_scales] * self._units(units)
        point = scales if self.is_even else np.sqrt(scales)
        if self.rho_bounds is None:
            return point
        low, high = self.rho_bounds
        # The interval of rho becomes (-1, 1). Both clips are needed: rounding leaves the interval, and arctanh(1) is
        # infinite.
        share = (2.0 * theta[-1] - low - high) / (high - low)
        largest = np.nextafter(1.0, 0.0)  # 1 itself has no arctanh
        return np.append(point, np.clip(np.arctanh(np.clip(share, -largest, largest)), -LARGEST, LARGEST))

    def from_search(self, point: Array, units: Array) -> Array:
        """See `Covariance.from_search`."""
        roots = point[: self.n_scales]
        scales = (np.abs(roots) if self.is_even else roots * roots) / self._units(units)
        if self.rho_bounds is None:
            return scales
        low, high = self.rho_bounds
        return np.append(scales, 0.5 * (low + high + (high - low) * np.tanh(np.clip(point[-1], -LARGEST, LARGEST))))

    def slopes(self, point: Array, units: Array) -> tuple[Array, Array]:
        """See `Covariance.slopes`."""
        roots, size = point[: self.n_scales], self._units(units)
        if self.is_even:
            first, second = np.where(roots < 0.0, -1.0, 1.0) / size, np.zeros(self.n_scales)
        else:
            first, second = 2.0 * roots / size, 2.0 / size
        if self.rho_bounds is None:
            return first, second
        half = 0.5 * (self.rho_bounds[1] - self.rho_bounds[0])
        tanh = np.tanh(np.clip(point[-1], -LARGEST, LARGEST))
        slope = half * (1.0 - tanh * tanh)
        return np.append(first, slope), np.append(second, -2.0 * tanh * slope)

    @property
    def has_one_variance(self) -> bool:
        """See `Covariance.has_one_variance`."""
        return self.n_scales == 1

    def correlation(self, theta: Array) -> float | None:
        """See `Covariance.correlation`."""
        return None if self.rho_bounds is None else float(theta[-1])
