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
from bigmm.objective.covariances import TermCovariance
from bigmm.objective.criterion import Criterion, Estimates
from bigmm.results.estimated import Estimated
from bigmm.source.partition import Fingerprint, Inventory, Source

GAUSSIAN = family_named("gaussian")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class FittedModel(Estimated):
    """Everything that a model of a formula is after fitting; results only ask questions of it.

    `FittedLmm` and `FittedGlmm` say how the two kinds of model differ, for tables, summary and files alike.

    Attributes
    ----------
    estimates : Estimates
        Coefficients in the order of the formula, NaN for dropped columns.
    dropped : tuple of (str, int)
        Rows that were dropped, by the column that is the reason.
    passes : int
        Number of passes over all rows.
    weights, offset : str or None
        Names of columns.
    monte_carlo_error : mapping or None
        None for the exact solver.
    source : Source or None
        The rows; None once the fit was pickled or saved.
    saved_at : str or None
        The directory that the fit was loaded from.
    inventory : Inventory or None
        The files behind the rows; None for tables in memory.
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
        raise NotImplementedError

    @property
    def nagq(self) -> int | None:
        """Number of quadrature points; None where there is nothing to integrate numerically."""
        raise NotImplementedError

    @property
    def weighting(self) -> str | None:
        """The kind of working weights in log|M|, where that makes a difference, else None."""
        raise NotImplementedError

    @property
    def approximation(self) -> str:
        """The integration over the random effects, in words."""
        raise NotImplementedError

    @property
    def dispersion(self) -> float:
        """Residual variance, or the dispersion of the family."""
        raise NotImplementedError

    @property
    def residual_sd(self) -> float | None:
        """The Residual row of the variance components; None where there is no such row."""
        raise NotImplementedError

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
        # The Gram sorts its terms by levels with rows, which may be fewer than those of the design.
        joined = self.spec.layout.joint
        return tuple(joined[number] for number in self.assembled.term_order)

    @property
    def terms(self) -> tuple[TermCovariance, ...]:
        """The random-effects terms as the user wrote them, in the order of theta."""
        return self.criterion.covariances.terms

    def lambdas(self) -> tuple[np.ndarray, ...]:
        """One lower-triangular (k, k) relative covariance factor per term."""
        return self.criterion.covariances.lambdas(self.theta)

    def kept_levels(self, number: int) -> np.ndarray:
        """(q,) level numbers (into the grouping's labels) of joint term `number`: those that have rows."""
        return np.asarray(self.assembled.level_numbers[number])


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class FittedLmm(FittedModel):
    """A linear mixed model: the random effects are integrated out exactly."""

    @property
    def family(self) -> Family:
        """The normal distribution."""
        return GAUSSIAN

    @property
    def nagq(self) -> None:
        """There is nothing to integrate numerically."""
        return None

    @property
    def weighting(self) -> None:
        """There are no working weights."""
        return None

    @property
    def approximation(self) -> str:
        """See `FittedModel.approximation`."""
        return "exact"

    @property
    def dispersion(self) -> float:
        """Residual variance."""
        return self.sigma**2

    @property
    def residual_sd(self) -> float:
        """Residual standard deviation."""
        return self.sigma
