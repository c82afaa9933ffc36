"""From terms and levels to a Layout: every distinct column once, with the recipe that computes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise, product
from math import prod
from typing import Any

import numpy as np

from bigmm.design.contrasts import coding_matrix, contrast_node, make_contrast
from bigmm.design.formula.coding import ScopedTerm, scoped_terms
from bigmm.design.formula.expression import Node, label, quoted, unparse
from bigmm.design.formula.parser import LinearPart, ParsedFormula
from bigmm.design.layout import FixedFactor, Grouping, Layout, RandomTerm
from bigmm.design.levels.numbering import Combinations, Levels
from bigmm.design.transforms.stateful import Replayer
from bigmm.errors import UsageError

#: Columns of X above which factors are kept as level numbers (`Layout.fixed_factors`) instead of being expanded.
DENSE_COLUMNS = 200
_LARGE_TERM = 50  # terms narrower than this stay dense even then
_MOST_COLUMNS = 20_000  # a (p, p) covariance matrix of more coefficients would exceed 3 GB


@dataclass(frozen=True, slots=True)
class Numeric:
    """Values of a numeric factor: canonical text of its expression, and the column of poly() or a spline, else -1."""

    text: str
    component: int = -1


@dataclass(frozen=True, slots=True, eq=False)
class Coded:
    """A factor column's coded values: ``coding`` (n_levels,) taken at the level number."""

    column: str
    coding: np.ndarray


Atom = Numeric | Coded
Recipe = tuple[Atom, ...]


@dataclass(frozen=True, slots=True)
class ColumnPlan:
    """Everything the encoder needs. ``recipes[i]`` computes layout column i + 1 as a product of atoms.

    `nodes` are numeric expressions by their canonical text. `groupings` has the columns of each grouping of the layout,
    and `combinations` the combinations of levels for groupings of several columns.
    """

    layout: Layout
    recipes: tuple[Recipe, ...]
    nodes: Mapping[str, Node]
    groupings: tuple[tuple[str, ...], ...]
    combinations: Mapping[tuple[str, ...], Combinations]


@dataclass(frozen=True, slots=True)
class _Fields:
    """One factor of one term: column names, atoms, and the factor's levels and coding when it has any."""

    names: list[str]
    atoms: list[Atom]
    column: str = ""
    coding: np.ndarray | None = None


@dataclass(slots=True)
class _ColumnRecipes:
    """Columns interned by what they compute, so that X and all Z share them."""

    # Column 0 is the constant: it has a name and no recipe, so `recipes` is one shorter than `names`.
    names: list[str] = field(default_factory=lambda: ["1"])
    recipes: list[Recipe] = field(default_factory=list)
    places: dict[Any, int] = field(default_factory=dict)

    def place(self, name: str, recipe: Recipe) -> int:
        """Layout column of a recipe; an equal recipe has the same one, and the empty recipe is the constant."""
        if not recipe:
            return 0
        # x:z and z:x are one column. The first spelling decides the order of multiplication, and so the bits.
        key = tuple(sorted(map(_identity, recipe)))
        if key not in self.places:
            self.places[key] = len(self.names)
            self.names.append(name)
            self.recipes.append(recipe)
        return self.places[key]


def _identity(atom: Atom) -> tuple[Any, ...]:
    if isinstance(atom, Numeric):
        return ("numeric", atom.text, atom.component, b"")
    return ("coded", atom.column, 0, atom.coding.tobytes())


@dataclass(frozen=True, slots=True)
class Builder:
    """Builds a ColumnPlan. `is_factor` tells which trees are factors. `contrasts` has the user's, by column or text."""

    parsed: ParsedFormula
    is_factor: Callable[[Node], bool]
    levels: Mapping[str, Levels]
    combinations: Mapping[tuple[str, ...], Combinations]
    contrasts: Mapping[str, Node]
    replayer: Replayer
    label: Callable[[Node], str] = label
    columns: _ColumnRecipes = field(default_factory=_ColumnRecipes)

    def plan(self) -> ColumnPlan:
        """The plan; names of columns are in backticks only where two columns of the model would be called the same."""
        plan = self._plan()
        # Backticks change names that users index by, so they come only where two coefficients could not be told apart.
        if self.label is label and _has_namesakes(plan.layout):
            return replace(self, label=_quoted_label, columns=_ColumnRecipes())._plan()
        return plan

    def _plan(self) -> ColumnPlan:
        names, places, blocks, one = self._fixed()
        groupings: dict[str, tuple[Grouping, tuple[str, ...]]] = {}
        terms = self._random(groupings)
        fixed_factors = tuple(self._fixed_factor(block, groupings) for block in blocks)
        layout = Layout(
            columns=tuple(self.columns.names),
            fixed_names=tuple(names),
            fixed_columns=tuple(places),
            fixed_factors=fixed_factors,
            terms=terms,
            groupings=tuple(grouping for grouping, _ in groupings.values()),
            one=one,
            response=label(self.parsed.response),
        )
        nodes = {unparse(node): node for part in self.parsed.parts for node in part.factors if not self.is_factor(node)}
        behind = tuple(variables for _, variables in groupings.values())
        return ColumnPlan(layout, tuple(self.columns.recipes), nodes, behind, self.combinations)

    def _fixed(self) -> tuple[list[str], list[int], list[tuple[list[_Fields], list[int]]], np.ndarray | None]:
        terms = self.fixed_terms()
        total = sum(prod(len(fields.names) for fields in term) for _, term in terms)
        # The limit guards the (p, p) matrices of the fit. Names are counted before a column is interned.
        if total > _MOST_COLUMNS:
            raise UsageError(f"the fixed effects would have {total} coefficients, more than {_MOST_COLUMNS}")
        names: list[str] = []
        places: list[int] = []
        blocks: list[tuple[list[_Fields], list[int]]] = []
        constant: list[int] = []
        for scoped, term in terms:
            start = len(names)
            names += _term_names(term)
            positions = list(range(start, len(names)))
            if total > DENSE_COLUMNS and _fits_block(term):
                blocks.append((term, positions))
                # -1 says that a fixed factor holds the column. The positions of coefficients stay those of the formula.
                places += [-1] * len(positions)
            else:
                places += self._places(term)
            # `one` may be any c with X c = 1, so the first columns that sum to one are enough.
            if not constant and _spans_constant(scoped, term):
                constant = positions
        one = np.zeros(len(names)) if constant else None
        if one is not None:
            one[constant] = 1.0
        return names, places, blocks, one

    def fixed_terms(self) -> list[tuple[ScopedTerm, list[_Fields]]]:
        """The products of the fixed part, in the order of its columns."""
        return self._terms(self.parsed.fixed)

    def _terms(self, part: LinearPart) -> list[tuple[ScopedTerm, list[_Fields]]]:
        structure = scoped_terms(part, [self.is_factor(node) for node in part.factors])
        return [
            (scoped, [self._fields(part.factors[number], reduced) for number, reduced in scoped.factors])
            for scoped in structure
        ]

    def _fields(self, node: Node, reduced: bool) -> _Fields:
        text, shown = unparse(node), self.label(node)
        if not self.is_factor(node):
            fields = self.replayer.fields(node)
            if not fields:
                return _Fields([shown], [Numeric(text)])
            return _Fields([f"{shown}[{name}]" for name in fields], [Numeric(text, i) for i in range(len(fields))])
        column = str(node.value if node.kind == "name" else node.arguments[0].value)
        # The formula's own contrast wins over contrasts=, and a key for C(f) over one for the column f.
        chosen = (contrast_node(node) if node.kind == "call" else None) or self.contrasts.get(text)
        chosen = chosen or self.contrasts.get(label(node)) or self.contrasts.get(column)
        labels = [str(label) for label in self.levels[column].labels.tolist()]
        contrast = make_contrast(self.parsed.text, chosen, labels)
        matrix, shape, names = coding_matrix(contrast, labels, reduced)
        atoms: list[Atom] = [Coded(column, vector) for vector in np.ascontiguousarray(matrix.T)]
        return _Fields([shape.format(name=shown, field=name) for name in names], atoms, column, matrix)

    def _places(self, term: Sequence[_Fields]) -> list[int]:
        # The first factor varies fastest, as in R and formulaic, while `product` varies its last argument fastest.
        recipes = (tuple(reversed(atoms)) for atoms in product(*(fields.atoms for fields in reversed(term))))
        return [self.columns.place(*pair) for pair in zip(_term_names(term), recipes, strict=True)]

    def _random(self, groupings: dict[str, tuple[Grouping, tuple[str, ...]]]) -> tuple[RandomTerm, ...]:
        bars = self.parsed.bars
        sizes = [self._size(bar.variables) for bar in bars]
        terms: list[RandomTerm] = []
        shown: dict[str, int] = {}
        for number in lme4_order(sizes):
            bar = bars[number]
            if bar.name not in groupings:
                groupings[bar.name] = self._grouping(bar.name, bar.variables), bar.variables
            # lme4 names the second term of one grouping g.1; the numbers follow its order of terms, not the formula's.
            count = shown[bar.name] = shown.get(bar.name, -1) + 1
            covariates, names = self._covariates(bar.lhs)
            label = f"{bar.name}.{count}" if count else bar.name
            terms.append(RandomTerm(label, list(groupings).index(bar.name), covariates, names, bar.structure))
        return tuple(terms)

    def _covariates(self, part: LinearPart) -> tuple[tuple[int, ...], tuple[str, ...]]:
        terms = [term for _, term in self._terms(part)]
        names = tuple(name for term in terms for name in _term_names(term))
        return tuple(place for term in terms for place in self._places(term)), names

    def _size(self, variables: tuple[str, ...]) -> int:
        return len(self.levels[variables[0]] if len(variables) == 1 else self.combinations[variables])

    def _grouping(self, name: str, variables: tuple[str, ...]) -> Grouping:
        source = self.levels[variables[0]] if len(variables) == 1 else self.combinations[variables]
        return Grouping(name, variables, source.labels)

    def _fixed_factor(
        self, block: tuple[list[_Fields], list[int]], groupings: dict[str, tuple[Grouping, tuple[str, ...]]]
    ) -> FixedFactor:
        term, positions = block
        factor = next(fields for fields in term if fields.column)
        numeric = [fields for fields in term if not fields.column]
        place = self._places(numeric)[0] if numeric else 0
        name, variables = factor.column, (factor.column,)
        if name in groupings and groupings[name][1] != variables:
            # Groupings are looked up by name, and the column would take the levels of the interaction.
            name = quoted(name)  # an interaction a:b beside a column `a:b`
        if name not in groupings:
            groupings[name] = self._grouping(name, variables), variables
        assert factor.coding is not None
        return FixedFactor(list(groupings).index(name), place, factor.coding, tuple(positions))


def _quoted_label(node: Node) -> str:
    """The text with backticks where a name could be read as something else, as an intercept too."""
    return "`Intercept`" if node.kind == "name" and node.value == "Intercept" else unparse(node)


def _has_namesakes(layout: Layout) -> bool:
    """Whether two coefficients, or two columns behind random effects, have one name."""
    if len(set(layout.fixed_names)) < len(layout.fixed_names):
        return True
    columns = {*zip(layout.fixed_names, layout.fixed_columns, strict=True)}
    columns |= {pair for term in layout.terms for pair in zip(term.names, term.covariates, strict=True)}
    # Columns of fixed factors (-1) are left out: their names were compared with the other coefficients above.
    columns = {(name, place) for name, place in columns if place >= 0}
    return len({name for name, _ in columns}) < len(columns)


def lme4_order(sizes: Sequence[int]) -> list[int]:
    """Order of the random terms: as written when sizes fall already, else by decreasing size, ties reversed.

    That is lme4's ``rev(order(nl))``, which decides the order of theta.
    """
    if all(larger >= smaller for larger, smaller in pairwise(sizes)):
        return list(range(len(sizes)))
    # A stable sort that is turned round reverses ties, as R's rev(order(nl)) does.
    return sorted(range(len(sizes)), key=lambda number: sizes[number])[::-1]


def _term_names(term: Sequence[_Fields]) -> list[str]:
    if not term:
        return ["Intercept"]
    return [":".join(reversed(names)) for names in product(*(fields.names for fields in reversed(term)))]


def _fits_block(term: Sequence[_Fields]) -> bool:
    """One factor with many levels, alone or times numeric columns."""
    factors = [fields for fields in term if fields.column]
    others = prod(len(fields.names) for fields in term if not fields.column)
    return len(factors) == 1 and others == 1 and len(factors[0].names) > _LARGE_TERM


def _spans_constant(scoped: ScopedTerm, term: Sequence[_Fields]) -> bool:
    """Columns that sum to one: the intercept, or fully coded factors alone."""
    return all(fields.column and not reduced for fields, (_, reduced) in zip(term, scoped.factors, strict=True))
