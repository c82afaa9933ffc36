"""Functions with known minima, as `Problem`s."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bigmm.objective import Criterion
from bigmm.optimize import Problem
from tests.oracle import SHAPES, Rows


@dataclass(frozen=True)
class Local:
    value: float
    gradient: np.ndarray
    hessian: np.ndarray


def problem(value: Callable, gradient: Callable, hessian: Callable, *starts, lower=None, **options) -> Problem:
    """A smooth function; unbounded unless ``lower`` is given."""
    starts = tuple(np.array(start, float) for start in starts)
    lower = np.full(len(starts[0]), -np.inf) if lower is None else np.array(lower, float)
    return Problem(value, lambda t: Local(float(value(t)), gradient(t), hessian(t)), lower, starts, **options)


def quadratic(matrix, minimum, *starts, **options) -> Problem:
    matrix, minimum = np.array(matrix, float), np.array(minimum, float)
    return problem(
        lambda t: 0.5 * (t - minimum) @ matrix @ (t - minimum),
        lambda t: matrix @ (t - minimum),
        lambda t: matrix,
        *starts,
        **options,
    )


def banana(*starts) -> Problem:
    """Rosenbrock's valley, minimum 0 at (1, 1)."""
    return problem(
        lambda t: 100 * (t[1] - t[0] ** 2) ** 2 + (1 - t[0]) ** 2,
        lambda t: np.array([-400 * t[0] * (t[1] - t[0] ** 2) - 2 * (1 - t[0]), 200 * (t[1] - t[0] ** 2)]),
        lambda t: np.array([[1200 * t[0] ** 2 - 400 * t[1] + 2, -400 * t[0]], [-400 * t[0], 200.0]]),
        *starts,
    )


def wells(depth: float, *starts, **options) -> Problem:
    """Even in every element, as a criterion is: sum of t^2 - b t^4 + c t^6 with minima at 0 (value 0) and 3
    (-depth)."""
    # f(3) = 9 - 81 b + 729 c = -depth and f'(3) / 3 = 2 - 36 b + 486 c = 0
    b, c = np.linalg.solve([[-81.0, 729.0], [-36.0, 486.0]], [-depth - 9.0, -2.0])
    return problem(
        lambda t: float(np.sum(t**2 - b * t**4 + c * t**6)),
        lambda t: 2 * t - 4 * b * t**3 + 6 * c * t**5,
        lambda t: np.diag(2 - 12 * b * t**2 + 30 * c * t**4),
        *starts,
        lower=np.zeros(len(starts[0])),
        rectify=np.abs,
        **options,
    )


def saddle(*starts) -> Problem:
    """(t^2 - 1)^2: stationary at 0, minimum at 1."""
    return problem(
        lambda t: float(np.sum((t**2 - 1) ** 2)),
        lambda t: 4 * t * (t**2 - 1),
        lambda t: np.diag(12 * t**2 - 4),
        *starts,
        lower=[0.0],
        rectify=np.abs,
    )


def criterion_problem(kind: str, seed: int = 1, reml: bool = True, cheap: bool = False) -> Problem:
    model = Rows.draw(SHAPES[kind], seed)
    criterion = Criterion(model.gram, model.covariances, reml)
    start = np.where(criterion.lower == 0, 1.0, 0.0)
    return Problem(
        criterion.value, criterion.evaluate, criterion.lower, (start, 0.2 * start), model.covariances.rectified, cheap
    )
