"""Levels of factors: their order, labels and numbers.

Order is R's: numbers numerically, strings by code point, declared categories as declared without the unused ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from bigmm.design.bits import is_increasing
from bigmm.design.lookup import IntegerIndex, ValueIndex
from bigmm.errors import DataError

_SHORT_LABEL = 24  # characters up to which a fixed-width array is smaller than one of objects


def canonical_type(kind: pa.DataType, column: str = "") -> pa.DataType:
    """The type in which levels are kept: values of dictionaries, int64, float64, large_string, others as they are."""
    if pt.is_dictionary(kind):
        return canonical_type(kind.value_type, column)
    for test, target in _CANONICAL:
        if test(kind):
            return target if target is not None else kind
    raise DataError(f"column {column!r} has type {kind}, which cannot be a factor; convert it to text or integers")


_CANONICAL = (
    (lambda t: pt.is_string(t) or pt.is_large_string(t) or pt.is_string_view(t), pa.large_string()),
    (pt.is_integer, pa.int64()),
    (pt.is_floating, pa.float64()),
    (pt.is_boolean, None),
    (pt.is_date, pa.date32()),
    (pt.is_timestamp, None),
    (pt.is_decimal, None),
    (pt.is_null, None),
)


def is_integer_like(kind: pa.DataType) -> bool:
    """Types whose levels are looked up as int64 keys."""
    return pt.is_integer(kind) or pt.is_boolean(kind) or pt.is_date(kind) or pt.is_timestamp(kind)


def integer_keys(values: pa.Array) -> np.ndarray:
    """int keys (n,) of integers, booleans, dates and timestamps without nulls, zero-copy where Arrow can."""
    kind = values.type
    if pt.is_boolean(kind):
        values = values.cast(pa.uint8())
    elif pt.is_date(kind):
        values = values.cast(pa.date32()).cast(pa.int32())
    elif pt.is_timestamp(kind):
        values = values.cast(pa.int64())
    keys = values.to_numpy(zero_copy_only=False)
    return keys if keys.dtype in (np.int32, np.int64) else keys.astype(np.int64)  # two types for numba to compile


def label_strings(values: pa.Array) -> pa.Array:
    """Labels as text: 308 for 308 and 308.0, True, 2020-01-31, decimals as written; 2020-01-31 12:00:00, whatever unit
    a timestamp counts in, with a fraction of a second only where there is one."""
    kind = values.type
    if pt.is_dictionary(kind):
        values, kind = values.dictionary_decode(), kind.value_type
    if pt.is_boolean(kind):
        return pc.if_else(values, "True", "False").cast(pa.large_string())
    if pt.is_floating(kind):
        texts = [None if v is None else str(int(v)) if v.is_integer() else repr(v) for v in values.to_pylist()]
        return pa.array(texts, pa.large_string())
    texts = values.cast(pa.large_string())
    return pc.replace_substring_regex(texts, r"\.0+(Z?)$", r"\1") if pt.is_timestamp(kind) else texts


def label_array(texts: pa.Array) -> np.ndarray:
    """(n,) NumPy array of labels: fixed width when short, objects otherwise."""
    longest = pc.max(pc.utf8_length(texts)).as_py() or 1
    array = texts.to_numpy(zero_copy_only=False)
    return array.astype(f"U{longest}") if longest <= _SHORT_LABEL else array


class Levels:
    """The levels of one column, in order. ``values``: Arrow array of the canonical type, distinct, without nulls."""

    def __init__(self, column: str, values: pa.Array):
        self.column, self.values = column, values

    def __len__(self) -> int:
        return len(self.values)

    def __getstate__(self) -> tuple:
        return self.column, self.values

    def __setstate__(self, state: tuple) -> None:
        self.column, self.values = state

    @cached_property
    def texts(self) -> pa.Array:
        return label_strings(self.values)

    @cached_property
    def labels(self) -> np.ndarray:
        """(n,) labels, numbers and booleans as such, everything else as text."""
        kind = self.values.type
        if pt.is_integer(kind) or pt.is_floating(kind) or pt.is_boolean(kind):
            return self.values.to_numpy(zero_copy_only=False)
        return label_array(self.texts)

    @cached_property
    def _index(self) -> IntegerIndex | ValueIndex:
        if is_integer_like(self.values.type):
            return IntegerIndex(integer_keys(self.values).astype(np.int64, copy=False))
        return ValueIndex(self.values)

    @cached_property
    def _text_index(self) -> ValueIndex:
        return ValueIndex(self.texts)

    def numbers(self, column: pa.ChunkedArray) -> np.ndarray:
        """(n,) int32 level number of every value; -1 for nulls and values that are no level.

        Values of another type than the levels' are matched by their labels ("308" and 308 are the same).
        """
        out = np.empty(len(column), dtype=np.int32)
        start = 0
        for chunk in column.chunks:
            self._chunk_numbers(chunk, out[start : start + len(chunk)])
            start += len(chunk)
        return out

    def _chunk_numbers(self, chunk: pa.Array, out: np.ndarray) -> None:
        if pt.is_string_view(chunk.type):  # Arrow cannot filter views
            chunk = chunk.cast(pa.large_string())
        if pt.is_dictionary(chunk.type):
            self._dictionary_numbers(chunk, out)
        elif chunk.null_count:
            out[:] = -1
            valid = chunk.is_valid()
            found = np.empty(len(chunk) - chunk.null_count, dtype=np.int32)
            self._chunk_numbers(chunk.filter(valid), found)
            out[valid.to_numpy(zero_copy_only=False)] = found
        elif canonical_type(chunk.type, self.column) != self.values.type:
            self._text_index.find(label_strings(chunk), out)
        elif isinstance(self._index, IntegerIndex):
            self._index.find(integer_keys(chunk), out)
        else:
            self._index.find(chunk.cast(self.values.type), out)

    def _dictionary_numbers(self, chunk: pa.DictionaryArray, out: np.ndarray) -> None:
        if not len(chunk.dictionary):
            out[:] = -1
            return
        numbers = np.empty(len(chunk.dictionary), dtype=np.int32)
        self._chunk_numbers(chunk.dictionary, numbers)
        if chunk.null_count:
            indices = chunk.indices.fill_null(0).to_numpy(zero_copy_only=False)
            np.take(numbers, indices, out=out, mode="clip")
            out[chunk.is_null().to_numpy(zero_copy_only=False)] = -1
        else:
            np.take(numbers, chunk.indices.to_numpy(zero_copy_only=False), out=out, mode="clip")


class Combinations:
    """The combinations of several factors' levels that occur; ``codes`` (n, v) int32, rows sorted, first slowest."""

    def __init__(self, members: Sequence[Levels], codes: np.ndarray):
        self.members, self.codes = tuple(members), codes
        self.sizes = tuple(len(levels) for levels in members)
        self._index = IntegerIndex(combined(codes.T, self.sizes))

    def __reduce__(self) -> tuple:
        return Combinations, (self.members, self.codes)

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def labels(self) -> np.ndarray | JoinedLabels:
        """(n,) labels of the members joined by ":"; of very many they are made when they are asked for."""
        return self.joined(self.codes) if len(self) < MANY else JoinedLabels(self)

    def joined(self, codes: np.ndarray) -> np.ndarray:
        """(m,) labels of the members joined by ":", for some of the combinations (m, v)."""
        if not len(codes):
            return np.empty(0, dtype="U1")
        texts = [levels.texts.take(pa.array(code)) for levels, code in zip(self.members, codes.T, strict=True)]
        return label_array(pc.binary_join_element_wise(*texts, pa.scalar(":", pa.large_string())))

    def numbers(self, codes: Sequence[np.ndarray]) -> np.ndarray:
        """(n,) int32 number of each row's combination from its members' level numbers; -1 if it never occurred."""
        out = np.empty(len(codes[0]), dtype=np.int32)
        self._index.find(combined(codes, self.sizes), out)
        for code in codes:
            out[code < 0] = -1
        return out


MANY = 1 << 20
"""From so many combinations on, their joined labels are not kept: they take more than all sums of a fit."""


class JoinedLabels:
    """What stands for the array of labels of many combinations."""

    def __init__(self, source: Combinations):
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: Any) -> Any:
        """The labels there, as an array would give them."""
        if isinstance(index, (int, np.integer)):
            return self.source.joined(self.source.codes[index][None])[0]
        return self.source.joined(self.source.codes[index])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.source.joined(self.source.codes).astype(dtype) if dtype else self.source.joined(self.source.codes)


def combined(codes: Sequence[np.ndarray] | np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """(n,) int64 mixed-radix number of level numbers, first slowest; DataError when that overflows."""
    if np.prod([float(size) for size in sizes]) >= 2.0**62:
        raise DataError(f"an interaction of factors with {' x '.join(map(str, sizes))} levels is too large")
    total = np.zeros(len(codes[0]), dtype=np.int64)
    for code, size in zip(codes, sizes, strict=True):
        total *= size
        total += code
    return total


def sorted_distinct(keys: np.ndarray) -> np.ndarray:
    """(m,) the different integers of (n,), increasing; repeats of neighbours are gone before the sort."""
    keys = np.sort(keys[np.append(True, keys[1:] != keys[:-1])]) if len(keys) else keys
    return keys[np.append(True, keys[1:] != keys[:-1])] if len(keys) else keys


def distinct_codes(codes: Sequence[np.ndarray], sizes: Sequence[int]) -> np.ndarray:
    """(m, v) int32: the distinct rows of level numbers, sorted with the first column slowest."""
    keys = combined(codes, sizes)
    if prod(sizes) <= 4 * len(keys) + 65536:  # flags are several times faster than sorting
        flags = np.zeros(prod(sizes), dtype=bool)
        flags[keys] = True
        rest = np.flatnonzero(flags)
    else:
        rest = sorted_distinct(keys)
    found = np.empty((len(rest), len(sizes)), dtype=np.int32)
    for place in reversed(range(len(sizes))):
        found[:, place] = rest % sizes[place]
        rest = rest // sizes[place]
    return found


def declared_values(column: str, levels: Sequence, kind: pa.DataType) -> pa.Array:
    """Declared levels as an Arrow array of the column's canonical type; texts and numbers are matched by label."""
    if len(set(levels)) != len(levels):
        raise DataError(f"the declared categories of column {column!r} repeat a level")
    try:
        if kind == pa.large_string():
            return label_strings(pa.array(list(levels))).cast(kind)
        array = pa.array(list(levels))
        return array.cast(kind) if array.type != kind else array
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        shown = ", ".join(map(repr, list(levels)[:5]))
        raise DataError(
            f"the categories of column {column!r} ({shown}) do not match its type {kind}: {error}"
        ) from None


def ordered(column: str, values: pa.Array, declared: pa.Array | None) -> Levels:
    """Levels from the distinct values seen: sorted, or in declared order without the unused."""
    if declared is not None:
        return Levels(column, declared.filter(pc.is_in(declared, value_set=values)))
    if pt.is_integer(values.type) and is_increasing(integer_keys(values)):
        return Levels(column, values)
    return Levels(column, values.take(pc.sort_indices(values)))


def restricted(
    levels: Mapping[str, Levels],
    combinations: Mapping[tuple[str, ...], Combinations],
    seen: Mapping[tuple[str, ...], np.ndarray],
) -> tuple[dict[str, Levels], dict[tuple[str, ...], Combinations]]:
    """Levels and combinations without those marked False in `seen`: columns -> (n_levels,) bool."""
    fewer = dict(levels)
    renumber = {name: np.arange(len(found), dtype=np.int32) for name, found in levels.items()}
    for (name, *more), mask in seen.items():
        if not more:
            fewer[name] = Levels(name, levels[name].values.filter(pa.array(mask)))
            renumber[name] = np.where(mask, np.cumsum(mask) - 1, -1).astype(np.int32)
    remaining = {}
    for names, found in combinations.items():
        codes = found.codes[seen[names]] if names in seen else found.codes
        codes = np.column_stack([renumber[name][code] for name, code in zip(names, codes.T, strict=True)])
        remaining[names] = Combinations([fewer[name] for name in names], codes[(codes >= 0).all(axis=1)])
    return fewer, remaining
