"""The rows of a generalized model in shards, and what one look at them tells before the search."""

from __future__ import annotations

import warnings
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
from bigmm.execute import Executor, Sharded
from bigmm.families import Family, check_response, doubt_response
from bigmm.families import rows as columnwise
from bigmm.laplace.identical import counted
from bigmm.objective import ModelCovariance, covariances_for
from bigmm.objective.boundary import square_root
from bigmm.planning.settings import Settings
from bigmm.planning.sharding import row_sizes, storage
from bigmm.shards.files import RowShape, ShardFiles
from bigmm.shards.shard import Shard, added_counts, blocks, join
from bigmm.shards.sharding import Recipe, shard
from bigmm.source import Partition, Source


@dataclass(frozen=True, slots=True)
class GlmmData:
    """The rows of a generalized model in shards, and the facts that the search starts from.

    Parameters
    ----------
    edges
        (S + 1,) first level of each shard.
    leading
        The grouping whose levels cut the shards.
    constant
        -2 times the sum of the constants of the log-likelihood.
    level_index
        Per term of the Gram (n_levels,): the position of each level among those with rows, -1 without rows.
    shift
        Says which working columns the shards have (`Shift.moved`).
    column_root
        (c, c) with root'root = C'WC / sum W of all working columns C, the constant first.
    chain
        The joint terms, finest first, where an evaluation is one task per shard; else None.
    compressed_rows
        Number of rows after identical ones were counted, None when none were.
    """

    shards: Sharded
    edges: np.ndarray
    leading: int
    spec: DesignSpec
    family: Family
    assembled: Assembled
    covariances: ModelCovariance
    constant: float
    rows_read: int
    dropped: tuple[tuple[str, int], ...]
    level_index: tuple[np.ndarray, ...]
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
        return tuple(term_basis(np.array(columns), self.shift) for columns in self.covariates)


def row_shift(layout: Layout, head: DesignChunk) -> Shift:
    """The shift of the columns of rows in shards, as for a linear model. y is not moved: a family needs its values."""
    return first_shift(layout, head).of_columns


def read_rows(source: Source, spec: DesignSpec, family: Family, shift: Shift, partition: Partition) -> DesignChunk:
    """One partition encoded in working columns, its response checked."""
    chunk = spec.encode(source.read(partition, spec.used_columns), partition.where)
    # Checked here, since a shard does not know the partitions and rows of its values any more.
    fault = check_response(family, chunk.y, chunk.w)
    if fault is not None:
        row, message = fault
        raise DataError(f"{partition.where}: response '{spec.layout.response}', row {row}: {message}")
    return shift.moved(chunk)


def recipe_of(
    source: Source,
    spec: DesignSpec,
    family: Family,
    workers: Executor,
    how: Settings,
    chain: tuple[int, ...] | None,
    head: DesignChunk,
    shift: Shift,
) -> Recipe:
    """How rows go to shards.

    Parameters
    ----------
    chain
        The factors of an evaluation that is one task per shard, cut by the last. None: any, cut by the largest.
    shift
        Of `row_shift`.
    """
    layout = spec.layout
    size = row_sizes(source, layout, head, len(shift.copies))
    leading = layout.joint[chain[-1] if chain else 0].grouping
    finest = layout.joint[chain[0]].grouping if chain and len(chain) > 1 else None
    stored = storage(layout, size, chain, workers, how.memory_limit)
    # A shift has a number for the constant and for y, which are no columns of a row.
    shape = RowShape(len(shift) - 2, len(layout.groupings), size.weighted, size.with_offset)
    return Recipe(
        read=partial(read_rows, source, spec, family, shift),
        build=partial(_joined, leading, finest),
        leading=leading,
        n_shards=stored.n_shards,
        store=partial(ShardFiles, leading, shape, finest) if stored.in_files else None,
        shuffle_bytes=size.nbytes,
        sorted_bytes=size.nbytes if stored.in_files else 0,
        label="shard",
    )


def _joined(leading: int, finest: int | None, pieces: list[DesignChunk], first_level: int, n_levels: int) -> Shard:
    """A shard from its pieces; a pure task."""
    return join(pieces, first_level, n_levels, leading, finest)


@dataclass(frozen=True, slots=True)
class FirstLook:
    """Sums over the original rows of a shard: products, counts and the constants of the log-likelihood.

    doubt says what looks wrong about the first suspicious response, "" where nothing does.
    """

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
            added_counts((self.dropped, other.dropped)),
            self.constant + other.constant,
            # Shards are merged in their order, so the same doubt is told on any number of workers.
            self.doubt or other.doubt,
        )


def first_look(rows: Shard, layout: Any, shift: Shift, family: Family) -> FirstLook:
    """Cross-products and log-likelihood constants of a shard whose rows are `shift.moved`; a pure task."""
    accumulator = Accumulator(layout, shift.of_moved)
    constant, doubt = 0.0, ""
    for chunk in blocks(rows):
        accumulator.add(chunk)
        constant += float(columnwise.constant(family, chunk.y, 1.0 if chunk.w is None else chunk.w).sum())
        doubt = doubt or (doubt_response(family, chunk.y, chunk.w) or (0, ""))[1]
    # Sums of moved rows are sums about the shift.
    products = replace(accumulator.freeze(), shift=shift)
    return FirstLook(products, rows.rows_read, rows.dropped, constant, doubt)


@dataclass(frozen=True, slots=True)
class ShardedRows:
    """The rows in shards, and the sums of one look at them.

    Attributes
    ----------
    edges, leading, chain : as in `GlmmData`.
    summed : the layout of the sums.
    look : the sums over all shards.
    passes : passes over the source so far.
    """

    shards: Sharded
    edges: np.ndarray
    leading: int
    summed: Layout
    look: FirstLook
    chain: tuple[int, ...] | None
    passes: int


def shard_rows(
    source: Source,
    spec: DesignSpec,
    family: Family,
    workers: Executor,
    how: Settings,
    chain: tuple[int, ...] | None,
    head: DesignChunk,
) -> ShardedRows:
    """Hold the rows in shards and look at them once; again where they turn out to be unlike the first ones.

    Parameters
    ----------
    chain
        The joint terms of `chain_of`, finest first. None: terms are crossed.
    head
        The first rows, which give the numbers that the columns are moved by.
    """
    layout = spec.layout
    # with a chain the pattern is in the shards already: only X is summed
    summed = replace(layout, terms=()) if chain else layout
    shift, passes = row_shift(layout, head), 1
    while True:
        recipe = recipe_of(source, spec, family, workers, how, chain, head, shift)
        shards, edges = shard(source, spec, recipe, workers, how.progress)
        look = shards.fold(FirstLook.merge, first_look, summed, shift, family)
        better = better_shift(layout, head, look.products) if passes <= MORE_PASSES else None
        if better is None:
            return ShardedRows(shards, edges, recipe.leading, summed, look, chain, passes)
        del shards, look  # their memory is the next pass's
        shift, passes = better, passes + 1


def better_shift(layout: Layout, head: DesignChunk, products: CrossProducts) -> Shift | None:
    """The shift that the rows should have been moved by, None where it is the one that they were; as in `next_shift`,
    for columns alone."""
    shift, following = products.shift, next_shift(layout, head, products)
    if following is None:
        return None
    # y is not moved, so its origin is no reason for another pass.
    origin = following.of_columns.origin.copy()
    origin[0, -1] = shift.origin[0, -1]
    better = replace(following.of_columns, origin=origin)
    return None if better.same(shift) else better


def glmm_data(rows: ShardedRows, spec: DesignSpec, family: Family) -> GlmmData:
    """The model that the rows identify: its levels, its columns, and the covariance over them."""
    layout, look, chain = spec.layout, rows.look, rows.chain
    if look.doubt:
        warnings.warn(f"response '{layout.response}': {look.doubt}", BigmmWarning, stacklevel=callers_level())
    assembled = assemble(look.products, rows.summed)
    if chain:
        # Each shard of a chain numbers its own levels: an index over all of them would be as large as the factor.
        level_index: tuple[np.ndarray, ...] = ()
        covariances = covariances_for(layout, chain)
    else:
        level_index = tuple(
            _level_index(layout.joint[j].n_levels, level_numbers)
            for j, level_numbers in zip(assembled.term_order, assembled.level_numbers, strict=True)
        )
        covariances = covariances_for(layout, assembled.term_order)
    return GlmmData(
        rows.shards, rows.edges, rows.leading, spec, family, assembled, covariances, -2.0 * look.constant,
        look.rows_read, look.dropped, level_index, look.products.shift, column_root(look.products), chain,
    )  # fmt: skip


def column_root(products: CrossProducts) -> np.ndarray:
    """(c, c) root with root'root = C'WC / sum W of all working columns C, the constant first."""
    gram = products.gram[:-1, :-1]
    # The first diagonal element is the sum of the weights, which may be 0.
    return square_root(gram / max(gram[0, 0], 1e-300))


def with_counted_rows(model: GlmmData) -> GlmmData:
    """The model with identical rows counted once, where that pays; after all that needs the original rows is known."""
    if not model.family.distribution.countable:
        return model
    smaller = model.shards.replaced(partial(counted, family=model.family))
    rows, before = sum(smaller.map(_rows)), sum(model.shards.map(_rows))
    return replace(model, shards=smaller, compressed_rows=rows) if rows < before else model


def _rows(part: Shard) -> int:
    return part.rows


def _level_index(n_levels: int, level_numbers: np.ndarray) -> np.ndarray:
    """(n_levels,) position of each level among those with rows, -1 without."""
    index = np.full(n_levels, -1, np.int64)
    index[level_numbers] = np.arange(len(level_numbers))
    return index
