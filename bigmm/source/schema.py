"""One schema over many files: which types may be widened to which, and what is refused.

pyarrow's dataset takes the first file's schema and casts the others to it (bool to int, missing to null, silently),
which is why every footer is read and compared here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from bigmm.arguments import did_you_mean
from bigmm.errors import DataError, UsageError
from bigmm.source.kinds import is_text

TEXT = pa.dictionary(pa.int32(), pa.string())
_UNITS = ("s", "ms", "us", "ns")
_WIDTHS = b"float widths"


@dataclass(frozen=True, slots=True)
class Unified:
    """``schema`` is what reads return; ``refused`` maps a column to why it cannot be read (missing in a file, ...)."""

    schema: pa.Schema
    refused: dict[str, str]

    def check(self, columns: Iterable[str]) -> None:
        """Raise `UsageError` for a column that is nowhere, `DataError` for one that is refused."""
        for name in columns:
            if name not in self.schema.names:
                raise UsageError(f"no column {name!r} in the data{column_hint(name, self.schema.names)}")
            if name in self.refused:
                raise DataError(self.refused[name])


def column_hint(name: str, names: Sequence[str]) -> str:
    """What to say of a column that is not there: the nearest name, or the list of names when it is short."""
    hint = did_you_mean(name, names)
    if hint:
        return f"; {hint}"
    return f"; the columns are {', '.join(map(repr, names))}" if len(names) <= 12 else ""


def logical_type(kind: pa.DataType) -> pa.DataType:
    """The type reads return for a stored type: text is a dictionary of strings, other dictionaries their values."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return TEXT if is_text(kind) else kind


def holds_text(kind: pa.DataType) -> bool:
    """Whether a type is text, dictionaries of text included."""
    return logical_type(kind).equals(TEXT)


def row_bytes(schema: pa.Schema) -> int:
    """Bytes of one decoded row, at least 8 for each column: as many as the design makes of it.

    Nested columns count as nothing, because only bytes of the file can tell how long their lists are.
    """
    return sum(_value_bytes(field.type) for field in schema)


def _value_bytes(kind: pa.DataType) -> int:
    try:
        return max(8, kind.bit_width // 8)
    except ValueError:  # of no fixed width
        return 0 if pa.types.is_nested(kind) else 8


def declared(schema: pa.Schema) -> Unified:
    """What reads return when a dataset declares the types: these, whatever the files hold."""
    refused = duplicates(schema.names, "the dataset")
    names = dict.fromkeys(schema.names)
    kinds = {name: schema.field(schema.get_all_field_indices(name)[0]).type for name in names}
    return Unified(pa.schema([pa.field(name, logical_type(kind)) for name, kind in kinds.items()]), refused)


def common_type(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    """The type both widen to without loss of meaning, or None. Symmetric."""
    if a.equals(b):
        return a
    for test, widen in _WIDENINGS:
        if test(a) and test(b):
            return widen(a, b)
    return b if pa.types.is_null(a) else a if pa.types.is_null(b) else None


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def _wider_integer(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    signed = pa.types.is_signed_integer(a), pa.types.is_signed_integer(b)
    if signed[0] == signed[1]:
        return a if a.bit_width >= b.bit_width else b
    # An unsigned integer needs a signed type of twice its width.
    bits = max(2 * kind.bit_width if not sign else kind.bit_width for kind, sign in zip((a, b), signed, strict=True))
    # uint64 beside signed integers has no integer type; 20 digits hold both.
    return {16: pa.int16(), 32: pa.int32(), 64: pa.int64()}.get(bits, pa.decimal128(20, 0))


def _finer_timestamp(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    return pa.timestamp(max(a.unit, b.unit, key=_UNITS.index), a.tz) if a.tz == b.tz else None


#: Kinds of two types (both must pass the test) and what they widen to; the first line that fits decides.
_WIDENINGS = (
    (pa.types.is_integer, _wider_integer),
    (_is_number, lambda a, b: pa.float64()),
    (pa.types.is_timestamp, _finer_timestamp),
)


def duplicates(names: Sequence[str], where: str) -> dict[str, str]:
    """{name: why it cannot be read} of names that stand for several columns, which cannot be told apart."""
    twice = {name: count for name, count in Counter(names).items() if count > 1}
    return {name: f"duplicated column name {name!r} in {where}; rename one of them" for name in twice}


def unify(files: Sequence[tuple[str, pa.Schema]]) -> Unified:
    """Unify the schemas of files, given as (name for messages, schema) in the order of files.

    A column that is missing somewhere, or whose types do not widen to one, stays in the schema but cannot be read.
    """
    distinct: list[tuple[str, pa.Schema]] = []
    refused: dict[str, str] = {}
    for where, schema in files:
        # Lakes have many files and few schemas, so columns are compared once for each schema.
        if not any(schema.equals(other) for _, other in distinct):
            refused |= duplicates(schema.names, where)
            distinct.append((where, schema))
    names = list(dict.fromkeys(name for _, schema in distinct for name in schema.names))
    fields = [pa.field(name, _column_type(name, distinct, refused), metadata=_widths(name, distinct)) for name in names]
    return Unified(pa.schema(fields), refused)


def _widths(name: str, files: Sequence[tuple[str, pa.Schema]]) -> dict[bytes, bytes] | None:
    """The note of a column that files hold as floats of more than one width."""
    kinds: dict[pa.DataType, str] = {}
    for where, schema in files:
        if name in schema.names:
            kinds.setdefault(logical_type(schema.field(schema.get_all_field_indices(name)[0]).type), where)
    floats = {kind: where for kind, where in kinds.items() if pa.types.is_floating(kind)}
    if len(floats) < 2:
        return None
    return {_WIDTHS: ", ".join(f"{kind} in {where}" for kind, where in floats.items()).encode(errors="replace")}


def float_widths(field: pa.Field) -> str:
    """Which files hold a column as floats of which width, for messages; empty where there is one width."""
    return (field.metadata or {}).get(_WIDTHS, b"").decode()


def _column_type(name: str, files: Sequence[tuple[str, pa.Schema]], refused: dict[str, str]) -> pa.DataType:
    kind, origin = None, ("", None)
    for where, schema in files:
        if name not in schema.names:
            hint = column_hint(name, schema.names) if name.lower() in map(str.lower, schema.names) else ""
            refused.setdefault(name, f"column {name!r} is missing in {where}{hint}")
            continue
        stored = schema.field(schema.get_all_field_indices(name)[0]).type
        own_type = logical_type(stored)
        wider = own_type if kind is None else common_type(kind, own_type)
        if wider is None:
            types = f"{origin[1]} in {origin[0]} but {stored} in {where}"
            refused.setdefault(
                name, f"column {name!r} changes type between files: {types}. Write the files with one type."
            )
            return kind
        if kind is None or not wider.equals(kind):
            origin = (where, stored)
        kind = wider
    assert kind is not None
    return kind


def conform(table: pa.Table, schema: pa.Schema, where: str) -> pa.Table:
    """Cast a table's columns to the unified types (safely: a value that does not fit is a `DataError`)."""
    columns = [_cast(table.column(name), schema.field(name).type, name, where) for name in table.column_names]
    return pa.Table.from_arrays(columns, schema=pa.schema([schema.field(name) for name in table.column_names]))


def _cast(column: pa.ChunkedArray, kind: pa.DataType, name: str, where: str) -> pa.ChunkedArray:
    if column.type.equals(kind):
        return _without_null_entries(column) if kind.equals(TEXT) else column
    try:
        if kind.equals(TEXT) and pa.types.is_dictionary(column.type):
            return pa.chunked_array([_as_text(chunk) for chunk in column.chunks], TEXT)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        return column.cast(pa.string()).dictionary_encode() if kind.equals(TEXT) else column.cast(kind)
    except pa.ArrowInvalid as error:
        raise DataError(f"column {name!r} of {where} does not fit type {kind} of the other files: {error}") from error
    except pa.ArrowNotImplementedError as error:
        raise DataError(f"column {name!r} of {where} cannot be read as {kind}: {error}") from error


def _without_null_entries(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A missing value is a null index: a null entry of a dictionary counts as a value in Arrow's own null counts."""
    if not any(chunk.dictionary.null_count for chunk in column.chunks):
        return column
    return pa.chunked_array([_as_text(chunk) for chunk in column.chunks], TEXT)


def _as_text(chunk: pa.DictionaryArray) -> pa.DictionaryArray:
    # Decoding and encoding again gives missing values a null index and drops the null entry.
    if chunk.dictionary.null_count:
        chunk = chunk.dictionary_decode().dictionary_encode()
    return pa.DictionaryArray.from_arrays(chunk.indices.cast(pa.int32()), chunk.dictionary.cast(pa.string()))
