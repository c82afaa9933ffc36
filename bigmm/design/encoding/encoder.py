"""Encode one partition: the hot path of every pass over the rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from bigmm.design.columns import Coded, ColumnPlan, Numeric, Recipe
from bigmm.design.encoding.cells import copy_numbers, floats, is_numeric, type_name
from bigmm.design.formula.expression import Node, columns_of, evaluate, unparse
from bigmm.design.levels.numbering import Levels
from bigmm.design.transforms.stateful import Replayer
from bigmm.errors import DataError


@dataclass(frozen=True, slots=True)
class Response:
    """How y is computed. ``kind``: numeric, levels, cbind or ratio (successes of trials).

    ones: (n_levels,) True for the levels that count as 1, None where there are no levels.
    """

    node: Node
    kind: str
    ones: np.ndarray | None = None


@dataclass(slots=True)
class Cells:
    """One table being encoded: numbers and level numbers of its columns, each converted once."""

    table: pa.Table
    where: str
    levels: Mapping[str, Levels]
    replayer: Replayer
    strict: bool = True
    numbers: dict[str, np.ndarray] = field(default_factory=dict)
    codes: dict[str, np.ndarray] = field(default_factory=dict)
    expressions: dict[str, np.ndarray] = field(default_factory=dict)

    def column(self, name: str) -> pa.ChunkedArray:
        """A column of the table; DataError where it is missing."""
        if name not in self.table.column_names:
            raise DataError(f"{self.where}: column {name!r} is missing; the model needs it")
        return self.table.column(name)

    def numeric(self, name: str) -> pa.ChunkedArray:
        """A column of numbers, or one without any value; DataError for other types."""
        column = self.column(name)
        if not is_numeric(column.type) and not pt.is_null(column.type):
            raise DataError(f"{self.where}: column {name!r} holds {type_name(column.type)}, numbers are needed")
        return column

    def number(self, name: str) -> np.ndarray:
        """(n,) float64 values of a column."""
        if name not in self.numbers:
            self.numbers[name] = floats(self.numeric(name))
        return self.numbers[name]

    def write_number(self, name: str, out: np.ndarray) -> None:
        """Values of a column into out (n,), which then serves everybody who needs them."""
        if name in self.numbers:
            out[:] = self.numbers[name]
        else:
            copy_numbers(self.numeric(name), out)
            self.numbers[name] = out

    def level(self, name: str) -> np.ndarray:
        """(n,) int32 level numbers of a factor; in a pass an unknown value is an error naming the spot."""
        if name not in self.codes:
            # The minimum is one fast pass. The masks that name a row are made only where some code is negative.
            codes = self.levels[name].numbers(self.column(name))
            if self.strict and codes.size and codes.min() < 0:
                self.refuse_unknown(name, codes)
            self.codes[name] = codes
        return self.codes[name]

    def refuse_unknown(self, name: str, codes: np.ndarray) -> None:
        """DataError for the first value that is there but is no level."""
        column = self.column(name)
        unknown = (codes < 0) & column.is_valid().to_numpy()
        if pt.is_floating(column.type):
            # NaN is a missing value and not an unknown level, but Arrow's validity does not know it.
            unknown &= ~np.isnan(floats(column))
        places = np.flatnonzero(unknown)
        if places.size:
            # The value is shown as the file holds it, not in the canonical type of levels.
            value = column[int(places[0])].as_py()
            raise DataError(
                f"{self.where}: column {name!r} holds {value!r} in row {places[0] + 1}, "
                "a level not seen when levels were learned"
            )

    def value(self, node: Node) -> np.ndarray:
        """(n,) or (n, k) values of an expression."""
        if node.kind == "name":
            return self.number(str(node.value))
        text = unparse(node)
        if text not in self.expressions:
            columns = {name: self.number(name) for name in columns_of(node)}
            value = evaluate(node, columns, self.replayer)
            # A constant such as I(2) is one number; its view of length n costs no memory.
            self.expressions[text] = np.broadcast_to(value, self.table.num_rows) if value.ndim == 0 else value
        return self.expressions[text]


def fill_columns(plan: ColumnPlan, cells: Cells, skip: frozenset[int] = frozenset()) -> np.ndarray:
    """(c - 1, n) float64: every layout column but the constant, written once; rows in `skip` become NaN."""
    out = _matrix(len(plan.recipes), cells.table.num_rows)
    for row, recipe in enumerate(plan.recipes):
        if row in skip:
            out[row] = np.nan
        else:
            _fill(plan, cells, recipe, out[row])
    return out


def _matrix(count: int, rows: int) -> np.ndarray:
    """(count, rows) float64, not initialised, from Arrow's pool: its pages were used before, so no page faults."""
    if count * rows == 0:  # `frombuffer` refuses an empty buffer
        return np.empty((count, rows))
    return np.frombuffer(pa.allocate_buffer(8 * count * rows), dtype=np.float64).reshape(count, rows)


def _fill(plan: ColumnPlan, cells: Cells, recipe: Recipe, out: np.ndarray) -> None:
    first = recipe[0]
    # The commonest column, a plain number, is converted straight into its row without an array between.
    if len(recipe) == 1 and isinstance(first, Numeric) and plan.nodes[first.text].kind == "name":
        cells.write_number(str(plan.nodes[first.text].value), out)
        return
    out[:] = _atom(plan, cells, first)
    with np.errstate(over="ignore", invalid="ignore"):  # such a column is named once its squares are summed
        for atom in recipe[1:]:
            np.multiply(out, _atom(plan, cells, atom), out=out)


def _atom(plan: ColumnPlan, cells: Cells, atom: Numeric | Coded) -> np.ndarray:
    if isinstance(atom, Numeric):
        value = cells.value(plan.nodes[atom.text])
        return value if atom.component < 0 else value[:, atom.component]
    codes = cells.level(atom.column)
    # mode="clip" spares a check of bounds. Codes of -1 take level 0 here and become NaN just below.
    values = np.take(atom.coding, codes, mode="clip")
    if not cells.strict and codes.size and codes.min() < 0:
        values[codes < 0] = np.nan
    return values


def fill_refs(plan: ColumnPlan, cells: Cells) -> tuple[np.ndarray, ...]:
    """Per grouping (n,) int32 level numbers."""
    refs = []
    for grouping, variables in zip(plan.layout.groupings, plan.groupings, strict=True):
        if len(variables) == 1:
            refs.append(cells.level(variables[0]))
            continue
        codes = plan.combinations[variables].numbers([cells.level(name) for name in variables])
        if cells.strict and codes.size and codes.min() < 0:
            place = int(np.argmin(codes))
            value = ":".join(str(cells.column(name)[place].as_py()) for name in variables)
            raise DataError(
                f"{cells.where}: {grouping.name!r} is {value!r} in row {place + 1}, a combination not seen when levels "
                "were learned"
            )
        refs.append(codes)
    return tuple(refs)


def response_values(response: Response, cells: Cells, trials: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """y (n,) and, for successes of trials, the number of trials (n,)."""
    node = response.node
    if response.ones is not None:
        codes = cells.level(str(node.value))
        # Index -1 takes the last level, which the mask overwrites.
        return np.where(codes < 0, np.nan, response.ones[codes]), None
    if response.kind == "cbind":
        successes, failures = (cells.value(argument) for argument in node.arguments)
        total = successes + failures
        with np.errstate(invalid="ignore"):
            # A row of no trials is no 0/0: its weight is zero, and `completeness` drops it under that name.
            return successes / np.where(total == 0, 1.0, total), total
    return cells.value(node), cells.value(node.arguments[1]) if response.kind == "ratio" and trials else None


def sealed(values: np.ndarray) -> np.ndarray:
    """A contiguous read-only float64 view: what comes from Arrow is read-only, and numba compiles once per kind."""
    view = np.ascontiguousarray(values, dtype=np.float64).view()
    view.flags.writeable = False
    return view


def total_offset(nodes: tuple[Node, ...], column: str | None, cells: Cells) -> np.ndarray | None:
    """Sum (n,) of the formula's offsets and the offset column, None without any."""
    parts = [cells.value(node) for node in nodes] + ([cells.number(column)] if column else [])
    # The sum makes a new array, because the parts may be views of Arrow's memory.
    return np.sum(parts, axis=0) if parts else None
