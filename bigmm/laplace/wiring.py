"""Which numbers of a row go where: the flat layout that the row kernels share with the blocks of A."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bigmm.blocks import CrossBlock, Gram
from bigmm.families import Family
from bigmm.laplace.shards import Shard


@dataclass(frozen=True, slots=True)
class Wiring:
    """The pattern of a model's blocks and its flat coordinates.

    pattern: a Gram with the right levels, widths and entries; xc (p,), zc (sum of widths,) column numbers;
    width (T,); start, diagonal_start, cross_start: where each term's (pair's) numbers begin; pairs: (j, k) in order.
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

    def dense_start(self, m: int) -> np.ndarray:
        """Where each term's (q, k, m) numbers begin."""
        return _starts(self.width * self.n_levels * m)

    def model(self, family: Family, m: int) -> tuple:
        """The tuple that the row kernels take."""
        first, second = (np.array([pair[i] for pair in self.pairs], np.int64) for i in (0, 1))
        return (
            family.family_id,
            family.link_id,
            self.xc,
            self.zc,
            self.width,
            self.start,
            self.diagonal_start,
            self.dense_start(m),
            first,
            second,
            self.cross_start,
        )

    def terms(self, flat: np.ndarray) -> tuple[np.ndarray, ...]:
        """A flat vector over random effects as (q, k) per term."""
        return tuple(
            flat[s : s + q * k].reshape(q, k) for s, q, k in zip(self.start, self.n_levels, self.width, strict=True)
        )

    def flat(self, terms) -> np.ndarray:
        """(q, k) arrays per term as one vector."""
        return np.concatenate([np.ravel(t) for t in terms]) if len(terms) else np.zeros(0)


def _starts(sizes: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(sizes)])[:-1].astype(np.int64)


def wire(pattern: Gram, xc: np.ndarray, covariates: list[tuple[int, ...]]) -> Wiring:
    """The flat layout of a pattern; ``covariates``: column numbers per term, in the order of the pattern's terms."""
    width = np.array([t.width for t in pattern.terms], np.int64)
    n_levels = np.array([t.n_levels for t in pattern.terms], np.int64)
    pairs = tuple(sorted(pattern.cross))
    return Wiring(
        pattern,
        np.asarray(xc, np.int64),
        np.array([c for term in covariates for c in term], np.int64),
        width,
        n_levels,
        _starts(width * n_levels),
        _starts(width * width * n_levels),
        _starts(np.array([pattern.cross[pair].data.size for pair in pairs], np.int64)),
        pairs,
    )


@dataclass(frozen=True, slots=True)
class Rows:
    """A shard ready for the row kernels: refs (T, n) level numbers of the pattern, entries (n_pairs, n) int64."""

    columns: np.ndarray
    y: np.ndarray
    w: np.ndarray
    offset: np.ndarray
    refs: np.ndarray
    entries: np.ndarray

    def arrays(self) -> tuple:
        return self.columns, self.y, self.w, self.offset, self.refs, self.entries


def ready_rows(shard: Shard, wiring: Wiring, groupings: list[int], places: list[np.ndarray]) -> Rows:
    """Number a shard's levels as the pattern does (``places``: per term, global level -> kept level) and find its
    pairs."""
    refs = np.stack([place[shard.refs[g]] for g, place in zip(groupings, places, strict=True)]).astype(np.int32)
    entries = np.empty((len(wiring.pairs), shard.rows), np.int64)
    for number, (j, k) in enumerate(wiring.pairs):
        entries[number] = find_entries(wiring.pattern.cross[j, k], int(wiring.n_levels[k]), refs[j], refs[k])
    return Rows(shard.columns, shard.y, shard.w, shard.offset, refs, entries)


def find_entries(block: CrossBlock, n_columns: int, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The entry of the block-CSR at (rows, columns), all of which are there."""
    owner = np.repeat(np.arange(len(block.indptr) - 1, dtype=np.int64), np.diff(block.indptr))
    keys = owner * n_columns + block.indices
    return np.searchsorted(keys, rows.astype(np.int64) * n_columns + columns)


def gram_of(wiring: Wiring, diagonal, dense, cross, xy) -> Gram:
    """The flat sums as blocks; xy (m, m)."""
    m = len(xy)
    dense_start = wiring.dense_start(m)
    terms = []
    for t, block in enumerate(wiring.pattern.terms):
        q, k = block.n_levels, block.width
        at, at_dense = wiring.diagonal_start[t], dense_start[t]
        terms.append(
            replace(
                block,
                diagonal=diagonal[at : at + q * k * k].reshape(q, k, k),
                dense=dense[at_dense : at_dense + q * k * m].reshape(q, k, m),
                basis=np.eye(k),
            )
        )
    blocks = {}
    for pair, at in zip(wiring.pairs, wiring.cross_start, strict=True):
        old = wiring.pattern.cross[pair]
        blocks[pair] = CrossBlock(old.indptr, old.indices, cross[at : at + old.data.size].reshape(old.data.shape))
    p = m - 1
    return replace(
        wiring.pattern,
        terms=tuple(terms),
        cross=blocks,
        xy=xy,
        x_basis=np.eye(p),
        one=None,
        y_shift=0.0,
        active=np.ones(p, bool),
        fixed_order=np.arange(p),
        sum_log_w=0.0,
    )
