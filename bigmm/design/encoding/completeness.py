"""Which rows count: complete in every used column, with a weight above zero, and finite in every expression.

The fit drops every other row. Levels, reference levels, contrasts and the states of transforms are those of the rows
that count, so this is the one place that tells them from the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from bigmm.design.encoding.encoder import Cells, Response, response_values
from bigmm.design.encoding.rows import ZERO_WEIGHT, UsableRows, bad_expressions, complete_rows, zero_weights
from bigmm.design.formula.expression import STATEFUL, Node
from bigmm.design.levels.numbering import Levels
from bigmm.design.transforms.stateful import Replayer
from bigmm.errors import DataError


@dataclass(frozen=True, slots=True)
class Completeness:
    """The rule that decides which rows of a table count.

    Attributes
    ----------
    columns : tuple of str
        The used columns. A missing value is charged to the first of them that lacks it.
    weights : str or None
        The column of weights.
    drop_missing : bool
        Leave incomplete rows out. Otherwise such a row is an error.
    trees : tuple of Node
        The expressions of the model, which have to be finite.
    arguments : tuple of Node
        Expressions inside of transforms that are not learned yet, where an infinite value counts as a missing one.
    response : Response or None
        None leaves the expression of the response out.
    binomial : bool
        The response may be successes of trials.
    """

    columns: tuple[str, ...]
    weights: str | None
    drop_missing: bool
    trees: tuple[Node, ...]
    arguments: tuple[Node, ...]
    response: Response | None
    binomial: bool
    levels: Mapping[str, Levels]
    replayer: Replayer

    def rows(self, table: pa.Table, where: str) -> tuple[UsableRows, Cells]:
        """The rows that count, and their cells with every expression evaluated.

        Raises DataError naming `where`, column and row for infinite values and negative weights, and for missing values
        when these are not to be dropped.
        """
        rows = complete_rows(table, self.columns, self.weights, self.drop_missing, where)
        # Each round drops the rows of one reason, so that every row is counted under one name.
        while True:
            cells = Cells(rows.table, where, self.levels, self.replayer)
            trouble = self._trouble(cells, rows, where)
            if trouble is None:
                return rows, cells
            name, bad = trouble
            if not self.drop_missing and name != ZERO_WEIGHT:
                row = rows.row(int(np.argmax(bad)))
                raise DataError(f"{where}: {name} has no value in row {row}; drop_missing=True would leave it out")
            rows = rows.without(name, bad)

    def __call__(self, table: pa.Table, where: str) -> pa.Table:
        """The table without the rows that do not count."""
        return self.rows(table, where)[0].table

    def _trouble(self, cells: Cells, rows: UsableRows, where: str) -> tuple[str, np.ndarray] | None:
        """The first reason to leave more rows out, with the rows (n,) bool."""
        for tree in self.trees:
            cells.value(tree)
        trials = None
        if self.response is not None and self.response.kind != "levels":
            # This also evaluates the response into `cells.expressions`, where its NaN is found like any other.
            trials = response_values(self.response, cells, self.binomial)[1]
        trouble = bad_expressions(cells.expressions, rows, where)
        if trouble is None and trials is not None:
            zero = zero_weights("number of trials", trials, where)
            trouble = None if zero is None else (ZERO_WEIGHT, zero)
        for node in self.arguments if trouble is None else ():
            bad = ~np.isfinite(cells.value(node))
            if bad.any():
                return "(transform)", bad
        return trouble

    @property
    def needs_states(self) -> bool:
        """Whether a state decides which rows count: that of log(scale(x)) does. A transform itself never does."""
        return any(_stateful(_innermost(tree)) for tree in self.trees)

    def before_states(self) -> Completeness:
        """The rule as far as it is known before any state is learned: by columns and by expressions without states."""
        plain = tuple(tree for tree in self.trees if not _stateful(tree))
        calls = [node for tree in self.trees for node in tree.walk() if node.function in STATEFUL]
        arguments = tuple(node.arguments[0] for node in calls if not _stateful(node.arguments[0]))
        # A call inside another call has no value before the inner state, so only arguments without states are judged.
        return replace(self, trees=plain, arguments=arguments)


def _stateful(tree: Node) -> bool:
    return any(node.function in STATEFUL for node in tree.walk())


def _innermost(tree: Node) -> Node:
    """The argument of transforms of transforms: log(x) of poly(scale(log(x)), 2)."""
    return _innermost(tree.arguments[0]) if tree.function in STATEFUL else tree
