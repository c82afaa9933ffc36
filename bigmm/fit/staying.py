"""Whether the levels of a linear model stay with the workers: where the driver should not hold them."""

from __future__ import annotations

from dataclasses import dataclass

from bigmm.design import DesignSpec
from bigmm.design.encoding.first_rows import first_rows
from bigmm.design.layout import DesignChunk
from bigmm.design.levels.nesting import nested_chain
from bigmm.execute import Executor
from bigmm.fit.held_model import row_sizes
from bigmm.fit.settings import Settings
from bigmm.laplace.shards import enough_trees
from bigmm.planning.memory import driver_bytes
from bigmm.source import Source

SHARE = 2
"""Levels stay where they are when holding them would take more than this part of the memory limit,"""
LARGE_BYTES = 1 << 30
"""or more than this: from here on shards are faster too (a lane's sums are as large, and are merged)."""


@dataclass(frozen=True, slots=True)
class Staying:
    """chain: the joint terms, finest first; why: in words; head: the first rows."""

    chain: tuple[int, ...]
    why: str
    head: DesignChunk


def staying(source: Source, spec: DesignSpec, workers: Executor, how: Settings) -> Staying | None:
    """How and why levels stay with the workers; None: the driver takes them, or has to, because they are no chain of
    nested factors or form too few trees to share out. Reads the grouping columns where only rows can tell."""
    layout = spec.layout
    needed = driver_bytes(layout, workers.n_workers)
    limit = min(how.memory_limit // SHARE, LARGE_BYTES)
    if needed <= limit or layout.fixed_factors or not layout.terms:
        return None
    head = first_rows(source, spec)
    size = row_sizes(source, layout, head)
    top = layout.joint[-1]
    if not enough_trees(size.rows, size.each, top.n_levels):
        return None
    chain = nested_chain(spec, source, workers, head, how.progress)
    if chain is None:
        return None
    levels = max(term.n_levels for term in layout.joint)
    reason = f"{levels:,} levels would take the driver about {-(-needed // 2**20):,} MiB"
    beyond = f"{LARGE_BYTES >> 20:,} MiB" if limit == LARGE_BYTES else f"1/{SHARE} of the memory limit"
    return Staying(chain, f"levels stay with the workers: {reason}, more than {beyond}", head)
