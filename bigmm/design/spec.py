"""The learned design: formula, levels and states, replayed on any partition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from bigmm.design.columns import Builder, ColumnPlan, Numeric
from bigmm.design.contrasts import parse_contrasts
from bigmm.design.encoding.completeness import Completeness
from bigmm.design.encoding.encoder import (
    Cells,
    Response,
    fill_columns,
    fill_refs,
    response_values,
    sealed,
    total_offset,
)
from bigmm.design.encoding.newdata import NewRows
from bigmm.design.fixed_terms import FixedPart, fixed_part_of
from bigmm.design.formula.bars import Bar
from bigmm.design.formula.expression import Node, columns_of, label
from bigmm.design.formula.parser import ParsedFormula, parse, required_columns
from bigmm.design.layout import DesignChunk, Layout
from bigmm.design.levels.numbering import Combinations, Levels, restricted
from bigmm.design.outcomes import Outcomes, outcomes, successes
from bigmm.design.settings import DesignOptions, is_factor
from bigmm.design.transforms.stateful import Replayer, State, stateful_nodes
from bigmm.errors import VersionError

_FORMAT = 1
NEW_DATA = "new data"
"""How messages name a table to predict for; whoever knows where it is from says so instead."""


@dataclass(frozen=True, eq=False)
class DesignSpec:
    """How rows become y, X and Z: the formula, with what was learned from the rows.

    Attributes
    ----------
    levels : mapping of str to Levels
        Levels of each column that is a factor.
    combinations : mapping of tuple of str to Combinations
        The combinations of levels that occur, by the columns of an interaction.
    states : mapping of str to State
        What each stateful transform learned, by its canonical text.
    text : frozenset of str
        Columns whose type makes them factors.
    passes : int
        Passes over the rows that learning took.
    complete : bool
        Levels and states are known to be those of the rows that count.
    lost : mapping of str to tuple of str
        Labels of levels without rows that count, by the column of a coded factor.
    """

    settings: DesignOptions
    levels: Mapping[str, Levels]
    combinations: Mapping[tuple[str, ...], Combinations]
    states: Mapping[str, State]
    text: frozenset[str]
    passes: int = 0
    complete: bool = False
    lost: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @cached_property
    def parsed(self) -> ParsedFormula:
        """The formula, parsed."""
        return parse(self.settings.formula, self.settings.need_random)

    @property
    def layout(self) -> Layout:
        """Names and numbers of all columns, terms and groupings."""
        return self.plan.layout

    @cached_property
    def response(self) -> Response:
        """How y is computed from the columns of the response."""
        node, kind = self.parsed.response, self.parsed.kind
        if node.kind != "name" or node.value not in self.levels:
            return Response(node, kind)
        return Response(node, "levels", successes(self.levels[str(node.value)], self.settings.success))

    @property
    def outcomes(self) -> Outcomes | None:
        """What counts as 1 and as 0 in a categorical response; None for numbers without another meaning."""
        if self.response.kind == "levels":
            return outcomes(self.levels[str(self.response.node.value)], self.settings.success)
        if self.settings.meanings is not None:
            zero, one = self.settings.meanings
            return Outcomes((one,), (zero,))
        return None

    @cached_property
    def used_columns(self) -> tuple[str, ...]:
        """Columns a pass reads, in the order in which a missing value is charged."""
        more = [name for name in (self.settings.weights, self.settings.offset) if name]
        return tuple(dict.fromkeys([*required_columns(self.parsed), *more]))

    @cached_property
    def replayer(self) -> Replayer:
        """The stateful transforms with what they have learned."""
        return Replayer(self.states)

    def is_factor(self, node: Node) -> bool:
        """Whether a term's tree is a factor: C(), text, or a number the user declared as categories."""
        return is_factor(node, self.text, self.settings)

    @cached_property
    def plan(self) -> ColumnPlan:
        """Which columns there are, and how each is computed."""
        return self._plan_of(self.parsed)

    @cached_property
    def fixed_part(self) -> FixedPart:
        """The fixed part as terms and columns that are products."""
        return fixed_part_of(self._builder(self.parsed), self.parsed.fixed)

    def _plan_of(self, parsed: ParsedFormula) -> ColumnPlan:
        return self._builder(parsed).plan()

    def _builder(self, parsed: ParsedFormula) -> Builder:
        contrasts = parse_contrasts(self.settings.contrasts)
        return Builder(parsed, self.is_factor, self.levels, self.combinations, contrasts, self.replayer)

    def covariate_names(self, bar: Bar) -> tuple[str, ...]:
        """(k,) names of a random term's covariates as this design codes them; its factors must be known here."""
        return self._plan_of(replace(self.parsed, bars=(bar,))).layout.terms[0].names

    @cached_property
    def completeness(self) -> Completeness:
        """The rule that tells the rows that count."""
        settings = self.settings
        # The trees come from the recipes: an expression that no column uses cannot make a row incomplete.
        atoms = [atom for recipe in self.plan.recipes for atom in recipe if isinstance(atom, Numeric)]
        trees = [*(self.plan.nodes[atom.text] for atom in atoms), *self.parsed.offsets]
        return Completeness(
            self.used_columns,
            settings.weights,
            settings.drop_missing,
            tuple(tree for tree in trees if tree.kind != "name"),
            (),
            self.response,
            settings.binomial,
            self.levels,
            self.replayer,
        )

    def encode(self, table: pa.Table, where: str) -> DesignChunk:
        """Encode a partition for fitting: incomplete rows are dropped and counted.

        Raises DataError naming `where`, column, value and row for infinite values, unseen levels, negative weights, and
        missing values when drop_missing is False.
        """
        settings = self.settings
        # `cells` holds every expression evaluated, so the columns below copy values and compute nothing twice.
        rows, cells = self.completeness.rows(table, where)
        columns = fill_columns(self.plan, cells)
        y, trials = response_values(self.response, cells, settings.binomial)
        offset = total_offset(self.parsed.offsets, settings.offset, cells)
        w = cells.number(settings.weights) if settings.weights else None
        if trials is not None:
            # Successes of trials are a proportion with prior weight n_i, as in R's glm; weights multiply it.
            w = trials if w is None else w * trials
        refs = fill_refs(self.plan, cells)
        w, offset = (None if values is None else sealed(values) for values in (w, offset))
        return DesignChunk(columns, sealed(y), refs, w, offset, table.num_rows, rows.counts())

    def encode_new(
        self,
        table: pa.Table,
        new_levels: str = "population",
        need: tuple[str, ...] = ("fixed", "random"),
        groups: frozenset[str] | None = None,
    ) -> DesignChunk:
        """Encode rows to predict for: every row is kept.

        refs are -1 for missing values and for levels not seen in the fit (`new_levels="raise"` refuses these); columns
        are NaN where a value is missing; y is NaN when the response is absent. Columns that `need` does not ask for may
        be absent; groups: names of the groupings whose random effects are needed, None for all. A factor kept in
        `Layout.fixed_factors` has refs -1 where its value is missing. DataError for a fixed factor's unseen level, a
        missing column, or text where numbers are needed.
        """
        cells = Cells(table, NEW_DATA, self.levels, self.replayer, strict=False)
        rows = NewRows(self.parsed, self.plan, self.settings, self.text, cells, need, groups)
        return rows.encode(self.response, new_levels)

    def with_levels(self, rows: Mapping[tuple[str, ...], np.ndarray], states: Mapping[str, State]) -> DesignSpec:
        """The design of the rows that count, where it was learned from more: without levels that have no such row.

        `rows` has (n_levels,) bool by the columns of a factor: whether the level has rows that count. `states` were
        learned from such rows. The order of levels stays; that of the terms may change with the numbers of levels.
        """
        levels, combinations = restricted(self.levels, self.combinations, rows)
        lost = dict(self.lost)
        for name in self.coded_columns:
            if (name,) in rows and not rows[name,].all():
                # Labels of lost levels outlive their levels: success= and the message of a one-level factor name them.
                lost[name] = tuple(self.levels[name].texts.filter(pa.array(~rows[name,])).to_pylist())
        return DesignSpec(self.settings, levels, combinations, states, self.text, complete=True, lost=lost)

    @cached_property
    def coded_columns(self) -> tuple[str, ...]:
        """Columns whose levels decide what coefficients and random effects there are, or which response is a 0."""
        nodes = [node for part in self.parsed.parts for node in part.factors if self.is_factor(node)]
        names = [name for node in nodes for name in columns_of(node)]
        names += [str(self.response.node.value)] if self.response.kind == "levels" else []
        return tuple(dict.fromkeys(names))

    def level_count(self, columns: tuple[str, ...]) -> int:
        """Levels of a factor of one column, or combinations of several that occur."""
        return len(self.levels[columns[0]] if len(columns) == 1 else self.combinations[columns])

    def level_numbers(self, columns: tuple[str, ...], table: pa.Table) -> np.ndarray:
        """(n,) int32 level of every row from the factor's own columns; -1 where one is missing or unknown."""
        numbers = [self.levels[name].numbers(table.column(name)) for name in columns]
        return numbers[0] if len(columns) == 1 else self.combinations[columns].numbers(numbers)

    def to_dict(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """(meta, arrays): meta is JSON-able; arrays are levels as Arrow streams (uint8), combinations (n, v) int32."""
        meta = {
            "format": _FORMAT,
            "settings": asdict(self.settings),
            "states": {text: dict(state) for text, state in self.states.items()},
            "text": sorted(self.text),
            "levels": list(self.levels),
            "combinations": [list(variables) for variables in self.combinations],
            "lost": {name: list(labels) for name, labels in self.lost.items()},
        }
        arrays = {f"levels_{i}": _to_bytes(levels.values) for i, levels in enumerate(self.levels.values())}
        arrays |= {f"combinations_{i}": c.codes for i, c in enumerate(self.combinations.values())}
        return meta, arrays

    @classmethod
    def from_dict(cls, meta: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> DesignSpec:
        """Rebuild what `to_dict` gave; the layout is identical."""
        if meta.get("format") != _FORMAT:
            raise VersionError(f"the saved design has format {meta.get('format')}, this version reads {_FORMAT}")
        plain: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in meta["settings"].items()}
        # JSON turns tuples into lists. Options with lists would not equal those of the fit.
        settings = DesignOptions(**plain)
        levels = {
            name: Levels(name, _from_bytes(np.asarray(arrays[f"levels_{i}"]))) for i, name in enumerate(meta["levels"])
        }
        combinations = {
            tuple(names): Combinations([levels[name] for name in names], np.asarray(arrays[f"combinations_{i}"]))
            for i, names in enumerate(meta["combinations"])
        }
        spec = cls(settings, levels, combinations, dict(meta["states"]), frozenset(meta["text"]))
        # version 1 wrote columns without backticks in the texts of transforms
        calls, saved = stateful_nodes(spec.parsed.nodes), meta["states"]
        states = {text: saved[text] if text in saved else saved[label(node)] for text, node in calls.items()}
        lost = {name: tuple(labels) for name, labels in meta.get("lost", {}).items()}
        return replace(spec, states=states, lost=lost)


def _to_bytes(values: pa.Array) -> np.ndarray:
    sink = pa.BufferOutputStream()
    table = pa.table({"levels": values})
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    # An Arrow stream keeps types that NumPy has not: decimals, zones of timestamps, levels that are bytes.
    return np.frombuffer(sink.getvalue(), dtype=np.uint8)


def _from_bytes(data: np.ndarray) -> pa.Array:
    with pa.ipc.open_stream(pa.py_buffer(np.ascontiguousarray(data))) as reader:
        column = reader.read_all().column("levels")
    # The indices of `Levels` need one array; a stream of no rows has no chunk at all.
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks or [pa.array([], column.type)])
