"""Number and bytes of shards, from the sizes of rows and levels."""

from __future__ import annotations

from dataclasses import dataclass

from bigmm.design import DesignSpec
from bigmm.design.layout import DesignChunk, Layout
from bigmm.errors import MemoryLimitError
from bigmm.execute import Executor
from bigmm.execute.spill import free_disk
from bigmm.planning.settings import Settings
from bigmm.source import Source

SHARD_BYTES = 32 << 20
MINIMUM_SHARDS, MAXIMUM_SHARDS = 8, 512
# Fewer rows are one shard: tasks have a price.
SMALL_ROWS = 50_000
# Shards of whole trees may be so many times larger than others.
LARGEST = 8

# Making shards in memory takes up to so many times what they take: chunks, pieces and shards, before memory that was
# given back is used again.
SHUFFLE_COPIES = 4
# More rows than this go through temporary files, where the disk has room to spare: it is no slower.
MANY_BYTES = 1 << 29
# Sums per level that are larger than this part of the memory limit are kept in a temporary file.
SUMS_SHARE = 4
# Summing and evaluating a shard takes its rows and its sums so many times over.
WORKING_COPIES = 4


def row_bytes(n_columns: int, n_groupings: int, weighted: bool, with_offset: bool) -> int:
    """Bytes of one row in a shard."""
    return 8 * (n_columns - 1 + 1 + weighted + with_offset) + 4 * n_groupings


def shard_count(rows: int, bytes_per_row: int, n_levels: int) -> int:
    """How many shards: a function of the data alone."""
    if rows < SMALL_ROWS:
        return 1
    count = min(MAXIMUM_SHARDS, -(-rows * bytes_per_row // SHARD_BYTES))
    return max(1, min(n_levels, max(MINIMUM_SHARDS, count)))


def enough_trees(rows: int, bytes_per_row: int, n_roots: int) -> bool:
    """May shards be cut by a factor with so few levels, so that each holds whole trees? Not where they were few or
    large."""
    count = shard_count(rows, bytes_per_row, MAXIMUM_SHARDS)
    return n_roots >= min(count, MINIMUM_SHARDS) and count <= LARGEST * n_roots


@dataclass(frozen=True, slots=True)
class RowSizes:
    """rows: how many there are (a guess where unknown); weighted, with_offset: what they have; each: bytes of one in a
    shard."""

    rows: int
    weighted: bool
    with_offset: bool
    each: int


def row_sizes(source: Source, layout: Layout, head: DesignChunk, copies: int = 0) -> RowSizes:
    """From the partitions' footers and the first rows; copies: columns that a row has twice."""
    weighted, with_offset = head.w is not None, head.offset is not None
    each = row_bytes(len(layout.columns) + copies, len(layout.groupings), weighted, with_offset)
    return RowSizes(sum(p.rows for p in source.partitions) or 10**9, weighted, with_offset, each)


@dataclass(frozen=True, slots=True)
class Storage:
    """How the rows are held: n_shards; nbytes of all; in_files: through and in temporary files, for memory's sake;
    resident: bytes of the rows in this process, none where a cluster or files have them."""

    n_shards: int
    nbytes: int
    in_files: bool
    resident: int


def storage(layout: Layout, size: RowSizes, chain: tuple[int, ...] | None, workers: Executor, how: Settings) -> Storage:
    """A function of the sizes, of the memory limit, and of who works: a cluster's workers hold rows in memory.

    ``chain``: as in `GlmmData`.
    """
    leading = layout.joint[chain[-1] if chain else 0]
    count, each = shard_count(size.rows, size.each, leading.n_levels), size.each
    if chain is None:
        count, each = min(count, MINIMUM_SHARDS), each + _entry_bytes(layout)
    nbytes = size.rows * each
    in_files = workers.shares_memory and nbytes > how.memory_limit // SHUFFLE_COPIES
    resident = 0 if in_files or not workers.shares_memory else nbytes
    return Storage(count, nbytes, in_files, resident)


def _entry_bytes(layout: Layout) -> int:
    """Bytes that crossed terms add to a row: level numbers of the pattern, and entries of its pairs."""
    terms = len(layout.joint)
    return 4 * terms + 4 * terms * (terms - 1)


def sums_bytes(layout: Layout) -> int:
    """Bytes of all sums per level, wherever they are."""
    m = len(layout.columns) + 1
    return sum(t.n_levels * (8 * t.width * m + 8) for t in layout.joint)


def level_sum_bytes(
    source: Source, spec: DesignSpec, head: DesignChunk, how: Settings, n_workers: int
) -> tuple[int, int]:
    """Peaks of summing and of evaluating: the driver's dictionaries of levels; per worker a partition as columns, a
    shard and its factor; rows on their way and all sums, where these stay in memory."""
    layout = spec.layout
    size = row_sizes(source, layout, head)
    top = layout.joint[-1]
    count = shard_count(size.rows, size.each, top.n_levels)
    partition = max((p.rows for p in source.partitions), default=0) * (size.each + 8 * len(spec.used_columns))
    rows, sums, at_once = size.rows * size.each, sums_bytes(layout), min(n_workers, count)
    names = sum(8 * grouping.n_levels for grouping in layout.groupings)
    resident = names + (sums if sums <= how.memory_limit // SUMS_SHARE else 0)
    moving = 0 if through_files(rows, how) else SHUFFLE_COPIES * rows
    summing = at_once * (partition + WORKING_COPIES * (rows + sums) // count)
    return resident + max(moving, summing), resident + at_once * WORKING_COPIES * sums // count


def check_level_sum_memory(
    source: Source, spec: DesignSpec, head: DesignChunk, how: Settings, workers: Executor
) -> None:
    """Raises MemoryLimitError, naming what to change, when this process would need more; a cluster's workers have their
    own limits."""
    if not workers.shares_memory:
        return
    needed = max(level_sum_bytes(source, spec, head, how, workers.n_workers))
    if needed > how.memory_limit:
        raise MemoryLimitError(
            f"summing the rows by level needs about {-(-needed // 2**20):,} MiB with {workers.n_workers} workers but "
            f"the memory limit is {how.memory_limit >> 20:,} MiB: raise memory_limit, use fewer workers (n_workers=1), "
            "or smaller partitions (partition_bytes=, smaller row groups)"
        )


def through_files(rows_bytes: int, how: Settings) -> bool:
    """Are rows shuffled through temporary files? Where memory is short, and, since it is no slower, where they are many
    and the disk has room to spare."""
    if rows_bytes > how.memory_limit // SHUFFLE_COPIES:
        return True
    return rows_bytes > MANY_BYTES and free_disk() > 4 * rows_bytes
