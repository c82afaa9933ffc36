"""Distinct rows of a few columns, the raw material of levels, gathered over partitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from bigmm.design.levels.bits import NOTHING, Bits, are_compact, is_increasing, key_range
from bigmm.design.levels.equality import canonical, canonical_type, plain
from bigmm.design.levels.numbering import distinct_codes
from bigmm.design.levels.packed import Packed, pack, union
from bigmm.errors import DataError


@dataclass(frozen=True, slots=True)
class DistinctRows:
    """Distinct combinations of some columns, rows with a null or NaN among them left out.

    Attributes
    ----------
    declared : mapping of str to Arrow array
        The only values that a column may have, for columns with declared levels.
    tables : tuple of Arrow Table
        Rows in canonical types.
    bits : Bits
        Further rows, of a single column of integers.
    packed : tuple of Packed
        Further rows, of several columns of integers.
    """

    columns: tuple[str, ...]
    declared: Mapping[str, pa.Array] = field(default_factory=dict)
    tables: tuple[pa.Table, ...] = ()
    rows: int = 0
    bits: Bits = NOTHING
    packed: tuple[Packed, ...] = ()

    def update(self, table: pa.Table, where: str) -> DistinctRows:
        """Add the rows of a table, in the smallest form that holds them: bits, packed integers, or a table."""
        rows = self.rows + table.num_rows
        keys = self._keys(table)
        if keys and self._are_compact(*key_range(keys), rows):
            return replace(self, bits=self.bits.with_keys(keys), rows=rows)
        packed = self._packed(table)
        if packed is not None:
            return replace(self, rows=rows)._with(self.tables, (*self.packed, packed))
        fresh = distinct(table.select(list(dict.fromkeys(self.columns))))
        for column, allowed in self.declared.items():
            # The check runs on distinct values of each partition, far fewer than its rows.
            strange = fresh[column].filter(pc.invert(pc.is_in(fresh[column], value_set=allowed)))
            if len(strange):
                value = strange[0].as_py()
                raise DataError(f"{where}: column {column!r} holds {value!r}, not one of its declared categories")
        return replace(self, tables=_compact((*self.tables, fresh)), rows=rows)

    def merge(self, other: DistinctRows) -> DistinctRows:
        """The distinct rows of both parts."""
        rows, tables, bits = self.rows + other.rows, (*self.tables, *other.tables), self.bits
        if len(other.bits.words) and not self._are_compact(other.bits.low, other.bits.high, rows):
            tables += (self._listed(other.bits),)
        else:
            bits = bits.merge(other.bits)
        return replace(self, rows=rows, bits=bits)._with(tables, (*self.packed, *other.packed))

    def _with(self, tables: tuple[pa.Table, ...], packed: tuple[Packed, ...]) -> DistinctRows:
        """With these pieces, joined where it is time; packed ones that are too wide together become tables."""
        # The same doubling as in `_compact`: a union costs the rows of both, so small pieces wait for others.
        while len(packed) > 1 and sum(map(len, packed[1:])) >= len(packed[0]):
            *earlier, before, last = packed
            joined = union(before, last)
            if joined is None:
                tables, packed = (*tables, *map(self._unpacked, packed)), ()
            else:
                packed = (*earlier, joined)
        return replace(self, tables=_compact(tables), packed=packed)

    def _packed(self, table: pa.Table) -> Packed | None:
        """The rows of several columns of integers; None for others, and where they are too wide."""
        if len(self.columns) == 1 or self.declared:
            return None
        columns = [table.column(name) for name in dict.fromkeys(self.columns)]
        # The keys of 63 bits are differences in int64, in which large unsigned values do not fit.
        if not all(pt.is_integer(column.type) and column.type != pa.uint64() for column in columns):
            return None
        if any(column.null_count for column in columns):
            table = table.select(list(dict.fromkeys(self.columns))).drop_null()
            columns = table.columns
        return pack([column.to_numpy() for column in columns])

    def _unpacked(self, packed: Packed) -> pa.Table:
        return pa.table(dict(zip(dict.fromkeys(self.columns), map(pa.array, packed.columns()), strict=True)))

    def _keys(self, table: pa.Table) -> list[np.ndarray]:
        """The values of the one column of integers, by chunk; none where `bits` cannot hold them."""
        if len(self.columns) > 1 or self.declared or not pt.is_integer(table.schema.field(self.columns[0]).type):
            return []
        chunks = [chunk.drop_null() for chunk in table.column(self.columns[0]).chunks]
        keys = [chunk.to_numpy() for chunk in chunks if len(chunk)]
        # `Bits` counts from an int64 origin. Unsigned 64-bit values go by way of tables.
        return [] if any(values.dtype == np.uint64 for values in keys) else keys

    def _are_compact(self, low: int, high: int, rows: int) -> bool:
        if len(self.bits.words):
            low, high = min(low, self.bits.low), max(high, self.bits.high)
        return are_compact(low, high, rows)

    def _listed(self, bits: Bits) -> pa.Table:
        return pa.table({self.columns[0]: pa.array(bits.values())})

    def table(self) -> pa.Table | None:
        """All distinct rows, unordered; None when no partition was read."""
        tables = (*self.tables, self._listed(self.bits)) if len(self.bits.words) else self.tables
        packed: tuple[Packed, ...] = ()
        for piece in self.packed:
            packed = _joined(packed, piece)
        tables += tuple(map(self._unpacked, packed))
        return _union(tables) if tables else None


def _joined(pieces: tuple[Packed, ...], last: Packed) -> tuple[Packed, ...]:
    both = union(pieces[-1], last) if pieces else last
    return (*pieces, last) if both is None else (*pieces[:-1], both)


def _compact(tables: tuple[pa.Table, ...]) -> tuple[pa.Table, ...]:
    # Joining only when the newer pieces outgrow the oldest keeps the total work linear in the rows seen.
    later_rows = sum(piece.num_rows for piece in tables[1:])
    return (_union(tables),) if len(tables) > 1 and later_rows >= tables[0].num_rows else tables


def _union(tables: Sequence[pa.Table]) -> pa.Table:
    if len(tables) == 1:
        return tables[0]
    table = pa.concat_tables(tables, promote_options="permissive")  # unsigned values and the signed ones of `bits`
    if table.num_columns == 1:
        return pa.table({table.column_names[0]: unique_values(table.column(0))})
    # One thread: every lane already has its own, and the order of groups would depend on timing.
    return table.group_by(table.column_names, use_threads=False).aggregate([]).select(table.column_names)


def distinct(table: pa.Table) -> pa.Table:
    """Distinct complete rows of a table of a few columns, cast to canonical types."""
    if table.num_columns == 1:
        name = table.column_names[0]
        return pa.table({name: _distinct_values(table.column(0), name)})
    codes, values = zip(*(_factorize(table[name], name) for name in table.column_names), strict=True)
    keep = np.logical_and.reduce([code >= 0 for code in codes])
    rows = distinct_codes([code[keep] for code in codes], [max(len(value), 1) for value in values])
    columns = [value.take(pa.array(code)) for value, code in zip(values, rows.T, strict=True)]
    return pa.table(dict(zip(table.column_names, columns, strict=True)))


def _distinct_values(column: pa.ChunkedArray, name: str) -> pa.Array:
    target = canonical_type(column.type, name)
    pieces = []
    for chunk in column.chunks:
        if pt.is_dictionary(chunk.type):
            # A dictionary may hold entries that no row has: pandas keeps unused categories.
            chunk = chunk.dictionary.take(_distinct_integers(chunk.indices).drop_null())
        pieces.append(canonical(_distinct_integers(plain(chunk)), name))
    if not pieces:
        return pa.array([], target)
    # Other types can have become equal only now: -0.0 and 0.0, or dates with and without a time of day.
    distinct_already = len(pieces) == 1 and pt.is_integer(column.type)
    return (pieces[0] if distinct_already else unique_values(pa.chunked_array(pieces, target))).drop_null()


def unique_values(column: pa.ChunkedArray) -> pa.Array:
    """Distinct values of a column, in any order."""
    if pt.is_integer(column.type) and column.num_chunks == 1 and is_increasing(column.chunk(0).to_numpy()):
        return column.chunk(0)
    return _distinct_integers(column.combine_chunks()) if pt.is_integer(column.type) else pc.unique(column)


def _distinct_integers(chunk: pa.Array) -> pa.Array:
    """Distinct values of a chunk; integers of a compact range by flags, several times faster than hashing."""
    if pt.is_integer(chunk.type) and chunk.null_count == 0 and len(chunk):
        keys = chunk.to_numpy()
        low, high = int(keys.min()), int(keys.max())
        if high - low < 4 * len(keys) + 65536:
            wide = np.uint64 if keys.dtype == np.uint64 else np.int64  # differences of int8 do not fit into int8
            flags = np.zeros(high - low + 1, dtype=bool)
            flags[keys.astype(wide, copy=False) - wide(low)] = True
            return pa.array(np.flatnonzero(flags).astype(wide) + wide(low))
    return pc.unique(chunk)


def _factorize(column: pa.ChunkedArray, name: str) -> tuple[np.ndarray, pa.Array]:
    """Codes (n,) int64, -1 for missing, and the values behind them in the canonical type; some may be equal."""
    target = canonical_type(column.type, name)
    if not pt.is_dictionary(column.type):
        column = pa.chunked_array([plain(chunk) for chunk in column.chunks] or [pa.array([], target)])
    encoded = column if pt.is_dictionary(column.type) else column.dictionary_encode()
    merged = _one_chunk(encoded)
    if merged is None or not len(merged):
        return np.zeros(0, dtype=np.int64), pa.array([], target)
    codes = merged.indices.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False)
    values = canonical(merged.dictionary, name)
    bad = values.is_null().to_numpy(zero_copy_only=False)
    if bad.any():
        # The appended True answers for code -1, which indexes from the end.
        codes = np.where(np.append(bad, True)[codes], -1, codes)
    return codes, values


def _one_chunk(encoded: pa.ChunkedArray) -> pa.DictionaryArray | None:
    if encoded.num_chunks < 2:
        return encoded.chunk(0) if encoded.num_chunks else None
    merged = encoded.unify_dictionaries().combine_chunks()
    return merged.chunk(0) if isinstance(merged, pa.ChunkedArray) else merged
