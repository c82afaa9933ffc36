"""The one frozen value behind a fit of a formula, and the plain facts that follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bigmm.accumulate.assemble import Assembled
from bigmm.design.layout import JointTerm, Layout
from bigmm.design.spec import DesignSpec
from bigmm.families import Family
from bigmm.families import family as family_named
from bigmm.objective.criterion import Criterion, Estimates
from bigmm.objective.templates import Template
from bigmm.results.estimated import Estimated
from bigmm.source.partition import Fingerprint, Inventory, Source

GAUSSIAN = family_named("gaussian")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class FittedLmm(Estimated):
    """Everything a linear mixed model is after fitting; `LmmResults` only asks questions of it.

    theta: (n_theta,) in lme4's order; estimates: in the user's coefficient order, NaN in dropped slots;
    dropped: ((column, rows dropped because of it), ...); seconds: {phase: s}; passes: looks at all rows;
    weights, offset: column names or None; monte_carlo_error: None for the exact solver;
    source: where the rows were read, None once the fit was pickled or saved; saved_at: the directory that the fit was
    loaded from, None else; inventory: the files the rows came from, None for tables in memory. The class attributes and
    the properties
    that `FittedGlmm` has too are how a linear and a generalized model differ, for tables, summary and files alike.
    """

    formula: str
    spec: DesignSpec
    assembled: Assembled
    criterion: Criterion
    estimates: Estimates
    is_singular: bool
    rows_read: int
    dropped: tuple[tuple[str, int], ...]
    passes: int
    peak_rss_bytes: int
    data_description: str
    fingerprints: tuple[Fingerprint, ...]
    weights: str | None
    offset: str | None
    monte_carlo_error: Mapping[str, Any] | None = None
    solver_reason: str = ""
    source: Source | None = None
    saved_at: str | None = None
    inventory: Inventory | None = None

    @property
    def layout(self) -> Layout:
        """The columns and terms of the design."""
        return self.spec.layout

    @property
    def fixed_names(self) -> tuple[str, ...]:
        """(p,) names of the coefficients in the order of the formula."""
        return self.spec.layout.fixed_names

    @property
    def origin(self) -> str:
        """Formula and rows."""
        return f"{self.formula!r}: {self.nobs:,} rows"

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
        joined = self.spec.layout.joint
        return tuple(joined[number] for number in self.assembled.term_order)

    @property
    def terms(self) -> tuple[Template, ...]:
        """The random-effects terms as the user wrote them, in the order of theta."""
        return self.criterion.templates.terms

    def lambdas(self) -> tuple[np.ndarray, ...]:
        """One lower-triangular (k, k) relative covariance factor per term."""
        return self.criterion.templates.lambdas(self.theta)

    def kept_levels(self, number: int) -> np.ndarray:
        """(q,) level numbers (into the grouping's labels) of joint term `number`: those that have rows."""
        return np.asarray(self.assembled.kept[number])
