"""Python warnings about a fit that is not to be trusted as it is: singular, or not converged. Raised here only."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from bigmm.arguments import callers_level
from bigmm.errors import BigmmWarning, ConvergenceWarning, SingularFitWarning
from bigmm.results.arrays_model import FittedArrays
from bigmm.results.fitted import FittedModel

Recipe = TypeVar("Recipe", bound=Callable[..., Any])


def doubts(fitted: FittedModel | FittedArrays) -> list[BigmmWarning]:
    """What there is to warn about: none, one or two warnings."""
    out: list[BigmmWarning] = []
    outcome = fitted.outcome
    if not outcome.converged:
        text = f"the fit has not converged ({outcome.status}): do not rely on its estimates. {outcome.advice}"
        out.append(ConvergenceWarning(text.rstrip()))
    if fitted.is_singular:
        out.append(
            SingularFitWarning(
                "the fit is singular: a variance is estimated as zero, or a correlation as +-1; a model with fewer "
                "random effects would fit as well"
            )
        )
    return out


def warn_of(fitted: FittedModel | FittedArrays, before: FittedModel | None = None) -> None:
    """Give a warning for each doubt about a fit, at the line of the user that called bigmm.

    before: the fit that this one refines; what it was warned about is not said again.
    """
    repeated = {type(doubt) for doubt in doubts(before)} if before is not None else set()
    for doubt in doubts(fitted):
        if type(doubt) not in repeated:
            # The level is counted at run time, since recipes call each other at several depths.
            warnings.warn(doubt, stacklevel=callers_level())


def warned(recipe: Recipe) -> Recipe:
    """The recipe of a fit, which warns of the doubts about its result before it hands it over."""

    @wraps(recipe)
    def call(*positional: Any, **named: Any) -> Any:
        results = recipe(*positional, **named)
        warn_of(results.fitted)
        return results

    return cast(Recipe, call)
