"""What is asked of a generalized model, checked for a fit and for its plan alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bigmm.design import DesignSpec
from bigmm.errors import UsageError
from bigmm.families import FAMILIES, Family
from bigmm.families import family as family_named

MOST_POINTS = 100


@dataclass(frozen=True, slots=True)
class Asked:
    """family; observed: whether log|M| has observed working weights; nagq: 0 fast, 1 Laplace, or quadrature points."""

    family: Family
    observed: bool
    nagq: int

    @property
    def binomial(self) -> bool:
        """May the response be successes of trials?"""
        return self.family.distribution.two_outcomes


def asked(family: Any, link: str | None, nagq: Any, laplace: str | None, success: Any = None) -> Asked:
    """Check the options; raises UsageError."""
    chosen = family_named(family, link)
    if success is not None and not chosen.distribution.two_outcomes:
        names = " or ".join(repr(name) for name, record in FAMILIES.items() if record.two_outcomes)
        raise UsageError(f"success={success!r} is for family {names}, not {chosen.name!r}")
    observed = _which_weights(chosen, laplace)
    if not isinstance(nagq, (int, np.integer)) or isinstance(nagq, bool) or not 0 <= nagq <= MOST_POINTS:
        raise UsageError(
            f"nagq must be 0 (fast), 1 (Laplace) or a number of quadrature points up to {MOST_POINTS}, got {nagq!r}"
        )
    return Asked(chosen, observed, int(nagq))


def _which_weights(family: Family, laplace: str | None) -> bool:
    if laplace not in (None, "expected", "observed"):
        raise UsageError(f"laplace must be 'expected' or 'observed', got {laplace!r}")
    if laplace == "expected" and family.has_dispersion:
        raise UsageError(
            f"laplace='expected' is no likelihood for {family.name}, whose dispersion is estimated: use 'observed'"
        )
    return family.has_dispersion if laplace is None else laplace == "observed"


def check_terms(spec: DesignSpec, nagq: int) -> None:
    """Raises UsageError for terms that a generalized model, or so many quadrature points, cannot take."""
    layout = spec.layout
    joined = layout.joint
    if layout.fixed_factors:
        grouping = layout.groupings[layout.fixed_factors[0].grouping]
        raise UsageError(
            f"fixed factor {grouping.name!r} has {grouping.n_levels} levels: a generalized model keeps its columns "
            f"dense; use (1 | {grouping.name}) or fewer levels"
        )
    if nagq > 1 and (len(joined) > 1 or len(joined[0].covariates) > 1):
        terms = ", ".join(f"({' + '.join(t.names)} | {t.group})" for t in layout.terms)
        raise UsageError(
            f"nagq={nagq} needs exactly one scalar random effect such as (1 | g), but the formula has {terms}: use "
            "nagq=1 (Laplace) for several terms or random slopes"
        )
