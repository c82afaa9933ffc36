"""The symbolic side of the factorization: which terms are eliminated level by level, and what stays for the dense tail.

The largest term is eliminated first: its part of M is block-diagonal, so that costs no fill in its own columns. A term
that contains the one just eliminated (nesting: every level of the former lies in one level of the latter) stays
block-diagonal and is eliminated level by level too. Whatever is left fills in (a random bipartite graph is an expander:
Papaspiliopoulos, Roberts and Zanella 2020) and goes to one dense symmetric *tail*, together with the fixed effects and
the response.

All arrays are in *unscaled* coordinates: Lambda is applied to whole Schur complements, not to entries of A.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from bigmm.blocks.gram import CrossBlock, Gram


class Parent(NamedTuple):
    """A later stage that contains this one. Kernels take the record as it is.

    Attributes
    ----------
    stage: index of that stage.
    level: (q,) int32, the parent's level of each level.
    order, start: int64, levels grouped by parent: the children of parent P are order[start[P]:start[P + 1]].
    block: (q,) int64, the entry of this stage's columns where the parent's columns begin.
    position: (nnz,) int64, for every entry whose column also belongs to the parent's row, its entry there, else -1.
    """

    stage: int
    level: np.ndarray
    order: np.ndarray
    start: np.ndarray
    block: np.ndarray
    position: np.ndarray


class TailEntries(NamedTuple):
    """The entries of a stage in the tail, column by column; see `Stage`."""

    colptr: np.ndarray
    entry: np.ndarray
    level: np.ndarray
    tail_start: np.ndarray
    columns: np.ndarray


@dataclass(frozen=True, slots=True)
class Stage:
    """One term eliminated level by level, with its sparse columns (later stages first, then the tail) as CSR.

    Attributes
    ----------
    term: index of the term in the gram.
    diagonal, dense: (q, k, k) and (q, k, m) with m = p + 1, the level's part of A.
    indptr, columns, data: (q + 1,) int64, (nnz,) int32 global scalar columns and (nnz, k), the rows.
    tail_start: (q,) int64, the first entry of a row that is a tail column.
    colptr, entry, level: (r_raw + 1,) int64, (.,) int64 and (.,) int32, the tail's entries column by column.
    parents: later stages that contain this one, nearest first.
    multiplicity: (q,) number of levels that an entry stands for.
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
        """q, the number of levels."""
        return self.diagonal.shape[0]

    @property
    def width(self) -> int:
        """k, the number of covariates."""
        return self.diagonal.shape[1]

    @property
    def tail_entries(self) -> TailEntries:
        """The entries in the tail, as kernels take them."""
        return TailEntries(self.colptr, self.entry, self.level, self.tail_start, self.columns)

    @property
    def grain(self) -> int:
        """Levels that are worth a thread: fewer when each touches many columns."""
        # A function of the pattern alone: ranges, and with them the bits of sums, are the same on every machine.
        return max(256, 2048 // (1 + len(self.columns) // max(self.n_levels, 1)))


@dataclass(frozen=True, slots=True)
class TailTerm:
    """A term's place in the tail: raw columns offset .. offset + n_levels * width.

    contrast: None, or for an unpenalized factor (n_levels, m): a csr_array where most of it is zero, else an array.
    """

    term: int
    offset: int
    n_levels: int
    width: int
    penalized: bool
    contrast: Any

    @property
    def stop(self) -> int:
        """The raw column after the last one of the term."""
        return self.offset + self.n_levels * self.width


@dataclass(frozen=True, slots=True)
class Structure:
    """Everything about A that does not depend on theta.

    Global scalar columns are numbered 0..r_raw for the tail and from r_raw on for the stages, in their order.

    Attributes
    ----------
    stages, tail: terms that are eliminated level by level, and the others (penalized ones first).
    base: (r_raw + m, r_raw + m) float64, the tail's part of A before elimination, full symmetric, C order. The raw
        columns of the tail come first, then the p columns of X, and y.
    r_raw: number of raw columns of the tail.
    transposed: every cross block as seen from its second term.
    """

    gram: Gram
    stages: tuple[Stage, ...]
    tail: tuple[TailTerm, ...]
    base: np.ndarray
    r_raw: int
    transposed: dict[tuple[int, int], CrossBlock]

    @property
    def m(self) -> int:
        """Number of dense columns: those of X, and y."""
        return self.gram.xy.shape[0]

    def kinds(self) -> tuple[tuple[str, str], ...]:
        """(term, kind of storage) for every term, to be shown to the user."""
        stages = {s.term: "block-diagonal" + (", nested" if i else "") for i, s in enumerate(self.stages)}
        return tuple((t.name, stages.get(i, "dense")) for i, t in enumerate(self.gram.terms))


def transposed(block: CrossBlock, n_columns: int) -> CrossBlock:
    """The same pair of terms seen from the other one."""
    indptr, order, rows = by_column(block.indptr, block.indices, n_columns)
    # Kernels are compiled for C order; a transposed view would be a type of its own.
    return CrossBlock(indptr, rows, np.ascontiguousarray(block.data[order].transpose(0, 2, 1)))


def by_column(indptr: np.ndarray, columns: np.ndarray, n_columns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(colptr (n_columns + 1,) int64, entry (nnz,) int64, row (nnz,) int32) of a CSR pattern read column by column.

    Within a column the rows increase. A counting sort (SciPy's CSR to CSC), since 25 million entries are no rarity.
    """
    # Half the memory of the sort, where 32 bits suffice.
    small = np.int32 if len(columns) < 2**31 else np.int64
    numbered = sp.csr_array(
        (np.arange(len(columns)), columns.astype(small, copy=False), indptr.astype(small, copy=False)),
        shape=(len(indptr) - 1, n_columns),
    ).tocsc()
    # Kernels are compiled for one type of pointers, whichever type the sort had.
    return numbered.indptr.astype(np.int64), numbered.data, numbered.indices.astype(np.int32, copy=False)


def pointers(rows: np.ndarray, n_rows: int) -> np.ndarray:
    """(n_rows + 1,) int64 where each row's entries begin, once they are sorted by row."""
    # `minlength` counts the last rows too when they have no entries.
    return np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n_rows))]).astype(np.int64)


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
    # A fixed factor is never a stage: no identity is added to its blocks, so that they may be singular.
    penalized = [i for i, t in enumerate(gram.terms) if t.penalized]
    chain = containing_chain(penalized, lambda i, k: is_nested(cross(gram, i, k)))
    return chain, [i for i in range(len(gram.terms)) if i not in chain]


def containing_chain(terms: Sequence[int], nested: Callable[[int, int], bool]) -> list[int]:
    """The first of the terms, one that contains it, one that contains that, ...; nested(i, k): is i within k?"""
    chain = list(terms[:1])
    while chain:
        candidates = [i for i in terms if i not in chain]
        # Terms come by decreasing number of levels, so the first that contains the end of the chain is the nearest one.
        containing = next((i for i in candidates if nested(chain[-1], i)), None)
        if containing is None:
            break
        chain.append(containing)
    return chain
