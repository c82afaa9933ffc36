"""How rows and sums per level are cut into shards, and whether they stay in memory or go through files.

The number of shards depends on the data alone, never on the workers, so that results have the same bits everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

from bigmm.design import DesignSpec
from bigmm.design.layout import DesignChunk, Layout
from bigmm.errors import MemoryLimitError
from bigmm.execute import Executor
from bigmm.execute.spill import free_disk
from bigmm.planning import memory
from bigmm.planning.memory import SHUFFLE_COPIES
from bigmm.source import Source

SHARD_BYTES = 32 << 20
MINIMUM_SHARDS, MAXIMUM_SHARDS = 8, 512
SMALL_ROWS = 50_000
"""Fewer rows are one shard, because every task has a price."""
LARGEST = 8
"""Shards of whole trees may be so many times larger than others."""
SUMS_SHARE = 4
"""Sums per level that are larger than this part of the memory limit are kept in a temporary file."""
MANY_BYTES = 1 << 29
"""From so many bytes on, rows go through files where the disk has room to spare: that is no slower."""
UNKNOWN_ROWS = 10**9
"""Rows of a source that does not tell their number."""


@dataclass(frozen=True, slots=True)
class RowSizes:
    """Number and size of the rows.

    Attributes
    ----------
    rows : their number, a guess where the source does not tell.
    weighted, with_offset : whether a row has a weight and an offset.
    row_bytes : bytes of one row in a shard.
    """

    rows: int
    weighted: bool
    with_offset: bool
    row_bytes: int

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return self.rows * self.row_bytes


def row_sizes(source: Source, layout: Layout, head: DesignChunk, copies: int = 0) -> RowSizes:
    """Sizes from the partitions and the first rows (head); copies: number of columns that a row has twice."""
    weighted, with_offset = head.w is not None, head.offset is not None
    nbytes = memory.row_bytes(len(layout.columns) + copies, len(layout.groupings), weighted, with_offset)
    return RowSizes(sum(p.rows for p in source.partitions) or UNKNOWN_ROWS, weighted, with_offset, nbytes)


def shard_count(rows: int, bytes_per_row: int, n_levels: int) -> int:
    """Number of shards for a leading factor of so many levels."""
    if rows < SMALL_ROWS:
        return 1
    # -(-a // b) rounds up: on average no shard is larger than SHARD_BYTES.
    by_size = min(MAXIMUM_SHARDS, -(-rows * bytes_per_row // SHARD_BYTES))
    # More shards than leading levels would leave some of them empty.
    return max(1, min(n_levels, max(MINIMUM_SHARDS, by_size)))


def enough_trees(rows: int, bytes_per_row: int, n_roots: int) -> bool:
    """Whether shards may be cut by a factor with so few levels, so that each holds whole trees.

    The shards must be neither few nor large.
    """
    count = shard_count(rows, bytes_per_row, MAXIMUM_SHARDS)
    return n_roots >= min(count, MINIMUM_SHARDS) and count <= LARGEST * n_roots


@dataclass(frozen=True, slots=True)
class Storage:
    """Where the rows of a generalized model are stored.

    Attributes
    ----------
    n_shards : number of shards.
    nbytes : bytes of all rows.
    in_files : whether the rows go through temporary files and stay there.
    resident : bytes of the rows in this process, 0 where a cluster or files have them.
    """

    n_shards: int
    nbytes: int
    in_files: bool
    resident: int


def storage(layout: Layout, size: RowSizes, chain: tuple[int, ...] | None, workers: Executor, limit: int) -> Storage:
    """Decide how the rows are kept, from their sizes, the memory limit (bytes), and who works.

    Workers of a cluster keep rows in memory.

    Parameters
    ----------
    chain: joint terms whose last one cuts the shards, so that they hold whole trees; None for crossed terms.
    """
    # Whole trees are cut at their roots, the last factor of the chain.
    leading = layout.joint[chain[-1] if chain else 0]
    count, row_bytes = shard_count(size.rows, size.row_bytes, leading.n_levels), size.row_bytes
    if chain is None:
        count, row_bytes = min(count, MINIMUM_SHARDS), row_bytes + memory.pattern_bytes(len(layout.joint))
    nbytes, shared = size.rows * row_bytes, workers.shares_memory
    in_files = shared and nbytes > limit // SHUFFLE_COPIES
    return Storage(count, nbytes, in_files, nbytes if shared and not in_files else 0)


def shuffles_in_files(nbytes: int, limit: int) -> bool:
    """Whether rows of so many bytes are shuffled through temporary files: where memory is short, and, since it is no
    slower, where they are many and the disk has room to spare."""
    if nbytes > limit // SHUFFLE_COPIES:
        return True
    # Memory would do as well, so files are taken only where they cannot fill the disk.
    return nbytes > MANY_BYTES and free_disk() > 4 * nbytes


def sums_in_files(layout: Layout, limit: int) -> bool:
    """Whether sums per level are kept in a temporary file."""
    return memory.level_sums_bytes(layout) > limit // SUMS_SHARE


def level_model_bytes(
    source: Source, spec: DesignSpec, head: DesignChunk, n_workers: int, limit: int
) -> tuple[int, int]:
    """Peaks of summing and of evaluating a linear model whose levels stay with the workers.

    Both have the driver's dictionaries of levels, and all sums where these stay in memory. Summing has, per worker, a
    partition as columns and a shard, or the rows on their way. Evaluating has a shard and its factor per worker.
    """
    layout = spec.layout
    size = row_sizes(source, layout, head)
    count = shard_count(size.rows, size.row_bytes, layout.joint[-1].n_levels)
    sums, at_once = memory.level_sums_bytes(layout), min(n_workers, count)
    resident = memory.label_bytes(layout) + (0 if sums_in_files(layout, limit) else sums)
    moving = 0 if shuffles_in_files(size.nbytes, limit) else SHUFFLE_COPIES * size.nbytes
    partition = _partition_bytes(source, spec, size)
    summing = at_once * (partition + memory.shard_work_bytes(size.nbytes + sums, count))
    return resident + max(moving, summing), resident + memory.shard_work_bytes(at_once * sums, count)


def check_level_memory(source: Source, spec: DesignSpec, head: DesignChunk, workers: Executor, limit: int) -> None:
    """Raise MemoryLimitError, which names what to change, when this process would need more than the limit (bytes) for
    `level_model_bytes`. Workers of a cluster have limits of their own."""
    if not workers.shares_memory:
        return
    nbytes = max(level_model_bytes(source, spec, head, workers.n_workers, limit))
    if nbytes > limit:
        raise MemoryLimitError(
            f"summing the rows by level needs about {-(-nbytes // 2**20):,} MiB with {workers.n_workers} workers but "
            f"the memory limit is {limit >> 20:,} MiB: raise memory_limit, use fewer workers (n_workers=1), "
            "or smaller partitions (partition_bytes=, smaller row groups)"
        )


def shuffle_bytes(
    source: Source, spec: DesignSpec, workers: Executor, rows: Storage, size: RowSizes, crossed: bool
) -> int:
    """Peak of bringing the rows of a generalized model into shards, and of the first look at them.

    In this process, there are the rows on their way; or, per worker, a partition and a shard that is being made; or the
    rows, and per worker a shard that is looked at. Where terms are crossed, the look has accumulators.
    """
    layout = spec.layout
    at_once = min(workers.n_workers, max(len(source.partitions), 1))
    names, accumulator = memory.label_bytes(layout), memory.accumulator_bytes(layout, size.rows // rows.n_shards)
    sums = (2 * at_once + 1) * accumulator if crossed else 0
    if not workers.shares_memory:
        return names + sums
    moving = 0 if rows.in_files else SHUFFLE_COPIES * size.nbytes
    shard = rows.nbytes // rows.n_shards
    making = at_once * (_partition_bytes(source, spec, size) + SHUFFLE_COPIES * shard)
    return names + max(moving, making, rows.resident + at_once * shard + sums)


def _partition_bytes(source: Source, spec: DesignSpec, size: RowSizes) -> int:
    """Bytes of the largest partition as a table and as rows of a shard."""
    rows = max((p.rows for p in source.partitions), default=0)
    return rows * (size.row_bytes + 8 * len(spec.used_columns))
