"""Whether the levels of a linear model stay with the workers: where the driver should not hold them."""

from __future__ import annotations

from dataclasses import dataclass

from bigmm.accumulate import accumulator_bytes
from bigmm.accumulate.kernels import padded
from bigmm.design import DesignSpec
from bigmm.design.layout import DesignChunk, Layout
from bigmm.design.nesting import nested_chain
from bigmm.execute import Executor
from bigmm.fit.held_model import row_sizes
from bigmm.fit.opened import first_rows
from bigmm.fit.settings import Settings
from bigmm.laplace.shards import enough_trees
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


def driver_bytes(layout: Layout, n_workers: int) -> int:
    """What the driver would take at its peak to hold all levels: the sums of the workers and of the merge tree, or the
    blocks and their factor (measured: 165 bytes a level for y ~ x + (1 | g), 480 for three nested intercepts)."""
    return max((n_workers + 3) * _sums(layout), _blocks(layout))


def _sums(layout: Layout) -> int:
    m = len(layout.columns) + 1
    alone = sum(t.n_levels * 8 * (t.width * padded(m) + 1) for t in layout.joint)
    return min(alone, accumulator_bytes(layout))


def _blocks(layout: Layout) -> int:
    """A twice, its factor, the selected inverse and modes; entries of a level with what contains it."""
    m, joined, total = len(layout.fixed_names) + 1, layout.joint, 0
    for number, term in enumerate(joined):
        k = term.width
        above = sum(t.width for t in joined[number + 1 :])
        each = 8 * (4 * k * (k + m) + 5 * k) + above * 8 * (8 * k + 5)
        total += term.n_levels * each
    return total
