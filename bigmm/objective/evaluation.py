"""An objective at one point, for linear and generalized models alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True, slots=True)
class Evaluation:
    """-2 log likelihood or the REML criterion at one point of n parameters.

    Attributes
    ----------
    value : the objective; inf where it has none.
    gradient : (n,), NaN where there is no value.
    hessian : (n, n) curvature to step by: average information, or the information of the working model.
    """

    value: float
    gradient: np.ndarray
    hessian: np.ndarray


def no_evaluation(n: int) -> Evaluation:
    """The evaluation where the objective of n parameters has no value."""
    # NaN, not zero: a search that forgot to look at the value would take a zero gradient for an optimum.
    return Evaluation(np.inf, np.full(n, np.nan), np.full((n, n), np.nan))


class Objective(Protocol):
    """A function of a vector of parameters that a search minimises."""

    def value(self, psi: np.ndarray, /) -> float:
        """The objective; inf where it has none."""
        ...

    def evaluate(self, psi: np.ndarray, /) -> Evaluation:
        """Value, gradient and curvature."""
        ...
