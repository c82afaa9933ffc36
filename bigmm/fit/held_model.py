"""The rows of a generalized model in shards, and what one look at them tells before the search."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from bigmm.accumulate import (
    MORE_PASSES,
    Assembled,
    CrossProducts,
    Shift,
    assemble,
    first_shift,
    merge,
    next_shift,
    term_basis,
)
from bigmm.accumulate.fold import Accumulator
from bigmm.arguments import callers_level
from bigmm.design import DesignSpec
from bigmm.design.layout import DesignChunk, Layout
from bigmm.errors import BigmmWarning, DataError
from bigmm.execute import Sharded
from bigmm.execute.spill import check_disk
from bigmm.families import Family, check_response, doubt_response
from bigmm.families import rows as columnwise
from bigmm.fit.runs import make_shard, runs_by_level
from bigmm.fit.settings import Settings
from bigmm.laplace import shards
from bigmm.laplace.identical import counted
from bigmm.laplace.shard_files import ShardFiles
from bigmm.laplace.shards import Shard
from bigmm.objective import Templates, templates_for
from bigmm.objective.boundary import square_root
from bigmm.planning.sharding import row_sizes, storage
from bigmm.source import Source


@dataclass(frozen=True, slots=True)
class HeldModel:
    """The rows in shards, and what is known of the model before the search.

    edges (S + 1,): first level of each shard; leading: the grouping that cuts them; constant: -2 sum of the
    log-likelihood's constants; places: per term of the Gram, (q,) global level -> kept level (-1: no rows);
    shift: which working columns the shards have (`Shift.moved`); column_root (c, c): root'root = C'WC / sum W of all
    of them, C, the constant first; chain: the joint terms, finest first, where an evaluation is one task per shard;
    compressed_rows: rows after identical ones were counted, None when none were.
    """

    held: Sharded
    edges: np.ndarray
    leading: int
    spec: DesignSpec
    family: Family
    assembled: Assembled
    templates: Templates
    constant: float
    rows_read: int
    dropped: tuple[tuple[str, int], ...]
    places: tuple[np.ndarray, ...]
    shift: Shift
    column_root: np.ndarray
    chain: tuple[int, ...] | None = None
    compressed_rows: int | None = None

    @property
    def fixed_columns(self) -> np.ndarray:
        """(rank,) columns of X that are kept."""
        layout, gram = self.spec.layout, self.assembled.gram
        return np.array(layout.fixed_columns, np.int64)[gram.active[gram.fixed_order]]

    @property
    def covariates(self) -> tuple[tuple[int, ...], ...]:
        """Per term of the Gram (k,) the working columns that are its Z."""
        order = self.chain or self.assembled.term_order
        return tuple(tuple(map(int, self.shift.covariates[j])) for j in order)

    @property
    def bases(self) -> tuple[np.ndarray, ...]:
        """Per term of the Gram (k, k) T with Z = Z_working T."""
        return tuple(term_basis(np.array(own), self.shift) for own in self.covariates)


def held_shift(layout: Layout, head: DesignChunk) -> Shift:
    """What the columns of held rows are moved by: as for a linear model. y stays, whose values a family knows."""
    return first_shift(layout, head).of_columns


def read_rows(source: Source, spec: DesignSpec, family: Family, shift: Shift, partition: Any) -> DesignChunk:
    """One partition encoded in working columns, its response checked."""
    chunk = spec.encode(source.read(partition, spec.used_columns), partition.where)
    fault = check_response(family, chunk.y, chunk.w)
    if fault is not None:
        row, message = fault
        raise DataError(f"{partition.where}: response '{spec.layout.response}', row {row}: {message}")
    return shift.moved(chunk)


def read_and_split(
    read: Callable[[Any], DesignChunk], edges: np.ndarray, leading: int, partition: Any
) -> Iterator[DesignChunk]:
    """One partition cut by shard; read: of `read_rows`."""
    return shards.split(read(partition), edges, leading)


def _join(leading: int, finest: int | None, edges: np.ndarray, number: int, pieces: list[DesignChunk]) -> Shard:
    first = int(edges[number])
    return shards.join(pieces, first, int(edges[number + 1]) - first, leading, finest)


def hold_rows(
    source: Source,
    spec: DesignSpec,
    family: Family,
    workers: Any,
    how: Settings,
    chain: tuple[int, ...] | None,
    head: DesignChunk,
    shift: Shift,
) -> tuple:
    """The rows in shards: (held shards, edges, leading grouping). The one shuffle, unless the files are in order.

    chain: the factors of an evaluation that is one task per shard, cut by the last; None: any, cut by the largest.
    shift: of `held_shift`.
    """
    layout = spec.layout
    joined, size = layout.joint, row_sizes(source, layout, head, len(shift.copies))
    leading = joined[chain[-1] if chain else 0].grouping
    finest = joined[chain[0]].grouping if chain and len(chain) > 1 else None
    kept = storage(layout, size, chain, workers, how.memory_limit)
    count, spills = kept.n_shards, kept.in_files
    if spills:
        check_disk(size.nbytes)
    runs = runs_by_level(source, spec, leading, count, workers)
    read = partial(read_rows, source, spec, family, shift)
    if runs is not None:
        make = partial(make_shard, read, runs.edges, runs.counted, leading, finest)
        return workers.shard_sorted(make, runs.lanes, in_files=spills, progress=how.progress), runs.edges, leading
    edges = shards.bounds(layout.groupings[leading].n_levels, count)
    split = partial(read_and_split, read, edges, leading)
    sizes = len(shift) - 2, len(layout.groupings), size.weighted, size.with_offset
    files = partial(ShardFiles, edges, leading, *sizes, finest=finest) if spills else None
    join = partial(_join, leading, finest, edges)
    held = workers.shuffle(split, source.partitions, join, count, files=files, progress=how.progress)
    return held, edges, leading


@dataclass(frozen=True, slots=True)
class FirstLook:
    """What one look at the original rows of a shard gives.

    doubt: what looks wrong about the first such response, "" when nothing does."""

    products: CrossProducts
    rows_read: int
    dropped: tuple[tuple[str, int], ...]
    constant: float
    doubt: str

    def merge(self, other: FirstLook) -> FirstLook:
        """Of both shards together."""
        return FirstLook(
            merge(self.products, other.products),
            self.rows_read + other.rows_read,
            shards.added_counts((self.dropped, other.dropped)),
            self.constant + other.constant,
            self.doubt or other.doubt,
        )


def first_look(shard: Shard, layout: Any, shift: Shift, family: Family) -> FirstLook:
    """Cross-products and log-likelihood constants of a shard whose rows are `shift.moved`; a pure task."""
    accumulator = Accumulator(layout, shift.of_moved)
    constant, doubt = 0.0, ""
    for chunk in shards.blocks(shard):
        accumulator.add(chunk)
        constant += float(columnwise.constant(family, chunk.y, 1.0 if chunk.w is None else chunk.w).sum())
        doubt = doubt or (doubt_response(family, chunk.y, chunk.w) or (0, ""))[1]
    products = replace(accumulator.freeze(), shift=shift)
    return FirstLook(products, shard.rows_read, shard.dropped, constant, doubt)


@dataclass(frozen=True, slots=True)
class HeldRows:
    """The rows in shards, and what one look at them has told.

    edges, leading, chain: as in `HeldModel`; summed: the layout of what the look sums; passes: over the source.
    """

    held: Sharded
    edges: np.ndarray
    leading: int
    summed: Layout
    look: FirstLook
    chain: tuple[int, ...] | None
    passes: int


def looked_rows(
    source: Source,
    spec: DesignSpec,
    family: Family,
    workers: Any,
    how: Settings,
    chain: tuple[int, ...] | None,
    head: DesignChunk,
) -> HeldRows:
    """Hold the rows in shards and look at them once; again where they turn out to be unlike the first ones.

    Parameters
    ----------
    chain: the joint terms of `chain_of`, finest first, None where terms are crossed.
    head: the first rows, which tell about what numbers the columns are moved and summed.
    """
    layout = spec.layout
    # with a chain the pattern is in the shards already: only X is summed
    summed = replace(layout, terms=()) if chain else layout
    shift, passes = held_shift(layout, head), 1
    while True:
        held, edges, leading = hold_rows(source, spec, family, workers, how, chain, head, shift)
        look = held.fold(FirstLook.merge, first_look, summed, shift, family)
        better = better_shift(layout, head, look.products) if passes <= MORE_PASSES else None
        if better is None:
            return HeldRows(held, edges, leading, summed, look, chain, passes)
        del held, look  # their memory is the next pass's
        shift, passes = better, passes + 1


def better_shift(layout: Layout, head: DesignChunk, products: CrossProducts) -> Shift | None:
    """The shift that the rows should have been moved by, None where it is the one that they were; as in `next_shift`,
    for columns alone."""
    shift, found = products.shift, next_shift(layout, head, products)
    if found is None:
        return None
    origin = found.of_columns.origin.copy()
    origin[0, -1] = shift.origin[0, -1]
    better = replace(found.of_columns, origin=origin)
    return None if better.same(shift) else better


def held_model(rows: HeldRows, spec: DesignSpec, family: Family) -> HeldModel:
    """What the look at the rows tells: which levels and columns there are."""
    layout, look, chain = spec.layout, rows.look, rows.chain
    held, edges, leading, summed = rows.held, rows.edges, rows.leading, rows.summed
    if look.doubt:
        warnings.warn(f"response '{layout.response}': {look.doubt}", BigmmWarning, stacklevel=callers_level())
    assembled = assemble(look.products, summed)
    if chain:
        places: tuple[np.ndarray, ...] = ()
        templates = templates_for(layout, chain)
    else:
        places = tuple(
            _places(layout.joint[j].n_levels, kept)
            for j, kept in zip(assembled.term_order, assembled.kept, strict=True)
        )
        templates = templates_for(layout, assembled.term_order)
    return HeldModel(
        held, edges, leading, spec, family, assembled, templates, -2.0 * look.constant, look.rows_read, look.dropped,
        places, look.products.shift, column_root(look.products), chain,
    )  # fmt: skip


def column_root(products: CrossProducts) -> np.ndarray:
    """(c, c) root with root'root = C'WC / sum W of all working columns C, the constant first."""
    gram = products.gram[:-1, :-1]
    return square_root(gram / max(gram[0, 0], 1e-300))


def with_counted_rows(model: HeldModel) -> HeldModel:
    """The model with identical rows counted once, where that pays; after all that needs the original rows is known."""
    if not model.family.distribution.countable:
        return model
    smaller = model.held.replaced(partial(counted, family=model.family))
    rows, before = sum(smaller.map(_rows)), sum(model.held.map(_rows))
    return replace(model, held=smaller, compressed_rows=rows) if rows < before else model


def _rows(shard: Shard) -> int:
    return shard.rows


def _places(n_levels: int, kept: np.ndarray) -> np.ndarray:
    place = np.full(n_levels, -1, np.int64)
    place[kept] = np.arange(len(kept))
    return place
