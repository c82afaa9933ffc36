"""Selected inverse: the diagonal blocks of Omega^-1 and the sums of (Z'PZ)_ll that gradients need.

Takahashi's recursion on the block structure: the tail's inverse first, then the stages in reverse order, each reading
only entries of the inverse on the pattern of its own columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import lapack

from bigmm.blocks.exact import inverse_kernels as kernels
from bigmm.blocks.exact.coordinates import scalar_scale, scale_rows, unscale_tail
from bigmm.blocks.exact.factor import TAIL_GRAIN, Factor, NotPositiveDefiniteError, triangular
from bigmm.blocks.exact.pattern import pair_inverses
from bigmm.blocks.parallel import run
from bigmm.blocks.structure import TailTerm

NEARLY_SINGULAR = 1e-6
"""Below this share of the identity, T^-T (I - C) T^-1 would lose digits and the tail is projected directly instead."""


@dataclass(frozen=True, slots=True)
class SelectedInverse:
    """projected: per term (k, k), sum over levels of (Z'PZ)_ll in the working basis, None for unpenalized terms;
    covariances: per term (q, k, k), Lambda (Omega^-1)_ll Lambda', or None when they were not asked for;
    pairs: {(j, k): (nnz, k_j, k_k)} the same between levels that meet in some row, entries as in `Gram.cross`."""

    projected: tuple[Any, ...]
    covariances: tuple[Any, ...]
    pairs: dict[tuple[int, int], np.ndarray]


def selected_inverse(
    factor: Factor, *, with_fixed: bool, covariances: bool = False, pattern: bool = False
) -> SelectedInverse:
    """P = V^-1 - V^-1 X (X'V^-1X)^-1 X'V^-1 when ``with_fixed`` (REML), else P = V^-1 (ML).

    ``covariances``: diagonal blocks too; ``pattern``: these and the blocks between levels that meet in a row.
    """
    covariances = covariances or pattern
    structure = factor.structure
    n = factor.n_random + (factor.n_fixed if with_fixed else 0)
    p = structure.m - 1 if with_fixed else 0
    inverse = inverse_from_cholesky(factor.tail[:n, :n])
    raw = _unscaled(factor, inverse, with_fixed)
    n_terms = len(structure.gram.terms)
    projected: list[np.ndarray | None] = [None] * n_terms
    blocks: list[np.ndarray | None] = [None] * n_terms
    at = 0
    for t in structure.tail:
        if t.penalized:
            size = t.n_levels * t.width
            projected[t.term] = _tail_projected(factor, t, at, inverse, n)
            at += size
            if covariances:
                view = raw[t.offset : t.stop, t.offset : t.stop].reshape(t.n_levels, t.width, t.n_levels, t.width)
                each = np.arange(t.n_levels)
                blocks[t.term] = view[each, :, each, :]
    columns = invert_stages(factor, p, raw, (covariances, pattern), projected, blocks)
    pairs = pair_inverses(structure, columns, raw) if pattern else {}
    return SelectedInverse(tuple(projected), tuple(blocks), pairs)


def inverse_from_cholesky(lower: np.ndarray) -> np.ndarray:
    """Lower triangle of (L L')^-1, C order; what stands above is not defined."""
    if not len(lower):
        return np.zeros((0, 0))
    upper, info = lapack.dpotri(np.array(lower.T, order="F"), lower=0, overwrite_c=1)
    if info:
        raise NotPositiveDefiniteError("singular factor")
    return upper.T


def _unscaled(factor: Factor, inverse: np.ndarray, with_fixed: bool) -> np.ndarray:
    """B inverse B' in raw columns, both triangles, from the lower triangle of the inverse."""
    structure, n_dense = factor.structure, factor.structure.m - 1 if with_fixed else 0
    scale = scalar_scale(structure, factor.lams, n_dense)
    if scale is None:
        full = np.tril(inverse) + np.tril(inverse, -1).T
        return unscale_tail(structure, factor.lams, full, factor.n_fixed if with_fixed else 0)
    out = np.empty_like(inverse, order="C")
    run(kernels.scale_mirrored, len(scale), 4 * TAIL_GRAIN, inverse, scale, out)
    return out


def _tail_projected(factor: Factor, t: TailTerm, at: int, inverse: np.ndarray, n: int) -> np.ndarray:
    """Sum over the levels of a tail term of (Z'PZ)_ll."""
    lam = factor.lams[t.term]
    size = t.n_levels * t.width
    each = np.arange(t.n_levels)
    own = inverse[at : at + size, at : at + size].reshape(t.n_levels, t.width, t.n_levels, t.width)
    blocks = own[each, :, each, :].sum(axis=0)
    share = np.eye(t.width) * t.n_levels - np.tril(blocks) - np.tril(blocks, -1).T
    if share.diagonal().min() > NEARLY_SINGULAR * t.n_levels and np.linalg.cond(lam) < 1e4:
        left = np.linalg.solve(lam.T, share)
        return np.linalg.solve(lam.T, left.T).T
    return _project_directly(factor, t, n)


def _project_directly(factor: Factor, t: TailTerm, n: int) -> np.ndarray:
    """K_tt - K_t,: B Omega^-1 B'K_:,t summed over diagonal blocks: valid for any lam, also zero (a boundary)."""
    structure = factor.structure
    full = np.tril(factor.schur) + np.tril(factor.schur, -1).T
    rows = scale_rows(structure, factor.lams, np.ascontiguousarray(full[:, t.offset : t.stop]), structure.m)[:n]
    half = triangular(factor.tail[:n, :n], np.asfortranarray(rows))
    blocks = half.reshape(len(half), t.n_levels, t.width)
    each = np.arange(t.n_levels)
    own = full[t.offset : t.stop, t.offset : t.stop].reshape(t.n_levels, t.width, t.n_levels, t.width)
    return own[each, :, each, :].sum(axis=0) - np.einsum("nla,nlb->ab", blocks, blocks)


def invert_stages(factor: Factor, p: int, tail: np.ndarray, wanted: tuple[bool, bool], projected, blocks) -> dict:
    """Fills projected and blocks; returns {term: (nnz, k)} the stages' inverse on their columns."""
    structure = factor.structure
    covariances, pattern = wanted
    known: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    for number in range(len(structure.stages) - 1, -1, -1):
        stage, part = structure.stages[number], factor.stages[number]
        q, k = stage.n_levels, stage.width
        is_parent = number > 0
        keep = np.array([is_parent or covariances, is_parent or pattern])
        nnz = len(stage.columns)
        own = (
            np.empty((q if keep[0] else 0, k, k)),
            np.empty((nnz if keep[1] else 0, k)),
            np.empty((q if keep[1] else 0, k, p)),
        )
        parents = _flattened_parents(stage, known)
        widest = int(np.diff(stage.indptr).max(initial=0))
        totals = run(
            kernels.invert,
            q,
            stage.grain,
            factor.lams[stage.term],
            stage.multiplicity,
            part.diagonal,
            part.dense,
            (stage.indptr, stage.columns, part.data),
            (part.h, part.f, part.v),
            (tail, structure.r_raw, p),
            widest,
            parents,
            own,
            keep,
        )
        projected[stage.term] = sum(totals)
        if keep[0] and covariances:
            blocks[stage.term] = own[0]
        known[number] = own
    return {stage.term: known[number][1] for number, stage in enumerate(structure.stages)}


def _flattened_parents(stage, known):
    """Parents' inverses side by side in flat arrays, so that one kernel serves any depth of nesting."""
    parents = stage.parents
    inverses = [known[parent.stage] for parent in parents]
    q, nnz = stage.n_levels, len(stage.columns)

    def stacked(arrays, width):
        return np.stack(arrays) if arrays else np.zeros((0, width), np.int64)

    def starts(which):
        return np.cumsum([0] + [inverse[which].size for inverse in inverses])[:-1].astype(np.int64)

    def flat(which):
        return np.concatenate([inverse[which].ravel() for inverse in inverses] or [np.zeros(0)])

    return (
        stacked([parent.level.astype(np.int64) for parent in parents], q),
        stacked([parent.position for parent in parents], nnz),
        np.array([inverse[0].shape[1] for inverse in inverses], np.int64),
        starts(0),
        starts(1),
        starts(2),
        flat(0),
        flat(1),
        flat(2),
    )
