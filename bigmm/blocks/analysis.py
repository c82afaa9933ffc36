"""`analyse`: from the blocks of A to the `Structure` that factorizations walk through."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from bigmm.blocks.gram import Gram, TermBlock
from bigmm.blocks.structure import (
    Parent,
    Stage,
    Structure,
    TailTerm,
    by_column,
    cross,
    elimination_order,
    pointers,
    transposed,
)

SPARSE_CONTRAST = 0.1
"""Contrasts with a smaller share of non-zeros are kept sparse (treatment contrasts of many levels)."""


@dataclass(frozen=True, slots=True)
class _Columns:
    """Numbers of global scalar columns: the first of each term; r_raw of the tail; total."""

    first: dict[int, int]
    r_raw: int
    total: int

    def keys(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Numbers that increase along sorted rows: later stages (column >= r_raw) come before the tail."""
        # A remainder in NumPy has the sign of the divisor, so columns of the tail land behind those of the stages.
        return rows * self.total + (columns - self.r_raw) % self.total


@dataclass(frozen=True, slots=True)
class _Rows:
    """Scalar columns that each level of a term touches, as CSR: indptr (q + 1,), columns (nnz,) int64, data (nnz,
    k)."""

    indptr: np.ndarray
    columns: np.ndarray
    data: np.ndarray

    @property
    def level(self) -> np.ndarray:
        """(nnz,) int64 the level of each entry."""
        return np.repeat(np.arange(len(self.indptr) - 1), np.diff(self.indptr))


def analyse(gram: Gram, dense_tail: bool = True, order: tuple[list[int], list[int]] | None = None) -> Structure:
    """Choose the elimination order and lay out the sparse columns of every stage.

    Without ``dense_tail`` no matrix over the tail is made (base is empty): the Krylov solver applies it instead.
    order: (chain, tail) where it is not the usual one.
    """
    chain, tail_terms = order or elimination_order(gram)
    tail = place_tail(gram, tail_terms)
    columns = _number(gram, chain, tail)
    rows = [_touched(gram, term, [*chain[number + 1 :], *tail_terms], columns) for number, term in enumerate(chain)]
    stages = tuple(_stage(gram, chain, rows, number, columns) for number in range(len(chain)))
    turned = {(j, k): transposed(block, gram.terms[k].n_levels) for (j, k), block in gram.cross.items()}
    base = _tail_base(gram, tail, columns.r_raw) if dense_tail else np.zeros((0, 0))
    return Structure(gram, stages, tail, base, columns.r_raw, turned)


def _size(term: TermBlock) -> int:
    return term.n_levels * term.width


def place_tail(gram: Gram, tail_terms: Sequence[int]) -> tuple[TailTerm, ...]:
    """The terms' raw columns side by side, in the given order."""
    placed, offset = [], 0
    for i in tail_terms:
        t = gram.terms[i]
        placed.append(TailTerm(i, offset, t.n_levels, t.width, t.penalized, _contrast(t)))
        offset += _size(t)
    return tuple(placed)


def _contrast(term: TermBlock) -> Any:
    if term.contrast is None or np.count_nonzero(term.contrast) > SPARSE_CONTRAST * term.contrast.size:
        return term.contrast
    return sp.csr_array(term.contrast)


def _number(gram: Gram, chain: Sequence[int], tail: tuple[TailTerm, ...]) -> _Columns:
    first = {t.term: t.offset for t in tail}
    r_raw = position = tail[-1].stop if tail else 0
    for i in chain:
        first[i] = position
        position += _size(gram.terms[i])
    return _Columns(first, r_raw, position)


def _touched(gram: Gram, term: int, later: Sequence[int], columns: _Columns) -> _Rows:
    """The scalar columns of all later terms, level by level, in the order of ``later`` within a level."""
    block = gram.terms[term]
    pieces = [_pair_columns(gram, term, other, columns.first[other]) for other in later]
    if not pieces:
        return _Rows(np.zeros(block.n_levels + 1, np.int64), np.zeros(0, np.int64), np.zeros((0, block.width)))
    level, column, data = (np.concatenate([piece[i] for piece in pieces]) for i in range(3))
    if len(pieces) > 1:  # each piece is sorted by level; a stable sort keeps the order of the pieces within a level
        order = np.argsort(level, kind="stable")
        level, column, data = level[order], column[order], data[order]
    return _Rows(pointers(level, block.n_levels), column, np.ascontiguousarray(data))


def _pair_columns(gram: Gram, term: int, other: int, first: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per scalar column of ``other`` that a level of ``term`` touches: (level, global column, data (., k))."""
    pair, width = cross(gram, term, other), gram.terms[other].width
    level = np.repeat(np.arange(gram.terms[term].n_levels), np.diff(pair.indptr) * width)
    column = (first + pair.indices.astype(np.int64)[:, None] * width + np.arange(width)).ravel()
    return level, column, pair.data.transpose(0, 2, 1).reshape(len(column), -1)


def _stage(gram: Gram, chain: list[int], rows: list[_Rows], number: int, columns: _Columns) -> Stage:
    term, rows_here = gram.terms[chain[number]], rows[number]
    from_stages = sum(gram.terms[i].width for i in chain[number + 1 :])  # one level of each, by nesting
    return Stage(
        chain[number],
        term.diagonal,
        term.dense,
        rows_here.indptr,
        # The entries are the largest arrays of a model; int32 halves what the hottest loops read of them.
        rows_here.columns.astype(np.int32),
        rows_here.data,
        rows_here.indptr[:-1] + from_stages,
        *_by_column(rows_here, columns.r_raw),
        tuple(_parents(gram, chain, rows, number, columns)),
        np.ones(term.n_levels) if term.multiplicity is None else term.multiplicity,
    )


def _by_column(rows: _Rows, r_raw: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(colptr, entry, level) of the entries in the tail, sorted by column."""
    colptr, entry, level = by_column(rows.indptr, rows.columns, max(r_raw, int(rows.columns.max(initial=-1)) + 1))
    # Columns from r_raw on are those of later stages, whose entries come behind the tail's in this order.
    tail = colptr[r_raw]
    return colptr[: r_raw + 1], entry[:tail], level[:tail]


def _parents(gram: Gram, chain: list[int], rows: list[_Rows], number: int, columns: _Columns) -> Iterator[Parent]:
    block = rows[number].indptr[:-1]
    for later in range(number + 1, len(chain)):
        above = gram.terms[chain[later]]
        level = cross(gram, chain[number], chain[later]).indices.astype(np.int32)
        order = np.argsort(level, kind="stable")
        position = _positions(rows[number], rows[later], level, columns)
        yield Parent(later, level, order, pointers(level, above.n_levels), block, position)
        # A row begins with one level of each later stage, nearest first, so the parents' columns follow one another.
        block = block + above.width


def _positions(child: _Rows, parent: _Rows, parent_level: np.ndarray, columns: _Columns) -> np.ndarray:
    """(nnz,) where each entry of a child's row lands in its parent's row, -1 where that has no such column."""
    parent_keys = columns.keys(parent.level, parent.columns)
    child_keys = columns.keys(parent_level[child.level].astype(np.int64), child.columns)
    # The -1 that is appended below equals no key; it answers for child keys beyond the parent's last one.
    entries = np.searchsorted(parent_keys, child_keys)
    return np.where(np.append(parent_keys, -1)[entries] == child_keys, entries, -1)


def _tail_base(gram: Gram, tail: tuple[TailTerm, ...], r_raw: int) -> np.ndarray:
    m = gram.xy.shape[0]
    base = np.zeros((r_raw + m, r_raw + m))
    base[r_raw:, r_raw:] = gram.xy
    for number, t in enumerate(tail):
        block, rows_here = gram.terms[t.term], _places(t, np.arange(t.n_levels))
        base[rows_here[:, :, None], rows_here[:, None, :]] = block.diagonal
        base[t.offset : t.stop, r_raw:] = block.dense.reshape(-1, m)
        base[r_raw:, t.offset : t.stop] = block.dense.reshape(-1, m).T
        for other in tail[number + 1 :]:
            pair = cross(gram, t.term, other.term)
            rows = _places(t, np.repeat(np.arange(t.n_levels), np.diff(pair.indptr)))[:, :, None]
            columns = _places(other, pair.indices)[:, None, :]
            # The same broadcast index with its two parts exchanged writes the transposed block.
            base[rows, columns] = base[columns, rows] = pair.data
    return base


def _places(t: TailTerm, levels: np.ndarray) -> np.ndarray:
    """(n, k) raw columns of these levels."""
    return t.offset + levels[:, None] * t.width + np.arange(t.width)
