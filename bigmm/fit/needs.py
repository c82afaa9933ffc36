"""What the pass and an evaluation need at their peak, by sizes that are known of blocks and foreseen of a layout; and
the refusal of what the memory limit does not hold.

How many pairs of levels meet is known once all rows were read. Before, a fit is refused only for what it needs with the
fewest pairs there can be; after, for what it needs.
"""

from __future__ import annotations

from bigmm.accumulate import accumulator_bytes, many_pairs_bytes
from bigmm.blocks import Gram
from bigmm.design import DesignSpec
from bigmm.design.layout import DesignChunk, Layout
from bigmm.errors import MemoryLimitError
from bigmm.execute import Executor
from bigmm.execute.memory import in_units
from bigmm.execute.threads import ThreadExecutor
from bigmm.fit.foreseen import Foreseen, foreseen, of_order
from bigmm.fit.held_model import Storage
from bigmm.fit.settings import Settings
from bigmm.solver import FIRST_DEFLATION, FIRST_PROBES, Sizes, choose_solver, sizes_of, solver_bytes
from bigmm.source import Source

VECTORS = FIRST_PROBES + FIRST_DEFLATION
"""Probes and deflation vectors that the iterative solver starts with."""


def solving_bytes(sizes: Sizes, effects: int, solver: str) -> int:
    """Beside A. Iterative: cross blocks twice with their factors and tables of indices, and the vectors of conjugate
    gradients for each of the random effects (70 MiB of a million ratings; 85 MiB measured)."""
    if solver == "exact":
        return solver_bytes(sizes)[0]
    return 2 * sizes.sparse + 8 * effects * (6 * VECTORS + sizes.dense)


def effects_of(layout: Layout) -> int:
    """Number of random effects (and columns of fixed factors)."""
    return sum(t.n_levels * t.width for t in layout.joint)


def resident_bytes(workers: Executor, kept: Storage) -> int:
    """Bytes of a generalized model's rows in this process: none where a cluster or a file has them."""
    return 0 if kept.in_files or not isinstance(workers, ThreadExecutor) else kept.nbytes


def summing_bytes(layout: Layout, entries: int, pairs: int) -> int:
    """Working sums of all shards: the blocks of A with that many entries, and the pattern of pairs."""
    m = len(layout.fixed_names) + 1
    levels = sum(8 * t.n_levels * t.width * (t.width + m + 3) for t in layout.joint)
    return levels + 8 * entries + 4 * pairs


def pass_bytes(source: Source, spec: DesignSpec, n_workers: int) -> int:
    """Peak of a linear model's pass: per worker a partition, its encoded columns and an accumulator; the merge tree's
    waiting ones; what all lanes have found of pairs of levels."""
    rows = sum(p.rows for p in source.partitions)
    layout = spec.layout
    share = len(spec.used_columns) / max(len(source.schema), 1)
    partition = max(
        (int(p.nbytes * share) + 8 * p.rows * (len(layout.columns) + 2) for p in source.partitions), default=0
    )
    at_once = min(n_workers, max(len(source.partitions), 1))
    return at_once * partition + (at_once + 3) * accumulator_bytes(layout) + many_pairs_bytes(layout, rows)


def check_pass_memory(source: Source, spec: DesignSpec, n_workers: int, limit: int) -> None:
    """Raises MemoryLimitError, naming what to change, when the pass would not fit."""
    needed = pass_bytes(source, spec, n_workers)
    if needed > limit:
        biggest = max(spec.layout.groupings, key=lambda g: g.n_levels, default=None)
        factor = f"; grouping factor {biggest.name!r} has {biggest.n_levels:,} levels" if biggest is not None else ""
        raise MemoryLimitError(
            f"the pass over the rows needs about {in_units(needed)} with {n_workers} workers but the memory limit is "
            f"{in_units(limit)}{factor}: raise memory_limit, use fewer workers (n_workers=1), or smaller partitions "
            "(partition_bytes=)"
        )


def check_ahead(
    source: Source, spec: DesignSpec, workers: Executor, how: Settings, head: DesignChunk, kept: Storage | None = None
) -> None:
    """Before the rows are read: raises MemoryLimitError when an evaluation does not fit however few pairs of levels
    meet. kept: how a generalized model with crossed factors holds its rows; None for a linear one.

    Reads grouping columns only where that decides, and neither formula nor head (the first rows) tell what is nested.
    """
    layout, rows = spec.layout, sum(p.rows for p in source.partitions)
    joined = layout.joint
    first = next((j for j, term in enumerate(joined) if term.fixed_factor is None), None)
    if first is None:
        return
    # the largest factor alone eliminated level by level: no order needs more
    tail = tuple(j for j in range(len(joined)) if j != first)
    if _least(layout, of_order(layout, ((first,), tail), rows), workers, how, kept)[1] <= how.memory_limit:
        return
    blocks = foreseen(source, spec, workers, rows, head, how.progress)
    solver, needed = _least(layout, blocks, workers, how, kept)
    if needed > how.memory_limit:
        raise too_large(solver, blocks.least, needed, how.memory_limit, "at least")


def chosen_solver(
    gram: Gram, layout: Layout, workers: Executor, how: Settings, kept: Storage | None = None
) -> tuple[str, str]:
    """Once the rows were read: the solver and why; raises MemoryLimitError when an evaluation by it does not fit."""
    sizes, beside = sizes_of(gram), 0
    if kept is not None:
        blocks = gram.cross.values()
        entries, pairs = sum(b.data.size for b in blocks), sum(len(b.indices) for b in blocks)
        beside = resident_bytes(workers, kept) + summing_bytes(layout, entries, pairs)
    solver, why = choose_solver(sizes, how.solver, how.memory_limit - beside)
    needed = beside + solving_bytes(sizes, sum(t.n_levels * t.width for t in gram.terms), solver)
    if needed > how.memory_limit:
        raise too_large(solver, sizes, needed, how.memory_limit)
    return solver, why


def _least(layout: Layout, blocks: Foreseen, workers: Executor, how: Settings, kept: Storage | None) -> tuple[str, int]:
    """The solver and what it needs with the fewest pairs."""
    # asking for "iterative" with a fixed factor is refused elsewhere, and only where something is crossed
    beside = 0
    if kept is not None:
        entries = blocks.entries(layout, blocks.fewest)
        beside = resident_bytes(workers, kept) + summing_bytes(layout, entries, sum(blocks.fewest.values()))
    solver = "exact" if blocks.least.fixed else choose_solver(blocks.least, how.solver, how.memory_limit - beside)[0]
    return solver, beside + solving_bytes(blocks.least, effects_of(layout), solver)


def too_large(solver: str, sizes: Sizes, needed: int, limit: int, about: str = "about") -> MemoryLimitError:
    """Naming what is needed, and what to change."""
    what, instead = "", ""
    if solver == "exact" and sizes.tail:
        what = f" (a dense block of {sizes.tail + sizes.dense:,} columns for the crossed factors)"
        instead = f", make {sizes.fixed} a random effect" if sizes.fixed else ", use solver='iterative'"
    return MemoryLimitError(
        f"the {solver} solver needs {about} {in_units(needed)}{what} but the memory limit is {in_units(limit)}: "
        f"raise memory_limit{instead}, drop a grouping factor, or use a coarser one"
    )
