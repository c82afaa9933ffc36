"""Which numbers of a row go where: the flat layout that the row kernels share with the blocks of A."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bigmm.blocks import CrossBlock, Gram
from bigmm.families import Family
from bigmm.kernel import njit
from bigmm.laplace.records import KernelModel, KernelPoint, KernelRows
from bigmm.shards.shard import Shard


@dataclass(frozen=True, slots=True)
class BlockLayout:
    """The pattern of a model's blocks and its flat coordinates.

    Attributes
    ----------
    pattern : a Gram with the right levels, widths and entries, whose numbers are zeros.
    xc : (p,) column numbers of X.
    zc : (sum of widths,) column numbers of Z, term by term.
    width, n_levels : (T,) covariates and levels of each term.
    start, diagonal_start : (T,) where the numbers of each term begin in flat vectors and diagonals.
    cross_start : (n_pairs,) where the numbers of each pair begin.
    pairs : (j, k) in increasing order.
    """

    pattern: Gram
    xc: np.ndarray
    zc: np.ndarray
    width: np.ndarray
    n_levels: np.ndarray
    start: np.ndarray
    diagonal_start: np.ndarray
    cross_start: np.ndarray
    pairs: tuple[tuple[int, int], ...]

    @property
    def q(self) -> int:
        """Number of random effects."""
        return int((self.width * self.n_levels).sum())

    @property
    def entries(self) -> int:
        """Numbers in all cross blocks."""
        return sum(block.data.size for block in self.pattern.cross.values())

    def dense_start(self, m: int) -> np.ndarray:
        """Where each term's (q, k, m) numbers begin."""
        return _starts(self.width * self.n_levels * m)

    def rules(self, family: Family) -> RowLayout:
        """The part of the layout that tasks on shards take: it is small, whatever the number of levels."""
        first, second = (np.array([pair[i] for pair in self.pairs], np.int64) for i in (0, 1))
        return RowLayout(family.family_id, family.link_id, self.xc, self.zc, self.width, first, second)

    def terms(self, flat: np.ndarray) -> tuple[np.ndarray, ...]:
        """A flat vector over random effects as (q, k) per term."""
        return tuple(
            # Views, not copies: sums over shards fill the flat vector after its terms were handed out.
            flat[s : s + q * k].reshape(q, k)
            for s, q, k in zip(self.start, self.n_levels, self.width, strict=True)
        )

    def flat(self, terms) -> np.ndarray:
        """(q, k) arrays per term as one vector."""
        return np.concatenate([np.ravel(t) for t in terms]) if len(terms) else np.zeros(0)


def _starts(sizes: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(sizes)])[:-1].astype(np.int64)


def block_layout(pattern: Gram, xc: np.ndarray, covariates: list[tuple[int, ...]]) -> BlockLayout:
    """The flat layout of a pattern; ``covariates``: column numbers per term, in the order of the pattern's terms."""
    width = np.array([t.width for t in pattern.terms], np.int64)
    n_levels = np.array([t.n_levels for t in pattern.terms], np.int64)
    pairs = tuple(sorted(pattern.cross))
    return BlockLayout(
        without_numbers(pattern),
        np.asarray(xc, np.int64),
        np.array([c for term in covariates for c in term], np.int64),
        width,
        n_levels,
        _starts(width * n_levels),
        _starts(width * width * n_levels),
        _starts(np.array([pattern.cross[pair].data.size for pair in pairs], np.int64)),
        pairs,
    )


def without_numbers(gram: Gram) -> Gram:
    """The same levels, widths and entries; cross blocks are zeros that take no memory."""
    # A broadcast zero has the shape of the data, but strides of 0.
    nothing = np.zeros(1)
    cross = {
        pair: CrossBlock(b.indptr, b.indices, np.broadcast_to(nothing, b.data.shape)) for pair, b in gram.cross.items()
    }
    return replace(gram, cross=cross)


# ----------------------------------------------------------------------------------------------------- rows of a shard


@dataclass(frozen=True, slots=True)
class NumberedRows:
    """A shard ready for the row kernels.

    Attributes
    ----------
    columns, y, w, offset : as in `Shard`.
    refs : (T, n) level numbers of the pattern.
    entries : (n_pairs, n) entries of each pair's block, counted from the first that the shard has.
    windows, entry_windows : (T, 2) and (n_pairs, 2) first level (entry) of each term (pair) in the shard, and how many
        there are from it to the last. The term that cuts the shards has small windows, so a shard's sums are small.
    """

    columns: np.ndarray
    y: np.ndarray
    w: np.ndarray
    offset: np.ndarray
    refs: np.ndarray
    entries: np.ndarray
    windows: np.ndarray
    entry_windows: np.ndarray

    def record(self) -> KernelRows:
        """The rows as a record of the kernels."""
        return KernelRows(self.columns, self.y, self.w, self.offset, self.refs, self.entries)


def ready_rows(shard: Shard, wiring: BlockLayout, groupings: list[int], places: list[np.ndarray]) -> NumberedRows:
    """Number a shard's levels as the pattern does (``places``: per term, global level -> kept level) and find its
    pairs."""
    # int32 is half of int64, and the one type of level numbers that the kernels are compiled for.
    refs = np.empty((len(groupings), shard.rows), np.int32)
    for t, (g, place) in enumerate(zip(groupings, places, strict=True)):
        refs[t] = place[shard.refs[g]]
    windows = np.array([_window(level_numbers) for level_numbers in refs], np.int64).reshape(-1, 2)
    entries = np.empty((len(wiring.pairs), shard.rows), np.int32)
    entry_windows = np.zeros((len(wiring.pairs), 2), np.int64)
    for number, (j, k) in enumerate(wiring.pairs):
        block = wiring.pattern.cross[j, k]
        entry_numbers = find_entries(block.indptr, block.indices, refs[j], refs[k])
        entry_windows[number] = _window(entry_numbers)
        # Counted from the window's first entry, which keeps the numbers small enough for int32.
        np.subtract(entry_numbers, entry_windows[number, 0], out=entries[number], casting="unsafe")
    y = shard.y.astype(np.float32)
    y = y if np.array_equal(y, shard.y) else shard.y  # counts and zeros and ones take half
    return NumberedRows(shard.columns, y, shard.w, shard.offset, refs, entries, windows, entry_windows)


def _window(numbers: np.ndarray) -> tuple[int, int]:
    if not len(numbers):
        return 0, 0
    first = int(numbers.min())
    return first, int(numbers.max()) + 1 - first


@njit(cache=True, nogil=True)
def find_entries(indptr, indices, rows, columns):
    """(n,) int64 the entry of the block-CSR at (rows, columns), all of which are there."""
    # Columns of a block row increase, so bisection finds the entry. It exists, so no test for absence is here.
    out = np.empty(len(rows), np.int64)
    for i in range(len(rows)):
        low, high, target = indptr[rows[i]], indptr[rows[i] + 1] - 1, columns[i]
        while low < high:
            middle = (low + high) >> 1
            if indices[middle] < target:
                low = middle + 1
            else:
                high = middle
        out[i] = low
    return out


@dataclass(frozen=True, slots=True)
class RowLayout:
    """A layout without its pattern.

    Attributes
    ----------
    family, link : numbers of both.
    xc, zc, width : as in `BlockLayout`.
    first, second : (n_pairs,) the terms of each pair.
    """

    family: int
    link: int
    xc: np.ndarray
    zc: np.ndarray
    width: np.ndarray
    first: np.ndarray
    second: np.ndarray

    def record(self, rows: NumberedRows, m: int) -> KernelModel:
        """The layout as a record of the kernels, over the shard's windows alone; m: columns of [X y*]."""
        count, begin, k = rows.windows[:, 1], rows.windows[:, 0], self.width
        # Starts are moved by the windows: with the pattern's level number a row then addresses the shard's own arrays.
        start, diagonal, dense = (_starts(count * size) - begin * size for size in (k, k * k, k * m))
        # Entries of rows are counted from their window already.
        cross = _starts(rows.entry_windows[:, 1] * k[self.first] * k[self.second])
        columns = self.family, self.link, self.xc, self.zc
        return KernelModel(*columns, k, start, diagonal, dense, self.first, self.second, cross)


@dataclass(frozen=True, slots=True)
class LinearPredictor:
    """A linear predictor X beta + Z effects, with beta (p,) and effects per term (q, k).

    observed says whether working weights at it are the observed ones, phi is the dispersion.
    """

    beta: np.ndarray
    effects: Sequence[np.ndarray]
    phi: float
    observed: bool

    def record(self, rows: NumberedRows) -> KernelPoint:
        """The predictor as a record of the kernels, with the effects of the shard's windows alone."""
        return KernelPoint(self.beta, local(rows, self.effects), float(self.phi), bool(self.observed))


def local(rows: NumberedRows, terms: Sequence[np.ndarray], shape: tuple[int, ...] = (-1,)) -> np.ndarray:
    """The shard's levels of arrays per term (q, ...), each in that shape, one after the other."""
    return np.concatenate(
        [
            np.ascontiguousarray(values[begin : begin + count]).reshape(shape)
            for (begin, count), values in zip(rows.windows, terms, strict=True)
        ]
    )


def gram_of(wiring: BlockLayout, diagonal, dense, cross, xy) -> Gram:
    """The flat sums as blocks; xy (m, m)."""
    m = len(xy)
    dense_start = wiring.dense_start(m)
    terms = []
    for t, block in enumerate(wiring.pattern.terms):
        q, k = block.n_levels, block.width
        first, first_dense = wiring.diagonal_start[t], dense_start[t]
        terms.append(
            replace(
                block,
                diagonal=diagonal[first : first + q * k * k].reshape(q, k, k),
                dense=dense[first_dense : first_dense + q * k * m].reshape(q, k, m),
                # The engine's square roots hold the basis T of the working columns already (`coordinates`).
                basis=np.eye(k),
            )
        )
    blocks = {}
    for pair, first in zip(wiring.pairs, wiring.cross_start, strict=True):
        old = wiring.pattern.cross[pair]
        blocks[pair] = CrossBlock(old.indptr, old.indices, cross[first : first + old.data.size].reshape(old.data.shape))
    p = m - 1
    return replace(
        wiring.pattern,
        terms=tuple(terms),
        cross=blocks,
        xy=xy,
        # The columns of X are those that the original rows identify: the pattern has dropped the others.
        x_basis=np.eye(p),
        one=None,
        # The working response is summed as it is.
        y_shift=0.0,
        active=np.ones(p, bool),
        fixed_order=np.arange(p),
        sum_log_w=0.0,
    )
