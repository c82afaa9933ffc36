"""What every frozen fit holds, whether a formula or matrices made it, and the facts that follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, ClassVar

import numpy as np

from bigmm.optimize.outcome import Outcome


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Estimated:
    """The part of a fit that tables of coefficients, criteria and summaries read.

    Attributes
    ----------
    criterion
        Evaluates any theta again.
    theta : array (n_theta,)
        The estimate.
    estimates
        beta (p,) and vcov (p, p), NaN for dropped columns, sigma and objective.
    nobs : int
        Number of rows that count.
    seconds : mapping of str to float
        Seconds by phase.
    curvature : ProfileCurvature or None
        Curvature behind degrees of freedom, where the criterion cannot give it again.
    """

    title: ClassVar[str] = "Linear mixed model"
    statistic: ClassVar[str] = "t value"
    kind: ClassVar[str] = "lmm"

    reml: bool
    criterion: Any
    theta: np.ndarray
    estimates: Any
    outcome: Outcome
    nobs: int
    seconds: Mapping[str, float]
    solver: str
    bigmm_version: str
    curvature: Any = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.origin}: the inner state of a fit; fitted values are in fittedvalues>"

    @property
    def fixed_names(self) -> tuple[str, ...]:
        """(p,) names of the coefficients."""
        raise NotImplementedError

    @property
    def origin(self) -> str:
        """What was fitted to how many rows, in a few words."""
        raise NotImplementedError

    @property
    def lost_names(self) -> list[str]:
        """Coefficients that are not estimable, because their columns depend on earlier ones."""
        return [n for n, b in zip(self.fixed_names, self.estimates.beta, strict=True) if np.isnan(b)]

    @property
    def rank(self) -> int:
        """Number of estimable coefficients."""
        return int(np.isfinite(self.estimates.beta).sum())

    @property
    def npar(self) -> int:
        """Coefficients, theta and sigma, as lme4 counts them."""
        # Dropped columns are no parameters.
        return self.rank + len(self.theta) + 1

    @property
    def sigma(self) -> float:
        """Residual standard deviation."""
        return float(self.estimates.sigma)

    @property
    def method(self) -> str:
        """What was maximised, in words."""
        return "REML" if self.reml else "maximum likelihood"

    @property
    def table_notes(self) -> tuple[str, ...]:
        """Lines under the table of coefficients."""
        return ()


def freeze(value: Any) -> None:
    """Make every array reachable through dataclasses and tuples read-only."""
    if isinstance(value, np.ndarray):
        # Views made before this stay writable; results hand out none of those.
        value.flags.writeable = False
    elif is_dataclass(value):
        for field in fields(value):
            freeze(getattr(value, field.name, None))
    elif isinstance(value, tuple):
        # Lists and dicts are not entered: the values of a fit hold tuples.
        for item in value:
            freeze(item)
