"""Arrow columns as numbers, without copies where possible; missing and infinite values are found on the way."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from bigmm.errors import DataError


def is_numeric(kind: pa.DataType) -> bool:
    """Types that can be used as numbers: integers, floats, booleans, decimals."""
    return pt.is_integer(kind) or pt.is_floating(kind) or pt.is_boolean(kind) or pt.is_decimal(kind)


def type_name(kind: pa.DataType) -> str:
    """A type as messages name it: text for strings and dictionaries of them, Arrow's name otherwise."""
    values = kind.value_type if pt.is_dictionary(kind) else kind
    if pt.is_string(values) or pt.is_large_string(values) or pt.is_string_view(values):
        return "text"
    return f"categories of {values}" if pt.is_dictionary(kind) else str(kind)


def chunk_numbers(chunk: pa.Array) -> np.ndarray:
    """(n,) NumPy numbers of a chunk: zero-copy for primitive types without nulls; nulls become NaN."""
    kind = chunk.type
    if pt.is_boolean(kind):
        chunk = chunk.cast(pa.uint8())
    elif pt.is_decimal(kind) or pt.is_float16(kind):
        # A decimal would become an array of Python objects.
        chunk = chunk.cast(pa.float64())
    # Integers without nulls stay integers here: the caller converts while it copies, in one pass over memory.
    return chunk.to_numpy(zero_copy_only=False)


def copy_numbers(column: pa.ChunkedArray, out: np.ndarray) -> None:
    """Write the numbers of a column into out (n,) float64."""
    start = 0
    for chunk in column.chunks:
        out[start : start + len(chunk)] = chunk_numbers(chunk)
        start += len(chunk)


def floats(column: pa.ChunkedArray) -> np.ndarray:
    """(n,) float64 of a column, zero-copy for one chunk of doubles without nulls (then read-only)."""
    # The array may be a read-only view of Arrow's buffer. Callers must not write into it.
    if column.num_chunks == 1:
        return np.asarray(chunk_numbers(column.chunk(0)), dtype=np.float64)
    out = np.empty(len(column))
    copy_numbers(column, out)
    return out


def missing_rows(name: str, column: pa.ChunkedArray, where: str) -> np.ndarray | None:
    """(n,) bool, True where a value is null or NaN; None when every value is there. DataError for an infinite value.

    Floats are judged by one sum; only when it is not finite are the values looked at one by one.
    """
    floating = pt.is_floating(column.type)
    if column.null_count == 0 and (not floating or _sums_finite(column)):
        return None
    if floating:
        refuse_infinite(name, floats(column), where)
    missing = pc.is_null(column, nan_is_null=True).to_numpy()
    return missing if missing.any() else None


def _sums_finite(column: pa.ChunkedArray) -> bool:
    # One sum per chunk costs one pass. It overflows for huge finite values too, and then each value is looked at.
    with np.errstate(all="ignore"):
        return all(np.isfinite(chunk_numbers(chunk).sum(dtype=np.float64)) for chunk in column.chunks)


def refuse_infinite(name: str, values: np.ndarray, where: str) -> None:
    """DataError naming file, column, value and row when a value (n,) is infinite."""
    places = np.flatnonzero(np.isinf(values))
    if places.size:
        raise DataError(
            f"{where}: column {name!r} holds {values[places[0]]} in row {places[0] + 1}; "
            "mend the row, or leave it out with filter="
        )
