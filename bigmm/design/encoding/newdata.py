"""Encode rows to predict for: every row is kept, unknown levels become -1, missing values NaN."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bigmm.design.columns import Coded, ColumnPlan
from bigmm.design.encoding.encoder import Cells, Response, fill_columns, response_values, total_offset
from bigmm.design.formula.bars import Bar
from bigmm.design.formula.expression import Node, columns_of
from bigmm.design.formula.parser import ParsedFormula
from bigmm.design.layout import DesignChunk
from bigmm.design.settings import DesignOptions, is_factor
from bigmm.errors import DataError, UsageError

NEW_LEVELS = ("population", "raise", "missing")


@dataclass(frozen=True, slots=True)
class NewRows:
    """One table of new rows, and the design that encodes it.

    `need` names the parts to encode, and `groups` the groupings of the random part; None means all.
    """

    parsed: ParsedFormula
    plan: ColumnPlan
    settings: DesignOptions
    text: frozenset[str]
    cells: Cells
    need: tuple[str, ...]
    groups: frozenset[str] | None = None

    def encode(self, response: Response, new_levels: str) -> DesignChunk:
        """See `DesignSpec.encode_new`."""
        if new_levels not in NEW_LEVELS:
            raise UsageError(f"new_levels={new_levels!r}; it can be {', '.join(NEW_LEVELS)}")
        # Absent columns are refused before any column is computed.
        self._check_needed()
        cells, weights = self.cells, self.settings.weights
        columns = fill_columns(self.plan, cells, self._absent_rows())
        offset = total_offset(self.parsed.offsets, self.settings.offset, cells) if "fixed" in self.need else None
        w = cells.number(weights) if weights and weights in cells.table.column_names else None
        refs = tuple(self._refs(number, new_levels) for number in range(len(self.plan.groupings)))
        return DesignChunk(columns, self._response(response), refs, w, offset, cells.table.num_rows, ())

    def _bars(self) -> list[Bar]:
        """The random terms that are needed."""
        bars = self.parsed.bars if "random" in self.need else ()
        return [bar for bar in bars if self.groups is None or bar.name in self.groups]

    def _nodes(self) -> list[Node]:
        fixed = [*self.parsed.fixed.factors, *self.parsed.offsets] if "fixed" in self.need else []
        random = [node for bar in self._bars() for node in bar.lhs.factors]
        return fixed + random

    def _check_needed(self) -> None:
        """Needed columns are there, and the levels of factors among the covariates are known."""
        nodes = self._nodes()
        names = [name for node in nodes for name in columns_of(node)]
        names += [self.settings.offset] if self.settings.offset and "fixed" in self.need else []
        names += [name for bar in self._bars() for name in bar.variables]
        for name in dict.fromkeys(names):
            self.cells.column(name)
        factors = [name for node in nodes if is_factor(node, self.text, self.settings) for name in columns_of(node)]
        for name in dict.fromkeys(factors):
            self.cells.refuse_unknown(name, self.cells.level(name))

    def _absent_rows(self) -> frozenset[int]:
        """Layout rows that cannot be computed, because a column that is not needed is absent."""
        present = set(self.cells.table.column_names)
        behind = [{name for atom in recipe for name in self._columns_of(atom)} for recipe in self.plan.recipes]
        return frozenset(row for row, names in enumerate(behind) if not names <= present)

    def _columns_of(self, atom: object) -> tuple[str, ...]:
        return (atom.column,) if isinstance(atom, Coded) else columns_of(self.plan.nodes[atom.text])  # type: ignore

    def _refs(self, number: int, new_levels: str) -> np.ndarray:
        cells, variables = self.cells, self.plan.groupings[number]
        random = self.plan.layout.groupings[number].name in {bar.name for bar in self._bars()}
        fixed = "fixed" in self.need and any(f.grouping == number for f in self.plan.layout.fixed_factors)
        if not random and not fixed:
            return np.full(cells.table.num_rows, -1, dtype=np.int32)
        # A new level of a grouping is no error here: its random effect is the population's, zero.
        codes = [cells.level(name) for name in variables]
        refs = codes[0] if len(codes) == 1 else self.plan.combinations[variables].numbers(codes)
        if random and new_levels == "raise":
            self._refuse_new(number, refs)
            self._refuse_missing(number)
        return refs

    def _refuse_missing(self, number: int) -> None:
        for name in self.plan.groupings[number]:
            absent = self.cells.column(name).is_null(nan_is_null=True).to_numpy()
            if absent.any():
                raise DataError(
                    f"{self.cells.where}: {name!r} is missing in row {int(np.argmax(absent)) + 1}, so the row has no "
                    "level; new_levels='population' predicts without its random effect"
                )

    def _refuse_new(self, number: int, refs: np.ndarray) -> None:
        variables = self.plan.groupings[number]
        present = [~self.cells.column(name).is_null(nan_is_null=True).to_numpy() for name in variables]
        # A missing value is -1 too, and has a message of its own.
        unknown = np.flatnonzero((refs < 0) & np.logical_and.reduce(present))
        if unknown.size:
            place = int(unknown[0])
            value = ":".join(str(self.cells.column(name)[place].as_py()) for name in variables)
            name = self.plan.layout.groupings[number].name
            raise DataError(
                f"{self.cells.where}: {name!r} is {value!r} in row {place + 1}, a level not in the fit; "
                "new_levels='population' predicts without its random effect"
            )

    def _response(self, response: Response) -> np.ndarray:
        if not set(columns_of(self.parsed.response)) <= set(self.cells.table.column_names):
            return np.full(self.cells.table.num_rows, np.nan)
        # A copy, since the values may be a read-only view of Arrow's memory.
        return np.array(response_values(response, self.cells, False)[0], dtype=np.float64)
