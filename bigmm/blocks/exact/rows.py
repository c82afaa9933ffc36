"""Quadratic forms of single rows with the inverse of Omega: the variance of predictions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bigmm.blocks.exact.coordinates import scale_rows
from bigmm.blocks.exact.factor import Factor, StageFactor, triangular
from bigmm.blocks.structure import Structure

# The right-hand sides are dense in the tail: so many rows are (r_raw, 1024) numbers.
ROWS_AT_ONCE = 1024


def row_quadratics(
    factor: Factor, x: np.ndarray, refs: tuple[np.ndarray, ...], z: tuple[np.ndarray, ...]
) -> np.ndarray:
    """[Lambda'z; x]'Omega^-1 [Lambda'z; x] for each row; x (n, f + p) factor columns first, refs and z per penalized
    term in the working basis; a level of -1 contributes nothing. Returns (n,)."""
    pieces = []
    for lo in range(0, len(x), ROWS_AT_ONCE):
        part = slice(lo, lo + ROWS_AT_ONCE)
        pieces.append(_row_quadratics(factor, x[part], [r[part] for r in refs], [a[part] for a in z]))
    return np.concatenate(pieces) if pieces else np.zeros(0)


@dataclass(frozen=True, slots=True)
class SweptRows:
    """n right-hand sides, one per row, after the stages are eliminated.

    total (n,) has the squared norms of the stages' part. tail (r_raw, n) and x (n, f + p) are the unscaled remainders.
    """

    total: np.ndarray
    tail: np.ndarray
    x: np.ndarray


def sweep_rows(structure: Structure, stages: tuple[StageFactor, ...], x: np.ndarray, refs, z) -> SweptRows:
    """Eliminate the stages from the rows' right-hand sides; a row touches only its own levels and what they meet."""
    n = len(x)
    pending = {s.term: [(np.arange(n), refs[s.term], z[s.term])] for s in structure.stages}
    tail = np.zeros((structure.r_raw, n))
    for t in structure.tail:
        if t.penalized:
            rows = np.flatnonzero(refs[t.term] >= 0)
            for a in range(t.width):
                tail[t.offset + refs[t.term][rows] * t.width + a, rows] = z[t.term][rows, a]
    x = x.copy()
    n_dense = structure.m - 1
    total = np.zeros(n)
    for stage, part in zip(structure.stages, stages, strict=True):
        rows, level, rhs = _merged(pending[stage.term], stage.n_levels)
        w = np.einsum("nab,nb->na", part.h[level], rhs)
        # A row may have several levels of one stage, so `+=` with an index array would keep the last of them alone.
        np.add.at(total, rows, (w**2).sum(axis=1))
        np.add.at(x[:, x.shape[1] - n_dense :], rows, -np.einsum("nka,nk->na", part.v[level][:, :, :-1], w))
        for parent in stage.parents:
            above = structure.stages[parent.stage]
            entries = parent.block[level][:, None] + np.arange(above.width)
            pending[above.term].append((rows, parent.level[level], -np.einsum("nwk,nk->nw", part.f[entries], w)))
        counts = stage.indptr[level + 1] - stage.tail_start[level]
        # The entries of all levels end to end, which is a range per level without a loop.
        owner = np.repeat(np.arange(len(rows)), counts)
        entries = stage.tail_start[level][owner] + np.arange(len(owner)) - (np.cumsum(counts) - counts)[owner]
        change = -np.einsum("ek,ek->e", part.f[entries], w[owner])
        np.add.at(tail, (stage.columns[entries], rows[owner]), change)
    return SweptRows(total, tail, x)


def _row_quadratics(factor: Factor, x, refs, z) -> np.ndarray:
    structure = factor.structure
    swept = sweep_rows(structure, factor.stages, x, refs, z)
    n_dense = structure.m - 1
    x = swept.x
    scaled = scale_rows(structure, factor.lams, np.vstack([swept.tail, x[:, x.shape[1] - n_dense :].T]), n_dense)
    position = factor.n_random
    scaled[position : position + factor.n_fixed - n_dense] += x[:, : x.shape[1] - n_dense].T
    size = len(factor.tail) - 1
    return swept.total + (triangular(factor.tail[:size, :size], np.asfortranarray(scaled)) ** 2).sum(axis=0)


def _merged(pending, n_levels: int):
    """The pending right-hand sides (row, level, rhs) of one stage, summed over equal (row, level); level -1 is no
    level.

    A row usually touches one level; more when its factors are not nested as they were in the fit.
    """
    rows, level, rhs = (np.concatenate([p[i] for p in pending]) for i in range(3))
    fixed = level >= 0
    keys, number = np.unique(rows[fixed] * n_levels + level[fixed], return_inverse=True)
    merged = np.zeros((len(keys), rhs.shape[1]))
    np.add.at(merged, number, rhs[fixed])
    return keys // n_levels, keys % n_levels, merged
