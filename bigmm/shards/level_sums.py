"""A linear model whose levels stay with the workers: rows to shards of whole trees, each summed where it is.

One factor or a chain of nested ones. Rows go through one shuffle by level of the coarsest factor, none where the files
are in its order; a shard keeps sums per level and forgets its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from bigmm.accumulate import MORE_PASSES, Assembled, CrossProducts, Shift, assemble, first_shift, next_shift
from bigmm.accumulate.assemble import term_basis
from bigmm.accumulate.chains import chain_sums
from bigmm.blocks.gram import CrossBlock, TermBlock
from bigmm.blocks.nested import ChainColumns, NestedSums
from bigmm.design import DesignSpec
from bigmm.design.layout import DesignChunk, Layout
from bigmm.execute import Executor, Sharded
from bigmm.execute.spill import SpillFile, moved
from bigmm.objective import covariances_for
from bigmm.objective.identification import check_factor, widest
from bigmm.planning.memory import level_sums_bytes
from bigmm.planning.settings import Settings
from bigmm.planning.sharding import check_level_memory, row_sizes, shard_count, shuffles_in_files, sums_in_files
from bigmm.shards.files import RowShape, ShardFiles, unpacked
from bigmm.shards.level_tasks import ChainFacts, chain_facts
from bigmm.shards.sharding import Recipe, shard
from bigmm.shards.solver import LevelNumbers, ShardedLevels, ShardedSolver
from bigmm.source import Partition, Source

Sum = Callable[[Sequence[DesignChunk]], NestedSums]


@dataclass(frozen=True, slots=True)
class ShardedModel:
    """A linear model whose levels are in shards: its solver, its fixed part, and the sums over all rows."""

    solver: ShardedSolver
    assembled: Assembled
    facts: ChainFacts


@dataclass(frozen=True, slots=True)
class ShardedSums:
    """Sums per level in shards, and the facts of all rows.

    Attributes
    ----------
    shards : each a `NestedSums`.
    layout : without labels.
    chain : as in `sum_by_level`.
    shift : what the columns are summed about.
    facts : sums over all rows.
    """

    shards: Sharded
    layout: Layout
    chain: tuple[int, ...]
    shift: Shift
    facts: ChainFacts

    @property
    def products(self) -> CrossProducts:
        """The sums over all rows, without any per level."""
        facts = self.facts
        return CrossProducts(
            facts.gram, self.shift, (), (), {}, facts.n, facts.rows_read, facts.dropped, facts.sum_log_w
        )


def sum_by_level(
    source: Source, spec: DesignSpec, chain: Sequence[int], head: DesignChunk, workers: Executor, how: Settings
) -> ShardedSums:
    """Sum the rows into shards.

    Parameters
    ----------
    chain : all joint terms, finest first, each nested in the next.
    head : the first rows.

    Raises
    ------
    MemoryLimitError
        Where summing needs more than the memory limit.
    OutputError
        When the disk is full.
    """
    # Before the pass: a refusal after it would come too late.
    check_level_memory(source, spec, head, workers, how.memory_limit)
    layout = without_labels(spec.layout)
    shift, more = first_shift(layout, head), MORE_PASSES
    while True:
        total = partial(chain_sums, layout, tuple(chain), shift)
        shards, _ = shard(
            source, spec, _recipe(source, spec, layout, chain, head, workers, how, total), workers, how.progress
        )
        # What all shards say together is as small as the fixed effects.
        facts = shards.fold(ChainFacts.merge, chain_facts, tuple(shift.covariates[j] for j in chain))
        sums = ShardedSums(shards, layout, tuple(chain), shift, facts)
        better = next_shift(layout, head, sums.products) if more else None
        if better is None:
            return sums
        del shards, sums  # its shards make room for the next ones
        shift, more = better, more - 1


def level_model(sums: ShardedSums, how: Settings) -> ShardedModel:
    """The model of the sums. Raises DataError for what cannot be identified."""
    layout, chain, facts = sums.layout, sums.chain, sums.facts
    assembled, columns = _fixed_part(sums)
    covariances = covariances_for(layout, chain)
    for number, j in enumerate(chain):
        name, width = columns.fixed_part_gram.terms[number].name, widest(covariances, number)
        check_factor(assembled.gram, name, int(facts.sizes[number]), width, _varies(facts, j, number, layout))
    levels = ShardedLevels(sums.shards, columns, tuple(int(size) for size in facts.sizes), how.memory_limit)
    level_numbers = tuple(LevelNumbers(levels, number) for number in range(len(chain)))
    assembled = replace(assembled, gram=columns.fixed_part_gram, level_numbers=level_numbers)
    return ShardedModel(ShardedSolver(levels), assembled, facts)


def without_labels(layout: Layout) -> Layout:
    """The layout as tasks need it: labels of millions of levels do not travel."""
    return replace(layout, groupings=tuple(replace(g, labels=range(g.n_levels)) for g in layout.groupings))


def _recipe(
    source: Source, spec: DesignSpec, layout: Layout, chain: Sequence[int], head: DesignChunk, workers: Executor,
    how: Settings, total: Sum,
) -> Recipe:  # fmt: skip
    size, limit = row_sizes(source, layout, head), how.memory_limit
    leading, sums = layout.joint[chain[-1]].grouping, level_sums_bytes(layout)
    # The constant is a column of the layout, but none of a row.
    shape = RowShape(len(layout.columns) - 1, len(layout.groupings), size.weighted, size.with_offset)
    # Workers of a cluster keep pieces in their own memory: a file of the driver is out of their reach.
    through_files = workers.shares_memory and shuffles_in_files(size.nbytes, limit)
    return Recipe(
        read=partial(read, source, spec),
        build=partial(_summed, total),
        leading=leading,
        n_shards=shard_count(size.rows, size.row_bytes, layout.groupings[leading].n_levels),
        store=partial(SumFiles, total, leading, shape) if through_files else None,
        shuffle_bytes=size.nbytes + sums,
        sorted_bytes=sums if workers.shares_memory and sums_in_files(layout, limit) else 0,
        label="accumulate",
    )


def _summed(total: Sum, pieces: list[DesignChunk], first_level: int, n_levels: int) -> NestedSums:
    """A shard from its pieces; a pure task."""
    return total(pieces)


def read(source: Source, spec: DesignSpec, partition: Partition) -> DesignChunk:
    """One partition encoded."""
    return spec.encode(source.read(partition, spec.used_columns), partition.where)


class SumFiles(ShardFiles):
    """The shuffle through files, whose shards are summed as soon as their pieces are together."""

    def __init__(self, total: Sum, leading: int, shape: RowShape, edges: np.ndarray):
        super().__init__(leading, shape, None, edges)
        self.total = total

    def joined(self, number: int, file: SpillFile) -> Any:
        """The sums of one shard, in ``file``."""
        records = sorted(self.records[number], key=lambda record: record.item)
        pieces = [unpacked(self.files[number // self._each], record, self.shape) for record in records]
        self._done(number)
        # A sum needs its pieces all at once, unlike a join, which goes column by column.
        return moved(self.total(pieces), file)


def _fixed_part(sums: ShardedSums) -> tuple[Assembled, ChainColumns]:
    """Which columns of X are kept, and the Gram without levels."""
    layout, chain, shift = sums.layout, sums.chain, sums.shift
    # Which columns of X are kept depends on [X y]'W[X y] alone, so no level has to travel.
    assembled = assemble(sums.products, replace(layout, terms=()))
    gram = assembled.gram
    # y is the last of a shift's numbers.
    picked = np.append(np.array(layout.fixed_columns, np.int64)[gram.active], len(shift) - 1)
    joined, covariates = [layout.joint[j] for j in chain], tuple(shift.covariates[j] for j in chain)
    terms = tuple(
        TermBlock(
            joint.name,
            np.zeros((0, joint.width, joint.width)),
            np.zeros((0, joint.width, len(picked))),
            term_basis(term_columns, shift),
        )
        for joint, term_columns in zip(joined, covariates, strict=True)
    )
    shell = replace(gram, terms=terms, cross=_no_pairs(terms))
    return replace(assembled, term_order=tuple(chain)), ChainColumns(shell, covariates, picked)


def _no_pairs(terms: Sequence[TermBlock]) -> dict[tuple[int, int], CrossBlock]:
    def empty(j: int, k: int) -> CrossBlock:
        return CrossBlock(np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros((0, terms[j].width, terms[k].width)))

    return {(j, k): empty(j, k) for k in range(len(terms)) for j in range(k)}


def _varies(facts: ChainFacts, j: int, number: int, layout: Layout) -> float | None:
    """Sum of squares of the response within levels; None where the factor has no plain intercept."""
    if layout.joint[j].covariates != (0,) or layout.one is None:
        return None
    # Total less between: both are about the same shift, so the shift drops out.
    return float(facts.gram[-1, -1] - facts.within[number])
