"""The one frozen value behind a fitted generalized linear mixed model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from bigmm.families import Family
from bigmm.results.fitted import GAUSSIAN, FittedModel


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class FittedGlmm(FittedModel):
    """A generalized linear mixed model.

    The criterion is a `laplace.working.WorkingModel`: the blocks at the mode, with residual variance 1. The objective
    of the estimates is -2 log L on R's scale, and their sigma is 1, so that theta is on the scale of the linear
    predictor.

    Attributes
    ----------
    family : distribution of the response, and link.
    phi : dispersion (`Distribution.dispersion_meaning`), 1 without.
    nagq : 0 fast, 1 Laplace, k quadrature points.
    laplace : "expected" or "observed" weights in log|M|.
    working_weights : weights of the blocks. They are "expected" also where observed ones leave the blocks without a
        factor.
    se_method : "hessian" or "rx".
    penalized : -2 sum ll + |u|^2 + constants at the mode.
    compressed_rows : number of rows after identical ones were counted, None when that did not pay.
    """

    kind: ClassVar[str] = "glmm"
    title: ClassVar[str] = "Generalized linear mixed model"
    statistic: ClassVar[str] = "z value"

    family: Family = GAUSSIAN
    phi: float = 1.0
    nagq: int = 1
    laplace: str = "expected"
    working_weights: str = "expected"
    se_method: str = "hessian"
    penalized: float = 0.0
    compressed_rows: int | None = None

    @property
    def npar(self) -> int:
        """Coefficients, theta, and the dispersion where there is one."""
        # The residual variance is no parameter here, unlike in `Estimated.npar`.
        return self.rank + len(self.theta) + int(self.family.has_dispersion)

    @property
    def weighting(self) -> str | None:
        """Which working weights log|M| has, where that makes a difference: not with a canonical link."""
        # With a canonical link observed and expected information are the same.
        return None if self.family.canonical else self.laplace

    @property
    def approximation(self) -> str:
        """How the random effects were integrated out, in words."""
        weights = "" if self.weighting is None else f", {self.weighting} weights"
        return integral(self.nagq) + weights

    @property
    def method(self) -> str:
        """What was maximised, in words."""
        return f"maximum likelihood ({integral(self.nagq)})"

    @property
    def sigma(self) -> float:
        """sqrt(phi) where the dispersion is a scale, else 1 (lme4's and glmmTMB's sigma)."""
        return float(np.sqrt(self.phi)) if self.family.distribution.dispersion == "scale" else 1.0

    @property
    def dispersion(self) -> float:
        """phi: a scale, or the negative binomial's shape; 1 for families without."""
        return float(self.phi)

    @property
    def residual_sd(self) -> float | None:
        """sigma where the dispersion is a scale, else None."""
        return self.sigma if self.family.distribution.dispersion == "scale" else None

    @property
    def modelled(self) -> str:
        """What counts as 1 and as 0 in a response of two outcomes, in words; "" for other responses."""
        outcomes = self.spec.outcomes
        if outcomes is not None:
            return str(outcomes)
        return self.family.distribution.outcome_note

    @property
    def origin(self) -> str:
        """Formula, what is modelled, and rows."""
        outcomes = self.spec.outcomes
        which = "" if outcomes is None else f", {outcomes}"
        return f"{self.formula!r}{which}: {self.nobs:,} rows"

    @property
    def remarks(self) -> tuple[tuple[str, str], ...]:
        """Family, dispersion and which weights log|M| has."""
        lines = [(" Family", f"{self.family.name} ({self.family.link})")]
        if self.modelled:
            lines.append(("Response", f"{self.layout.response} ({self.modelled})"))
        if self.family.has_dispersion:
            lines.append(("Dispersion", f"{self.phi:.5g} ({self.family.distribution.dispersion_meaning})"))
        lines.append(("Weights in log|M|", WEIGHTS[self.family.canonical, self.laplace]))
        return tuple(lines)

    @property
    def table_notes(self) -> tuple[str, ...]:
        """Where the standard errors come from."""
        return (f"Standard errors: {SE_METHODS[self.se_method]}",)

    @property
    def facts(self) -> tuple[str, ...]:
        """What compression of identical rows saved."""
        if self.compressed_rows is None:
            return ()
        return (f"identical rows were counted once: {self.nobs:,} rows are {self.compressed_rows:,} distinct ones",)

    @property
    def particulars(self) -> dict[str, Any]:
        """Fields of the record that only a generalized model has."""
        outcomes = self.spec.outcomes
        return {
            "response": self.layout.response,
            "success": None if outcomes is None else outcomes.success,
            "failure": None if outcomes is None else outcomes.failure,
            "dispersion": self.dispersion,
            "laplace": self.laplace,
            "se_method": self.se_method,
            "compressed_rows": self.compressed_rows,
        }


def integral(nagq: int) -> str:
    """How the random effects were integrated out, in words."""
    if nagq > 1:
        return f"adaptive Gauss-Hermite quadrature, nagq = {nagq}"
    return "Laplace approximation" if nagq else "Laplace approximation, nagq = 0: coefficients from PIRLS"


WEIGHTS = {
    (True, "expected"): "expected, which are the observed ones with a canonical link",
    (True, "observed"): "observed, which are the expected ones with a canonical link",
    (False, "expected"): "expected (lme4's criterion)",
    (False, "observed"): "observed (the full Laplace likelihood)",
}

SE_METHODS = {
    "hessian": "observed information of the maximised objective",
    "rx": "working model, given theta",
}
