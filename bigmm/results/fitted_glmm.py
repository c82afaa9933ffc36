"""The one frozen value behind a fitted generalized linear mixed model."""

from __future__ import annotations

from dataclasses import dataclass

from bigmm.families import Family, family
from bigmm.results.fitted import FittedLmm


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedGlmm(FittedLmm):
    """`FittedLmm` with a response distribution.

    criterion: a `glmm.working.WorkingModel`, the blocks at the mode (residual variance 1); estimates.objective: -2 log L on
    R's scale, estimates.sigma: 1; phi: dispersion (`families.DISPERSION_MEANING`), 1 without; nagq: 0 fast, 1 Laplace,
    k quadrature points; laplace: "expected" or "observed" weights in log|M|; se_method: "hessian" or "rx";
    penalized: -2 sum ll + |u|^2 + constants at the mode; compressed_rows: rows after identical ones were counted.
    """

    family: Family = family("gaussian")
    phi: float = 1.0
    nagq: int = 1
    laplace: str = "expected"
    se_method: str = "hessian"
    penalized: float = 0.0
    compressed_rows: int | None = None

    @property
    def npar(self) -> int:
        """Coefficients, theta, and the dispersion where there is one."""
        return self.rank + len(self.theta) + int(self.family.has_dispersion)
