"""filter=: a pyarrow expression, a list of tuples, or a short text that is parsed and never evaluated."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from bigmm.errors import DataError, UsageError
from bigmm.source.filter_binding import bind, tree_of_tuples
from bigmm.source.filter_text import parse_text
from bigmm.source.schema import column_hint

_SHOWN = 200  # characters of a filter in messages


@dataclass(frozen=True, slots=True)
class Predicate:
    """Which rows are kept: those for which ``expression`` is true.

    `columns` are those that the expression needs, and `text` is the filter for messages. `bounds` holds wherever the
    expression is true, and the statistics of row groups can decide it; it is None where nothing can be decided.
    """

    expression: pc.Expression
    columns: tuple[str, ...]
    text: str
    bounds: pc.Expression | None

    def apply(self, table: pa.Table, where: str) -> pa.Table:
        """The rows of ``table`` for which the expression is true (a null counts as not true)."""
        rows = ds.InMemoryDataset(_plain(table.select(self.columns)))
        try:
            # One thread, as the lane has its own. A null in `keep` leaves the row out.
            keep = rows.scanner(columns={"keep": self.expression}, use_threads=False).to_table().column("keep")
        except pa.ArrowException as error:
            raise DataError(self._failure(where, str(error))) from error
        return table.filter(keep)

    def _failure(self, where: str, reason: str) -> str:
        if "overflow" not in reason:
            return f"the filter {self.text} failed on {where}: {reason}"
        names = ", ".join(map(repr, self.columns))
        return (
            f"the filter {self.text} failed on {where}: a result of integer arithmetic has more than 64 bits "
            f"(columns {names}); write 1.0 * the column to compute in floating point"
        )


def _plain(table: pa.Table) -> pa.Table:
    """Dictionaries decoded: not every comparison of Arrow knows them."""
    plain = plain_schema(table.schema)
    return table if plain.equals(table.schema) else table.cast(plain)


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """The schema a filter sees: text as string."""
    # `Unified` has dictionaries of text only.
    return pa.schema([(f.name, pa.string() if pa.types.is_dictionary(f.type) else f.type) for f in schema])


def make_predicate(condition: Any, schema: pa.Schema) -> Predicate | None:
    """Bind filter= to the unified schema. Raises `UsageError` (or `FormulaError`, with the spot) if it does not fit."""
    if condition is None:
        return None
    for kind, convert in _KINDS:
        if isinstance(condition, kind):
            return convert(condition, plain_schema(schema))
    raise UsageError(
        f"filter must be a text like \"x > 3 and g == 'a'\", a list of tuples like [('x', '>', 3)] or a pyarrow "
        f"expression, not {type(condition).__name__}"
    )


def _shown(condition: Any) -> str:
    text = repr(condition)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _from_text(source: str, schema: pa.Schema) -> Predicate:
    text = source.strip()
    condition, columns = bind(parse_text(text, schema.names), schema, text)
    return _checked(Predicate(condition.expression, columns, _shown(source), condition.bounds), schema)


def _from_tuples(filters: list[Any] | tuple[Any, ...], schema: pa.Schema) -> Predicate:
    try:
        tree = tree_of_tuples(filters)
    except (ValueError, TypeError, pa.ArrowException) as error:
        message = f"cannot read filter {_shown(filters)}: {error}; expected tuples like ('x', '>', 3)"
        raise UsageError(message) from error
    condition, columns = bind(tree, schema, "")
    return _checked(Predicate(condition.expression, columns, _shown(filters), condition.bounds), schema)


def _checked(predicate: Predicate, schema: pa.Schema) -> Predicate:
    """The predicate, if Arrow can compute it of such columns."""
    # Binding to an empty table finds errors of types before any row is read.
    problem = _binding_problem(predicate.expression, pa.schema([schema.field(name) for name in predicate.columns]))
    if problem:
        names = ", ".join(f"{name!r} ({schema.field(name).type})" for name in predicate.columns)
        raise UsageError(f"the filter {predicate.text} does not fit the data: columns {names}: {problem}")
    return predicate


def _from_expression(expression: pc.Expression, schema: pa.Schema) -> Predicate:
    """An expression of Arrow's is taken as it is, with Arrow's own rules for types and missing values."""
    columns = _used_columns(expression, schema, expression)
    if not columns:
        raise UsageError(f"the filter {expression!r} names no column of the data")
    return Predicate(
        expression, columns, _shown(expression), expression if _statistics_decide(expression, columns, schema) else None
    )


def _statistics_decide(expression: pc.Expression, columns: tuple[str, ...], schema: pa.Schema) -> bool:
    """Whether the statistics of row groups may decide an expression of Arrow's.

    They leave NaN out, and NaN passes ``!=`` and negations: on floating columns only plain comparisons are safe.
    """
    if not any(pa.types.is_floating(schema.field(name).type) for name in columns):
        return True
    # Texts in quotes are taken out first: they may hold anything that looks like an operator.
    bare = re.sub(r'"[^"]*"', "", str(expression)).replace("is_in(", "")
    return not re.search(r"!=|[a-z_0-9]\(|nan", bare)


def _used_columns(expression: pc.Expression, schema: pa.Schema, shown: Any) -> tuple[str, ...]:
    """The columns an expression names, found by binding it to the schema with one column left out at a time."""
    problem = _binding_problem(expression, schema)
    if problem:
        unknown = re.search(r"No match for FieldRef\.Name\((.*?)\) in", problem)
        if unknown:
            hint = column_hint(unknown[1], schema.names)
            raise UsageError(f"the filter names a column that is not in the data: {unknown[1]!r}{hint}")
        raise UsageError(f"the filter {shown!r} does not fit the data: {problem}")
    # Arrow does not tell the columns of an expression; binding fails exactly where a used one is gone.
    without = [(name, schema.remove(i)) for i, name in enumerate(schema.names)]
    return tuple(name for name, others in without if _binding_problem(expression, others))


def _binding_problem(expression: pc.Expression, schema: pa.Schema) -> str:
    try:
        bound = ds.InMemoryDataset(schema.empty_table()).scanner(columns={"keep": expression}, use_threads=False)
        kind = bound.projected_schema.field("keep").type
    except (pa.ArrowException, TypeError, ValueError) as error:
        return " ".join(str(error).split())
    return "" if pa.types.is_boolean(kind) else f"it is {kind}, not true or false"


_KINDS: tuple[tuple[type | tuple[type, ...], Callable[[Any, pa.Schema], Predicate]], ...] = (
    (str, _from_text),
    ((list, tuple), _from_tuples),
    (pc.Expression, _from_expression),
)
