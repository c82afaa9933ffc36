"""Sets of rows of integers as sorted keys of 63 bits: combinations of nested factors, of which there may be millions.

A row becomes one number, each column in its own bits above its smallest value, so that rows are sorted and joined as
plain integers, an order of magnitude faster than rows of a table are hashed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np

from bigmm.design.levels.numbering import sorted_distinct

BITS = 63


@dataclass(frozen=True, slots=True)
class Packed:
    """Rows as increasing int64 `keys` (n,), with the first column in the highest bits.

    `lows` and `highs` bound the values of each column.
    """

    lows: tuple[int, ...]
    highs: tuple[int, ...]
    keys: np.ndarray

    def __len__(self) -> int:
        return len(self.keys)

    def columns(self) -> list[np.ndarray]:
        """Per column (n,) int64 values."""
        out = []
        for low, (shift, mask) in zip(self.lows, fields_of(self.lows, self.highs), strict=True):
            out.append(((self.keys >> shift) & mask) + low)
        return out


def fields_of(lows: Sequence[int], highs: Sequence[int]) -> list[tuple[int, int]]:
    """(shift, mask) of each column's bits."""
    # Differences of Python integers cannot overflow.
    widths = [(high - low).bit_length() for low, high in zip(lows, highs, strict=True)]
    return [(sum(widths[i + 1 :]), (1 << width) - 1) for i, width in enumerate(widths)]


def fit(lows: Sequence[int], highs: Sequence[int]) -> bool:
    """Whether the ranges of all columns fit into `BITS` bits together."""
    return sum((high - low).bit_length() for low, high in zip(lows, highs, strict=True)) <= BITS


def pack(columns: Sequence[np.ndarray]) -> Packed | None:
    """The different rows of some columns (n,) of integers; None when their ranges are too wide."""
    if not len(columns[0]):
        return Packed((0,) * len(columns), (0,) * len(columns), np.zeros(0, np.int64))
    lows, highs = tuple(int(c.min()) for c in columns), tuple(int(c.max()) for c in columns)
    return Packed(lows, highs, sorted_distinct(_keys(columns, lows, highs))) if fit(lows, highs) else None


def union(first: Packed, second: Packed) -> Packed | None:
    """The rows of either; None when their ranges together are too wide."""
    if not len(first) or not len(second):
        return first if len(first) else second
    lows = tuple(map(min, first.lows, second.lows))
    highs = tuple(map(max, first.highs, second.highs))
    if not fit(lows, highs):
        return None
    keys = [p.keys if (p.lows, p.highs) == (lows, highs) else _keys(p.columns(), lows, highs) for p in (first, second)]
    out = np.empty(len(first) + len(second), np.int64)
    size = merge_sorted(keys[0], keys[1], out)
    # The tail goes back without a copy. No other array refers to `out` yet.
    out.resize(size, refcheck=False)
    return Packed(lows, highs, out)


def _keys(columns: Sequence[np.ndarray], lows: Sequence[int], highs: Sequence[int]) -> np.ndarray:
    """(n,) keys; wider bits keep the order of the rows."""
    total = np.zeros(len(columns[0]), np.int64)
    for column, low, (shift, _) in zip(columns, lows, fields_of(lows, highs), strict=True):
        total |= (column.astype(np.int64, copy=False) - low) << shift
    return total


@numba.njit(cache=True, nogil=True)
def merge_sorted(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> int:
    """The union of two increasing arrays -> out; returns its length."""
    i = j = position = 0
    while i < a.shape[0] and j < b.shape[0]:
        x, y = a[i], b[j]
        out[position] = x if x <= y else y
        i += x <= y
        j += y <= x
        position += 1
    while i < a.shape[0]:
        out[position] = a[i]
        i += 1
        position += 1
    while j < b.shape[0]:
        out[position] = b[j]
        j += 1
        position += 1
    return position
