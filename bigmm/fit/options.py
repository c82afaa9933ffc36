"""The options of a fit, checked once for fits and plans alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bigmm.design import DesignSpec
from bigmm.display import progress_callback
from bigmm.errors import UsageError
from bigmm.execute.memory import memory_bytes
from bigmm.families import FAMILIES, Family
from bigmm.families import family as family_named
from bigmm.objective.solvers import LINEAR_SOLVERS
from bigmm.planning.settings import Settings

MOST_POINTS = 100  # lme4's limit of nAGQ


@dataclass(frozen=True, slots=True)
class GlmmOptions:
    """The options of a generalized model.

    Attributes
    ----------
    family : distribution and link.
    observed : whether log|M| has observed working weights.
    nagq : 0 for penalized least squares, 1 for Laplace, or the number of quadrature points.
    """

    family: Family
    observed: bool
    nagq: int

    @property
    def binomial(self) -> bool:
        """May the response be successes of trials?"""
        return self.family.distribution.two_outcomes


def glmm_options(family: Any, link: str | None, nagq: Any, laplace: str | None, success: Any = None) -> GlmmOptions:
    """Check the options; raises UsageError."""
    # The family first, because the other options have a meaning only for some families.
    chosen = family_named(family, link)
    if success is not None and not chosen.distribution.two_outcomes:
        names = " or ".join(repr(name) for name, record in FAMILIES.items() if record.two_outcomes)
        raise UsageError(f"success={success!r} is for family {names}, not {chosen.name!r}")
    observed = _which_weights(chosen, laplace)
    if not isinstance(nagq, (int, np.integer)) or isinstance(nagq, bool) or not 0 <= nagq <= MOST_POINTS:
        raise UsageError(
            f"nagq must be 0 (fast), 1 (Laplace) or a number of quadrature points up to {MOST_POINTS}, got {nagq!r}"
        )
    return GlmmOptions(chosen, observed, int(nagq))


def _which_weights(family: Family, laplace: str | None) -> bool:
    if laplace not in (None, "expected", "observed"):
        raise UsageError(f"laplace must be 'expected' or 'observed', got {laplace!r}")
    # As a function of phi the objective is a likelihood with observed weights only.
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


def start_values(theta0: Any) -> np.ndarray | None:
    """theta0 as numbers, None without; raises UsageError."""
    if theta0 is None:
        return None
    try:
        return np.asarray(theta0, dtype=float)
    except (TypeError, ValueError) as error:
        raise UsageError(f"theta0 must be numbers, one per element of theta, got {theta0!r}") from error


def settings(solver: str, optimizer: str, memory_limit: Any, progress: Any) -> Settings:
    """Check the options that say how a fit runs; raises UsageError."""
    from bigmm.optimize import nlopt_methods

    if solver not in ("auto", *LINEAR_SOLVERS):
        names = ["'auto'", *map(repr, LINEAR_SOLVERS)]
        raise UsageError(f"unknown solver {solver!r}: choose {', '.join(names[:-1])} or {names[-1]}")
    if not isinstance(optimizer, str):
        raise UsageError(f"optimizer must be a name such as 'auto', 'newton' or 'bobyqa', got {optimizer!r}")
    if optimizer not in ("auto", "newton"):
        nlopt_methods.algorithm(optimizer)
    return Settings(solver, optimizer, memory_bytes(memory_limit), progress_callback(progress))
