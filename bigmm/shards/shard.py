"""Rows kept for many looks: compact columns, cut by levels of the largest grouping factor and sorted by them.

A shard holds all rows of a contiguous range of levels, so whatever belongs to one level is local to it. Shards live in
memory while they fit the memory limit and as memory-mapped files otherwise; their number depends on the data alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bigmm.accumulate.kernels import read_only
from bigmm.design.layout import DesignChunk
from bigmm.kernel import njit


@dataclass(frozen=True, slots=True)
class Shard:
    """Rows of levels first_level .. first_level + n_levels of the leading grouping, sorted by that level.

    Attributes
    ----------
    columns : (c - 1, n) all columns but the constant.
    y : (n,) response.
    w, offset : (n,), or empty (0,) where there are none.
    refs : (n_groupings, n) int32 level numbers of the whole data.
    indptr : (n_levels + 1,) int64 rows of each level.
    rows_read, dropped : counts of the partitions that the shard counts; each partition is counted by one shard.
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
        """Number of rows n."""
        return len(self.y)


def bounds(n_levels: int, count: int) -> np.ndarray:
    """(count + 1,) first level of each shard."""
    return np.arange(count + 1) * n_levels // count


def split(chunk: DesignChunk, edges: np.ndarray, leading: int) -> Iterator[DesignChunk]:
    """The rows of a chunk by shard, in their order. A generator, so that few copies are alive.

    Where the chunk is sorted by the leading grouping, as in files sorted or partitioned by it, pieces are views of it.
    """
    count = len(edges) - 1
    # No copy where nothing is cut.
    if count == 1:
        yield chunk
        return
    owner = np.searchsorted(edges, chunk.refs[leading], side="right") - 1
    cuts, order = sorted_by(owner, 0, count)
    for number in range(count):
        a, b = cuts[number], cuts[number + 1]
        rows = slice(a, b) if order is None else order[a:b]
        # Counts go with the first piece, so that the sum over pieces counts a partition once.
        read = (chunk.rows_read, chunk.dropped) if number == 0 else (0, ())
        yield _rows(chunk, rows if b > a else _NO_ROWS, *read)


_NO_ROWS = np.empty(0, np.int64)  # an index that copies, so that a piece without rows does not keep its chunk alive


def between(chunk: DesignChunk, leading: int, first: int, last: int) -> DesignChunk:
    """The rows of levels first .. last (exclusive); the chunk itself when it has no other."""
    inside = (chunk.refs[leading] >= first) & (chunk.refs[leading] < last)
    return chunk if inside.all() else _rows(chunk, np.flatnonzero(inside), chunk.rows_read, chunk.dropped)


def _rows(chunk: DesignChunk, rows: slice | np.ndarray, rows_read: int, dropped: tuple[Any, ...]) -> DesignChunk:
    return DesignChunk(
        chunk.columns[:, rows],
        chunk.y[rows],
        tuple(refs[rows] for refs in chunk.refs),
        None if chunk.w is None else chunk.w[rows],
        None if chunk.offset is None else chunk.offset[rows],
        rows_read,
        dropped,
    )


def sorted_by(numbers: np.ndarray, first: int, count: int) -> tuple[np.ndarray, np.ndarray | None]:
    """(cuts (count + 1,), order (n,)): a stable order by integers first .. first + count, and where each begins in it.

    order None: they are in order already.
    """
    cuts, order, moved = _counting_sort(read_only(numbers), first, count)
    return cuts, order if moved else None


@njit(cache=True, nogil=True)
def _counting_sort(numbers: np.ndarray, first: int, count: int) -> tuple[np.ndarray, np.ndarray, bool]:
    # A counting sort is stable and linear; rows that are in order already cost no permutation.
    cuts = np.zeros(count + 1, np.int64)
    moved, last = False, first
    for i in range(len(numbers)):
        cuts[numbers[i] - first + 1] += 1
        moved = moved or numbers[i] < last
        last = numbers[i]
    for k in range(count):
        cuts[k + 1] += cuts[k]
    order = np.empty(len(numbers) if moved else 0, np.int64)
    if moved:
        place = cuts[:-1].copy()
        for i in range(len(numbers)):
            k = numbers[i] - first
            order[place[k]] = i
            place[k] += 1
    return cuts, order, moved


def row_order(
    levels: np.ndarray, first: int, count: int, finest: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """(indptr (count + 1,), stable order (n,) or None) of a shard's rows by level, and by ``finest`` within levels."""
    indptr, order = sorted_by(levels, first, count)
    return indptr, order if finest is None else leaf_order(levels, finest)


def leaf_order(roots: np.ndarray, leaves: np.ndarray) -> np.ndarray | None:
    """A stable order (n,) of rows by (root, leaf); None where they are in order."""
    same = roots[1:] == roots[:-1]
    # Rows in order need no copy, and the test costs one look.
    if np.all(roots[1:] >= roots[:-1]) and np.all(~same | (leaves[1:] >= leaves[:-1])):
        return None
    # lexsort is stable, so rows of a leaf stay in the order of partitions.
    return np.lexsort((leaves, roots))


def join(
    pieces: Iterable[DesignChunk], first_level: int, n_levels: int, leading: int, finest: int | None = None
) -> Shard:
    """Pieces of one shard, in the order of their partitions, sorted by level, and by ``finest`` within it (stable)."""
    pieces = list(pieces)

    def refs_of(grouping: int) -> np.ndarray:
        return np.concatenate([p.refs[grouping] for p in pieces])

    indptr, order = row_order(refs_of(leading), first_level, n_levels, None if finest is None else refs_of(finest))

    def joined(arrays: Sequence[Any], out: np.ndarray | None = None) -> np.ndarray:
        whole = np.concatenate(arrays)
        if out is None:
            return whole if order is None else whole[order]
        out[:] = whole if order is None else whole[order]
        return out

    n = int(indptr[-1])
    columns = np.empty((len(pieces[0].columns), n))
    # Column by column: the pieces of one column are the only second copy.
    for row, out in enumerate(columns):
        joined([p.columns[row] for p in pieces], out)
    refs = np.empty((len(pieces[0].refs), n), np.int32)
    for row, levels in enumerate(refs):
        joined([p.refs[row] for p in pieces], levels)
    empty = np.empty(0)
    return Shard(
        first_level,
        n_levels,
        columns,
        joined([p.y for p in pieces]),
        joined([p.w for p in pieces]) if pieces[0].w is not None else empty,
        joined([p.offset for p in pieces]) if pieces[0].offset is not None else empty,
        refs,
        indptr,
        sum(p.rows_read for p in pieces),
        added_counts(p.dropped for p in pieces),
    )


def added_counts(counts: Iterable[tuple[tuple[str, int], ...]]) -> tuple[tuple[str, int], ...]:
    """Rows dropped per column, over pieces or shards."""
    total: dict[str, int] = {}
    for pairs in counts:
        for name, rows in pairs:
            total[name] = total.get(name, 0) + rows
    return tuple(total.items())


def blocks(shard: Shard, rows: int = 1 << 16) -> Iterator[DesignChunk]:
    """The rows of a shard in blocks, as chunks; what was read and dropped is not counted again."""
    for a in range(0, shard.rows, rows):
        part = slice(a, a + rows)
        w, offset = (array[part] if len(array) else None for array in (shard.w, shard.offset))
        refs = tuple(np.ascontiguousarray(r[part]) for r in shard.refs)
        yield DesignChunk(np.ascontiguousarray(shard.columns[:, part]), shard.y[part], refs, w, offset, 0, ())
