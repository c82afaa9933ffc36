"""A local model of a function by finite differences: how a minimum is certified when there is no gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

# In units of theta, or of 0.01 where theta is smaller.
FIRST_STEP = 1e-3
NOISE = 1e-10
"""Values are trusted to this share: a step must change the value by more (and by less than `FAR`) to say anything."""
FAR = 0.05


@dataclass(frozen=True, slots=True)
class Differences:
    """A local model by differences. At a lower bound the gradient is one-sided, and 0 where it points outwards.

    Attributes
    ----------
    value, gradient, hessian : number, (n,) and (n, n) at theta.
    best : value and theta of the lowest point among those evaluated.
    evaluations : number of points.
    """

    value: float
    gradient: np.ndarray
    hessian: np.ndarray
    best: tuple[float, np.ndarray]
    evaluations: int


@dataclass(slots=True)
class _Probe:
    """The function along coordinate moves from theta, counting, and remembering the lowest point."""

    function: Callable[[np.ndarray], float]
    theta: np.ndarray
    evaluations: int = 0
    best: tuple[float, np.ndarray] = field(default=(np.inf, np.zeros(0)))

    def __call__(self, moves: dict[int, float]) -> float:
        point = self.theta.copy()
        for i, move in moves.items():
            point[i] += move
        value = float(self.function(point))
        self.evaluations += 1
        if value < self.best[0]:
            self.best = (value, point)
        return value


def local_model(function: Callable[[np.ndarray], float], theta: np.ndarray, lower: np.ndarray) -> Differences:
    """Central differences (one-sided next to a bound), steps chosen so that each changes the value noticeably."""
    n = len(theta)
    probe = _Probe(function, np.asarray(theta, float))
    value = probe({})
    gradient, hessian = np.zeros(n), np.zeros((n, n))
    steps, ahead = np.zeros(n), np.zeros(n)
    for i in range(n):
        steps[i], ahead[i] = _step(probe, value, i)
        h = steps[i]
        # Never below a bound, where the function need not exist.
        if theta[i] - h >= lower[i]:
            behind = probe({i: -h})
            gradient[i], hessian[i, i] = (ahead[i] - behind) / (2 * h), (ahead[i] + behind - 2 * value) / h**2
        else:
            further = probe({i: 2 * h})
            # Three points, so that the error is of second order as that of central differences.
            slope = (4 * ahead[i] - 3 * value - further) / (2 * h)
            at_bound = theta[i] <= lower[i] + 1e-12
            # A slope that points out of the domain is no reason to move (KKT).
            gradient[i] = min(slope, 0.0) if at_bound else slope
            hessian[i, i] = (further - 2 * ahead[i] + value) / h**2
    for i in range(n):
        for j in range(i):
            # One new point for each pair: all other values are known from the axes.
            both = probe({i: steps[i], j: steps[j]})
            hessian[i, j] = hessian[j, i] = (both - ahead[i] - ahead[j] + value) / (steps[i] * steps[j])
    return Differences(value, gradient, hessian, probe.best, probe.evaluations)


def _step(probe: _Probe, value: float, i: int) -> tuple[float, float]:
    """(step, value there): shorter while it goes too far, longer while nothing changes."""
    size = max(abs(probe.theta[i]), 1e-2)
    h = FIRST_STEP * size
    ahead = probe({i: h})
    floor = NOISE * (1.0 + abs(value))
    while not abs(ahead - value) <= max(FAR, 10 * floor) and h > 1e-8 * size:
        h *= 0.2
        ahead = probe({i: h})
    while abs(ahead - value) < floor and h < 0.3 * size:
        h *= 4.0
        ahead = probe({i: h})
    return h, ahead
