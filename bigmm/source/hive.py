"""Columns that the folders of a lake hold: ``year=2020/site=a/part.parquet``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

Keys = tuple[tuple[str, Any], ...]
"""(column, value) of a file, for columns that the file does not hold itself; None is a missing value."""

_NULL_KEY = "__HIVE_DEFAULT_PARTITION__"


def hive_keys(path: str) -> Keys:
    """(key, value) of the run of ``key=value`` directories right above the file; value None for hive's null."""
    keys: list[tuple[str, str | None]] = []
    for folder in reversed(path.split("/")[:-1]):
        key, equals, value = folder.partition("=")
        # Only the run right above the file: a folder a=b further up belongs to somebody else's tree.
        if not (key and equals):
            break
        keys.append((unquote(key), None if value == _NULL_KEY else unquote(value)))
    return tuple(reversed(keys))


def key_types(keys: Iterable[Keys]) -> dict[str, pa.DataType]:
    """int64 for a key of which every value prints back to itself as such an integer, else text.

    So ``001``, ``1.0``, ``+1``, ``1e3`` and dates stay text, and two values of the lake never become one.
    """
    values: dict[str, set[str]] = {}
    for file_keys in keys:
        for key, value in file_keys:
            values.setdefault(key, set()).update(() if value is None else (value,))
    return {key: pa.int64() if texts and all(map(_is_int64, texts)) else pa.string() for key, texts in values.items()}


def _is_int64(text: str) -> bool:
    return re.fullmatch(r"0|-?[1-9][0-9]{0,18}", text, re.ASCII) is not None and -(2**63) <= int(text) < 2**63
