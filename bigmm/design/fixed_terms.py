"""The fixed part as terms and columns that are products: what hypotheses about terms and marginal means are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from bigmm.design.columns import Builder, Numeric
from bigmm.design.formula.linear import LinearPart


@dataclass(frozen=True, slots=True)
class ColumnProduct:
    """One coefficient's column as a product.

    Parameters
    ----------
    numeric : names of its numeric parts, in order. codings : by factor, (n_levels,) the factor's coded values.
    """

    numeric: tuple[str, ...]
    codings: Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Term:
    """One term of the fixed part.

    Parameters
    ----------
    name : as in the formula, such as ``f:x``. positions : of its coefficients. factors : names of its factors.
    reduced : of these, the factors that are coded by contrasts, since lower terms hold their averages; None where the
        term is coded by several products.
    numeric : names of its numeric variables.
    """

    name: str
    positions: tuple[int, ...]
    factors: frozenset[str]
    reduced: frozenset[str] | None
    numeric: frozenset[str]

    @property
    def variables(self) -> frozenset[str]:
        """All variables of the term."""
        return self.factors | self.numeric

    def holds(self, other: Term) -> bool:
        """Does the term contain another one: the same numeric variables, and more factors?"""
        return other.numeric == self.numeric and other.factors < self.factors


@dataclass(frozen=True, slots=True)
class FixedPart:
    """All terms and columns of the fixed part.

    Parameters
    ----------
    terms : in the order of the coefficients, the intercept first where there is one (its name is ``Intercept``).
    columns : (p,) one for each coefficient. levels : number of levels by factor.
    """

    terms: tuple[Term, ...]
    columns: tuple[ColumnProduct, ...]
    levels: Mapping[str, int]


def fixed_part_of(builder: Builder, part: LinearPart) -> FixedPart:
    """The terms of a learned design, in the order of its coefficients."""
    nodes = part.factors
    levels: dict[str, int] = {}
    columns: list[ColumnProduct] = []
    parts: dict[int, list[tuple[list[int], list[tuple[str, bool, bool]]]]] = {}
    for scoped, fields in builder.fixed_terms():
        start = len(columns)
        columns += _columns(fields)
        for field in fields:
            if field.coding is not None:
                levels[field.column] = len(field.coding)
        variables = [
            (field.column or builder.label(nodes[number]), field.coding is not None, reduced)
            for field, (number, reduced) in zip(fields, scoped.factors, strict=True)
        ]
        # A dict keeps the order of first appearance, which is that of the coefficients.
        parts.setdefault(scoped.term, []).append((list(range(start, len(columns))), variables))
    return FixedPart(tuple(_term(products) for products in parts.values()), tuple(columns), levels)


def _columns(fields: Sequence[Any]) -> list[ColumnProduct]:
    """The columns of a product of factors, in the order of their names: the first factor varies fastest."""
    out = []
    for atoms in product(*(field.atoms for field in reversed(fields))):
        numbers = [atom for atom in reversed(atoms) if isinstance(atom, Numeric)]
        numeric = tuple(f"{atom.text}[{atom.component}]" for atom in numbers)
        codings = {atom.column: atom.coding for atom in atoms if not isinstance(atom, Numeric)}
        out.append(ColumnProduct(numeric, codings))
    return out


def _term(products: Sequence[tuple[list[int], list[tuple[str, bool, bool]]]]) -> Term:
    """One term of the formula; formulaic codes it by several products where lower terms are absent."""
    # The longest product has all variables of the term; shorter ones stand in for lower terms that are absent.
    largest = max((variables for _, variables in products), key=len)
    reduced = {name for name, is_factor, is_reduced in largest if is_factor and is_reduced}
    return Term(
        ":".join(name for name, _, _ in largest) or "Intercept",
        tuple(position for positions, _ in products for position in positions),
        frozenset(name for name, is_factor, _ in largest if is_factor),
        # With several products a factor is coded fully in one and by contrasts in another: neither answer is right.
        frozenset(reduced) if len(products) == 1 else None,
        frozenset(name for name, is_factor, _ in largest if not is_factor),
    )
