"""The problem of a minimisation and its outcome. A failure is a value with advice, never a bare code."""

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
    def value(self) -> float:
        """Value of the objective."""
        ...

    @property
    def gradient(self) -> np.ndarray:
        """(n,) first derivatives."""
        ...

    @property
    def hessian(self) -> np.ndarray:
        """(n, n) curvature, exact or an approximation."""
        ...


@dataclass(frozen=True, slots=True)
class Problem:
    """A function of theta with lower bounds of 0 on the scale elements, even in the sign of each scale.

    Attributes
    ----------
    value : theta -> float, inf where there is no value.
    evaluate : theta -> LocalModel, or None where there is no gradient.
    lower : (n,) bounds.
    starts : the preferred start first.
    rectify : theta -> the same point with scales >= 0.
    cheap : whether evaluations cost so little that restarts and polishing to the last digit are worth it.
    has_several_minima : whether two parameters are enough for several minima.
    noisy : whether value and gradient are estimates that agree up to an error. The score is then driven to zero.
    tolerance : expected decrease at which the search ends, less where the curvature is only a rough one.
    exact_gradient : theta -> gradient to the last digit, for the end of the search, or None.
    curvature_noise : (n,) curvature at zero that rounding may leave, or None.
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

    Attributes
    ----------
    theta : (n,) the end.
    value, gradient : of the objective there; gradient is None where there is none.
    method : name of the method.
    status : "converged", "stopped" or "failed".
    evaluations, gradient_evaluations : numbers of both.
    expected_decrease : gain of a further Newton step, in units of the objective.
    max_abs_gradient : largest element of the gradient away from the boundary.
    at_boundary : (n,) bool, scales at 0.
    starts : number of starts that were tried.
    advice : help where the search has not converged, "" otherwise.
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
        """Whether the end is a certified minimum."""
        return self.status == "converged"
