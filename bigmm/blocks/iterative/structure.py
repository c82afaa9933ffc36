"""A `Structure` for the iterative solver: the stages' rows alone, nothing sorted by column and nothing turned.

With two large crossed factors, the usual case, it costs no memory at all: the only cross block is the stage's rows as
it stands. Conjugate gradients would converge slowly on nested terms: as many as can be are eliminated, and those that
are left are chained for the `preconditioner`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numba import njit

from bigmm.blocks.analysis import analyse, place_tail
from bigmm.blocks.exact.factor import GRAIN
from bigmm.blocks.gram import Gram
from bigmm.blocks.parallel import run
from bigmm.blocks.structure import Stage, Structure, TailTerm, containing_chain, cross, is_nested

Order = tuple[list[int], list[int]]


def iterative_order(gram: Gram) -> Order:
    """(terms eliminated level by level, terms of the tail): of all chains of nested terms the one that leaves the
    fewest nested pairs to the tail, then the one with most levels."""
    penalized = [i for i, t in enumerate(gram.terms) if t.penalized]
    nested = {pair for pair in gram.cross if pair[0] in penalized and pair[1] in penalized and _nested(gram, *pair)}
    best: tuple[int, list[int]] | None = None
    for first in penalized:
        chain = [first]
        for other in penalized:
            if other > chain[-1] and (chain[-1], other) in nested:
                chain.append(other)
        unplaced = sum(j not in chain and k not in chain for j, k in nested)
        # Terms come by decreasing number of levels: with `<` the largest of equal candidates wins.
        if best is None or unplaced < best[0]:
            best = unplaced, chain
    chain = [] if best is None else best[1]
    return chain, [i for i in range(len(gram.terms)) if i not in chain]


def _nested(gram: Gram, j: int, k: int) -> bool:
    return is_nested(gram.cross[j, k])


@dataclass(frozen=True, slots=True)
class TailChain:
    """Terms of the tail, each nested in the next: their places there, and the `Structure` of them alone, with one
    column of zeros for X and y."""

    places: tuple[TailTerm, ...]
    alone: Structure


@dataclass(frozen=True, slots=True)
class IterativeStructure:
    """The analysis of a model for the iterative solver.

    whole is the model without a dense tail, chain the stages' terms alone, for their own part of the inverse, and tail
    the chains of the tail's terms. Of a chain only the pattern counts: its numbers are those of the gram analysed.
    """

    whole: Structure
    chain: Structure
    tail: tuple[TailChain, ...]


def analyse_iterative(gram: Gram, order: Order | None = None) -> IterativeStructure:
    """Symbolic analysis for the iterative solver; order: see `row_structure`."""
    whole = row_structure(gram, order)
    chain = analyse(gram_of_terms(gram, [stage.term for stage in whole.stages]))
    unplaced, chains = {t.term: t for t in whole.tail}, []
    while unplaced:
        terms = containing_chain(list(unplaced), lambda j, k: (j, k) in gram.cross and is_nested(gram.cross[j, k]))
        chains.append(TailChain(tuple(unplaced.pop(term) for term in terms), _alone(gram, terms)))
    return IterativeStructure(whole, chain, tuple(chains))


def _alone(gram: Gram, terms: Sequence[int]) -> Structure:
    chain_alone = gram_of_terms(gram, terms)
    blocks = (replace(t, dense=np.zeros((t.n_levels, t.width, 1))) for t in chain_alone.terms)
    return analyse(replace(chain_alone, terms=tuple(blocks), xy=np.zeros((1, 1))))


def row_structure(gram: Gram, order: Order | None = None) -> Structure:
    """Symbolic analysis of the whole model without a dense tail; stages have rows (indptr, columns, data) only.

    order: where it is not the best one for the model, but that of another model it is compared with.
    """
    chain, others = order or iterative_order(gram)
    none = np.zeros(0, np.int64)
    if len(chain) == 1:
        tail = place_tail(gram, others)
        return Structure(
            gram, (_stage(gram, chain[0], tail),), tail, np.zeros((0, 0)), tail[-1].stop if tail else 0, {}
        )
    whole = analyse(gram, dense_tail=False, order=(chain, others))
    stages = (replace(s, colptr=none, entry=none, level=none.astype(np.int32)) for s in whole.stages)
    return replace(whole, stages=tuple(stages), transposed={})


def gram_of_terms(gram: Gram, chosen: Sequence[int]) -> Gram:
    """The model of these terms alone, in this order."""
    place = {term: number for number, term in enumerate(chosen)}
    pairs = {(place[j], place[k]): b for (j, k), b in gram.cross.items() if j in place and k in place}
    return replace(gram, terms=tuple(gram.terms[term] for term in chosen), cross=pairs)


def _stage(gram: Gram, number: int, tail: Sequence[TailTerm]) -> Stage:
    term, none = gram.terms[number], np.zeros(0, np.int64)
    indptr, columns, data = _rows(gram, number, tail)
    return Stage(
        number,
        term.diagonal,
        term.dense,
        indptr,
        columns,
        data,
        # No later stage: a row's columns are the tail's from its first entry on.
        indptr[:-1],
        none,
        none,
        none.astype(np.int32),
        (),
        np.ones(term.n_levels) if term.multiplicity is None else term.multiplicity,
    )


def _rows(gram: Gram, number: int, tail: Sequence[TailTerm]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(indptr (q + 1,), columns (nnz,) int32, data (nnz, k)) of one term's levels over the tail's scalar columns."""
    term = gram.terms[number]
    pairs = [cross(gram, number, t.term) for t in tail]
    if len(tail) == 1 and tail[0].width == 1:
        # The pair's own arrays without a copy: they are the largest of the model.
        return pairs[0].indptr, pairs[0].indices, pairs[0].data.reshape(-1, term.width)
    indptr = np.zeros(term.n_levels + 1, np.int64)
    for pair, t in zip(pairs, tail, strict=True):
        indptr += pair.indptr * t.width
    columns, data = np.empty(indptr[-1], np.int32), np.empty((indptr[-1], term.width))
    start = indptr[:-1].copy()
    for pair, t in zip(pairs, tail, strict=True):
        run(_place, term.n_levels, GRAIN, pair.indptr, pair.indices, pair.data, start, t.offset, columns, data)
        start += np.diff(pair.indptr) * t.width
    return indptr, columns, data


@njit(cache=True, nogil=True)
def _place(lo, hi, indptr, indices, pair, start, offset, columns, data):
    """Block-CSR pair (nnz, k, width) as scalar columns from offset on, for levels lo..hi from entry start[l] on."""
    k, width = pair.shape[1], pair.shape[2]
    for i in range(lo, hi):
        position = start[i]
        for e in range(indptr[i], indptr[i + 1]):
            for b in range(width):
                columns[position] = offset + indices[e] * width + b
                for a in range(k):
                    data[position, a] = pair[e, a, b]
                position += 1
