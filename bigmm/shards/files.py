"""The shuffle of `shards.split` and `shards.join` through temporary files, for rows that do not fit in memory.

A piece is written as one record: level numbers, columns, y, weights, offset. A shard is put together one column at a
time, so what a join holds in memory is three columns of a shard whatever its width.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from threading import Lock
from typing import Any, NamedTuple

import numpy as np

from bigmm.design.layout import DesignChunk
from bigmm.execute.spill import Placed, SpillFile
from bigmm.shards.shard import Shard, added_counts, row_order

FILES = 32
"""Shards of one file are joined one after the other, then its disk is given back: 1 / FILES more is the peak."""


@dataclass(frozen=True, slots=True)
class Record:
    """The place of a piece in a file: its partition (item), first byte, rows, and the counts of its reading."""

    item: int
    start: int
    rows: int
    rows_read: int
    dropped: tuple[tuple[str, int], ...]


class RowShape(NamedTuple):
    """The numbers of a row: its columns and level numbers, and whether it has a weight and an offset."""

    n_columns: int
    n_groupings: int
    weighted: bool
    with_offset: bool

    @property
    def n_floats(self) -> int:
        """Floating-point numbers of a row: columns, response, weight and offset."""
        return self.n_columns + 1 + self.weighted + self.with_offset


class ShardFiles:
    """A `PieceStore` whose shards are those of `shard.join`.

    Parameters
    ----------
    leading, finest
        As in `shard.join`.
    shape
        Of every row.
    edges
        (S + 1,) first level of each shard.
    """

    def __init__(self, leading: int, shape: RowShape, finest: int | None, edges: np.ndarray):
        self.edges, self.leading, self.finest, self.shape = edges, leading, finest, shape
        self.n_shards = len(edges) - 1
        self.records: list[list[Record]] = [[] for _ in range(self.n_shards)]
        # Several files and not one: a file's disk is given back when its last shard is joined.
        self._each = -(-self.n_shards // FILES)
        self.files = [SpillFile() for _ in range(-(-self.n_shards // self._each))]
        self._unfinished = [min(self._each, self.n_shards - i * self._each) for i in range(len(self.files))]
        self._lock = Lock()

    def add(self, item: int, pieces: Iterable[DesignChunk]) -> None:
        """Write the pieces of one partition."""
        for number, piece in enumerate(pieces):
            # A piece without rows still carries the count of rows read and dropped of its partition.
            if not piece.rows and not piece.rows_read:
                continue
            record = _packed(piece)
            file = self.files[number // self._each]
            # Room is taken first, so that writers of different partitions need no lock while they write.
            start = file.room(len(record))
            file.write_at(start, record)
            self.records[number].append(Record(item, start, piece.rows, piece.rows_read, piece.dropped))

    def joined(self, number: int, file: SpillFile) -> Shard:
        """One shard, as `shards.join` makes it, with its arrays in ``file``; its pieces are gone afterwards."""
        n_groupings = self.shape.n_groupings
        # Pieces arrive in any order; that of the partitions is the same on any number of workers.
        records = sorted(self.records[number], key=lambda record: record.item)
        first, last = int(self.edges[number]), int(self.edges[number + 1])
        n = sum(record.rows for record in records)
        pieces = self.files[number // self._each]

        def column(before: int, dtype: Any) -> np.ndarray:
            """A column of all pieces; ``before``: bytes per row that a record holds before it."""
            out, row = np.empty(n, dtype), 0
            for r in records:
                pieces.read_into(r.start + _lead(before, r.rows, n_groupings), out[row : row + r.rows])
                row += r.rows
            return out

        leaves = None if self.finest is None else column(4 * self.finest, np.int32)
        indptr, order = row_order(column(4 * self.leading, np.int32), first, last - first, leaves)
        # A column as long as the shard: at most three of these may be in memory.
        del leaves
        refs_start = file.room(4 * n * n_groupings)
        floats_before = 4 * n_groupings

        def moved(start: int, before: int, dtype: Any) -> None:
            values = column(before, dtype)
            file.write_at(start, values if order is None else values[order])

        for g in range(n_groupings):
            moved(refs_start + 4 * n * g, 4 * g, np.int32)
        count = self.shape.n_floats
        start = file.room(8 * n * count)
        for c in range(count):
            moved(start + 8 * n * c, floats_before + 8 * c, np.float64)
        self._done(number)
        return _shard(self, first, last, n, refs_start, start, indptr, records)

    def _done(self, number: int) -> None:
        # Shards of one file are joined by several threads, and the last one closes it.
        with self._lock:
            self.records[number] = []
            self._unfinished[number // self._each] -= 1
            if not self._unfinished[number // self._each]:
                self.files[number // self._each].close()


def _lead(before: int, rows: int, n_groupings: int) -> int:
    """First byte of a column in a record of so many rows; level numbers are padded to 8 bytes."""
    # Level numbers come first and are half as long, so a column's place has two cases.
    if before < 4 * n_groupings:
        return before * rows
    return _padded(4 * n_groupings * rows) + (before - 4 * n_groupings) * rows


def _padded(nbytes: int) -> int:
    # float64 views need an address that is a multiple of 8.
    return -(-nbytes // 8) * 8


def _packed(piece: DesignChunk) -> np.ndarray:
    """A piece as bytes: refs (G, n) int32, then columns, y, w, offset as float64."""
    floats = [*piece.columns, piece.y, *(a for a in (piece.w, piece.offset) if a is not None)]
    n, lead = piece.rows, _padded(4 * len(piece.refs) * piece.rows)
    out = np.empty(lead + 8 * n * len(floats), np.uint8)
    refs, numbers = out[: 4 * len(piece.refs) * n].view(np.int32), out[lead:].view(np.float64)
    for g, values in enumerate(piece.refs):
        refs[g * n : (g + 1) * n] = values
    for c, values in enumerate(floats):
        numbers[c * n : (c + 1) * n] = values
    return out


def unpacked(file: SpillFile, record: Record, shape: RowShape) -> DesignChunk:
    """The piece that `ShardFiles.add` wrote as this record."""
    n, lead, c = record.rows, _padded(4 * shape.n_groupings * record.rows), shape.n_columns
    content = np.empty(lead + 8 * n * shape.n_floats, np.uint8)
    file.read_into(record.start, content)
    refs = content[: 4 * shape.n_groupings * n].view(np.int32).reshape(shape.n_groupings, n)
    floats = content[lead:].view(np.float64).reshape(shape.n_floats, n)
    w = floats[c + 1] if shape.weighted else None
    offset = floats[-1] if shape.with_offset else None
    return DesignChunk(floats[:c], floats[c], tuple(refs), w, offset, record.rows_read, record.dropped)


def _shard(
    files: ShardFiles,
    first: int,
    last: int,
    n: int,
    refs_start: int,
    start: int,
    indptr: np.ndarray,
    records: list[Record],
) -> Shard:
    def vector(which: int, exists: bool) -> Any:
        return Placed(start + 8 * n * which, (n,), "<f8") if exists and n else np.empty(0)

    c, n_groupings = files.shape.n_columns, files.shape.n_groupings
    return Shard(
        first,
        last - first,
        Placed(start, (c, n), "<f8") if c * n else np.empty((c, n)),  # type: ignore[arg-type]
        vector(c, True),
        vector(c + 1, files.shape.weighted),
        vector(c + 1 + files.shape.weighted, files.shape.with_offset),
        Placed(refs_start, (n_groupings, n), "<i4") if n else np.empty((n_groupings, 0), np.int32),  # type: ignore[arg-type]
        indptr,
        sum(r.rows_read for r in records),
        added_counts(r.dropped for r in records),
    )
