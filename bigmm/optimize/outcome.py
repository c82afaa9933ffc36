"""What is minimised and what came out: failure is a value with advice, never a bare code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

TOLERANCE = 1e-7
"""Expected decrease of the objective below which a point is a minimum; a last step squares the rest."""


class LocalModel(Protocol):
    """Value, gradient (n,) and curvature (n, n) of the function at one point."""

    @property
    def value(self) -> float: ...

    @property
    def gradient(self) -> np.ndarray: ...

    @property
    def hessian(self) -> np.ndarray: ...


@dataclass(frozen=True, slots=True)
class Problem:
    """A function of theta with lower bounds of 0 on the scale elements, even in the sign of each scale.

    value: theta -> float (inf allowed); evaluate: theta -> LocalModel, or None when there is no gradient;
    lower: (n,) bounds; starts: first the preferred start; rectify: theta -> the same point with scales >= 0;
    cheap: evaluations cost so little that restarts and polishing to the last digit are worth it;
    has_several_minima: two parameters are enough for several minima;
    tolerance: expected decrease at which the search ends: less where the curvature is only a rough one;
    exact_gradient: theta -> gradient to the last digit, for the end of the search, or None;
    noisy: value and gradient are estimates that agree up to an error, so the score is driven to zero instead;
    curvature_noise: (n,) curvature at zero that rounding may leave, or None.
    """

    value: Callable[[np.ndarray], float]
    evaluate: Callable[[np.ndarray], LocalModel] | None
    lower: np.ndarray
    starts: tuple[np.ndarray, ...]
    rectify: Callable[[np.ndarray], np.ndarray] = field(default=np.asarray)
    cheap: bool = False
    has_several_minima: bool = False
    noisy: bool = False
    tolerance: float = TOLERANCE
    exact_gradient: Callable[[np.ndarray], np.ndarray] | None = None
    curvature_noise: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a minimisation.

    theta (n,), value, gradient (n,) or None; method; status ("converged", "stopped", "failed"); evaluations of the
    value and of the gradient; expected_decrease: what a further Newton step would still gain, in units of the
    objective; max_abs_gradient: largest gradient element over elements not at the boundary; at_boundary: (n,) bool,
    scales at 0; starts: how many starts were tried; advice: what to do when not converged, "" otherwise.
    """

    theta: np.ndarray
    value: float
    gradient: np.ndarray | None
    method: str
    status: str
    evaluations: int
    gradient_evaluations: int
    expected_decrease: float
    max_abs_gradient: float
    at_boundary: np.ndarray
    starts: int
    advice: str = ""

    @property
    def converged(self) -> bool:
        return self.status == "converged"
