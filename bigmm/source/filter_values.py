"""Constants of a filter as values of a column's type: exactly, or as the two neighbours between which they lie.

So a column is compared in its own type, in which row-group statistics are kept, and nothing is rounded or wrapped:
``n > 1.5`` of integers is n >= 2, and ``x > 0.1`` of single precision is x >= the next such number above 0.1.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from bigmm.source.kinds import is_bytes, is_instant, is_text

_DAY = 86_400 * 10**9
_NANOSECONDS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Largest value of a type at or below a constant, and smallest at or above it; None where the type has none.

    Both are the same where the constant is a value of the type.
    """

    low: pa.Scalar | None
    high: pa.Scalar | None

    @property
    def exact(self) -> bool:
        """Whether the constant is a value of the type."""
        return self.low is not None and self.high is not None and self.low.equals(self.high)


def neighbours(value: Any, kind: pa.DataType) -> Neighbours | None:
    """The values of a type around a constant; None when the constant is of another sort (text beside a number).

    Raises ValueError for a text that is no date or time; its message is an example.
    """
    for test, sorts, convert in _RULES:
        if test(kind) and isinstance(value, sorts):
            return convert(value, kind)
    return None


def _same(scalar: pa.Scalar) -> Neighbours:
    return Neighbours(scalar, scalar)


def _of_integers(value: Any, kind: pa.DataType) -> Neighbours:
    least, most = (-(1 << kind.bit_width - 1), (1 << kind.bit_width - 1) - 1)
    if pt.is_unsigned_integer(kind):
        least, most = 0, (1 << kind.bit_width) - 1
    below, above = _whole(value, 1)
    return _between(below, above, least, most, lambda number: pa.scalar(number, kind))


def _whole(value: Any, step: int) -> tuple[float | int, float | int]:
    """Multiples of step around a number, counted in steps; infinite ones stay."""
    if isinstance(value, float) and not np.isfinite(value):
        return value, value
    # Fractions are exact. Floats would round constants near the edge of a type.
    exact = Fraction(value) / step
    return exact.numerator // exact.denominator, -(-exact.numerator // exact.denominator)


def _between(below: Any, above: Any, least: int, most: int, scalar: Callable[[int], pa.Scalar]) -> Neighbours:
    # The constant may lie outside of the type: then one neighbour is its last value, and the other is none.
    low = None if below < least else scalar(int(min(below, most)))
    high = None if above > most else scalar(int(max(above, least)))
    return Neighbours(low, high)


def _of_floats(value: Any, kind: pa.DataType) -> Neighbours:
    width = np.float32 if kind == pa.float32() else np.float64
    if isinstance(value, Decimal):
        value = float(value)  # a decimal means the nearest number, as 0.1 in the text does
    with np.errstate(over="ignore"):
        near = width(value)
    if not np.isfinite(near) and not np.isfinite(float(value)):
        return _same(pa.scalar(near, kind))
    exact = Fraction(value)
    # The nearest float may be on either side; its exact value says on which.
    above = near > 0 if np.isinf(near) else Fraction(float(near)) > exact
    below = near < 0 if np.isinf(near) else Fraction(float(near)) < exact
    low = np.nextafter(near, width(-np.inf)) if above else near
    high = np.nextafter(near, width(np.inf)) if below else near
    return Neighbours(pa.scalar(low, kind), pa.scalar(high, kind))


def _of_decimals(value: Any, kind: pa.DataType) -> Neighbours:
    if isinstance(value, float):
        value = Decimal(repr(value)) if np.isfinite(value) else value  # 0.1 as it is written
    most = 10**kind.precision - 1
    if isinstance(value, float):
        below = above = value
    else:
        exact = Fraction(value) * Fraction(10) ** kind.scale
        below, above = _whole(exact, 1)

    def scalar(number: int) -> pa.Scalar:
        with localcontext() as context:
            # Python's default of 28 digits would round decimals of 76.
            context.prec = 80
            return pa.scalar(Decimal(number).scaleb(-kind.scale), kind)

    return _between(below, above, -most, most, scalar)


def _of_booleans(value: Any, kind: pa.DataType) -> Neighbours | None:
    return _same(pa.scalar(bool(value))) if value in (0, 1) else None


def _of_text(value: str, kind: pa.DataType) -> Neighbours:
    return _same(pa.scalar(value, kind))


def _of_bytes(value: str | bytes, kind: pa.DataType) -> Neighbours:
    content = value.encode() if isinstance(value, str) else value
    return _same(pa.scalar(content, pa.large_binary() if pt.is_large_binary(kind) else pa.binary()))


def _of_instants(value: Any, kind: pa.DataType) -> Neighbours:
    nanoseconds = _nanoseconds(value, getattr(kind, "tz", None))
    step = _DAY if pt.is_date32(kind) else _NANOSECONDS["ms" if pt.is_date64(kind) else kind.unit]
    width = np.iinfo(np.int32 if pt.is_date32(kind) else np.int64)
    below, above = _whole(nanoseconds, step)
    return _between(below, above, int(width.min) + 1, int(width.max), lambda number: pa.scalar(number, kind))


def _nanoseconds(value: Any, zone: str | None) -> int:
    """Nanoseconds since 1970 in UTC; a text or time without an offset is in the zone of the column, else in UTC."""
    if isinstance(value, str):
        value = _read_time(value)
    elif isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        value = datetime.datetime(value.year, value.month, value.day)
    if isinstance(value, datetime.datetime):
        # pandas' Timestamp is a datetime with nanoseconds beside its microseconds.
        more = getattr(value, "nanosecond", 0)
        offset = value.utcoffset()
        naive = value.replace(tzinfo=None) - (offset or datetime.timedelta())
        ticks = pa.scalar(naive, pa.timestamp("us")).value * 1000 + more
        local = offset is None
    else:
        ticks, local = value
    if local and zone is not None:
        seconds, remainder = divmod(ticks, 10**9)
        moment = pa.scalar(seconds, pa.timestamp("s"))
        # Whole seconds of int64 reach all years; nanoseconds would not.
        placed = pc.assume_timezone(moment, zone, ambiguous="earliest", nonexistent="earliest")
        return placed.value * 10**9 + remainder
    return ticks


def _read_time(text: str) -> tuple[int, bool]:
    """(nanoseconds, whether the text has no offset) of an ISO 8601 date or time.

    Raises ValueError, with an example, for another text.
    """
    try:
        return _ticks(pa.scalar(text.strip()), None), True
    except pa.ArrowInvalid:
        pass
    try:
        return _ticks(pa.scalar(text.strip()), "UTC"), False
    except pa.ArrowInvalid:
        raise ValueError("like 2020-01-31 or 2020-01-31 12:30:00") from None


def _ticks(text: pa.Scalar, zone: str | None) -> int:
    """Nanoseconds, read in the finest unit in which the text fits."""
    try:
        return text.cast(pa.timestamp("ns", zone)).value
    except pa.ArrowInvalid:
        # Years outside 1677-2262 do not fit into nanoseconds of int64. Python's integer holds the product.
        return text.cast(pa.timestamp("us", zone)).value * 1000


def _of_times(value: Any, kind: pa.DataType) -> Neighbours:
    try:
        moment = datetime.time.fromisoformat(value.strip()) if isinstance(value, str) else value
    except ValueError:
        raise ValueError("like 12:30:00") from None
    ticks = pa.scalar(moment.replace(tzinfo=None), pa.time64("us")).value * 1000
    below, above = _whole(ticks, _NANOSECONDS[kind.unit])
    most = _DAY // _NANOSECONDS[kind.unit] - 1
    return _between(below, above, 0, most, lambda number: pa.scalar(number, kind))


def _of_durations(value: datetime.timedelta, kind: pa.DataType) -> Neighbours:
    microseconds = (value.days * 86_400 + value.seconds) * 10**6 + value.microseconds
    below, above = _whole(microseconds * 1000 + getattr(value, "nanoseconds", 0), _NANOSECONDS[kind.unit])
    width = np.iinfo(np.int64)
    return _between(below, above, int(width.min) + 1, int(width.max), lambda number: pa.scalar(number, kind))


_NUMBERS = (int, float, Decimal)
#: Test of the column's type, sorts of constants that go with it, and the rule.
_RULES: tuple[tuple[Callable[[pa.DataType], bool], Any, Callable[[Any, pa.DataType], Neighbours | None]], ...] = (
    # bool is an int in Python, so True beside an integer column is 1.
    (pt.is_integer, _NUMBERS, _of_integers),
    (pt.is_floating, _NUMBERS, _of_floats),
    (pt.is_decimal, _NUMBERS, _of_decimals),
    (pt.is_boolean, _NUMBERS, _of_booleans),
    (is_text, str, _of_text),
    (is_bytes, (str, bytes), _of_bytes),
    (is_instant, (str, datetime.date), _of_instants),
    (pt.is_time, (str, datetime.time), _of_times),
    (pt.is_duration, datetime.timedelta, _of_durations),
)
