"""The tree of a filter bound to a schema: an Arrow expression with every type written out, and what may prune.

Arrow by itself would compare integers with 1.5 in single precision, let small integers wrap, and let rows with a
missing value pass ``not in`` (apache/arrow issue 36719). Here a constant takes the column's own type, arithmetic is
done in 64-bit integers, decimals or doubles, and a comparison with a missing value is neither true nor false.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from bigmm.errors import UsageError
from bigmm.source.filter_text import (
    Arithmetic,
    Comparison,
    Constant,
    Constants,
    FilterColumn,
    Joined,
    Negation,
    Tree,
    slip,
)
from bigmm.source.filter_values import Neighbours, neighbours
from bigmm.source.kinds import is_bytes, is_instant, is_number, is_text
from bigmm.source.schema import column_hint

_WIDEST = 76  # digits of Arrow's decimals
_MISSING = pa.scalar(None, pa.bool_())
_FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
}
_CHECKED = {"+": pc.add_checked, "-": pc.subtract_checked, "*": pc.multiply_checked}
_FLOATING = {"+": pc.add, "-": pc.subtract, "*": pc.multiply, "/": pc.divide}  # x / 0 is infinite, as in R


@dataclass(frozen=True, slots=True)
class Bound:
    """A condition. Its `expression` is true, false or null for a row. Its `bounds` hold wherever the condition is true;
    they compare bare columns, so that the statistics of row groups can decide them, or are None."""

    expression: pc.Expression
    bounds: pc.Expression | None = None


@dataclass(frozen=True, slots=True)
class Operand:
    """One side of a comparison: an expression of a type, or a constant (``kind`` None)."""

    kind: pa.DataType | None
    expression: Any
    node: Tree
    name: str = ""
    bare: bool = False


def bind(tree: Tree, schema: pa.Schema, text: str) -> tuple[Bound, tuple[str, ...]]:
    """The condition of a tree, and the columns it names.

    ``text``: the filter as written, for carets; empty for a filter of tuples, whose errors have no spot. Raises
    `UsageError` for an unknown column and for types that do not go together, naming the column and both types.
    """
    binder = _Binder(schema, text)
    return binder.condition(tree), tuple(binder.columns)


def spoken(kind: pa.DataType) -> str:
    """A type as messages name it."""
    if is_text(kind):
        return "text"
    return "true or false" if pt.is_boolean(kind) else f"{kind} numbers" if is_number(kind) else str(kind)


def _literal(value: Any) -> str:
    if isinstance(value, str):
        return f"the text {value[:40]!r}"
    return (
        f"the number {value}"
        if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool)
        else repr(value)
    )


def _unless_missing(operand: Any, value: Any) -> pc.Expression:
    # Three-valued logic as in SQL: `not (x > 1)` must not let a missing x pass.
    return pc.if_else(pc.is_valid(operand), value, _MISSING)


def _balanced(parts: Sequence[pc.Expression], operator: str) -> pc.Expression:
    """All parts joined in a tree of logarithmic depth."""
    while len(parts) > 1:
        # Arrow walks expressions by recursion: a chain of a thousand parts would be a thousand frames deep.
        pairs = [parts[i : i + 2] for i in range(0, len(parts), 2)]
        join = (lambda a, b: a & b) if operator == "and" else (lambda a, b: a | b)
        parts = [join(*pair) if len(pair) == 2 else pair[0] for pair in pairs]
    return parts[0]


class _Binder:
    """Conditions by kind of node, listed in ``kinds``; `columns` collects the names."""

    def __init__(self, schema: pa.Schema, text: str):
        self.schema, self.text = schema, text
        self.columns: dict[str, None] = {}
        self.kinds: dict[type, Callable[[Any], Bound]] = {
            Joined: self.joined,
            # Bounds of a negation are not those of its part: they say where the part may be true.
            Negation: lambda node: Bound(~self.condition(node.part).expression),
            Comparison: self.compared,
            FilterColumn: self.flag,
        }

    def fail(self, message: str, node: Tree) -> UsageError:
        """Return the error of a node, with a caret under it where the filter is a text."""
        if self.text:
            return slip(message, self.text, node.position)
        return UsageError(f"cannot read the filter: {message}")

    def mismatch(self, message: str, node: Tree) -> UsageError:
        """Return the error of a node that does not fit the types of the data."""
        return self.fail(f"it does not fit the data: {message}", node)

    def condition(self, node: Tree) -> Bound:
        """Bind a node that is true or false of a row. Raises UsageError for any other node."""
        convert = self.kinds.get(type(node))
        if convert is None:
            raise self.fail("a comparison of a column is needed here", node)
        return convert(node)

    def flag(self, node: FilterColumn) -> Bound:
        """Bind a column that stands alone: it has to hold true and false."""
        operand = self.column(node)
        if not pt.is_boolean(operand.kind):
            message = f"column {node.name!r} holds {spoken(operand.kind)}, not true or false; compare it with something"
            raise self.mismatch(message, node)
        return Bound(operand.expression)

    def joined(self, node: Joined) -> Bound:
        """Bind joined conditions. Under `and` the bounds of some parts suffice; under `or` all need them."""
        if node.symbol in ("&", "|") and any(map(self.is_value, node.parts)):
            raise self.precedence(node)
        parts = [self.condition(part) for part in node.parts]
        limits = [part.bounds for part in parts if part.bounds is not None]
        enough = limits and (node.operator == "and" or len(limits) == len(parts))
        bounds = _balanced(limits, node.operator) if enough else None
        return Bound(_balanced([part.expression for part in parts], node.operator), bounds)

    def is_value(self, node: Tree) -> bool:
        """Whether a part of & or | is no condition, but a constant, a sum, or a column of other than true and false."""
        if isinstance(node, FilterColumn) and node.name in self.schema.names:
            return not pt.is_boolean(self.schema.field(node.name).type)
        return isinstance(node, (Constant, Arithmetic))

    def precedence(self, node: Joined) -> UsageError:
        """Return the error of & or | beside a value: Python binds them more tightly than comparisons."""
        message = (
            f"{node.symbol!r} binds more tightly than a comparison; write {node.operator!r} instead, "
            "or put each comparison in brackets"
        )
        return self.fail(message, node)

    def column(self, node: FilterColumn) -> Operand:
        """Look a column up in the schema, and note that the filter uses it."""
        if node.name not in self.schema.names:
            hint = column_hint(node.name, self.schema.names)
            if self.text:
                raise self.fail(f"no column {node.name!r} in the data{hint}", node)
            raise UsageError(f"the filter names a column that is not in the data: {node.name!r}{hint}")
        self.columns[node.name] = None
        kind = self.schema.field(node.name).type
        field, name = pc.field(node.name), f"column {node.name!r}"
        # Half floats are compared as single precision, exactly.
        if pt.is_float16(kind):
            return Operand(pa.float32(), field.cast(pa.float32()), node, name)
        return Operand(kind, field, node, name, bare=True)

    def operand(self, node: Tree) -> Operand:
        """Bind a node that has a value, one side of a comparison."""
        if isinstance(node, FilterColumn):
            return self.column(node)
        if isinstance(node, Constant):
            return Operand(None, node.value, node)
        if isinstance(node, Arithmetic):
            return self.computed(node)
        if isinstance(node, Constants):
            raise self.fail("a list belongs after 'in'", node)
        if isinstance(node, Joined) and node.symbol in ("&", "|"):
            raise self.precedence(node)
        return Operand(pa.bool_(), self.condition(node).expression, node, "a condition")

    def compared(self, node: Comparison) -> Bound:
        """Bind a comparison; a constant goes to the right-hand side."""
        if node.operator in ("in", "not in"):
            return self.member(node)
        right_missing = isinstance(node.rhs, Constant) and node.rhs.value is None
        if node.operator in ("is", "is not") and not right_missing:
            raise self.fail("'is' is allowed with None only", node.lhs)
        lhs, rhs = self.operand(node.lhs), self.operand(node.rhs)
        if lhs.kind is None and rhs.kind is None:
            raise self.fail("a comparison needs a column on one side", node.lhs)
        operator = node.operator
        if lhs.kind is None:
            lhs, rhs, operator = rhs, lhs, _FLIPPED.get(operator, operator)
        if rhs.kind is None:
            return self.beside_constant(lhs, operator, rhs)
        return self.beside_column(lhs, operator, rhs)

    def beside_constant(self, lhs: Operand, operator: str, rhs: Operand) -> Bound:
        """Bind a comparison of a column or a computed value with a constant, a missing one and NaN among them."""
        value = rhs.expression
        if value is None:
            if operator not in ("==", "!=", "is", "is not"):
                raise self.fail(f"a missing value can be found by 'is None', not by {operator!r}", rhs.node)
            missing = pc.is_null(lhs.expression)
            return Bound(missing if operator in ("==", "is") else ~missing)
        if pt.is_null(lhs.kind):
            return Bound(lhs.expression.cast(pa.bool_()))
        if isinstance(value, float) and value != value and pt.is_floating(lhs.kind) and operator in ("==", "!="):
            number = pc.is_nan(lhs.expression)
            return Bound(number if operator == "==" else ~number)
        return self.placed(lhs, operator, self.around(lhs, rhs))

    def around(self, lhs: Operand, rhs: Operand) -> Neighbours:
        """The constant among the values of the other side's type."""
        value = rhs.expression
        try:
            place = None if isinstance(value, float) and value != value else neighbours(value, lhs.kind)
        except ValueError as error:
            raise self.fail(f"{value!r} is not a {lhs.kind} {error}, as {lhs.name} holds", rhs.node) from None
        if place is None:
            hint = ""
            if isinstance(value, str) and is_number(lhs.kind):
                hint = "; write the number without quotes"
            elif is_text(lhs.kind) and not isinstance(value, bool):
                hint = "; write it in quotes"
            message = f"{lhs.name} holds {spoken(lhs.kind)} and is compared with {_literal(value)}{hint}"
            raise self.mismatch(message, rhs.node)
        return place

    def placed(self, lhs: Operand, operator: str, place: Neighbours) -> Bound:
        """A comparison with a constant that may lie between two values of the column's type."""
        expression, low, high = lhs.expression, place.low, place.high
        prunes = lhs.bare and any(test(lhs.kind) for test in _PRUNING)
        if place.exact:
            # Statistics leave NaN out, and NaN passes !=: only the other comparisons may prune.
            comparison = _COMPARE[operator](expression, low)
            return Bound(comparison, comparison if prunes and operator != "!=" else None)
        if operator in ("==", "!="):
            return Bound(_unless_missing(expression, operator == "!="))
        # Between two neighbours < and <= are the same, and the nearer value decides with "or equal".
        below = operator in ("<", "<=")
        edge, compare = (low, "<=") if below else (high, ">=")
        always, never = (high is None, low is None) if below else (low is None, high is None)
        if always or never:
            return Bound(_unless_missing(expression, always))
        comparison = _COMPARE[compare](expression, edge)
        return Bound(comparison, comparison if prunes else None)

    def beside_column(self, lhs: Operand, operator: str, rhs: Operand) -> Bound:
        """Bind a comparison of two columns or computed values, in a type that holds the values of both."""
        if pt.is_null(lhs.kind) or pt.is_null(rhs.kind):
            empty = lhs if pt.is_null(lhs.kind) else rhs
            return Bound(empty.expression.cast(pa.bool_()))
        for test, common in _TOGETHER:
            if test(lhs.kind) and test(rhs.kind):
                kind = common(lhs.kind, rhs.kind)
                sides = [side.expression if side.kind == kind else _converted(side, kind) for side in (lhs, rhs)]
                return Bound(_COMPARE[operator](*sides))
        message = f"{lhs.name} holds {spoken(lhs.kind)} and is compared with {rhs.name}, which holds {spoken(rhs.kind)}"
        raise self.mismatch(message, lhs.node)

    def member(self, node: Comparison) -> Bound:
        """Bind `in` and `not in`: a missing value is neither in a list nor outside of it."""
        if not isinstance(node.rhs, Constants):
            raise self.fail("'in' needs a list of constants, like g in ('a', 'b')", node.rhs)
        lhs = self.operand(node.lhs)
        if lhs.kind is None:
            raise self.fail("a comparison of a column is needed here", node.lhs)
        operands = [self.operand(item) for item in node.rhs.items]
        if any(operand.kind is not None for operand in operands):
            raise self.fail("'in' needs constants, not columns", node.rhs)
        values = [operand for operand in operands if operand.expression is not None]  # a missing value equals nothing
        if pt.is_null(lhs.kind):
            return Bound(lhs.expression.cast(pa.bool_()))
        places = [self.around(lhs, value) for value in values]
        chosen = [place.low for place in places if place.exact and place.low is not None]
        if pt.is_floating(lhs.kind) and any(scalar.as_py() == 0 for scalar in chosen):
            chosen += [pa.scalar(0.0, lhs.kind), pa.scalar(-0.0, lhs.kind)]  # Arrow's sets hold them apart
        # scalars as Python values would lose the nanoseconds of timestamps
        members = pa.concat_arrays([pa.array([], lhs.kind), *(pa.array([s], s.type).cast(lhs.kind) for s in chosen)])
        inside = pc.is_in(lhs.expression, value_set=members)
        if node.operator == "not in":
            return Bound(_unless_missing(lhs.expression, ~inside))
        bounds = inside if lhs.bare and _prunes_sets(lhs.kind) else None
        return Bound(_unless_missing(lhs.expression, inside), bounds)

    def computed(self, node: Arithmetic) -> Operand:
        """Bind arithmetic, in a type that no result overflows silently."""
        operands = [self.operand(child) for child in node.operands]
        for operand in operands:
            self.check_number(operand)
        if all(operand.kind is None for operand in operands):
            return Operand(None, self.folded(node, [operand.expression for operand in operands]), node)
        if node.operator == "negative":
            operands.insert(0, Operand(None, 0, node))
        kind = _arithmetic_type(operands[0], "-" if node.operator == "negative" else node.operator, operands[1])
        operator = "-" if node.operator == "negative" else node.operator
        sides = [_converted(operand, side) for operand, side in zip(operands, kind.sides, strict=True)]
        name = next(f"the result with {o.name}" if o.bare else o.name for o in operands if o.kind is not None)
        table = _FLOATING if pt.is_floating(kind.result) else _CHECKED
        return Operand(kind.result, table[operator](*sides), node, name)

    def check_number(self, operand: Operand) -> None:
        """Raise UsageError for an operand that arithmetic cannot use."""
        value, kind = operand.expression, operand.kind
        if kind is None and isinstance(value, (int, float, Decimal)):
            return
        if kind is None:
            shown = "None" if value is None else _literal(value)
            raise self.fail(f"unsupported operand: {shown} cannot be computed with", operand.node)
        if not (is_number(kind) or pt.is_boolean(kind) or pt.is_null(kind)):
            raise self.mismatch(f"{operand.name} holds {spoken(kind)} and cannot be computed with", operand.node)

    def folded(self, node: Arithmetic, values: list[Any]) -> Any:
        """Arithmetic of constants, which stays a number of 64 bits."""
        if node.operator == "negative":
            result = -values[0]
        elif node.operator == "/":
            if values[1] == 0:
                raise self.fail("division by zero", node)
            result = values[0] / values[1]
        else:
            result = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b}[node.operator](*values)
        if isinstance(result, int) and not -(1 << 63) <= result < 1 << 64:
            raise self.fail("this integer has more than 64 bits; write it with a decimal point or an exponent", node)
        return result


#: Types of which the statistics of row groups are trusted.
_PRUNING = (pt.is_integer, pt.is_floating, is_text, is_instant)


def _prunes_sets(kind: pa.DataType) -> bool:
    return pt.is_integer(kind) or is_text(kind) or pt.is_date(kind)


@dataclass(frozen=True, slots=True)
class _Types:
    """The types in which an operation is done: of either side and of the result."""

    sides: tuple[pa.DataType, pa.DataType]
    result: pa.DataType


_DOUBLES = _Types((pa.float64(), pa.float64()), pa.float64())
_INTEGERS = _Types((pa.int64(), pa.int64()), pa.int64())


def _arithmetic_type(lhs: Operand, operator: str, rhs: Operand) -> _Types:
    """64-bit integers of integers, decimals of decimals and of unsigned 64-bit integers, doubles of everything else."""
    kinds = [_number_type(side) for side in (lhs, rhs)]
    if operator == "/" or any(pt.is_floating(kind) for kind in kinds):
        return _DOUBLES
    if all(kind == pa.int64() for kind in kinds):
        return _INTEGERS
    # 19 digits hold every int64. A sum needs one digit more, and a product the digits of both and one more.
    a, b = (pa.decimal256(19, 0) if kind == pa.int64() else kind for kind in kinds)
    if operator == "*":
        precision, scale = a.precision + b.precision + 1, a.scale + b.scale
    else:
        scale = max(a.scale, b.scale)
        precision = max(a.precision - a.scale, b.precision - b.scale) + 1 + scale
    return _Types((a, b), pa.decimal256(precision, scale)) if precision <= _WIDEST else _DOUBLES


def _number_type(side: Operand) -> pa.DataType:
    """int64, decimal256 or double: the type in which a side can be computed with."""
    kind, value = side.kind, side.expression
    if kind is None:
        if isinstance(value, Decimal):
            digits = value.as_tuple()
            scale = max(0, -int(digits.exponent))
            return pa.decimal256(min(_WIDEST, max(len(digits.digits) + max(0, int(digits.exponent)), scale, 1)), scale)
        wide = isinstance(value, int) and value >= 1 << 63
        return pa.float64() if isinstance(value, float) else pa.decimal256(20, 0) if wide else pa.int64()
    if pt.is_decimal(kind):
        return pa.decimal256(kind.precision, kind.scale)
    if pt.is_uint64(kind):
        return pa.decimal256(20, 0)
    return pa.float64() if pt.is_floating(kind) else pa.int64()


def _converted(side: Operand, kind: pa.DataType) -> Any:
    """A side in another type. Integers become the nearest double."""
    if side.kind is None:
        sort = float if pt.is_floating(kind) else Decimal if pt.is_decimal(kind) else int
        return pc.scalar(pa.scalar(sort(side.expression), kind))
    return side.expression if side.kind == kind else side.expression.cast(kind, safe=not pt.is_floating(kind))


def _number_in_common(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    if pt.is_floating(a) or pt.is_floating(b):
        return pa.float64()
    # Signed and unsigned 64-bit integers have no common integer type; 20 digits of a decimal hold both.
    if pt.is_integer(a) and pt.is_integer(b):
        if pt.is_uint64(a) == pt.is_uint64(b):
            return pa.uint64() if pt.is_uint64(a) else pa.int64()
        return pa.decimal128(20, 0)
    digits = [(k.precision - k.scale, k.scale) if pt.is_decimal(k) else (20, 0) for k in (a, b)]
    scale = max(scale_of for _, scale_of in digits)
    precision = max(whole for whole, _ in digits) + scale
    return pa.decimal256(precision, scale) if precision <= _WIDEST else pa.float64()


def _instant_in_common(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    """The finer unit, in UTC: a time without a zone is read as UTC."""
    if pt.is_date(a) and pt.is_date(b):
        return pa.date32() if a == b == pa.date32() else pa.date64()
    units = ["s", "ms", "us", "ns"]
    finest = max(("s" if pt.is_date(kind) else kind.unit for kind in (a, b)), key=units.index)
    zoned = any(pt.is_timestamp(kind) and kind.tz is not None for kind in (a, b))
    return pa.timestamp(finest, "UTC" if zoned else None)


#: Sorts of columns that are compared with each other, and the type in which.
_TOGETHER: tuple[tuple[Callable[[pa.DataType], bool], Callable[[pa.DataType, pa.DataType], pa.DataType]], ...] = (
    (is_number, _number_in_common),
    (pt.is_boolean, lambda a, b: pa.bool_()),
    (is_text, lambda a, b: pa.large_string()),
    (is_bytes, lambda a, b: pa.large_binary()),
    (is_instant, _instant_in_common),
    (pt.is_time, lambda a, b: pa.time64("ns")),
    (pt.is_duration, lambda a, b: pa.duration("ns")),
)


def tree_of_tuples(filters: Sequence[Any]) -> Tree:
    """The tree of [(column, operator, value), ...], all of which hold, or of a list of such lists, one of which holds.

    Raises ValueError for another shape.
    """
    if not filters:
        raise ValueError("it is empty")
    if all(isinstance(item, tuple) for item in filters):
        return _all_of(filters)
    if all(isinstance(item, list) and item and all(isinstance(one, tuple) for one in item) for item in filters):
        parts = tuple(_all_of(item) for item in filters)
        return parts[0] if len(parts) == 1 else Joined("or", parts)
    raise ValueError("it is neither a list of tuples nor a list of lists of tuples")


def _all_of(filters: Sequence[tuple[Any, ...]]) -> Tree:
    parts = tuple(_one_tuple(item) for item in filters)
    return parts[0] if len(parts) == 1 else Joined("and", parts)


def _one_tuple(item: tuple[Any, ...]) -> Tree:
    if len(item) != 3 or not isinstance(item[0], str):
        raise ValueError(f"{item!r} is not (column, operator, value)")
    name, operator, value = item
    operator = "==" if operator == "=" else operator
    if operator not in (*_COMPARE, "in", "not in"):
        raise ValueError(f"{operator!r} is no operator")
    if operator in ("in", "not in"):
        if isinstance(value, str) or not hasattr(value, "__iter__"):
            raise ValueError(f"{operator!r} needs a list of values, not {value!r}")
        return Comparison(operator, FilterColumn(name), Constants(tuple(Constant(_bare(one)) for one in value)))
    return Comparison(operator, FilterColumn(name), Constant(_bare(value)))


def _bare(value: Any) -> Any:
    """A value as Python has it: scalars of NumPy, pandas and Arrow become numbers, texts and times."""
    if isinstance(value, np.generic):
        value = pa.array(np.array([value]))[0]
    if isinstance(value, datetime.datetime) and value != value:  # pandas' NaT
        return None
    if isinstance(value, float):
        return float(value)
    if value is None or isinstance(value, _PLAIN):
        return value
    return value.as_py() if isinstance(value, pa.Scalar) else pa.scalar(value).as_py()


_PLAIN = (str, bytes, int, Decimal, datetime.date, datetime.time, datetime.timedelta)
