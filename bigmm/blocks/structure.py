"""Symbolic analysis: which grouping factors are eliminated level by level, and what stays for the dense tail.

The largest term is eliminated first: its part of M is block-diagonal, so that costs no fill in its own columns. A term
that contains the one just eliminated (nesting: every level of the former lies in one level of the latter) stays
block-diagonal and is eliminated level by level too. Whatever is left fills in (a random bipartite graph is an expander:
ALGORITHMS section 3.1) and goes to one dense symmetric *tail*, together with the fixed effects and the response.

All arrays are in *unscaled* coordinates: Lambda is applied to whole Schur complements, not to entries of A.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bigmm.blocks.gram import CrossBlock, Gram, TermBlock


@dataclass(frozen=True, slots=True)
class Parent:
    """The later stage that contains this one.

    stage: index of that stage; level: (q,) int32 parent's level of each level; order/start: levels grouped by parent,
    children of parent P are order[start[P]:start[P + 1]];
    block: (q,) int64 entry of this stage's columns where the parent's own columns begin;
    position: (nnz,) int64, for every entry whose column also belongs to the parent's row, its entry there (else -1).
    """

    stage: int
    level: np.ndarray
    order: np.ndarray
    start: np.ndarray
    block: np.ndarray
    position: np.ndarray


@dataclass(frozen=True, slots=True)
class Stage:
    """One term eliminated level by level, with its sparse columns (later stages first, then the tail) as CSR.

    diagonal: (q, k, k); dense: (q, k, m) with m = p + 1; indptr: (q + 1,) int64; columns: (nnz,) int32 global scalar
    column, increasing in a row; data: (nnz, k); tail_start: (q,) int64 first entry of a row that is a tail column;
    by_column: column-wise view of the tail entries: colptr (r_raw + 1,) int64, entry (.,) int64, level (.,) int32;
    parents: later stages that contain this one, nearest first; multiplicity: (q,) levels that an entry stands for.
    """

    term: int
    diagonal: np.ndarray
    dense: np.ndarray
    indptr: np.ndarray
    columns: np.ndarray
    data: np.ndarray
    tail_start: np.ndarray
    colptr: np.ndarray
    entry: np.ndarray
    level: np.ndarray
    parents: tuple[Parent, ...]
    multiplicity: np.ndarray

    @property
    def n_levels(self) -> int:
        return self.diagonal.shape[0]

    @property
    def width(self) -> int:
        return self.diagonal.shape[1]

    @property
    def grain(self) -> int:
        """Levels that are worth a thread: fewer when each touches many columns."""
        return max(32, 2048 // (1 + len(self.columns) // max(self.n_levels, 1)))


@dataclass(frozen=True, slots=True)
class TailTerm:
    """A term's place in the tail: raw columns offset .. offset + n_levels * width."""

    term: int
    offset: int
    n_levels: int
    width: int
    penalized: bool
    contrast: np.ndarray | None

    @property
    def stop(self) -> int:
        return self.offset + self.n_levels * self.width


@dataclass(frozen=True, slots=True)
class Structure:
    """Everything about A that does not depend on theta.

    base: (r_raw + m, r_raw + m) float64, the tail's part of A before elimination, full symmetric, C order; r_raw raw
    columns of the tail terms (penalized first), then the p dense columns of X and y; turned: every cross block seen from
    its second term.
    """

    gram: Gram
    stages: tuple[Stage, ...]
    tail: tuple[TailTerm, ...]
    base: np.ndarray
    r_raw: int
    turned: dict[tuple[int, int], CrossBlock]

    @property
    def m(self) -> int:
        return self.gram.xy.shape[0]

    def kinds(self) -> tuple[tuple[str, str], ...]:
        """(term, kind of storage) for every term, to be shown to the user."""
        stages = {s.term: "block-diagonal" + (", nested" if i else "") for i, s in enumerate(self.stages)}
        return tuple((t.name, stages.get(i, "dense")) for i, t in enumerate(self.gram.terms))


def transposed(block: CrossBlock, n_columns: int) -> CrossBlock:
    """The same pair of terms seen from the other one."""
    rows = np.repeat(np.arange(len(block.indptr) - 1, dtype=np.int32), np.diff(block.indptr))
    order = np.argsort(block.indices, kind="stable")
    counts = np.bincount(block.indices, minlength=n_columns)
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return CrossBlock(indptr, rows[order], np.ascontiguousarray(block.data[order].transpose(0, 2, 1)))


def cross(gram: Gram, j: int, k: int) -> CrossBlock:
    """Z_j'W Z_k as block-CSR over the levels of j, in either order of the pair."""
    if (j, k) in gram.cross:
        return gram.cross[j, k]
    return transposed(gram.cross[k, j], gram.terms[j].n_levels)


def is_nested(block: CrossBlock) -> bool:
    """Does every level of the first term meet exactly one level of the second?"""
    return bool(np.all(np.diff(block.indptr) == 1))


def elimination_order(gram: Gram) -> tuple[list[int], list[int]]:
    """(terms eliminated level by level, terms of the tail): a chain of containing factors, then the rest."""
    penalized = [i for i, t in enumerate(gram.terms) if t.penalized]
    if not penalized:
        return [], list(range(len(gram.terms)))
    chain = [penalized[0]]
    while True:
        rest = [i for i in penalized if i not in chain]
        nested = [i for i in rest if is_nested(cross(gram, chain[-1], i))]
        if not nested:
            return chain, rest + [i for i, t in enumerate(gram.terms) if not t.penalized]
        chain.append(nested[0])


def _place_tail(gram: Gram, tail: list[int]) -> tuple[tuple[TailTerm, ...], int]:
    offset, placed = 0, []
    for i in tail:
        t = gram.terms[i]
        placed.append(TailTerm(i, offset, t.n_levels, t.width, t.penalized, t.contrast))
        offset = placed[-1].stop
    return tuple(placed), offset


def _tail_base(gram: Gram, tail: tuple[TailTerm, ...], r_raw: int) -> np.ndarray:
    m = gram.xy.shape[0]
    base = np.zeros((r_raw + m, r_raw + m))
    for t in tail:
        block = gram.terms[t.term]
        view = base[t.offset : t.stop, t.offset : t.stop].reshape(t.n_levels, t.width, t.n_levels, t.width)
        each = np.arange(t.n_levels)
        view[each, :, each, :] = block.diagonal
        base[r_raw:, t.offset : t.stop] = block.dense.reshape(-1, m).T
        base[t.offset : t.stop, r_raw:] = block.dense.reshape(-1, m)
        for other in tail:
            if other.term <= t.term:
                continue
            pair = cross(gram, t.term, other.term)
            rows = np.repeat(np.arange(t.n_levels), np.diff(pair.indptr))
            for a in range(t.width):
                for b in range(other.width):
                    i, j = t.offset + rows * t.width + a, other.offset + pair.indices * other.width + b
                    base[i, j] = base[j, i] = pair.data[:, a, b]
    base[r_raw:, r_raw:] = gram.xy
    return base


def _column_pieces(gram: Gram, term: int, later: list[int], tail: tuple[TailTerm, ...], starts: dict[int, int]):
    """Per neighbouring term: (row of each scalar entry, its global column, its data (., k))."""
    for other, first in [(i, starts[i]) for i in later] + [(t.term, t.offset) for t in tail]:
        pair = cross(gram, term, other)
        width = gram.terms[other].width
        rows = np.repeat(np.arange(gram.terms[term].n_levels, dtype=np.int64), np.diff(pair.indptr) * width)
        columns = (first + pair.indices.astype(np.int64)[:, None] * width + np.arange(width)).ravel()
        yield rows, columns, pair.data.transpose(0, 2, 1).reshape(len(columns), -1)


def _row_entries(gram, term, later, tail, starts):
    """The scalar columns of all neighbours of a term, merged into one CSR: indptr, columns, data."""
    block = gram.terms[term]
    pieces = list(_column_pieces(gram, term, later, tail, starts))
    if not pieces:
        empty = np.zeros(block.n_levels + 1, np.int64)
        return empty, np.zeros(0, np.int64), np.zeros((0, block.width))
    rows, columns, data = (np.concatenate([p[i] for p in pieces]) for i in range(3))
    if len(pieces) > 1:  # each piece is sorted by row; a stable sort keeps the order of the pieces within a row
        order = np.argsort(rows, kind="stable")
        rows, columns, data = rows[order], columns[order], data[order]
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=block.n_levels))]).astype(np.int64)
    return indptr, columns, np.ascontiguousarray(data)


def _parent(gram, child_indptr, child_columns, term, other, stage, parent_indptr, parent_columns, n_columns) -> Parent:
    """Where each entry of a child's row lands in its parent's row."""
    level = cross(gram, term, other).indices.astype(np.int32)
    n_parents = gram.terms[other].n_levels
    order = np.argsort(level, kind="stable").astype(np.int64)
    start = np.concatenate([[0], np.cumsum(np.bincount(level, minlength=n_parents))]).astype(np.int64)
    parent_rows = np.repeat(np.arange(n_parents, dtype=np.int64), np.diff(parent_indptr))
    parent_keys = parent_rows * n_columns + parent_columns
    child_rows = np.repeat(level.astype(np.int64), np.diff(child_indptr))
    child_keys = child_rows * n_columns + child_columns
    found = np.searchsorted(parent_keys, child_keys)
    found = (
        np.where(
            (found < len(parent_keys)) & (parent_keys[np.minimum(found, len(parent_keys) - 1)] == child_keys), found, -1
        )
        if len(parent_keys)
        else np.full(len(child_keys), -1)
    )
    return Parent(stage, level, order, start, np.zeros(0, np.int64), found.astype(np.int64))


def analyse(gram: Gram) -> Structure:
    """Choose the elimination order and lay out the sparse columns of every stage."""
    chain, rest = elimination_order(gram)
    tail, r_raw = _place_tail(gram, rest)
    # global scalar columns: the tail keeps its own numbers 0..r_raw, later stages come below zero in effect: they are
    # numbered from r_raw on but sorted first, which the merge order of `_column_pieces` guarantees.
    starts, offset = {}, r_raw
    for i in chain:
        starts[i] = offset
        offset += gram.terms[i].n_levels * gram.terms[i].width
    rows = {i: _row_entries(gram, i, chain[chain.index(i) + 1 :], tail, starts) for i in chain}
    stages = []
    for number, i in enumerate(chain):
        indptr, columns, data = rows[i]
        later = chain[number + 1 :]
        own = sum(gram.terms[j].width for j in later)
        tail_start = indptr[:-1] + own
        parents = []
        at = 0
        for j in later:
            p_indptr, p_columns, _ = rows[j]
            sorted_keys = _parent(
                gram,
                indptr,
                _order_key(columns, r_raw, offset),
                i,
                j,
                chain.index(j),
                p_indptr,
                _order_key(p_columns, r_raw, offset),
                2 * offset,
            )
            parents.append(
                Parent(
                    sorted_keys.stage,
                    sorted_keys.level,
                    sorted_keys.order,
                    sorted_keys.start,
                    indptr[:-1] + at,
                    sorted_keys.position,
                )
            )
            at += gram.terms[j].width
        is_tail = columns < r_raw
        tail_entries = np.flatnonzero(is_tail)
        tail_columns = columns[tail_entries]
        by = np.argsort(tail_columns, kind="stable")
        colptr = np.concatenate([[0], np.cumsum(np.bincount(tail_columns, minlength=r_raw))]).astype(np.int64)
        levels = np.repeat(np.arange(gram.terms[i].n_levels, dtype=np.int32), np.diff(indptr))
        entry = tail_entries[by]
        stages.append(
            Stage(
                i,
                gram.terms[i].diagonal,
                gram.terms[i].dense,
                indptr,
                columns.astype(np.int32),
                data,
                tail_start,
                colptr,
                entry,
                levels[entry],
                tuple(parents),
                _multiplicity(gram.terms[i]),
            )
        )
    turned = {(j, k): transposed(b, gram.terms[k].n_levels) for (j, k), b in gram.cross.items()}
    return Structure(gram, tuple(stages), tail, _tail_base(gram, tail, r_raw), r_raw, turned)


def _multiplicity(term: TermBlock) -> np.ndarray:
    return np.ones(term.n_levels) if term.multiplicity is None else term.multiplicity


def _order_key(columns: np.ndarray, r_raw: int, n: int) -> np.ndarray:
    """A number that increases along a row: later stages (column >= r_raw) come before the tail."""
    return np.where(columns >= r_raw, columns - r_raw, columns + n)
