"""Decide where the levels are kept: in this process, or with the workers, in shards that hold whole trees of levels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bigmm.design import DesignSpec
from bigmm.design.encoding.first_rows import first_rows
from bigmm.design.layout import DesignChunk, Layout
from bigmm.design.levels.nesting import nested_chain
from bigmm.execute import Executor
from bigmm.planning.memory import driver_bytes
from bigmm.planning.settings import Settings
from bigmm.planning.sharding import enough_trees, row_sizes
from bigmm.source import Source

SHARE = 2
"""Levels are kept by the workers when this process would need more than 1 / SHARE of the memory limit for them."""
LARGE_BYTES = 1 << 30
"""From so many bytes on, the workers keep the levels whatever the limit: that is faster too, because the sums of a lane
are as large, and are merged."""
FEW_LEVELS = 500
"""From so many levels on, the outer products of their gradients make a good curvature (measured)."""


@dataclass(frozen=True, slots=True)
class LevelPlacement:
    """Levels of a linear model that are kept by the workers.

    Attributes
    ----------
    chain : joint terms, finest first.
    why : the reason, in words.
    head : the first rows.
    """

    chain: tuple[int, ...]
    why: str
    head: DesignChunk


def level_placement(source: Source, spec: DesignSpec, workers: Executor, how: Settings) -> LevelPlacement | None:
    """Decide whether the workers keep the levels of a linear model; None where this process does.

    This process has to keep them where they are no chain of nested factors, or form too few trees to share out. The
    grouping columns are read where only rows can tell.
    """
    layout = spec.layout
    nbytes = driver_bytes(layout, workers.n_workers)
    limit = min(how.memory_limit // SHARE, LARGE_BYTES)
    # What needs no row is asked first. The questions below read the first rows, and perhaps all grouping columns.
    if nbytes <= limit or layout.fixed_factors or not layout.terms:
        return None
    head = first_rows(source, spec)
    chain = tree_chain(source, spec, workers, head, how.progress)
    if chain is None:
        return None
    levels = max(term.n_levels for term in layout.joint)
    reason = f"{levels:,} levels would take the driver about {-(-nbytes // 2**20):,} MiB"
    beyond = f"{LARGE_BYTES >> 20:,} MiB" if limit == LARGE_BYTES else f"1/{SHARE} of the memory limit"
    return LevelPlacement(chain, f"levels stay with the workers: {reason}, more than {beyond}", head)


def tree_chain(
    source: Source, spec: DesignSpec, workers: Executor, head: DesignChunk, progress: Any = None
) -> tuple[int, ...] | None:
    """The chain of nested factors, finest first, whose top may cut the shards; None where factors are crossed, or the
    top has too few levels."""
    size = row_sizes(source, spec.layout, head)
    # Sizes before nesting, because only the rows may tell what is nested.
    if not enough_trees(size.rows, size.row_bytes, spec.layout.joint[-1].n_levels):
        return None
    return nested_chain(spec, source, workers, head, progress)


def shard_chain(
    source: Source, spec: DesignSpec, workers: Executor, head: DesignChunk, nagq: int, progress: Any = None
) -> tuple[int, ...] | None:
    """The factors of a generalized model whose evaluation is one task per shard: one factor, or a chain of nested ones,
    finest first. None where terms are crossed, and for nagq = 0, whose coefficients tie all levels together."""
    if nagq == 0:
        return None
    return (0,) if len(spec.layout.joint) == 1 else tree_chain(source, spec, workers, head, progress)


def engine_name(layout: Layout, chain: tuple[int, ...] | None, nagq: int) -> str:
    """Choose how a generalized model is evaluated: "single" goes level by level, "nested" tree by tree, and "crossed"
    by blocks. chain: of `shard_chain`.

    One factor of few levels goes tree by tree too (Laplace), for the sake of a curvature that is no sum of few outer
    products.
    """
    if chain is None:
        return "crossed"
    # Quadrature exists for one scalar factor level by level; trees have Laplace's approximation alone.
    few = nagq == 1 and layout.joint[chain[0]].n_levels < FEW_LEVELS
    return "nested" if len(chain) > 1 or few else "single"
