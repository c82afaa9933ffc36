"""Which columns a formula's terms need: formulaic's rules for full and reduced coding, asked on a prototype frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from bigmm.design.formula.linear import LinearPart, formulaic_formula


@dataclass(frozen=True, slots=True)
class ScopedTerm:
    """A product of factors: (number of the factor in its part, coded with reduced rank?); () is the intercept.

    term: number of the formula's term that it is a part of. Formulaic codes one term by several products where lower
    terms are absent.
    """

    factors: tuple[tuple[int, bool], ...]
    term: int = 0


def scoped_terms(part: LinearPart, categorical: Sequence[bool]) -> tuple[ScopedTerm, ...]:
    """Terms in order of degree with the coding each factor gets, so that the columns are structurally independent.

    The structure depends on which factors are categorical, not on their levels: a frame of two rows tells it.
    """
    # Full or reduced coding depends on margins of the formula alone, so two levels stand for any number of them.
    numbers, levels = [0.0, 1.0], pd.Categorical(["a", "b"])
    factors = {f"v{number}": levels if is_factor else numbers for number, is_factor in enumerate(categorical)}
    # Column v gives the frame two rows where a part has no factors at all.
    frame = pd.DataFrame({"v": numbers} | factors)
    spec = formulaic_formula(part).get_model_matrix(frame).model_spec
    return tuple(
        ScopedTerm(tuple((int(scoped.factor.expr[1:]), bool(scoped.reduced)) for scoped in term.factors), number)
        for number, entry in enumerate(spec.structure)
        for term in entry.scoped_terms
    )
