"""What the user said beside the data, and what follows from it for the trees of a formula."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from bigmm.design.formula.expression import Node

VECTOR_WEIGHTS, VECTOR_OFFSET = "(weights)", "(offset)"
"""Columns that vectors of weights and offsets become, of a table in memory."""


@dataclass(frozen=True, slots=True)
class DesignOptions:
    """What the user says beside the formula.

    Attributes
    ----------
    factors : tuple of str
        Numeric columns that are taken as factors.
    binomial : bool
        The response may be levels or counts.
    success : tuple of str or None
        Labels of the levels of the response that count as 1; None for all but the first.
    meanings : tuple of two str or None
        What the numbers 0 and 1 of the response stand for; None where they are numbers.
    """

    formula: str
    weights: str | None = None
    offset: str | None = None
    contrasts: Mapping[str, str] = field(default_factory=dict)
    factors: tuple[str, ...] = ()
    drop_missing: bool = True
    binomial: bool = False
    need_random: bool = True
    success: tuple[str, ...] | None = None
    meanings: tuple[str, str] | None = None


def is_factor(node: Node, text: AbstractSet[str], settings: DesignOptions) -> bool:
    """Whether a tree is a factor: a C() call, a column of text, or a column declared as categories."""
    if node.kind == "name":
        return node.value in text or node.value in settings.factors
    return node.kind == "call" and node.function == "C"


def has_levels(response: Node, text: AbstractSet[str], settings: DesignOptions) -> bool:
    """Whether a response is read as levels: a factor, or any column of which it is said which values count as 1."""
    # With success=, the values of a numeric column are names of outcomes, as in 1 = alive and 2 = dead.
    return settings.success is not None or is_factor(response, text, settings)
