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
from bigmm.blocks.exact.inverse_kernels import ParentInverses, StageInverse, StageRows, TailInverse
from bigmm.blocks.exact.pattern import pair_inverses
from bigmm.blocks.parallel import run
from bigmm.blocks.structure import Stage, TailTerm

NEARLY_SINGULAR = 1e-6
"""Below this share of the identity, T^-T (I - C) T^-1 would lose digits and the tail is projected directly instead."""


@dataclass(frozen=True, slots=True)
class SelectedInverse:
    """The entries of the inverse that gradients and conditional variances need.

    Attributes
    ----------
    projected: per term (k, k), sum over levels of (Z'PZ)_ll in the working basis, None for unpenalized terms.
    covariances: per term (q, k, k), Lambda (Omega^-1)_ll Lambda', or None where they are not computed.
    pairs: {(j, k): (nnz, k_j, k_k)}, the same between levels that meet in some row, entries as in `Gram.cross`.
    """

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
    raw = np.ascontiguousarray(_unscaled(factor, inverse, with_fixed))
    n_terms = len(structure.gram.terms)
    projected: list[np.ndarray | None] = [None] * n_terms
    blocks: list[np.ndarray | None] = [None] * n_terms
    position = 0
    for t in structure.tail:
        if t.penalized:
            size = t.n_levels * t.width
            projected[t.term] = _tail_projected(factor, t, position, inverse, n)
            position += size
            if covariances:
                # Two index arrays with a slice between them put the levels first: (q, k, k).
                view = raw[t.offset : t.stop, t.offset : t.stop].reshape(t.n_levels, t.width, t.n_levels, t.width)
                index = np.arange(t.n_levels)
                blocks[t.term] = view[index, :, index, :]
    columns = invert_stages(factor, p, raw, (covariances, pattern), projected, blocks)
    pairs = pair_inverses(structure, columns, raw) if pattern else {}
    return SelectedInverse(tuple(projected), tuple(blocks), pairs)


def inverse_from_cholesky(lower: np.ndarray) -> np.ndarray:
    """Lower triangle of (L L')^-1, C order; what stands above is not defined."""
    if not len(lower):
        return np.zeros((0, 0))
    # LAPACK inverts in place, and the factor is still in use: hence the copy.
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


def _tail_projected(factor: Factor, t: TailTerm, position: int, inverse: np.ndarray, n: int) -> np.ndarray:
    """Sum over the levels of a tail term of (Z'PZ)_ll."""
    lam = factor.lams[t.term]
    size = t.n_levels * t.width
    index = np.arange(t.n_levels)
    block = inverse[position : position + size, position : position + size].reshape(
        t.n_levels, t.width, t.n_levels, t.width
    )
    blocks = block[index, :, index, :].sum(axis=0)
    # (Z'PZ)_ll = lambda^-T (I - C_ll) lambda^-1, C the inverse. Of C only the lower triangle is defined.
    share = np.eye(t.width) * t.n_levels - np.tril(blocks) - np.tril(blocks, -1).T
    if share.diagonal().min() > NEARLY_SINGULAR * t.n_levels and np.linalg.cond(lam) < 1e4:
        first = np.linalg.solve(lam.T, share)
        return np.linalg.solve(lam.T, first.T).T
    return _project_directly(factor, t, n)


def _project_directly(factor: Factor, t: TailTerm, n: int) -> np.ndarray:
    """K_tt - K_t,: B Omega^-1 B'K_:,t summed over diagonal blocks: valid for any lam, also zero (a boundary)."""
    structure = factor.structure
    full = np.tril(factor.schur) + np.tril(factor.schur, -1).T
    rows = scale_rows(structure, factor.lams, np.ascontiguousarray(full[:, t.offset : t.stop]), structure.m)[:n]
    half = triangular(factor.tail[:n, :n], np.asfortranarray(rows))
    blocks = half.reshape(len(half), t.n_levels, t.width)
    index = np.arange(t.n_levels)
    block = full[t.offset : t.stop, t.offset : t.stop].reshape(t.n_levels, t.width, t.n_levels, t.width)
    return block[index, :, index, :].sum(axis=0) - np.einsum("nla,nlb->ab", blocks, blocks)


def invert_stages(factor: Factor, p: int, tail: np.ndarray, parts: tuple[bool, bool], projected, blocks) -> dict:
    """Fills projected and blocks; returns {term: (nnz, k)} the stages' inverse on their columns.

    parts: whether to compute diagonal blocks, and whether to compute blocks between levels that meet.
    """
    structure = factor.structure
    covariances, pattern = parts
    inverses: dict[int, StageInverse] = {}
    # Takahashi's order: a stage reads the inverses of the stages that contain it.
    for number in range(len(structure.stages) - 1, -1, -1):
        stage, part = structure.stages[number], factor.stages[number]
        is_parent = number > 0
        inverse = _buffers(stage, p, is_parent or pattern) if is_parent or covariances else None
        totals = run(
            invert_levels,
            stage.n_levels,
            stage.grain,
            np.ascontiguousarray(factor.lams[stage.term]),
            StageRows(stage.multiplicity, stage.indptr, stage.columns),
            part,
            TailInverse(tail, structure.r_raw, p, int(np.diff(stage.indptr).max(initial=0))),
            _flattened_parents(stage, inverses) if stage.parents else None,
            inverse,
        )
        projected[stage.term] = sum(totals)
        if inverse is not None:
            inverses[number] = inverse
            if covariances:
                blocks[stage.term] = inverse.diagonal
    return {stage.term: inverses[number].columns for number, stage in enumerate(structure.stages) if number in inverses}


def invert_levels(lo: int, hi: int, lam, rows, factor, tail, parents, inverse) -> np.ndarray:
    """`kernels.invert` for levels lo..hi at Lambda's block lam (k, k)."""
    shrinkage = kernels.shrinkage_of(lo, hi, lam, factor.diagonal)
    return kernels.invert(lo, hi, shrinkage, rows, factor, tail, parents, inverse)


def _buffers(stage: Stage, p: int, with_columns: bool) -> StageInverse:
    q, k, nnz = stage.n_levels, stage.width, len(stage.columns)
    columns, fixed = np.empty((nnz if with_columns else 0, k)), np.empty((q if with_columns else 0, k, p))
    return StageInverse(np.empty((q, k, k)), columns, fixed, with_columns)


def _flattened_parents(stage: Stage, inverses: dict[int, StageInverse]) -> ParentInverses:
    """The inverses of the stages that contain this one."""
    parents = stage.parents
    above = [inverses[parent.stage] for parent in parents]

    def starts(arrays: tuple[np.ndarray, ...]) -> np.ndarray:
        return np.cumsum([0, *(array.size for array in arrays)])[:-1]

    parts = list(zip(*((inverse.diagonal, inverse.columns, inverse.fixed) for inverse in above), strict=True))
    return ParentInverses(
        np.stack([parent.level.astype(np.int64) for parent in parents]),
        np.stack([parent.position for parent in parents]),
        np.array([inverse.diagonal.shape[1] for inverse in above]),
        *(starts(arrays) for arrays in parts),
        *(np.concatenate([array.ravel() for array in arrays]) for arrays in parts),
    )
