"""When two values are the same level: one form for equal values, and the values of one type in another.

A level needs equality only, so any column of single values can be a factor. Numbers are equal as numbers, dates and
timestamps as instants, everything else by its label. The rules are written out for users in docs/levels.md.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from bigmm.errors import DataError
from bigmm.source.kinds import is_bytes, is_instant, is_number, is_text


def is_label(kind: pa.DataType) -> bool:
    """Types whose values are names, so that a column of theirs is a factor wherever it stands in a formula."""
    bare = isinstance(kind, pa.UuidType) or is_text(kind) or is_bytes(kind)
    return bare or pt.is_dictionary(kind)


def is_numeric_level(kind: pa.DataType) -> bool:
    """Types whose levels are compared as numbers: True is 1."""
    return is_number(kind) or pt.is_boolean(kind)


def is_integer_like(kind: pa.DataType) -> bool:
    """Types whose levels are looked up as int64 keys."""
    return pt.is_integer(kind) or pt.is_boolean(kind) or is_instant(kind) or pt.is_time(kind) or pt.is_duration(kind)


def _decimal(kind: pa.DataType) -> pa.DataType:
    return kind if kind.bit_width > 128 else pa.decimal128(kind.precision, kind.scale)


#: Test of a type -> the type its levels are kept in; a function of the type where it depends on unit, zone or scale.
_CANONICAL: tuple[tuple[Callable[[pa.DataType], bool], Any], ...] = (
    (is_text, pa.large_string()),
    (pt.is_uint64, pa.uint64()),
    (pt.is_integer, pa.int64()),
    (pt.is_float64, pa.float64()),
    (pt.is_floating, pa.float32()),
    (pt.is_boolean, pa.bool_()),
    (pt.is_date, pa.date32()),
    (pt.is_timestamp, lambda kind: kind),
    (pt.is_decimal, _decimal),
    (is_bytes, pa.large_binary()),
    (pt.is_time, pa.time64("ns")),
    (pt.is_duration, lambda kind: kind),
    (pt.is_interval, pa.large_string()),
    (pt.is_null, pa.null()),
)


def canonical_type(kind: pa.DataType, column: str = "") -> pa.DataType:
    """The type in which the levels of a column are kept; DataError for lists, structs and other nested types."""
    if pt.is_dictionary(kind) or pt.is_run_end_encoded(kind):
        return canonical_type(kind.value_type, column)
    if isinstance(kind, pa.BaseExtensionType):
        return pa.large_string() if isinstance(kind, pa.UuidType) else canonical_type(kind.storage_type, column)
    for test, target in _CANONICAL:
        if test(kind):
            return target(kind) if callable(target) else target
    raise DataError(
        f"column {column!r} has type {kind}, which cannot be a factor: a level is a single value. "
        "Convert the column to text or integers"
    )


def plain(values: pa.Array) -> pa.Array:
    """The values in a layout that Arrow's kernels know: no extension type, no view, no runs, no narrow decimals."""
    kind = values.type
    if pt.is_run_end_encoded(kind):
        return plain(pc.run_end_decode(values))
    if isinstance(kind, pa.UuidType):
        return _mapped(values.storage, lambda value: str(uuid.UUID(bytes=value)))
    if isinstance(kind, pa.BaseExtensionType):
        return plain(values.storage)
    if pt.is_string_view(kind) or pt.is_binary_view(kind):
        return values.cast(pa.large_string() if pt.is_string_view(kind) else pa.large_binary())
    if pt.is_interval(kind):
        return _mapped(values, lambda value: f"{value.months} months {value.days} days {value.nanoseconds} ns")
    return values.cast(_decimal(kind)) if pt.is_decimal(kind) else values


def _mapped(values: pa.Array, spell: Callable[[Any], str]) -> pa.Array:
    """Text of each value, made once for each different one."""
    # Spelling runs in Python. Columns of factors repeat their values, so the distinct ones are spelled once.
    encoded = values.dictionary_encode()
    texts = [None if value is None else spell(value) for value in encoded.dictionary.to_pylist()]
    return pa.array(texts, pa.large_string()).take(encoded.indices)


def canonical(values: pa.Array, column: str = "") -> pa.Array:
    """Values (n,) in the canonical type of theirs, equal ones alike: -0.0 is 0.0, NaN is null."""
    kind = canonical_type(values.type, column)
    if pt.is_dictionary(values.type):
        return canonical(values.dictionary, column).take(values.indices)
    values = plain(values)
    if pt.is_floating(values.type):
        return _floats(values, kind)
    if pt.is_date64(values.type):  # milliseconds; some writers leave a time of day in them
        # Floor, not truncation: a time of day before 1970 belongs to the day that began before it.
        days = np.floor_divide(values.fill_null(0).view(pa.int64()).to_numpy(), 86_400_000)
        return _masked(days.astype(np.int32), values.is_valid().to_numpy(zero_copy_only=False), kind)
    try:
        return values.cast(kind)
    except pa.ArrowInvalid as error:
        raise DataError(f"column {column!r} cannot be a factor: {error}") from None


def _floats(values: pa.Array, kind: pa.DataType) -> pa.Array:
    numbers = values.fill_null(np.nan).to_numpy(zero_copy_only=False)
    if numbers.dtype == np.float16:  # the decimal that a half float prints, as for the other widths
        whole = numbers == np.floor(numbers)
        numbers = np.where(whole, numbers.astype(np.float32), numbers.astype(str).astype(np.float32))
    return _masked(numbers + numbers.dtype.type(0), ~np.isnan(numbers), kind)  # -0.0 + 0.0 is 0.0


def _masked(values: np.ndarray, valid: np.ndarray, kind: pa.DataType) -> pa.Array:
    """Arrow values (n,) of a type, null where not valid."""
    # Without a mask Arrow takes NumPy's buffer as it is.
    array = pa.array(values, mask=None if valid.all() else ~valid)
    return array if array.type == kind else array.cast(kind)


SIGN = np.uint64(1 << 63)


def integer_keys(values: pa.Array) -> np.ndarray:
    """int keys (n,) in the order of the values, of an integer-like type without nulls; zero-copy where Arrow can.

    Unsigned 64-bit integers are moved down by 2^63, so that all of them are int64.
    """
    kind = values.type
    if pt.is_boolean(kind):
        values = values.cast(pa.uint8())
    elif pt.is_date(kind):
        values = canonical(values).view(pa.int32())
    elif pt.is_time(kind):
        values = values.cast(pa.time64("ns")).view(pa.int64())
    elif pt.is_timestamp(kind) or pt.is_duration(kind):
        values = values.view(pa.int64())
    keys = values.to_numpy(zero_copy_only=False)
    if keys.dtype == np.uint64:
        # Flipping the sign bit subtracts 2^63, which keeps the order of the values.
        return (keys ^ SIGN).view(np.int64)
    return keys if keys.dtype in (np.int32, np.int64) else keys.astype(np.int64)  # two types for numba to compile


def equal_values(values: pa.Array, kind: pa.DataType) -> list[pa.Array]:
    """The values (n,) of one canonical type, without nulls, as those of another; null where none is the same level.

    There is a second array where two spellings are the same: a float32 is the number it is and the decimal it prints.
    The list is empty for types that are compared by their labels.
    """
    for source, target, convert in _CONVERSIONS:
        if source(values.type) and target(kind):
            return convert(values, kind)
    return []


_RANGES = {pa.int64(): (-(2.0**63), 2.0**63), pa.uint64(): (0.0, 2.0**64), pa.bool_(): (0.0, 2.0)}


def _is_whole(kind: pa.DataType) -> bool:
    return kind in _RANGES


def _integers(values: pa.Array, kind: pa.DataType) -> list[pa.Array]:
    """Integers and booleans of other numbers: those that are whole and in the range."""
    numbers = values.to_numpy(zero_copy_only=False)
    low, high = _RANGES[kind]
    if numbers.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            # The upper bound is exclusive: the largest int64 rounds to 2^63 as a double, which is no int64.
            valid = (numbers == np.floor(numbers)) & (numbers >= low) & (numbers < high)
    else:
        valid = (numbers >= int(low)) & (numbers <= int(high) - 1)
    # Invalid ones become zero first, since casting NaN or a number out of range is undefined in C.
    wide = np.where(valid, numbers, numbers.dtype.type(0)).astype(np.uint64 if kind == pa.uint64() else np.int64)
    return [_masked(wide, valid, kind)]


def _floats_of_integers(values: pa.Array, kind: pa.DataType) -> list[pa.Array]:
    """Floats of integers and booleans, where the float is that number."""
    numbers = values.to_numpy(zero_copy_only=False)
    close = numbers.astype(np.float32 if kind == pa.float32() else np.float64)
    wide = close.astype(np.float64)
    # Above 2^53 a double stands for several integers. Only the one that it is exactly may match.
    back = _integers(pa.array(wide), pa.uint64() if numbers.dtype == np.uint64 else pa.int64())[0]
    valid = back.is_valid().to_numpy(zero_copy_only=False) & (back.fill_null(0).to_numpy() == numbers)
    return [_masked(close, valid, kind)]


def printed(numbers: np.ndarray) -> np.ndarray:
    """(n,) float64: the decimals that float32 numbers print; whole ones are themselves."""
    exact = numbers.astype(np.float64)
    # Arrow prints the shortest decimal that reads back as the same float32: 0.1, and not 0.10000000149.
    texts = pa.array(numbers).cast(pa.string())
    return np.where(exact == np.floor(exact), exact, texts.cast(pa.float64()).to_numpy(zero_copy_only=False))


def _narrowed(values: pa.Array, kind: pa.DataType) -> list[pa.Array]:
    wide = values.to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):
        narrow = wide.astype(np.float32)
    # 0.1 of a double is the level 0.1 of a float column, although its bits are another number.
    return [_masked(narrow, (narrow == wide) | (printed(narrow) == wide), kind)]


def _widened(values: pa.Array, kind: pa.DataType) -> list[pa.Array]:
    numbers = values.to_numpy(zero_copy_only=False)
    return [pa.array(numbers.astype(np.float64)), pa.array(printed(numbers))]


UNITS = {"D": 86_400 * 10**9, "s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
"""Nanoseconds of the units of time."""


def _unit(kind: pa.DataType) -> int:
    return UNITS["D" if pt.is_date(kind) else kind.unit]


def _times(values: pa.Array, kind: pa.DataType) -> list[pa.Array]:
    """Instants or durations in another unit, null where they are no whole number of it or do not fit."""
    keys = integer_keys(values).astype(np.int64)
    ours, theirs = _unit(values.type), _unit(kind)
    width = np.iinfo(np.int32 if pt.is_date(kind) else np.int64)
    if ours >= theirs:
        # The test comes before the product, because an int64 product would wrap without a sign.
        valid = np.abs(keys) <= width.max // (ours // theirs)
        keys = np.where(valid, keys, 0) * (ours // theirs)
    else:
        keys, remainder = np.divmod(keys, theirs // ours)
        valid = (remainder == 0) & (np.abs(keys) <= width.max)
    valid_keys = np.where(valid, keys, 0).astype(width.dtype)
    return [pc.if_else(pa.array(valid), pa.array(valid_keys).view(kind), pa.scalar(None, kind))]


_CONTROL = r"[\x00-\x08\x0e-\x1f\x7f]"


def as_text(values: pa.Array) -> pa.Array:
    """Bytes as text, null where they are not valid UTF-8 or hold control characters, as the bytes of a number do."""
    try:
        texts = values.cast(pa.large_string())
    except pa.ArrowInvalid:
        texts = pa.array([_decoded(value) for value in values.to_pylist()], pa.large_string())
    return pc.if_else(pc.match_substring_regex(texts, _CONTROL), pa.scalar(None, pa.large_string()), texts)


def _decoded(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


Test = Callable[[pa.DataType], bool]

#: Canonical types, from and to, and how values of the one become those of the other; the first line that fits decides.
_CONVERSIONS: tuple[tuple[Test, Test, Callable[[pa.Array, pa.DataType], list[pa.Array]]], ...] = (
    (lambda k: _is_whole(k) or pt.is_floating(k), _is_whole, _integers),
    (_is_whole, pt.is_floating, _floats_of_integers),
    (pt.is_float64, pt.is_float32, _narrowed),
    (pt.is_float32, pt.is_float64, _widened),
    (is_instant, is_instant, _times),
    (pt.is_duration, pt.is_duration, _times),
    (pt.is_large_binary, pt.is_large_string, lambda values, kind: [as_text(values)]),
    (pt.is_large_string, pt.is_large_binary, lambda values, kind: [values.cast(kind)]),
)


def numerals(values: pa.Array) -> pa.Array:
    """Text of numbers that is the same for the same number, whatever its type and scale: 1.5 for 1.50, 1 for True."""
    kind = values.type
    if pt.is_boolean(kind):
        return values.cast(pa.uint8()).cast(pa.large_string())
    if not pt.is_decimal(kind):
        return label_strings(values)
    texts = [None if v is None else _numeral(v) for v in values.to_pylist()]
    return pa.array(texts, pa.large_string())


def _numeral(value: Decimal) -> str:
    text = format(value, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def label_strings(values: pa.Array) -> pa.Array:
    """Labels as text, null for missing values: 308 for 308 and 308.0, True, 2020-01-31, 2020-01-31 12:00:00.5 in every
    unit of time, decimals as written, bytes as the text they are or in hexadecimal if one of them is no text."""
    values = canonical(values)
    for test, spell in _SPELLINGS:
        if test(values.type):
            return spell(values)
    return values.cast(pa.large_string())


def _float_labels(values: pa.Array) -> pa.Array:
    if pt.is_float32(values.type):
        numbers = printed(values.fill_null(np.nan).to_numpy(zero_copy_only=False))
        values = _masked(numbers, ~np.isnan(numbers), pa.float64())
    texts = [None if v is None else str(int(v)) if v.is_integer() else repr(v) for v in values.to_pylist()]
    return pa.array(texts, pa.large_string())


def _time_labels(values: pa.Array) -> pa.Array:
    try:
        texts = values.cast(pa.large_string())
    except pa.ArrowInvalid:  # a zone that this machine does not know
        texts = values.cast(pa.timestamp(values.type.unit, "UTC")).cast(pa.large_string())
    # Zeros at the end of a fraction depend on the unit of the column, and labels must not.
    texts = pc.replace_substring_regex(texts, r"(\.\d*?)0+(Z|[+-]\d{2}:?\d{2})?$", r"\1\2")
    return pc.replace_substring_regex(texts, r"\.(Z|[+-]\d{2}:?\d{2})?$", r"\1")


def _duration_labels(values: pa.Array) -> pa.Array:
    """Hours, minutes and seconds: 26:03:04.5."""
    texts = [None if v is None else _clock(v * _unit(values.type)) for v in values.view(pa.int64()).to_pylist()]
    return pa.array(texts, pa.large_string())


def _clock(nanoseconds: int) -> str:
    seconds, remainder = divmod(abs(nanoseconds), UNITS["s"])
    fraction = f".{remainder:09d}".rstrip("0") if remainder else ""
    sign = "-" if nanoseconds < 0 else ""
    return f"{sign}{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{fraction}"


def _byte_labels(values: pa.Array) -> pa.Array:
    texts = as_text(values)
    if texts.null_count == values.null_count:
        return texts
    return pa.array([None if v is None else v.hex() for v in values.to_pylist()], pa.large_string())


def _decimal_labels(values: pa.Array) -> pa.Array:
    """Arrow itself writes 1E-9 for 0.000000001."""
    return pa.array([None if v is None else format(v, "f") for v in values.to_pylist()], pa.large_string())


#: Canonical types whose labels are not what Arrow's cast to text gives.
_SPELLINGS: tuple[tuple[Callable[[pa.DataType], bool], Callable[[pa.Array], pa.Array]], ...] = (
    (pt.is_boolean, lambda values: pc.if_else(values, "True", "False").cast(pa.large_string())),
    (pt.is_floating, _float_labels),
    (pt.is_timestamp, _time_labels),
    (pt.is_time, _time_labels),
    (pt.is_duration, _duration_labels),
    (pt.is_large_binary, _byte_labels),
    (pt.is_decimal, _decimal_labels),
)


def spellings(values: pa.Array) -> list[pa.Array]:
    """Texts (n,) that stand for the values of a canonical type: their labels, and null or a second spelling.

    1.5 stands for the decimal 1.50, and the date for a timestamp at midnight.
    """
    labels = [label_strings(values)]
    if pt.is_decimal(values.type):
        labels.append(numerals(values))
    if pt.is_timestamp(values.type):
        labels.append(_times(values, pa.date32())[0].cast(pa.large_string()))
    return labels
