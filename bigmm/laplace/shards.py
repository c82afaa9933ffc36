"""Rows kept for many looks: compact columns, cut by levels of the largest grouping factor and sorted by them.

A shard holds all rows of a contiguous range of levels, so whatever belongs to one level is local to it. Shards live in
memory while they fit the memory limit and as memory-mapped files otherwise; their number depends on the data alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from bigmm.design.layout import DesignChunk

SHARD_BYTES = 32 << 20
MINIMUM_SHARDS = 8


@dataclass(frozen=True, slots=True)
class Shard:
    """Rows of levels first_level .. first_level + n_levels of the leading grouping, sorted by that level.

    columns (c - 1, n); y (n,); w, offset (n,) or empty (0,); refs (n_groupings, n) int32 global level numbers;
    indptr (n_levels + 1,) int64: rows of each level; rows_read, dropped: what the pass that made it counted (each partition
    in one shard only).
    """

    first_level: int
    n_levels: int
    columns: np.ndarray
    y: np.ndarray
    w: np.ndarray
    offset: np.ndarray
    refs: np.ndarray
    indptr: np.ndarray
    rows_read: int
    dropped: tuple[tuple[str, int], ...]

    @property
    def rows(self) -> int:
        return len(self.y)


def row_bytes(n_columns: int, n_groupings: int, weighted: bool, with_offset: bool) -> int:
    """Bytes of one row in a shard."""
    return 8 * (n_columns - 1 + 1 + weighted + with_offset) + 4 * n_groupings


def shard_count(rows: int, bytes_per_row: int, n_levels: int) -> int:
    """How many shards: a function of the data alone."""
    if rows < 50_000:
        return 1
    return max(1, min(n_levels, max(MINIMUM_SHARDS, -(-rows * bytes_per_row // SHARD_BYTES))))


def bounds(n_levels: int, count: int) -> np.ndarray:
    """(count + 1,) first level of each shard."""
    return np.arange(count + 1) * n_levels // count


def split(chunk: DesignChunk, edges: np.ndarray, leading: int) -> list[DesignChunk]:
    """The rows of a chunk by shard, in their order."""
    if len(edges) == 2:
        return [chunk]
    owner = np.searchsorted(edges, chunk.refs[leading], side="right") - 1
    order = np.argsort(owner.astype(np.int32), kind="stable")
    cuts = np.searchsorted(owner[order], np.arange(len(edges)))
    pieces = [_rows(chunk, order[a:b]) for a, b in zip(cuts[:-1], cuts[1:], strict=True)]
    pieces[0] = replace(pieces[0], rows_read=chunk.rows_read, dropped=chunk.dropped)
    return pieces


def _rows(chunk: DesignChunk, rows: np.ndarray) -> DesignChunk:
    return DesignChunk(
        np.ascontiguousarray(chunk.columns[:, rows]),
        chunk.y[rows],
        tuple(refs[rows] for refs in chunk.refs),
        None if chunk.w is None else chunk.w[rows],
        None if chunk.offset is None else chunk.offset[rows],
        0,
        (),
    )


def join(pieces: Iterable[DesignChunk], first_level: int, n_levels: int, leading: int) -> Shard:
    """Pieces of one shard, in the order of their partitions, sorted by level (stable)."""
    pieces = list(pieces)
    refs = np.stack([np.concatenate(parts) for parts in zip(*[p.refs for p in pieces], strict=True)])
    order = np.argsort(refs[leading], kind="stable")
    counts = np.bincount(refs[leading] - first_level, minlength=n_levels)
    if np.array_equal(order, np.arange(len(order))):
        order = slice(None)

    def joined(arrays):
        return np.concatenate(arrays)[order]

    empty = np.empty(0)
    weighted, with_offset = pieces[0].w is not None, pieces[0].offset is not None
    return Shard(
        first_level,
        n_levels,
        np.ascontiguousarray(np.concatenate([p.columns for p in pieces], axis=1)[:, order]),
        joined([p.y for p in pieces]),
        joined([p.w for p in pieces]) if weighted else empty,
        joined([p.offset for p in pieces]) if with_offset else empty,
        np.ascontiguousarray(refs[:, order]),
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        sum(p.rows_read for p in pieces),
        tuple(_added(p.dropped for p in pieces).items()),
    )


def _added(counts: Iterable[tuple[tuple[str, int], ...]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for pairs in counts:
        for name, rows in pairs:
            total[name] = total.get(name, 0) + rows
    return total


def as_chunk(shard: Shard) -> DesignChunk:
    """The rows of a shard as one chunk."""
    w, offset = (array if len(array) else None for array in (shard.w, shard.offset))
    return DesignChunk(shard.columns, shard.y, tuple(shard.refs), w, offset, shard.rows_read, shard.dropped)


def spilled(shard: Shard, directory: Path) -> Shard:
    """The same shard with its arrays in memory-mapped files below ``directory``."""
    mapped = {}
    for field in fields(shard):
        value = getattr(shard, field.name)
        if isinstance(value, np.ndarray) and value.nbytes > 4096:
            path = directory / f"shard-{shard.first_level}-{field.name}.npy"
            np.save(path, value)
            mapped[field.name] = np.load(path, mmap_mode="r")
    return replace(shard, **mapped)
