"""Sorts of Arrow types: which are text, bytes, numbers and points in time, for filters and levels alike."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.types as pt


def is_text(kind: pa.DataType) -> bool:
    """Types of text; dictionaries of text are none."""
    return pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind)


def is_bytes(kind: pa.DataType) -> bool:
    """Types of bytes, whatever their length."""
    return pt.is_binary(kind) or pt.is_large_binary(kind) or pt.is_fixed_size_binary(kind) or pt.is_binary_view(kind)


def is_number(kind: pa.DataType) -> bool:
    """Types that are compared as numbers; booleans are none."""
    return pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind)


def is_instant(kind: pa.DataType) -> bool:
    """Types that are compared as points in time."""
    return pt.is_date(kind) or pt.is_timestamp(kind)
