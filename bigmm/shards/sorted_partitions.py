"""Lakes that are sorted or partitioned by the leading grouping factor: a run of partitions makes a shard.

Nothing is shuffled then: one task reads the partitions that touch a range of levels and keeps the rows of that range. A
partition at the border of two ranges is read twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from bigmm.design import DesignSpec
from bigmm.design.layout import DesignChunk
from bigmm.design.levels.nesting import grouping_columns, level_numbers
from bigmm.execute import Executor, Lane
from bigmm.planning.sharding import MINIMUM_SHARDS
from bigmm.shards.shard import between
from bigmm.source import Partition, Source

# So many are looked at first: they tell a lake in no order without a look at all partitions.
FIRST_PARTITIONS = 4
# Reading more than so many times the bytes costs more than a shuffle.
MOST_READ = 2.1


@dataclass(frozen=True, slots=True)
class SortedPartitions:
    """Partitions in the order of the leading grouping, cut in S shards.

    Parameters
    ----------
    edges
        (S + 1,) first level of each shard.
    lanes
        (S,) the partitions that touch its levels.
    counted
        (S,) indices of the partitions whose rows read and dropped the shard counts.
    """

    edges: np.ndarray
    lanes: tuple[Lane, ...]
    counted: tuple[frozenset[int], ...]


def sorted_partitions(
    source: Source, spec: DesignSpec, leading: int, count: int, workers: Executor, progress: Any = None
) -> SortedPartitions | None:
    """About ``count`` runs of partitions by level of the leading grouping; None where partitions overlap too much."""
    partitions = source.partitions
    if count < 2 or len(partitions) < MINIMUM_SHARDS or any(p.rows == 0 for p in partitions):
        return None
    ask = partial(level_range, source, spec, leading)
    ranges = list(workers.map(ask, partitions[:FIRST_PARTITIONS], label="order"))
    # In an ordered lake only neighbours may overlap.
    if _overlaps(np.array(ranges)) > FIRST_PARTITIONS - 1:
        return None
    ranges += workers.map(ask, partitions[FIRST_PARTITIONS:], label="order", progress=progress)
    return cut_by_level(
        partitions, np.array(ranges), spec.layout.groupings[leading].n_levels, min(count, len(partitions))
    )


def level_range(source: Source, spec: DesignSpec, leading: int, partition: Partition) -> tuple[int, int]:
    """Smallest and largest level of the leading grouping in a partition, (0, 0) without any; a pure task."""
    table = source.read(partition, grouping_columns(spec, [leading]))
    refs = level_numbers(spec, table, partition.where, leading)
    refs = refs[refs >= 0]
    return (int(refs.min()), int(refs.max())) if len(refs) else (0, 0)


def _overlaps(ranges: np.ndarray) -> int:
    """Pairs of ranges with more than an end in common."""
    low, high = ranges[:, 0], ranges[:, 1]
    # Strictly: one level in two files next to each other is what sorted files look like.
    common = (low[:, None] < high) & (low < high[:, None])
    return int(np.triu(common, 1).sum())


def cut_by_level(
    partitions: Sequence[Partition], ranges: np.ndarray, n_levels: int, count: int
) -> SortedPartitions | None:
    """Cut the levels where partitions begin, into about ``count`` ranges of equal bytes; ranges: (P, 2)."""
    sizes = np.array([max(p.nbytes, 1) for p in partitions], float)
    order = np.argsort(ranges[:, 0], kind="stable")
    before = np.cumsum(sizes[order]) - sizes[order]
    edges = [0]
    for position, p in zip(before, order, strict=True):
        if position >= len(edges) * sizes.sum() / count and ranges[p, 0] > edges[-1]:
            edges.append(int(ranges[p, 0]))
    # Too few cuts would leave workers idle; a shuffle cuts evenly.
    if len(edges) < max(2, count // 2):
        return None
    edges.append(n_levels)
    inside = [(ranges[:, 0] < b) & (ranges[:, 1] >= a) for a, b in pairwise(edges)]
    if sum(sizes[mask].sum() for mask in inside) > MOST_READ * sizes.sum():
        return None
    lanes = [Lane(i, tuple(partitions[int(p)] for p in np.flatnonzero(mask))) for i, mask in enumerate(inside)]
    # A partition at a border is read by two shards, and counted by the one that its first level is in.
    owner = np.searchsorted(edges, ranges[:, 0], side="right") - 1
    counted = [frozenset(partitions[int(p)].index for p in np.flatnonzero(owner == i)) for i in range(len(lanes))]
    return SortedPartitions(np.array(edges), tuple(lanes), tuple(counted))


def lane_pieces(
    read: Callable[[Partition], DesignChunk],
    edges: np.ndarray,
    counted: Sequence[frozenset[int]],
    leading: int,
    lane: Lane,
) -> list[DesignChunk]:
    """A shard's rows from the partitions that touch its levels; ``read`` encodes a partition, whose rows are counted in
    one lane only."""
    first, last = int(edges[lane.index]), int(edges[lane.index + 1])
    pieces: list[DesignChunk] = []
    for partition in lane.partitions:
        chunk = read(partition)
        if partition.index not in counted[lane.index]:
            chunk = replace(chunk, rows_read=0, dropped=())
        pieces.append(between(chunk, leading, first, last))
    return pieces
