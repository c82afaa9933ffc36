"""Levels of factors: their order, labels and numbers.

Order is R's: numbers numerically, dates by time, strings by code point, declared categories as declared without the
unused ones. `equality` says which values are the same level.
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

from bigmm.design.levels.bits import is_increasing
from bigmm.design.levels.equality import (
    as_text,
    canonical,
    canonical_type,
    equal_values,
    integer_keys,
    is_integer_like,
    is_numeric_level,
    label_strings,
    numerals,
    printed,
    spellings,
)
from bigmm.design.levels.lookup import IntegerIndex, ValueIndex
from bigmm.errors import DataError
from bigmm.source.kinds import is_instant

_SHORT_LABEL = 24  # characters up to which a fixed-width array is smaller than one of objects


def label_array(texts: pa.Array) -> np.ndarray:
    """(n,) NumPy array of labels: fixed width when short, objects otherwise."""
    longest = pc.max(pc.utf8_length(texts)).as_py() or 1
    array = texts.to_numpy(zero_copy_only=False)
    # NumPy drops NUL characters at the end of text of fixed width, and two labels could become one.
    short = longest <= _SHORT_LABEL and not pc.any(pc.ends_with(texts, "\0")).as_py()
    return array.astype(f"U{longest}") if short else array


class Levels:
    """The levels of one column, in order. ``values``: Arrow array of the canonical type, distinct, without nulls."""

    def __init__(self, column: str, values: pa.Array):
        self.column, self.values = column, values

    def __len__(self) -> int:
        return len(self.values)

    def __getstate__(self) -> tuple[Any, ...]:
        # Indices are left behind: a worker builds them once from the values, which travel as Arrow buffers.
        return self.column, self.values

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.column, self.values = state

    @cached_property
    def texts(self) -> pa.Array:
        """(n,) labels of the levels as text."""
        return label_strings(self.values)

    @cached_property
    def labels(self) -> np.ndarray:
        """(n,) labels, numbers and booleans as such, everything else as text."""
        kind = self.values.type
        if pt.is_float32(kind):
            return printed(self.values.to_numpy(zero_copy_only=False))
        if pt.is_integer(kind) or pt.is_floating(kind) or pt.is_boolean(kind):
            return self.values.to_numpy(zero_copy_only=False)
        return label_array(self.texts)

    @cached_property
    def _index(self) -> IntegerIndex | ValueIndex:
        return _index_of(self.values)

    @cached_property
    def _numeral_index(self) -> ValueIndex:
        return ValueIndex(numerals(self.values))

    @cached_property
    def _text_indices(self) -> list[ValueIndex]:
        return [ValueIndex(texts) for texts in spellings(self.values)]

    def numbers(self, column: pa.ChunkedArray) -> np.ndarray:
        """(n,) int32 level number of every value; -1 for missing values and values that are no level.

        Values of another type than the levels' are the same level as `equality` says: numbers as numbers, dates and
        timestamps as instants, others by their labels.
        """
        out = np.empty(len(column), dtype=np.int32)
        start = 0
        for chunk in column.chunks:
            self._chunk_numbers(chunk, out[start : start + len(chunk)])
            start += len(chunk)
        return out

    def _chunk_numbers(self, chunk: pa.Array, out: np.ndarray) -> None:
        if pt.is_dictionary(chunk.type):
            self._dictionary_numbers(chunk, out)
            return
        # Integers of any width go to the index as they are; the kernels widen each key.
        if not pt.is_integer(chunk.type):
            chunk = canonical(chunk, self.column)
        if chunk.null_count == len(chunk):
            out[:] = -1
        elif chunk.null_count:
            out[:] = -1
            valid = chunk.is_valid()
            numbers = np.empty(len(chunk) - chunk.null_count, dtype=np.int32)
            # Arrow leaves any bits in the place of a null. They could be the key of a level.
            self._valid_numbers(chunk.filter(valid), numbers)
            out[valid.to_numpy(zero_copy_only=False)] = numbers
        else:
            self._valid_numbers(chunk, out)

    def _valid_numbers(self, chunk: pa.Array, out: np.ndarray) -> None:
        """Numbers of values that are all there, of a canonical type or integers of any width."""
        kind = canonical_type(chunk.type, self.column)
        if kind == self.values.type:
            _find(self._index, chunk, out)
        elif pt.is_integer(kind) or pt.is_large_binary(kind):
            self._unlike_numbers(chunk.cast(kind), out)
        else:
            # Texts and conversions are made once for each distinct value.
            self._dictionary_numbers(chunk.dictionary_encode(), out, self._unlike_numbers)

    def _unlike_numbers(self, values: pa.Array, out: np.ndarray) -> None:
        """Numbers of values of another canonical type."""
        out[:] = -1
        for same in equal_values(values, self.values.type):
            _find_more(self._index, same, out)
        kinds = (values.type, self.values.type)
        if all(map(is_numeric_level, kinds)):
            if any(map(pt.is_decimal, kinds)):
                _find_more(self._numeral_index, numerals(values), out)
        elif not all(map(is_instant, kinds)):
            for index in self._text_indices:
                for texts in spellings(values):
                    _find_more(index, texts, out)

    def _dictionary_numbers(self, chunk: pa.DictionaryArray, out: np.ndarray, numbered: Any = None) -> None:
        if not len(chunk.dictionary):
            out[:] = -1
            return
        numbers = np.empty(len(chunk.dictionary), dtype=np.int32)
        (numbered or self._chunk_numbers)(chunk.dictionary, numbers)
        if chunk.null_count:
            indices = chunk.indices.fill_null(0).to_numpy(zero_copy_only=False)
            # mode="raise" would copy through a buffer; indices were validated when they were read.
            np.take(numbers, indices, out=out, mode="clip")
            out[chunk.indices.is_null().to_numpy(zero_copy_only=False)] = -1
        else:
            np.take(numbers, chunk.indices.to_numpy(zero_copy_only=False), out=out, mode="clip")


def _index_of(values: pa.Array) -> IntegerIndex | ValueIndex:
    if is_integer_like(values.type):
        return IntegerIndex(integer_keys(values).astype(np.int64, copy=False))
    return ValueIndex(values)


def _find(index: IntegerIndex | ValueIndex, values: pa.Array, out: np.ndarray) -> None:
    index.find(integer_keys(values) if isinstance(index, IntegerIndex) else values, out)


def _find_more(index: IntegerIndex | ValueIndex, values: pa.Array, out: np.ndarray) -> None:
    """Numbers of the values (n,) that are there and have none in out (n,) yet."""
    places = np.flatnonzero((out < 0) & values.is_valid().to_numpy(zero_copy_only=False))
    if places.size:
        numbers = np.empty(places.size, dtype=np.int32)
        whole = places.size == len(values)
        _find(index, values if whole else values.take(pa.array(places)), numbers)
        out[places] = numbers


class Combinations:
    """The combinations of several factors' levels that occur; ``codes`` (n, v) int32, rows sorted, first slowest."""

    def __init__(self, members: Sequence[Levels], codes: np.ndarray):
        self.members, self.codes = tuple(members), codes
        self.sizes = tuple(len(levels) for levels in members)
        # Sorted rows have increasing keys, which is what the fastest kinds of index need.
        self._index = IntegerIndex(combined(codes.T, self.sizes))

    def __reduce__(self) -> tuple[Any, ...]:
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
        return label_array(_joined(self._member_texts, codes))

    @cached_property
    def _member_texts(self) -> list[pa.Array]:
        """Labels of each member's levels, in quotes where joined labels would not tell two combinations apart."""
        texts = [levels.texts for levels in self.members]
        if sum(bool(pc.any(pc.match_substring(labels, ":")).as_py()) for labels in texts) < 2:
            return texts
        if len(self) < MANY and pc.count_distinct(_joined(texts, self.codes)).as_py() == len(self):
            return texts
        return [_quoted(labels) for labels in texts]

    def numbers(self, codes: Sequence[np.ndarray]) -> np.ndarray:
        """(n,) int32 number of each row's combination from its members' level numbers; -1 if it never occurred."""
        out = np.empty(len(codes[0]), dtype=np.int32)
        self._index.find(combined(codes, self.sizes), out)
        for code in codes:
            # A member of -1 makes a key that can be that of another combination.
            out[code < 0] = -1
        return out


def _joined(texts: Sequence[pa.Array], codes: np.ndarray) -> pa.Array:
    columns = [labels.take(pa.array(code)) for labels, code in zip(texts, codes.T, strict=True)]
    return pc.binary_join_element_wise(*columns, pa.scalar(":", pa.large_string()))


def _quoted(texts: pa.Array) -> pa.Array:
    """Labels with a colon or a quote in quotes, quotes inside them doubled."""
    special = pc.match_substring_regex(texts, '[:"]')
    doubled = pc.replace_substring(texts, '"', '""')
    quote = pa.scalar('"', pa.large_string())
    whole = pc.binary_join_element_wise(quote, doubled, quote, pa.scalar("", pa.large_string()))
    return pc.if_else(special, whole, texts)


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
    # Floats cannot wrap, unlike the int64 products below.
    if np.prod([float(size) for size in sizes]) >= 2.0**62:
        raise DataError(f"an interaction of factors with {' x '.join(map(str, sizes))} levels is too large")
    total = np.zeros(len(codes[0]), dtype=np.int64)
    for code, size in zip(codes, sizes, strict=True):
        total *= size
        total += code
    return total


def sorted_distinct(keys: np.ndarray) -> np.ndarray:
    """(m,) the different integers of (n,), increasing; repeats of neighbours are gone before the sort."""
    # Rows of one group are often neighbours in files, and sorting is what costs.
    keys = np.sort(keys[np.append(True, keys[1:] != keys[:-1])]) if len(keys) else keys
    return keys[np.append(True, keys[1:] != keys[:-1])] if len(keys) else keys


def distinct_codes(codes: Sequence[np.ndarray], sizes: Sequence[int]) -> np.ndarray:
    """(m, v) int32: the distinct rows of level numbers, sorted with the first column slowest."""
    keys = combined(codes, sizes)
    if prod(sizes) <= 4 * len(keys) + 65536:  # flags are several times faster than sorting
        flags = np.zeros(prod(sizes), dtype=bool)
        flags[keys] = True
        remainder = np.flatnonzero(flags)
    else:
        remainder = sorted_distinct(keys)
    out = np.empty((len(remainder), len(sizes)), dtype=np.int32)
    for place in reversed(range(len(sizes))):
        out[:, place] = remainder % sizes[place]
        remainder = remainder // sizes[place]
    return out


def declared_values(column: str, levels: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Declared levels as an Arrow array of the column's canonical type, each the same level as declared.

    Missing values are left out. Raises DataError for a level that is declared twice and for one that no value of the
    column's type can be.
    """
    try:
        # Declared levels go through the same equality as the data: 1 and 1.0 are one level.
        array = _of_type(canonical(_declared_array(levels, kind), column), kind).drop_null()
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError) as error:
        shown = ", ".join(map(repr, list(levels)[:5]))
        raise DataError(
            f"the categories of column {column!r} ({shown}) do not match its type {kind}: {error}"
        ) from None
    if len(pc.unique(array)) != len(array):
        raise DataError(f"the declared categories of column {column!r} repeat a level")
    return array


def _declared_array(levels: Sequence[Any], kind: pa.DataType) -> pa.Array:
    present = [level for level in levels if level is not None]
    try:
        return pa.array(present)
    except OverflowError:  # Arrow takes integers for signed ones by itself
        return pa.array(present, kind)


def _of_type(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Values of a canonical type as those of another; ArrowInvalid for one that has no equal there."""
    if values.type == kind:
        return values
    if kind == pa.large_string():
        return label_strings(values)
    present = values.drop_null()
    for same in equal_values(present, kind)[:1]:
        if same.null_count:
            lost = present.filter(same.is_null())[0].as_py()
            raise pa.ArrowInvalid(f"no value of this type is {lost!r}")
        return same
    return canonical(present.cast(kind))


def ordered(column: str, values: pa.Array, declared: pa.Array | None) -> Levels:
    """Levels from the distinct values seen: sorted, or in declared order without the unused."""
    if declared is not None:
        return Levels(column, _settled(declared.filter(pc.is_in(declared, value_set=values))))
    # Values from `Bits` are sorted already; the check is one pass.
    if pt.is_integer(values.type) and is_increasing(integer_keys(values)):
        return Levels(column, _settled(values))
    # Arrow sorts text by bytes of UTF-8, which is the order of code points and no locale's.
    return Levels(column, _settled(values.take(pc.sort_indices(values))))


def _settled(values: pa.Array) -> pa.Array:
    """All the levels in the plainest type that holds them: bytes that are text as text, small unsigned as int64."""
    if pt.is_large_binary(values.type):
        texts = as_text(values)
        return values if texts.null_count else texts
    # Lookups in int64 need no flipped sign, and other files may hold the column as int64.
    if pt.is_uint64(values.type) and (not len(values) or pc.max(values).as_py() < 1 << 63):
        return values.cast(pa.int64())
    return values


def restricted(
    levels: Mapping[str, Levels],
    combinations: Mapping[tuple[str, ...], Combinations],
    masks: Mapping[tuple[str, ...], np.ndarray],
) -> tuple[dict[str, Levels], dict[tuple[str, ...], Combinations]]:
    """Levels and combinations without those that are False in `masks`, which has (n_levels,) bool by columns."""
    fewer = dict(levels)
    renumber = {name: np.arange(len(factor), dtype=np.int32) for name, factor in levels.items()}
    for (name, *more), mask in masks.items():
        if not more:
            fewer[name] = Levels(name, levels[name].values.filter(pa.array(mask)))
            renumber[name] = np.where(mask, np.cumsum(mask) - 1, -1).astype(np.int32)
    remaining = {}
    for names, combination in combinations.items():
        codes = combination.codes[masks[names]] if names in masks else combination.codes
        codes = np.column_stack([renumber[name][code] for name, code in zip(names, codes.T, strict=True)])
        remaining[names] = Combinations([fewer[name] for name in names], codes[(codes >= 0).all(axis=1)])
    return fewer, remaining
