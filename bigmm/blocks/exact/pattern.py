"""The selected inverse between levels that meet in some row, in the orientation of `Gram.cross`."""

from __future__ import annotations

import numpy as np

from bigmm.blocks.structure import Stage, Structure, cross


def pair_inverses(structure: Structure, columns: dict[int, np.ndarray], tail: np.ndarray) -> dict:
    """{(j, k): (nnz, k_j, k_k)}; columns: per stage's term (nnz, k) inverse on its entries; tail: unscaled, raw
    columns."""
    stages = {stage.term: stage for stage in structure.stages}
    offsets = {t.term: t.offset for t in structure.tail}
    out = {}
    for j, k in structure.gram.cross:
        if j in stages:
            out[j, k] = _from_stage(structure, stages[j], k, columns[j])
        elif k in stages:
            turned = _from_stage(structure, stages[k], j, columns[k])
            block = structure.gram.cross[j, k]
            # A stable sort of the pair's columns gives the order in which the turned pair has its entries.
            back = np.empty_like(turned.transpose(0, 2, 1))
            back[np.argsort(block.indices, kind="stable")] = turned.transpose(0, 2, 1)
            out[j, k] = back
        else:
            out[j, k] = _from_tail(structure, j, k, offsets, tail)
    return out


def _from_stage(structure: Structure, stage: Stage, other: int, columns: np.ndarray) -> np.ndarray:
    """A stage's entries for one neighbour: they stand side by side in each row, neighbours in the order of
    elimination."""
    gram = structure.gram
    pair = cross(gram, stage.term, other)
    before = np.zeros(stage.n_levels, np.int64)
    for neighbour in _neighbours(structure, stage):
        if neighbour == other:
            break
        before += np.diff(cross(gram, stage.term, neighbour).indptr) * gram.terms[neighbour].width
    rows = np.repeat(np.arange(stage.n_levels), np.diff(pair.indptr))
    width = gram.terms[other].width
    first = stage.indptr[rows] + before[rows] + (np.arange(len(rows)) - pair.indptr[rows]) * width
    return columns[first[:, None] + np.arange(width)].transpose(0, 2, 1)


def _neighbours(structure: Structure, stage: Stage) -> list[int]:
    chain = [s.term for s in structure.stages]
    # The order of a row: later stages, then the terms of the tail (`analysis._touched`).
    return chain[chain.index(stage.term) + 1 :] + [t.term for t in structure.tail]


def _from_tail(structure: Structure, j: int, k: int, offsets: dict[int, int], tail: np.ndarray) -> np.ndarray:
    gram = structure.gram
    pair = gram.cross[j, k]
    wide_j, wide_k = gram.terms[j].width, gram.terms[k].width
    rows = np.repeat(np.arange(gram.terms[j].n_levels), np.diff(pair.indptr))
    i = offsets[j] + rows[:, None] * wide_j + np.arange(wide_j)
    c = offsets[k] + pair.indices[:, None].astype(np.int64) * wide_k + np.arange(wide_k)
    return tail[i[:, :, None], c[:, None, :]]
