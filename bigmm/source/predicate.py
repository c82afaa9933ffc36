"""filter=: a pyarrow expression, a list of tuples, or a short text that is parsed and never evaluated."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from bigmm.errors import DataError, FormulaError, UsageError
from bigmm.source.schema import did_you_mean, logical_type


@dataclass(frozen=True, slots=True)
class Predicate:
    """Which rows are kept. ``columns`` are the columns it needs; ``text`` is for messages."""

    expression: pc.Expression
    columns: tuple[str, ...]
    text: str

    def apply(self, table: pa.Table, where: str) -> pa.Table:
        """The rows of ``table`` for which the expression is true (a null counts as not true)."""
        decided = ds.InMemoryDataset(_plain(table.select(self.columns)))
        try:
            keep = decided.scanner(columns={"keep": self.expression}, use_threads=False).to_table().column("keep")
        except pa.ArrowException as error:
            raise DataError(f"the filter {self.text} failed on {where}: {error}") from error
        return table.filter(keep)

    def decided_by_statistics(self, schema: pa.Schema) -> bool:
        """Whether the statistics of row groups may decide it.

        They leave NaN out, and NaN passes ``!=`` and negations: on floating columns only plain comparisons are safe.
        """
        if not any(pa.types.is_floating(schema.field(name).type) for name in self.columns):
            return True
        bare = re.sub(r'"[^"]*"', "", str(self.expression)).replace("is_in(", "")
        return not re.search(r"!=|[a-z_0-9]\(|nan", bare)


def _plain(table: pa.Table) -> pa.Table:
    """Dictionaries decoded: not every comparison of Arrow knows them."""
    plain = plain_schema(table.schema)
    return table if plain.equals(table.schema) else table.cast(plain)


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """The schema a filter sees: text as string."""
    return pa.schema([(f.name, pa.string() if pa.types.is_dictionary(f.type) else f.type) for f in schema])


def make_predicate(given: Any, schema: pa.Schema) -> Predicate | None:
    """Bind filter= to the unified schema. Raises `UsageError` (or `FormulaError`, with the spot) if it does not fit."""
    if given is None:
        return None
    for kind, convert in _KINDS:
        if isinstance(given, kind):
            expression = convert(given, plain_schema(schema))
            columns = _used_columns(expression, plain_schema(schema), given)
            if not columns:
                raise UsageError(f"the filter {given!r} names no column of the data")
            return Predicate(expression, columns, repr(given))
    raise UsageError(
        f"filter must be a text like \"x > 3 and g == 'a'\", a list of tuples like [('x', '>', 3)] or a pyarrow "
        f"expression, not {type(given).__name__}"
    )


def _used_columns(expression: pc.Expression, schema: pa.Schema, given: Any) -> tuple[str, ...]:
    """The columns an expression names, found by binding it to the schema with one column left out at a time."""
    problem = _binding_problem(expression, schema)
    if problem:
        unknown = re.search(r"No match for FieldRef\.Name\((.*?)\) in", problem)
        if unknown:
            hint = did_you_mean(unknown[1], schema.names)
            raise UsageError(f"the filter names a column that is not in the data: {unknown[1]!r}{hint}")
        raise UsageError(f"the filter {given!r} does not fit the data: {problem}")
    without = [(name, schema.remove(i)) for i, name in enumerate(schema.names)]
    return tuple(name for name, rest in without if _binding_problem(expression, rest))


def _binding_problem(expression: pc.Expression, schema: pa.Schema) -> str:
    try:
        bound = ds.InMemoryDataset(schema.empty_table()).scanner(columns={"keep": expression}, use_threads=False)
        kind = bound.projected_schema.field("keep").type
    except (pa.ArrowException, TypeError, ValueError) as error:
        return " ".join(str(error).split())
    return "" if pa.types.is_boolean(kind) else f"it is {kind}, not true or false"


def _from_tuples(given: list | tuple, schema: pa.Schema) -> pc.Expression:
    try:
        return pq.filters_to_expression(given)
    except (ValueError, TypeError, IndexError) as error:
        raise UsageError(f"cannot read filter {given!r}: {error}; expected tuples like ('x', '>', 3)") from error


_COMPARISONS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_ARITHMETIC: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: lambda a, b: a.cast(pa.float64()) / b,  # Arrow's own division of integers truncates
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
}
_JOINERS: dict[type, Callable[[Any, Any], Any]] = {ast.And: operator.and_, ast.Or: operator.or_}


def parse_filter(text: str, schema: pa.Schema) -> pc.Expression:
    """Parse "x > 3 and g in ('a', 'b') and not flag": names, constants, comparisons, and/or/not, + - * /.

    Raises `FormulaError` with a caret under the spot. The text is taken apart with `ast` and never evaluated.
    """
    stripped = text.strip()
    try:
        body = ast.parse(stripped, mode="eval").body
    except SyntaxError as error:
        raise FormulaError(f"cannot read the filter: {error.msg}", stripped, max((error.offset or 1) - 1, 0)) from error
    return _Parser(stripped, schema).boolean(body)


class _Parser:
    """One method per kind of node, listed in ``kinds``; anything else is refused with its place."""

    def __init__(self, text: str, schema: pa.Schema):
        self.text, self.schema = text, schema
        self.kinds: dict[type, Callable[[Any], Any]] = {
            ast.BoolOp: self.joined,
            ast.UnaryOp: self.unary,
            ast.BinOp: self.binary,
            ast.Compare: self.compared,
            ast.Name: self.column,
            ast.Constant: lambda node: node.value,
        }

    def fail(self, message: str, node: ast.AST) -> FormulaError:
        place = getattr(node, "col_offset", 0)
        return FormulaError(f"cannot read the filter: {message}", self.text, place)

    def boolean(self, node: ast.AST) -> pc.Expression:
        value = self.value(node)
        if not isinstance(value, pc.Expression):
            raise self.fail("a comparison of a column is needed here", node)
        return value

    def value(self, node: ast.AST) -> Any:
        convert = self.kinds.get(type(node))
        if convert is None:
            kind = type(node).__name__.lower()
            raise self.fail(f"{kind} is not allowed; use names, constants, comparisons, and, or, not", node)
        return convert(node)

    def column(self, node: ast.Name) -> pc.Expression:
        if node.id not in self.schema.names:
            raise self.fail(f"no column {node.id!r} in the data{did_you_mean(node.id, self.schema.names)}", node)
        return pc.field(node.id)

    def joined(self, node: ast.BoolOp) -> pc.Expression:
        first, *rest = (self.boolean(value) for value in node.values)
        for other in rest:
            first = _JOINERS[type(node.op)](first, other)
        return first

    def unary(self, node: ast.UnaryOp) -> Any:
        if isinstance(node.op, (ast.Not, ast.Invert)):
            return ~self.boolean(node.operand)
        operand = self.value(node.operand)
        if isinstance(operand, pc.Expression):
            return pc.negate(operand) if isinstance(node.op, ast.USub) else operand
        return -operand if isinstance(node.op, ast.USub) else operand

    def binary(self, node: ast.BinOp) -> Any:
        combine = _ARITHMETIC.get(type(node.op))
        if combine is None:
            raise self.fail(f"operator {type(node.op).__name__} is not allowed", node)
        left, right = self.value(node.left), self.value(node.right)
        if isinstance(left, (int, float)):
            left = pc.scalar(left)
        try:
            return combine(left, right)
        except (TypeError, ZeroDivisionError, pa.ArrowException) as error:
            raise self.fail(str(error), node) from error

    def compared(self, node: ast.Compare) -> pc.Expression:
        sides = [node.left, *node.comparators]
        parts = [self.one_comparison(a, op, b) for a, op, b in zip(sides, node.ops, sides[1:], strict=False)]
        result = parts[0]
        for part in parts[1:]:
            result = result & part
        return result

    def one_comparison(self, left: ast.AST, op: ast.cmpop, right: ast.AST) -> pc.Expression:
        if isinstance(op, (ast.In, ast.NotIn)):
            kept = self.boolean(left).isin(self.members(left, right))
            return ~kept if isinstance(op, ast.NotIn) else kept
        if isinstance(right, ast.Constant) and right.value is None:
            missing = self.boolean(left).is_null()
            return ~missing if isinstance(op, (ast.NotEq, ast.IsNot)) else missing
        compare = _COMPARISONS.get(type(op))
        if compare is None:
            raise self.fail("'is' is allowed with None only", left)
        a, b = self.typed(left, right), self.typed(right, left)
        if not isinstance(a, pc.Expression) and not isinstance(b, pc.Expression):
            raise self.fail("a comparison needs a column on one side", left)
        return compare(a, b)

    def members(self, left: ast.AST, right: ast.AST) -> pa.Array:
        if not isinstance(right, (ast.Tuple, ast.List, ast.Set)):
            raise self.fail("'in' needs a list of constants, like g in ('a', 'b')", right)
        values = [self.typed(element, left) for element in right.elts]
        if any(isinstance(value, pc.Expression) for value in values):
            raise self.fail("'in' needs constants, not columns", right)
        return pa.array([value.as_py() if isinstance(value, pa.Scalar) else value for value in values])

    def typed(self, node: ast.AST, other: ast.AST) -> Any:
        """A constant text beside a date or time column is read as that date or time."""
        value = self.value(node)
        if not (isinstance(value, str) and isinstance(other, ast.Name) and other.id in self.schema.names):
            return value
        kind = logical_type(self.schema.field(other.id).type)
        if not pa.types.is_temporal(kind):
            return value
        try:
            return pa.scalar(value).cast(kind)
        except pa.ArrowException as error:
            raise self.fail(f"{value!r} is not a {kind}", node) from error


_KINDS: tuple[tuple[type | tuple[type, ...], Callable[[Any, pa.Schema], pc.Expression]], ...] = (
    (str, parse_filter),
    ((list, tuple), _from_tuples),
    (pc.Expression, lambda given, schema: given),
)
