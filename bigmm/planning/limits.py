"""The checks against the memory limit: before partitions are read, before the pass, and before the first evaluation.

How many pairs of levels meet is certain once all rows were read. Before the pass a fit is refused only where the fewest
pairs that there can be need too much. After the pass it is refused where the pairs that there are need too much.
"""

from __future__ import annotations

from collections.abc import Collection

from bigmm.blocks.gram import Gram
from bigmm.design import DesignSpec
from bigmm.design.layout import DesignChunk, Layout
from bigmm.errors import MemoryLimitError
from bigmm.execute import Executor
from bigmm.execute.memory import in_units
from bigmm.planning import memory
from bigmm.planning.block_bounds import BlockBounds, block_bounds, bounds_of_order, entries
from bigmm.planning.settings import Settings
from bigmm.planning.solver_choice import BlockSizes, choose_solver, sizes_of, solver_bytes
from bigmm.source import Source

SMALL_BYTES = 8 << 20
"""Reading fewer bytes at once is never refused: they are a small part of what the program itself takes."""


def reading_bytes(source: Source, columns: Collection[str], workers: Executor, threads: int | None = None) -> int:
    """Bytes of the named columns of one partition for each thread, and of their largest pieces of text once.

    Tables are in memory already, and workers of a cluster have limits of their own: 0 for both. threads: as many as
    there are workers by default.
    """
    if source.inventory is None or not workers.shares_memory:
        return 0
    rows = max(partition.rows for partition in source.partitions)
    text = sum(source.text_bytes.get(name, 0) for name in columns)
    at_once = min(threads or workers.n_workers, len(source.partitions))
    return memory.reading_bytes(at_once * rows, len(set(columns)), text)


def check_reading_memory(source: Source, columns: Collection[str], workers: Executor, limit: int) -> None:
    """Check that a partition for each thread fits, before levels are learnt.

    Parameters
    ----------
    columns: those that the model uses. Learning reads some of them, and keeps their distinct values beside them.
    limit: bytes.

    Raises MemoryLimitError, which names what to change.
    """
    nbytes = reading_bytes(source, columns, workers)
    if nbytes > max(limit, SMALL_BYTES):
        raise MemoryLimitError(
            f"reading partitions needs about {in_units(nbytes)} with {workers.n_workers} threads but the memory limit "
            f"is {in_units(limit)}{_large_text(source, columns)}: raise memory_limit, use fewer workers (n_workers=1), "
            "or smaller partitions (partition_bytes=)"
        )


def reading_threads(source: Source, columns: Collection[str], workers: Executor, limit: int) -> int:
    """Number of threads that read partitions within the limit (bytes), for a plan of a fit that would be refused.

    Raises MemoryLimitError when one thread needs too much, because then not even levels can be counted.
    """
    for threads in range(workers.n_workers, 0, -1):
        nbytes = reading_bytes(source, columns, workers, threads)
        if nbytes <= max(limit, SMALL_BYTES):
            return threads
    raise MemoryLimitError(
        f"reading a partition needs about {in_units(nbytes)} but the memory limit is {in_units(limit)}"
        f"{_large_text(source, columns)}: raise memory_limit, or use smaller partitions (partition_bytes=)"
    )


def _large_text(source: Source, columns: Collection[str]) -> str:
    """The column that has the largest piece of text, in words; "" where none is large."""
    sizes = {name: source.text_bytes[name] for name in columns if name in source.text_bytes}
    if not sizes:
        return ""
    # The name breaks ties: the order of a set differs from run to run.
    name = max(sizes, key=lambda column: (sizes[column], column))
    return f" (column {name!r} has {in_units(sizes[name])} of text in one piece)"


def pass_bytes(source: Source, spec: DesignSpec, n_workers: int) -> int:
    """Peak of the pass of a linear model, see `memory.pass_bytes`."""
    share, layout = _share(source, spec.used_columns), spec.layout
    largest = max((memory.partition_bytes(layout, int(p.nbytes * share), p.rows) for p in source.partitions), default=0)
    rows = sum(p.rows for p in source.partitions)
    return memory.pass_bytes(layout, largest, len(source.partitions), rows, n_workers)


def check_pass_memory(source: Source, spec: DesignSpec, n_workers: int, limit: int) -> None:
    """Raise MemoryLimitError, which names what to change, when the pass would not fit."""
    nbytes = pass_bytes(source, spec, n_workers)
    if nbytes > limit:
        biggest = max(spec.layout.groupings, key=lambda g: g.n_levels, default=None)
        factor = f"; grouping factor {biggest.name!r} has {biggest.n_levels:,} levels" if biggest is not None else ""
        raise MemoryLimitError(
            f"the pass over the rows needs about {in_units(nbytes)} with {n_workers} workers but the memory limit is "
            f"{in_units(limit)}{factor}: raise memory_limit, use fewer workers (n_workers=1), or smaller partitions "
            "(partition_bytes=)"
        )


def check_fewest_pairs(
    source: Source, spec: DesignSpec, workers: Executor, how: Settings, head: DesignChunk, rows: int | None = None
) -> None:
    """Check, before the rows are read, that an evaluation fits if as few pairs of levels meet as there can be.

    The grouping columns are read only where they decide, and where neither the formula nor head (the first rows) tells
    what is nested.

    Parameters
    ----------
    rows: bytes of the rows of a generalized model with crossed factors in this process; None for a linear model.

    Raises MemoryLimitError, which names what to change.
    """
    layout, total = spec.layout, sum(p.rows for p in source.partitions)
    first = next((j for j, term in enumerate(layout.joint) if term.fixed_factor is None), None)
    if first is None:
        return
    # the largest factor alone eliminated level by level: no order needs more
    tail = tuple(j for j in range(len(layout.joint)) if j != first)
    if _least(layout, bounds_of_order(layout, ((first,), tail), total), how, rows)[1] <= how.memory_limit:
        return
    bounds = block_bounds(source, spec, workers, total, head, how.progress)
    solver, nbytes = _least(layout, bounds, how, rows)
    if nbytes > how.memory_limit:
        raise _too_large(solver, bounds.least, nbytes, how.memory_limit, "at least")


def checked_solver(gram: Gram, layout: Layout, how: Settings, rows: int | None = None) -> tuple[str, str]:
    """Choose the solver for blocks that are there, and say why; rows: as in `check_fewest_pairs`.

    Raises MemoryLimitError when an evaluation does not fit.
    """
    sizes, beside = sizes_of(gram), 0
    if rows is not None:
        blocks = gram.cross.values()
        numbers, pairs = sum(b.data.size for b in blocks), sum(len(b.indices) for b in blocks)
        beside = rows + memory.working_sums_bytes(layout, numbers, pairs)
    # Rows and working sums stay while the solver works, so it has only what they leave.
    solver, why = choose_solver(sizes, how.solver, how.memory_limit - beside)
    nbytes = beside + solver_bytes(sizes, sum(t.n_levels * t.width for t in gram.terms), solver)
    if nbytes > how.memory_limit:
        raise _too_large(solver, sizes, nbytes, how.memory_limit)
    return solver, why


def _least(layout: Layout, bounds: BlockBounds, how: Settings, rows: int | None) -> tuple[str, int]:
    """The solver, and the bytes that it needs with the fewest pairs."""
    beside = 0
    if rows is not None:
        numbers = entries(layout, bounds.fewest)
        beside = rows + memory.working_sums_bytes(layout, numbers, sum(bounds.fewest.values()))
    # asking for "iterative" with a fixed factor is refused elsewhere, and only where something is crossed
    solver = "exact" if bounds.least.fixed else choose_solver(bounds.least, how.solver, how.memory_limit - beside)[0]
    return solver, beside + solver_bytes(bounds.least, memory.effects(layout), solver)


def _share(source: Source, columns: Collection[str]) -> float:
    """Part of a partition's bytes that these columns take, as if all columns were alike."""
    return len(columns) / max(len(source.schema), 1)


def _too_large(solver: str, sizes: BlockSizes, nbytes: int, limit: int, about: str = "about") -> MemoryLimitError:
    """The error that says how much is needed, and what to change."""
    what, instead = "", ""
    if solver == "exact" and sizes.tail:
        what = f" (a dense block of {sizes.dense_columns:,} columns for the crossed factors)"
        instead = f", make {sizes.fixed} a random effect" if sizes.fixed else ", use solver='iterative'"
    return MemoryLimitError(
        f"the {solver} solver needs {about} {in_units(nbytes)}{what} but the memory limit is {in_units(limit)}: "
        f"raise memory_limit{instead}, drop a grouping factor, or use a coarser one"
    )
