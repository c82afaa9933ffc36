"""Distinct rows of a few columns, the raw material of levels, gathered over partitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from bigmm.design.levels import canonical_type, distinct_codes
from bigmm.errors import DataError


@dataclass(frozen=True, slots=True)
class DistinctRows:
    """Distinct combinations of some columns, rows with a null or NaN among them left out.

    ``found``: tables of the columns in canonical types; ``declared``: column -> the only values allowed.
    """

    columns: tuple[str, ...]
    declared: Mapping[str, pa.Array] = field(default_factory=dict)
    found: tuple[pa.Table, ...] = ()
    rows: int = 0

    def update(self, table: pa.Table, where: str) -> DistinctRows:
        fresh = distinct(table.select(list(dict.fromkeys(self.columns))))
        for column, allowed in self.declared.items():
            strange = fresh[column].filter(pc.invert(pc.is_in(fresh[column], value_set=allowed)))
            if len(strange):
                value = strange[0].as_py()
                raise DataError(f"{where}: column {column!r} holds {value!r}, not one of its declared categories")
        return replace(self, found=_compact((*self.found, fresh)), rows=self.rows + table.num_rows)

    def merge(self, other: DistinctRows) -> DistinctRows:
        return replace(self, found=_compact((*self.found, *other.found)), rows=self.rows + other.rows)

    def table(self) -> pa.Table | None:
        """All distinct rows, unordered; None when no partition was read."""
        return _union(self.found) if self.found else None


def _compact(found: tuple[pa.Table, ...]) -> tuple[pa.Table, ...]:
    # Joining only when the newer pieces outgrow the oldest keeps the total work linear in the rows seen.
    rest = sum(piece.num_rows for piece in found[1:])
    return (_union(found),) if len(found) > 1 and rest >= found[0].num_rows else found


def _union(found: Sequence[pa.Table]) -> pa.Table:
    if len(found) == 1:
        return found[0]
    table = pa.concat_tables(found)
    if table.num_columns == 1:
        return pa.table({table.column_names[0]: unique_values(table.column(0))})
    return table.group_by(table.column_names, use_threads=False).aggregate([]).select(table.column_names)


def distinct(table: pa.Table) -> pa.Table:
    """Distinct complete rows of a table of a few columns, cast to canonical types."""
    if table.num_columns == 1:
        name = table.column_names[0]
        return pa.table({name: _distinct_values(table.column(0), name)})
    codes, values = zip(*(_factorize(table[name], name) for name in table.column_names), strict=True)
    keep = np.logical_and.reduce([code >= 0 for code in codes])
    rows = distinct_codes([code[keep] for code in codes], [max(len(value), 1) for value in values])
    taken = [value.take(pa.array(code)) for value, code in zip(values, rows.T, strict=True)]
    return pa.table(dict(zip(table.column_names, taken, strict=True)))


def _distinct_values(column: pa.ChunkedArray, name: str) -> pa.Array:
    target = canonical_type(column.type, name)
    pieces = []
    for chunk in column.chunks:
        if pt.is_dictionary(chunk.type):
            chunk = chunk.dictionary.take(_distinct_integers(chunk.indices).drop_null())
        pieces.append(_to_canonical(_distinct_integers(chunk), target, name))
    if not pieces:
        return pa.array([], target)
    distinct_already = len(pieces) == 1 and not pt.is_dictionary(column.type)
    values = (pieces[0] if distinct_already else unique_values(pa.chunked_array(pieces, target))).drop_null()
    return values.filter(pc.invert(pc.is_nan(values))) if pt.is_floating(target) else values


def unique_values(column: pa.ChunkedArray) -> pa.Array:
    """Distinct values of a column, in any order."""
    return _distinct_integers(column.combine_chunks()) if pt.is_integer(column.type) else pc.unique(column)


def _distinct_integers(chunk: pa.Array) -> pa.Array:
    """Distinct values of a chunk; integers of a compact range by flags, several times faster than hashing."""
    if pt.is_integer(chunk.type) and chunk.null_count == 0 and len(chunk):
        keys = chunk.to_numpy()
        low, high = int(keys.min()), int(keys.max())
        if high - low < 4 * len(keys) + 65536:
            flags = np.zeros(high - low + 1, dtype=bool)
            flags[keys - low] = True
            return pa.array(np.flatnonzero(flags) + low, pa.int64())
    return pc.unique(chunk)


def _to_canonical(values: pa.Array, target: pa.DataType, name: str) -> pa.Array:
    try:
        return values.cast(target)
    except pa.ArrowInvalid as error:
        raise DataError(f"column {name!r} cannot be a factor: {error}") from None


def _factorize(column: pa.ChunkedArray, name: str) -> tuple[np.ndarray, pa.Array]:
    """Codes (n,) int64, -1 for missing, and the distinct values behind them in the canonical type."""
    encoded = column if pt.is_dictionary(column.type) else column.dictionary_encode()
    merged = encoded.unify_dictionaries().combine_chunks() if column.num_chunks else None
    target = canonical_type(column.type, name)
    if merged is None or not len(merged):
        return np.zeros(0, dtype=np.int64), pa.array([], target)
    if isinstance(merged, pa.ChunkedArray):
        merged = merged.chunk(0)
    codes = merged.indices.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False)
    values = _to_canonical(merged.dictionary, target, name)
    bad = pc.is_null(values, nan_is_null=True).to_numpy(zero_copy_only=False)
    if bad.any():
        codes = np.where(np.append(bad, True)[codes], -1, codes)
    return codes, values
