"""Grouping factors that form one chain, as pupils in classes in schools: their part of A for some whole trees of it.

A tree is a level of the coarsest factor with all levels inside. Nothing of A couples two trees but the fixed effects,
so A can be cut into shards of whole trees; one factor is a chain of one. The Z_j'W Z_k of a level and what contains it
is a sum over the rows of that level, so it stands in the level's own record and no pair of levels is ever looked up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from bigmm.blocks.gram import CrossBlock, Gram, TermBlock
from bigmm.blocks.structure import Parent, Stage, Structure, pointers


@dataclass(frozen=True, slots=True)
class NestedSums:
    """Sums over the rows of some trees, with v = [1, columns..., y] - shift of m numbers and T factors, finest first.

    All arrays are flat, so that they can be kept in a file.

    Attributes
    ----------
    sizes, widths: (T,) levels and covariates of each factor.
    levels: (sum of sizes,) int32 numbers of the levels in the whole model, factor after factor, children of one parent
        side by side.
    parents: (sum of sizes but the last,) int32 position of each level's parent among its factor's levels here.
    records: (sum of q k m,) per factor (q, k, m), sum of w v[covariates] v'.
    gram: (m, m) sum of w v v'.
    n, rows_read, dropped, sum_log_w: as in `CrossProducts`.
    """

    sizes: tuple[int, ...]
    widths: tuple[int, ...]
    levels: np.ndarray
    parents: np.ndarray
    records: np.ndarray
    gram: np.ndarray
    n: int
    rows_read: int
    dropped: tuple[tuple[str, int], ...]
    sum_log_w: float

    def levels_of(self, term: int) -> np.ndarray:
        """(q,) numbers of a factor's levels in the whole model."""
        start = sum(self.sizes[:term])
        return self.levels[start : start + self.sizes[term]]

    def parents_of(self, term: int) -> np.ndarray:
        """(q,) places of the levels' parents, for any factor but the last."""
        start = sum(self.sizes[:term])
        return self.parents[start : start + self.sizes[term]]

    def records_of(self, term: int) -> np.ndarray:
        """(q, k, m) records of a factor."""
        m = len(self.gram)
        starts = np.cumsum([0, *(q * k * m for q, k in zip(self.sizes, self.widths, strict=True))])
        flat = self.records[starts[term] : starts[term + 1]]
        return flat.reshape(self.sizes[term], self.widths[term], m)

    def ancestors_of(self, term: int) -> Iterator[tuple[int, np.ndarray]]:
        """(coarser factor, (q,) places of each level's ancestor there), nearest first."""
        place = np.arange(self.sizes[term])
        for above in range(term + 1, len(self.sizes)):
            place = self.parents_of(above - 1)[place]
            yield above, place


def batches_of_trees(sums: NestedSums, levels: int) -> Iterator[NestedSums]:
    """The same trees, some after others, with about so many levels of the finest factor at a time.

    Only levels, parents and records are cut: gram and the counts of rows are zero.
    """
    depth = len(sums.sizes)
    # where the levels of each factor begin that lie in each tree: children of one parent stand side by side
    cuts = [np.arange(sums.sizes[-1] + 1)]
    for t in range(depth - 2, -1, -1):
        cuts.insert(0, np.searchsorted(sums.parents_of(t), cuts[0]))
    start = 0
    while start < sums.sizes[-1]:
        stop = int(np.searchsorted(cuts[0], cuts[0][start] + levels, side="left"))
        # A tree is never cut: a batch has at least one, however large it is.
        stop = min(max(stop, start + 1), sums.sizes[-1])
        yield _batch_of_trees(sums, [slice(int(cut[start]), int(cut[stop])) for cut in cuts])
        start = stop


def _batch_of_trees(sums: NestedSums, ranges: list[slice]) -> NestedSums:
    depth = len(ranges)
    return NestedSums(
        tuple(span.stop - span.start for span in ranges),
        sums.widths,
        np.concatenate([sums.levels_of(t)[ranges[t]] for t in range(depth)]),
        np.concatenate(
            [sums.parents[:0], *(sums.parents_of(t)[ranges[t]] - ranges[t + 1].start for t in range(depth - 1))]
        ).astype(np.int32, copy=False),
        np.concatenate([sums.records_of(t)[ranges[t]].ravel() for t in range(depth)]),
        # The sums over all rows belong to no batch: added batch by batch they would count rows more than once.
        np.zeros_like(sums.gram),
        *(0, 0, (), 0.0),
    )


@dataclass(frozen=True, slots=True)
class ChainColumns:
    """The columns of the sums that a model uses.

    Attributes
    ----------
    fixed_part_gram: `Gram` without any level, whose dense part is of all rows.
    covariates: per factor (k,) columns of v that are its Z.
    picked: (p + 1,) columns of v that are X and y.
    """

    fixed_part_gram: Gram
    covariates: tuple[np.ndarray, ...]
    picked: np.ndarray


def chain_gram(sums: NestedSums, columns: ChainColumns) -> Gram:
    """The blocks of A that these trees' rows make."""
    terms, cross = [], {}
    for number, term in enumerate(columns.fixed_part_gram.terms):
        record = sums.records_of(number)
        # An index array at the end gives another order of memory than C, for which alone kernels are compiled.
        diagonal = np.ascontiguousarray(record[:, :, columns.covariates[number]])
        terms.append(TermBlock(term.name, diagonal, np.ascontiguousarray(record[:, :, columns.picked]), term.basis))
        indptr = np.arange(len(record) + 1)
        for above, place in sums.ancestors_of(number):
            data = np.ascontiguousarray(record[:, :, columns.covariates[above]])
            cross[number, above] = CrossBlock(indptr, place.astype(np.int32), data)
    xy = sums.gram[np.ix_(columns.picked, columns.picked)]
    return replace(columns.fixed_part_gram, terms=tuple(terms), cross=cross, xy=xy, n=sums.n, sum_log_w=sums.sum_log_w)


def chain_structure(gram: Gram) -> Structure:
    """What `analyse` gives for a chain whose children stand side by side, without a sort."""
    terms, depth = gram.terms, len(gram.terms)
    widths = [term.width for term in terms]
    starts = np.cumsum([0, *(term.n_levels * term.width for term in terms)])  # global scalar columns; no tail
    stages = tuple(_stage(gram, number, widths, starts) for number in range(depth))
    transposed = {(j, k): _transposed(block, terms[k].n_levels) for (j, k), block in gram.cross.items()}
    # Without terms in the tail (r_raw = 0) the base is the dense part alone.
    return Structure(gram, stages, (), gram.xy.copy(), 0, transposed)


def _stage(gram: Gram, number: int, widths: list[int], starts: np.ndarray) -> Stage:
    term, above = gram.terms[number], range(number + 1, len(gram.terms))
    q, step = term.n_levels, sum(widths[number + 1 :])
    # A level lies in one level of each coarser factor, so all rows have `step` entries, nearest factor first.
    columns, data = np.empty((q, step), np.int32), np.empty((q, step, term.width))
    offset = 0
    for k in above:
        block, span = gram.cross[number, k], slice(offset, offset + widths[k])
        columns[:, span] = starts[k] + block.indices.astype(np.int64)[:, None] * widths[k] + np.arange(widths[k])
        data[:, span] = block.data.transpose(0, 2, 1)
        offset += widths[k]
    indptr = np.arange(q + 1) * step
    parents, offset = [], 0
    for k in above:
        level = gram.cross[number, k].indices
        # Children of one parent stand side by side (`tree_order`), so their order by parent is the identity.
        order, start = np.arange(q), pointers(level, gram.terms[k].n_levels)
        offset += widths[k]
        # the columns after the parent's own are its row, in the same order
        position = np.full((q, step), -1, np.int64)
        position[:, offset:] = (level.astype(np.int64) * (step - offset))[:, None] + np.arange(step - offset)
        parents.append(Parent(k, level, order, start, indptr[:-1] + offset - widths[k], position.ravel()))
    nothing = np.zeros(1, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int32)
    flat = columns.ravel(), data.reshape(q * step, term.width)
    ends = indptr[1:].copy()  # a chain has no columns in the tail
    return Stage(number, term.diagonal, term.dense, indptr, *flat, ends, *nothing, tuple(parents), np.ones(q))


def _transposed(block: CrossBlock, n_parents: int) -> CrossBlock:
    order = np.arange(len(block.indices), dtype=np.int32)
    return CrossBlock(pointers(block.indices, n_parents), order, np.ascontiguousarray(block.data.transpose(0, 2, 1)))


@dataclass(frozen=True, slots=True)
class TreeOrder:
    """The levels of a chain in an order in which children of one parent stand side by side.

    Attributes
    ----------
    levels: per factor (q,) its levels' numbers.
    parents: per factor but the last (q,) places of the parents.
    rows: per factor (n,) int32 place of each row's level.
    """

    levels: tuple[np.ndarray, ...]
    parents: tuple[np.ndarray, ...]
    rows: tuple[np.ndarray, ...]


def tree_order(refs: list[np.ndarray]) -> TreeOrder:
    """Number the levels that rows have within their parents; refs: per factor (n,) level numbers, finest first."""
    numbered = [distinct_places(ref) for ref in refs]
    depth = len(refs)
    parents = []
    for t in range(depth - 1):
        parent = np.empty(len(numbered[t][0]), np.int32)
        # Nesting: all rows of a level agree on its parent, so it does not matter which of them is written last.
        parent[numbered[t][1]] = numbered[t + 1][1]
        parents.append(parent)
    levels, rows = [numbered[-1][0]], [numbered[-1][1]]
    moved: np.ndarray | None = None
    renumbered: list[np.ndarray] = []
    # From coarse to fine: the places of parents must be final before their children are sorted by them.
    for t in range(depth - 2, -1, -1):
        parent = parents[t] if moved is None else moved[parents[t]]
        # Stable: children of one parent keep the increasing order of their numbers. Sorted data need no sort.
        order = np.argsort(parent, kind="stable") if np.any(parent[1:] < parent[:-1]) else None
        if order is None:
            moved = None
            levels.insert(0, numbered[t][0])
            rows.insert(0, numbered[t][1])
            renumbered.insert(0, parent)
            continue
        moved = np.empty(len(order), np.int32)
        moved[order] = np.arange(len(order), dtype=np.int32)
        levels.insert(0, numbered[t][0][order])
        rows.insert(0, moved[numbered[t][1]])
        renumbered.insert(0, parent[order])
    return TreeOrder(tuple(levels), tuple(renumbered), tuple(rows))


SPREAD = 16
"""Level numbers within a range of so many times the rows are found by flags, which is faster than sorting."""


def distinct_places(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """((q,) the different numbers >= 0, increasing, (n,) int32 place of each among them)."""
    if not len(numbers):
        return np.zeros(0, np.int32), np.zeros(0, np.int32)
    low, high = int(numbers.min()), int(numbers.max())
    if high - low >= SPREAD * len(numbers):
        numbered, place = np.unique(numbers, return_inverse=True)
        return numbered.astype(np.int32), place.astype(np.int32)
    flags = np.zeros(high - low + 1, bool)
    flags[numbers - low] = True
    place = np.cumsum(flags, dtype=np.int32) - np.int32(1)
    return (np.flatnonzero(flags) + low).astype(np.int32), place[numbers - low]
