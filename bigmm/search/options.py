"""The options of a search, checked once for linear and generalized models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bigmm.errors import UsageError
from bigmm.objective.covariances import ModelCovariance
from bigmm.objective.montecarlo import TOLERANCE


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """The options of a search that users may set.

    Attributes
    ----------
    theta0 : start of theta, or None.
    optimizer : a name that `optimize.minimize` knows.
    solver : "exact" or "iterative".
    seed : of the random vectors of an iterative solver.
    mc_tol : (share of a parameter's standard error, standard error of the objective), the Monte Carlo errors to reach.
    """

    theta0: Any = None
    optimizer: str = "auto"
    solver: str = "exact"
    seed: int = 0
    mc_tol: tuple[float, float] = TOLERANCE

    def __post_init__(self) -> None:
        if self.solver == "iterative" and self.optimizer not in ("auto", "newton"):
            raise UsageError(
                f"optimizer={self.optimizer!r} needs exact values of the objective, but the iterative solver has "
                "estimates: it finds the zero of the estimated score by Newton's method; leave optimizer='auto', or "
                "use solver='exact'"
            )


def checked_theta0(theta0: Any, covariances: ModelCovariance) -> np.ndarray:
    """theta0 as (n_theta,) numbers; raises UsageError."""
    start: np.ndarray = np.asarray(theta0, float)
    if start.shape != (covariances.n_theta,):
        raise UsageError(
            f"theta0 must have {covariances.n_theta} elements ({', '.join(covariances.names)}), got {start.shape}"
        )
    if not np.all(np.isfinite(start)) or np.any(start < covariances.lower) or np.any(start > covariances.upper):
        if np.all(np.isinf(covariances.upper)):
            raise UsageError(f"theta0 must be finite with non-negative diagonal elements, got {start}")
        pairs = zip(covariances.names, covariances.lower, covariances.upper, strict=True)
        bounds = ", ".join(f"{low:.6g} <= {name} <= {high:.6g}" for name, low, high in pairs)
        raise UsageError(f"theta0 must be finite and within its bounds ({bounds}), got {start}")
    return start


def checked_tolerance(mc_tol: Any) -> tuple[float, float]:
    """mc_tol as two positive numbers; raises UsageError."""
    try:
        share, objective = (float(x) for x in mc_tol)
        if share > 0 and objective > 0:
            return share, objective
    except (TypeError, ValueError):
        pass
    raise UsageError(
        "mc_tol must be two positive numbers, the share of each parameter's standard error and the standard error of "
        f"the objective, such as (0.01, 0.05); got {mc_tol!r}"
    )


def checked_seed(seed: Any) -> int:
    """seed as a whole number that is not negative; raises UsageError."""
    # A bool is an int in Python, and True as a seed is a mistake.
    if isinstance(seed, (int, np.integer)) and not isinstance(seed, bool) and seed >= 0:
        return int(seed)
    raise UsageError(f"seed must be a whole number that is not negative, got {seed!r}")
