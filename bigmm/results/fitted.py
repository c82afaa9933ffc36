"""The one frozen value behind a fitted model, and the plain facts that follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, ClassVar

import numpy as np

from bigmm.accumulate.assemble import Assembled
from bigmm.design.layout import JointTerm, Layout, joint_terms
from bigmm.design.spec import DesignSpec
from bigmm.families import Family
from bigmm.families import family as family_named
from bigmm.objective.criterion import Criterion, Estimates
from bigmm.objective.templates import Template
from bigmm.optimize.outcome import Outcome
from bigmm.source.partition import Fingerprint, Source

GAUSSIAN = family_named("gaussian")


@dataclass(frozen=True, slots=True)
class FittedLmm:
    """Everything a linear mixed model is after fitting; `LmmResults` only asks questions of it.

    theta: (n_theta,) in lme4's order; estimates: in the user's coefficient order, NaN in dropped slots;
    dropped: ((column, rows dropped because of it), ...); seconds: {phase: s}; passes: looks at all rows;
    weights, offset: column names or None; monte_carlo_error: None for the exact solver;
    source: where the rows were read, None once the fit was pickled or saved. The class attributes and the properties
    that `FittedGlmm` has too are how a linear and a generalized model differ, for tables, summary and files alike.
    """

    kind: ClassVar[str] = "lmm"
    title: ClassVar[str] = "Linear mixed model"
    statistic: ClassVar[str] = "t value"

    formula: str
    reml: bool
    spec: DesignSpec
    assembled: Assembled
    criterion: Criterion
    theta: np.ndarray
    estimates: Estimates
    outcome: Outcome
    is_singular: bool
    nobs: int
    rows_read: int
    dropped: tuple[tuple[str, int], ...]
    passes: int
    seconds: Mapping[str, float]
    peak_rss_bytes: int
    solver: str
    data_description: str
    fingerprints: tuple[Fingerprint, ...]
    weights: str | None
    offset: str | None
    bigmm_version: str
    monte_carlo_error: Mapping[str, Any] | None = None
    solver_reason: str = ""
    source: Source | None = None

    @property
    def layout(self) -> Layout:
        return self.spec.layout

    @property
    def family(self) -> Family:
        """Response distribution and link."""
        return GAUSSIAN

    @property
    def nagq(self) -> int | None:
        """Quadrature points; None where there is nothing to integrate numerically."""
        return None

    @property
    def weighting(self) -> str | None:
        """Which working weights log|M| has, where that makes a difference; None else."""
        return None

    @property
    def approximation(self) -> str:
        """How the random effects were integrated out, in words."""
        return "exact"

    @property
    def method(self) -> str:
        """What was maximised, in words."""
        return "REML" if self.reml else "maximum likelihood"

    @property
    def sigma(self) -> float:
        """Residual standard deviation."""
        return float(self.estimates.sigma)

    @property
    def dispersion(self) -> float:
        """Residual variance."""
        return self.sigma**2

    @property
    def residual_sd(self) -> float | None:
        """What the Residual row of the variance components holds, None where there is no such row."""
        return self.sigma

    @property
    def remarks(self) -> tuple[tuple[str, str], ...]:
        """(label, text) pairs of the summary's heading."""
        return ()

    @property
    def table_notes(self) -> tuple[str, ...]:
        """Lines under the table of coefficients."""
        return ()

    @property
    def facts(self) -> tuple[str, ...]:
        """Notes of the summary that only this kind of model has."""
        return ()

    @property
    def particulars(self) -> dict[str, Any]:
        """Fields of the record that only this kind of model has."""
        return {}

    @property
    def joints(self) -> tuple[JointTerm, ...]:
        """The joint terms in the order of the Gram's blocks and of `estimates.b`; fixed factors come last."""
        joined = joint_terms(self.spec.layout)
        return tuple(joined[number] for number in self.assembled.term_order)

    @property
    def terms(self) -> tuple[Template, ...]:
        """The random-effects terms as the user wrote them, in the order of theta."""
        return self.criterion.templates.terms

    @property
    def rank(self) -> int:
        """Number of estimable coefficients."""
        return int(np.isfinite(self.estimates.beta).sum())

    @property
    def npar(self) -> int:
        """Coefficients, theta and sigma, as lme4 counts them."""
        return self.rank + len(self.theta) + 1

    def lambdas(self) -> tuple[np.ndarray, ...]:
        """One lower-triangular (k, k) relative covariance factor per term."""
        return self.criterion.templates.lambdas(self.theta)

    def kept_levels(self, number: int) -> np.ndarray:
        """(q,) level numbers (into the grouping's labels) of joint term `number`: those that have rows."""
        return np.asarray(self.assembled.kept[number])


def freeze(value: Any) -> None:
    """Make every array reachable through dataclasses and tuples read-only."""
    if isinstance(value, np.ndarray):
        value.flags.writeable = False
    elif is_dataclass(value):
        for field in fields(value):
            freeze(getattr(value, field.name, None))
    elif isinstance(value, tuple):
        for item in value:
            freeze(item)
