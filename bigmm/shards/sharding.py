"""Rows to shards: one shuffle by level of the leading grouping, or none where the files are in that order."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from bigmm.design import DesignSpec
from bigmm.design.layout import DesignChunk
from bigmm.execute import Executor, Lane, Sharded
from bigmm.execute.progress import ProgressCallback
from bigmm.execute.sharded import PieceStore
from bigmm.execute.spill import check_disk
from bigmm.shards.shard import bounds, split
from bigmm.shards.sorted_partitions import lane_pieces, sorted_partitions
from bigmm.source import Partition, Source

Read = Callable[[Partition], DesignChunk]
Build = Callable[[list[DesignChunk], int, int], Any]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the shards of a model are made. Functions are pure and picklable.

    Parameters
    ----------
    read
        Encodes one partition.
    build
        ``build(pieces, first_level, n_levels)`` makes a shard of its pieces, in the order of the partitions.
    leading
        Number of the grouping by whose levels the rows are cut.
    n_shards
        Approximate number of shards, a function of the data alone.
    store
        ``store(edges)`` keeps pieces in temporary files and gives the same shards as ``build``. None: in memory.
    shuffle_bytes, sorted_bytes
        Bytes of disk for `store`, and for shards that are made without a shuffle. 0: these are in memory.
    label
        Name of the step in progress reports.
    """

    read: Read
    build: Build
    leading: int
    n_shards: int
    store: Callable[[np.ndarray], PieceStore] | None
    shuffle_bytes: int
    sorted_bytes: int
    label: str


def shard(
    source: Source, spec: DesignSpec, recipe: Recipe, workers: Executor, progress: ProgressCallback | None
) -> tuple[Sharded, np.ndarray]:
    """The shards, and (S + 1,) the first level of each. Raises OutputError when the disk is full."""
    in_order = sorted_partitions(source, spec, recipe.leading, recipe.n_shards, workers, progress)
    if in_order is not None:
        # Checked before the rows are read: a full disk at the end would lose the pass.
        if recipe.sorted_bytes:
            check_disk(recipe.sorted_bytes)
        make = partial(_shard_of_lane, recipe.read, recipe.build, in_order.edges, in_order.counted, recipe.leading)
        in_files = recipe.sorted_bytes > 0
        shards = workers.shard_sorted(make, in_order.lanes, in_files=in_files, label=recipe.label, progress=progress)
        return shards, in_order.edges
    # Equal numbers of levels: their rows are known only after the pass.
    edges = bounds(spec.layout.groupings[recipe.leading].n_levels, recipe.n_shards)
    if recipe.store is not None:
        check_disk(recipe.shuffle_bytes)
    files = None if recipe.store is None else partial(recipe.store, edges)
    cut, join = partial(_pieces, recipe.read, edges, recipe.leading), partial(_shard_of_pieces, recipe.build, edges)
    shards = workers.shuffle(
        cut, source.partitions, join, recipe.n_shards, files=files, label=recipe.label, progress=progress
    )
    return shards, edges


def _pieces(read: Read, edges: np.ndarray, leading: int, partition: Partition) -> Iterable[DesignChunk]:
    """One partition cut by shard; a pure task."""
    return split(read(partition), edges, leading)


def _shard_of_pieces(build: Build, edges: np.ndarray, number: int, pieces: list[DesignChunk]) -> Any:
    """A shard from its pieces; a pure task."""
    first = int(edges[number])
    return build(pieces, first, int(edges[number + 1]) - first)


def _shard_of_lane(
    read: Read, build: Build, edges: np.ndarray, counted: tuple[frozenset[int], ...], leading: int, lane: Lane
) -> Any:
    """A shard from the partitions that touch its levels; a pure task."""
    return _shard_of_pieces(build, edges, lane.index, lane_pieces(read, edges, counted, leading, lane))
