"""What a pass over a few columns can learn: distinct rows, moments, polynomial products, quantiles.

Each is a frozen value with ``update(table, where)`` and ``merge(other)``; a pass folds many of them side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from bigmm.design.levels import canonical_type, distinct_codes
from bigmm.errors import DataError
from bigmm.execute import Executor, Lane, cut_lanes
from bigmm.source.partition import Source

Values = Callable[[pa.Table], np.ndarray]


class Summary(Protocol):
    @property
    def columns(self) -> tuple[str, ...]:
        """Columns to be read."""
        ...

    def update(self, table: pa.Table, where: str) -> Any: ...

    def merge(self, other: Any) -> Any: ...


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
        return pa.table({table.column_names[0]: pc.unique(table.column(0))})
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
    values = pc.unique(pa.chunked_array(pieces, target)).drop_null()
    return values.filter(pc.invert(pc.is_nan(values))) if pt.is_floating(target) else values


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


@dataclass(frozen=True, slots=True)
class Moments:
    """Count, mean, sum of squares about the mean, and range of an expression (Chan, Golub and LeVeque 1983)."""

    columns: tuple[str, ...]
    values: Values
    n: int = 0
    mean: float = 0.0
    squares: float = 0.0
    low: float = np.inf
    high: float = -np.inf

    def update(self, table: pa.Table, where: str) -> Moments:
        x = _finite(self.values(table))
        if not len(x):
            return self
        mean = float(x.mean())
        mean += float((x - mean).mean())
        squares = float(((x - mean) ** 2).sum())
        return self.merge(replace(self, n=len(x), mean=mean, squares=squares, low=float(x.min()), high=float(x.max())))

    def merge(self, other: Moments) -> Moments:
        if self.n == 0 or other.n == 0:
            return other if self.n == 0 else self
        n, gap = self.n + other.n, other.mean - self.mean
        return replace(
            self,
            n=n,
            mean=self.mean + gap * other.n / n,
            squares=self.squares + other.squares + gap * gap * self.n * other.n / n,
            low=min(self.low, other.low),
            high=max(self.high, other.high),
        )


def _finite(x: np.ndarray) -> np.ndarray:
    return x if np.isfinite(x.sum()) else x[np.isfinite(x)]


@dataclass(frozen=True, slots=True)
class ChebyshevProducts:
    """(d + 1, d + 1) sums of products of Chebyshev polynomials of an expression scaled from [low, high] to [-1, 1]."""

    columns: tuple[str, ...]
    values: Values
    low: float
    high: float
    degree: int
    products: np.ndarray | None = None

    def update(self, table: pa.Table, where: str) -> ChebyshevProducts:
        x = _finite(self.values(table))
        basis = np.polynomial.chebyshev.chebvander((2 * x - self.low - self.high) / (self.high - self.low), self.degree)
        return self.merge(replace(self, products=basis.T @ basis))

    def merge(self, other: ChebyshevProducts) -> ChebyshevProducts:
        if self.products is None or other.products is None:
            return other if self.products is None else self
        return replace(self, products=self.products + other.products)


_SKETCH = 1 << 20  # points kept: quantiles of fewer values are exact, of more within a few in a million


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Sorted values (m,) with weights (m,): exact up to 2^20 values, then neighbours are joined deterministically."""

    columns: tuple[str, ...]
    values: Values
    points: np.ndarray = field(default_factory=lambda: np.empty(0))
    weights: np.ndarray = field(default_factory=lambda: np.empty(0))
    low: float = np.inf
    high: float = -np.inf

    def update(self, table: pa.Table, where: str) -> Quantiles:
        x, counts = np.unique(_finite(self.values(table)), return_counts=True)
        if not len(x):
            return self
        return self.merge(replace(self, points=x, weights=counts.astype(float), low=float(x[0]), high=float(x[-1])))

    def merge(self, other: Quantiles) -> Quantiles:
        points, where = np.unique(np.concatenate([self.points, other.points]), return_inverse=True)
        weights = np.bincount(where, np.concatenate([self.weights, other.weights]), minlength=len(points))
        while len(points) > _SKETCH:
            points, weights = _join_neighbours(points, weights)
        return replace(
            self, points=points, weights=weights, low=min(self.low, other.low), high=max(self.high, other.high)
        )

    def quantiles(self, probabilities: np.ndarray) -> np.ndarray:
        """Quantiles as R's type 7 and NumPy's default, ties by weight."""
        last = np.cumsum(self.weights) - 1.0
        first = last - self.weights + 1.0
        ranks = probabilities * last[-1]
        places = np.column_stack([first, last]).ravel()
        return np.interp(ranks, places, np.repeat(self.points, 2))


def _join_neighbours(points: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    even = len(points) // 2 * 2
    pairs, masses = points[:even].reshape(-1, 2), weights[:even].reshape(-1, 2)
    mass = masses.sum(axis=1)
    joined = (pairs * masses).sum(axis=1) / mass
    return np.append(joined, points[even:]), np.append(mass, weights[even:])


Requests = Mapping[Any, Any]


def fold_summaries(source: Source, requests: Requests, lane: Lane, tick: Callable[[int], None]) -> dict:
    """Fold the partitions of a lane, in order, into every requested summary."""
    columns = list(dict.fromkeys(column for request in requests.values() for column in request.columns))
    state = dict(requests)
    for partition in lane.partitions:
        table = source.read(partition, columns)
        state = {key: summary.update(table, partition.where) for key, summary in state.items()}
        tick(partition.rows)
    return state


def merge_summaries(left: dict, right: dict) -> dict:
    """Merge the summaries of two lanes key by key."""
    return {key: summary.merge(right[key]) for key, summary in left.items()}


def summarize(source: Source, executor: Executor, requests: Requests, progress: Any = None) -> dict:
    """One pass over the columns that the requests name; no pass when there is no request."""
    if not requests:
        return {}
    return executor.map_reduce(
        partial(fold_summaries, source, requests),
        cut_lanes(source.partitions),
        merge_summaries,
        label="levels",
        rows_total=sum(partition.rows for partition in source.partitions),
        progress=progress,
    )
