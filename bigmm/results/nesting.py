"""Whether models that a likelihood-ratio test compares are nested, as far as their formulas and criteria tell."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import combinations, pairwise

import numpy as np

from bigmm.arguments import callers_level
from bigmm.design.formula.expression import columns_of
from bigmm.errors import BigmmWarning, UsageError
from bigmm.objective.montecarlo import difference_error
from bigmm.results.broom import information
from bigmm.results.fitted import FittedModel

SLACK = 1e-7
"""Chisq may lie so far below zero, relative to 1 + |deviance|, since a search ends near the optimum."""
ERRORS = 4.0
"""Chisq may lie so many Monte Carlo standard errors further below zero where it is estimated."""


def check_numbers_of_parameters(fits: Sequence[FittedModel]) -> None:
    """Raise UsageError where two models have as many parameters: neither is nested in the other."""
    for a, b in combinations(fits, 2):
        if a.npar == b.npar:
            first, second = (f"{fit.formula!r} (AIC {information(fit)['AIC']:.2f})" for fit in (a, b))
            raise UsageError(
                f"the models {first} and {second} have the same number of parameters, {a.npar}: neither is nested in "
                "the other, so there is no likelihood-ratio test; compare their AIC or BIC, of fits by maximum "
                "likelihood where the fixed effects differ"
            )


def warn_unless_nested(ordered: Sequence[FittedModel], chisq: np.ndarray) -> None:
    """Give a BigmmWarning for each model that seems not to be nested in the next.

    ordered: fits by number of parameters; chisq (n,): falls of the deviance from each to the next, the first NaN.
    """
    for (small, large), fall in zip(pairwise(ordered), chisq[1:], strict=True):
        # Random effects come first: fixed ones can span the same space under other names.
        lost = sorted(_random_columns(small) - _random_columns(large)) or sorted(_lost_covariates(small, large))
        deviance = abs(float(large.estimates.objective))
        error = 0.0
        if small.monte_carlo_error or large.monte_carlo_error:
            error = difference_error(small.monte_carlo_error, large.monte_carlo_error).value
        if lost:
            why = f"it has {', '.join(lost)}, which the larger one lacks"
        elif fall < -SLACK * (1.0 + deviance) - ERRORS * error:
            why = f"its deviance is lower by {-fall:.3g} (or the search for the larger one ended too early)"
        else:
            continue
        text = f"{small.formula!r} does not seem to be nested in {large.formula!r}: {why}"
        warnings.warn(BigmmWarning(f"{text}; the p value holds only if it is"), stacklevel=callers_level())


def _lost_covariates(small: FittedModel, large: FittedModel) -> set[str]:
    """Columns of the smaller one's fixed effects that the larger one lacks; none where it has a further factor, whose
    levels may tell them (a linear trend against a factor of the same values)."""
    small_columns, large_columns = _fixed_columns(small), _fixed_columns(large)
    factors = {n for node in large.spec.parsed.fixed.factors if large.spec.is_factor(node) for n in columns_of(node)}
    return set() if factors - small_columns else {repr(name) for name in small_columns - large_columns}


def _fixed_columns(fit: FittedModel) -> set[str]:
    """Columns behind the fixed effects."""
    return {name for node in fit.spec.parsed.fixed.factors for name in columns_of(node)}


def _random_columns(fit: FittedModel) -> set[str]:
    """What the random effects are made of: groups, and columns by group."""
    names = set()
    for bar in fit.spec.parsed.bars:
        # a:b and b:a are one grouping.
        group = ":".join(sorted(bar.variables))
        names.add(f"(... | {group})")  # with an intercept, or a factor whose codings contain one
        names |= {f"({name} | {group})" for node in bar.lhs.factors for name in columns_of(node)}
    return names
