"""Levels with identical diagonal blocks share one factor (docs/theory/aggregation.md), so their outer products are
summed once.

With one grouping factor every criterion, gradient and curvature is a sum over levels of bilinear forms in the rows
R_l = Z_l'W[X y] whose matrix depends on the diagonal block alone. Levels of one diagonal block are therefore replaced
by at most k (p + 1) rows with the same second moments; their log-determinants are counted by ``multiplicity``. A random
intercept over a million unweighted levels becomes a few hundred rows, exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numba import njit

from bigmm.blocks.gram import Gram, TermBlock

# Levels that are compared before all of them are sorted.
SAMPLE = 4096
WORTH = 4
"""Compress when the rows become this many times fewer."""


@dataclass(frozen=True, slots=True)
class Classes:
    """The d different diagonal blocks of one term, each with its levels.

    diagonal: (d, k, k) the blocks; counts: (d,) number of levels of each class; moments: (d, s, s) with s = k (p + 1),
    the sum of r r' over the levels of a class, where r is Z_l'W[X y] as one row.
    """

    diagonal: np.ndarray
    counts: np.ndarray
    moments: np.ndarray

    def merge(self, other: Classes) -> Classes:
        """The classes of the levels of both."""
        diagonal = np.concatenate([self.diagonal, other.diagonal])
        first, number = _distinct(diagonal)
        counts = np.zeros(len(first), np.int64)
        moments = np.zeros((len(first), *self.moments.shape[1:]))
        # `add.at` also adds where a class is in both operands; `+=` with an index array would keep one of the two.
        np.add.at(counts, number, np.concatenate([self.counts, other.counts]))
        np.add.at(moments, number, np.concatenate([self.moments, other.moments]))
        return Classes(diagonal[first], counts, moments)

    @property
    def is_worth(self) -> bool:
        """Are these enough fewer rows than levels?"""
        return len(self.counts) * self.moments.shape[1] * WORTH <= self.counts.sum()


def compress(gram: Gram) -> Gram:
    """The same criterion with fewer rows, or `gram` itself where that does not pay or does not apply."""
    if len(gram.terms) != 1 or not gram.terms[0].penalized:
        return gram
    groups = classes(gram.terms[0])
    if groups is None or not groups.is_worth:
        return gram
    return replace(gram, terms=(as_term(groups, gram.terms[0]),))


def classes(term: TermBlock) -> Classes | None:
    """The classes of a term's levels; None when they are clearly too many to be worth it."""
    # Scalar blocks are compared as plain numbers, which is cheap; only wider ones are sampled first.
    if term.width > 1 and not _often_equal(term):
        return None
    size = term.width * term.dense.shape[2]
    kinds, number = _distinct_blocks(term)
    if len(kinds) * WORTH > term.n_levels:
        return None
    moments = np.zeros((len(kinds), size, size))
    _sum_moments(number, term.dense.reshape(term.n_levels, size), moments)
    return Classes(term.diagonal[kinds], np.bincount(number, minlength=len(kinds)), moments)


def as_term(groups: Classes, term: TermBlock) -> TermBlock:
    """The term with the rows of the classes instead of its levels'."""
    size = groups.moments.shape[1]
    rows = _square_root(groups.moments).reshape(len(groups.counts) * size, term.width, -1)
    # The rows of a class share its levels equally, so that the multiplicities of a class add up to its count.
    diagonal = np.repeat(groups.diagonal, size, axis=0)
    return TermBlock(term.name, diagonal, rows, term.basis, multiplicity=np.repeat(groups.counts / size, size))


def _distinct_blocks(term: TermBlock) -> tuple[np.ndarray, np.ndarray]:
    """(first level of each distinct diagonal block, its number for every level (q,))."""
    flat = term.diagonal.reshape(term.n_levels, -1)
    if term.width == 1:
        values = flat[:, 0]
        top = values.max(initial=0.0)
        if top < 1 << 22 and np.array_equal(values, np.floor(values)):  # counts: no sort needed
            size = values.astype(np.int64)
            flags = np.bincount(size) > 0
            first = np.zeros(len(flags), np.int64)
            # Written from the last level to the first: of several levels with one count, the first is written last.
            first[size[::-1]] = np.arange(term.n_levels - 1, -1, -1)
            return first[flags], (np.cumsum(flags) - 1)[size]
    return _distinct(term.diagonal)


def _distinct(diagonal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(first of each distinct block, its number for every block of (q, k, k))."""
    flat = diagonal.reshape(len(diagonal), -1)
    keys = flat[:, 0] if flat.shape[1] == 1 else _keys(flat)
    _, first, number = np.unique(keys, return_index=True, return_inverse=True)
    return first, number


def _keys(flat: np.ndarray) -> np.ndarray:
    """One sortable value per row of a (q, s) array."""
    flat = np.ascontiguousarray(flat)
    # Rows are compared as bytes. 0.0 and -0.0 then make two classes of equal levels, which is slower but not wrong.
    return flat.view(np.dtype((np.void, flat.dtype.itemsize * flat.shape[1]))).ravel()


def _often_equal(term: TermBlock) -> bool:
    """Whether blocks of the first levels repeat. To sort millions of different ones costs more than an evaluation."""
    sample = _keys(term.diagonal[:SAMPLE].reshape(min(SAMPLE, term.n_levels), -1))
    return len(np.unique(sample)) <= len(sample) // 2


@njit(cache=True, nogil=True)
def _sum_moments(number, rows, out):
    """out[number[l]] += rows[l] rows[l]'; rows (q, s), out (d, s, s)."""
    s = rows.shape[1]
    for i in range(len(number)):
        d = number[i]
        for a in range(s):
            for b in range(s):
                out[d, a, b] += rows[i, a] * rows[i, b]


def _square_root(moments: np.ndarray) -> np.ndarray:
    """(d, s, s) rows Q with Q'Q = moments; columns are scaled first so that no direction is lost."""
    scale = np.sqrt(np.einsum("dii->di", moments))
    # A direction without moments stays zero; a division by its scale would make NaN of it.
    scale[scale == 0] = 1.0
    # Not Cholesky: a class of one level has moments of rank one.
    values, vectors = np.linalg.eigh(moments / scale[:, :, None] / scale[:, None, :])
    # Rounding can leave small negative eigenvalues.
    roots = np.sqrt(np.maximum(values, 0.0))
    return roots[:, :, None] * vectors.transpose(0, 2, 1) * scale[:, None, :]
