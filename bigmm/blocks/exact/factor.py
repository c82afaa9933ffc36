"""The blocked Cholesky factor of Omega(theta) = [Lambda'A_ZZ Lambda + I, Lambda'A_Z,Xy; ., A_Xy,Xy].

The elimination is described in docs/theory/elimination.md.

`factorize` eliminates the stages of a `Structure` and factors the dense tail. What is read off it: log|M|,
log|X'V^-1X|, the penalized weighted residual sum of squares, the solution (`solve`), quadratic forms with Omega^-1,
and its selected inverse (`inverse`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.linalg import lapack

from bigmm.blocks.exact import factor_kernels as kernels
from bigmm.blocks.exact.coordinates import scalar_scale, scale_tail
from bigmm.blocks.parallel import run
from bigmm.blocks.structure import Structure

GRAIN = 2048  # levels per range; fewer are not worth a thread


# A row of the tail meets many levels and columns, so that far fewer rows than levels are worth a thread.
TAIL_GRAIN = 32


class NotPositiveDefiniteError(ArithmeticError):
    """The tail has no Cholesky factor at this theta (overflow, or a perfect fit)."""


class StageFactor(NamedTuple):
    """One eliminated stage. Kernels take the record as it is; all arrays are in C order.

    Attributes
    ----------
    diagonal, dense, data: (q, k, k), (q, k, m), (nnz, k) Schur complement when the stage's turn comes, unscaled.
    h, f, v: (q, k, k), (nnz, k), (q, k, m) its factor, see `factor_kernels.eliminate`.
    """

    diagonal: np.ndarray
    dense: np.ndarray
    data: np.ndarray
    h: np.ndarray
    f: np.ndarray
    v: np.ndarray


@dataclass(frozen=True, slots=True)
class Factor:
    """The blocked Cholesky factor at one Lambda.

    Attributes
    ----------
    lams: per term (k, k) Lambda's block in the working basis.
    stages: factors of the stages.
    schur: (r_raw + m, r_raw + m) lower triangle, the unscaled tail.
    tail: (N, N) lower C-ordered Cholesky factor of the scaled tail, N = r + f + p + 1. Its columns are random effects,
        fixed factors, dense X and y.
    n_random, n_fixed: r and f + p.
    logdet_z, logdet_x, pwrss: log|M|, log|X'V^-1X| and r^2.
    """

    structure: Structure
    lams: tuple[np.ndarray, ...]
    stages: tuple[StageFactor, ...]
    schur: np.ndarray
    tail: np.ndarray
    n_random: int
    n_fixed: int
    logdet_z: float
    logdet_x: float
    pwrss: float


def factorize(structure: Structure, lams: tuple[np.ndarray, ...]) -> Factor:
    """Blocked Cholesky factor at Lambda = blockdiag(I (x) lams[j]); raises NotPositiveDefiniteError."""
    r_raw = structure.r_raw
    factors, logdet, vv = eliminate_stages(structure, lams)
    # A copy: the base serves every theta. Only the lower triangle is updated.
    schur = structure.base.copy()
    lower = np.tril_indices(structure.m)
    schur[r_raw + lower[0], r_raw + lower[1]] -= vv[lower]
    if r_raw:
        for stage, part in zip(structure.stages, factors, strict=True):
            run(kernels.update_tail, r_raw, TAIL_GRAIN, stage.tail_entries, part, schur)
    return factor_tail(structure, lams, factors, schur, logdet)


def eliminate_stages(structure: Structure, lams) -> tuple[tuple[StageFactor, ...], float, np.ndarray]:
    """(factors of the stages, their part of log|M|, sum of v'v (m, m)); nested stages pass on to the stages above
    them."""
    factors, logdet, total = _buffers(structure), 0.0, np.zeros((structure.m, structure.m))
    for stage, factor in zip(structure.stages, factors, strict=True):
        kernel = kernels.eliminate_scalar if stage.width == 1 else kernels.eliminate
        lam = np.ascontiguousarray(lams[stage.term])
        # Ranges are added in their order below, whichever thread was first.
        parts = run(kernel, stage.n_levels, stage.grain, lam, stage.multiplicity, stage.indptr, factor)
        pivots = float(sum(part[0] for part in parts))
        if not np.isfinite(pivots):
            raise NotPositiveDefiniteError("a level's pivot is not positive")
        logdet += pivots
        total += sum(part[1] for part in parts)
        for parent in stage.parents:
            n_parents, above = len(parent.start) - 1, factors[parent.stage]
            run(kernels.update_parent, n_parents, GRAIN, parent, stage.indptr, factor, above)
    return factors, logdet, total


def _buffers(structure: Structure) -> tuple[StageFactor, ...]:
    """Per stage its part of A and arrays for its factor; stages after the first are copied, since they change."""
    factors = []
    for number, stage in enumerate(structure.stages):
        blocks = stage.diagonal, stage.dense, stage.data
        diagonal, dense, data = (np.array(b, order="C") if number else np.ascontiguousarray(b) for b in blocks)
        # f has the type of the data, which may be float32 under the iterative solver; v and all sums are float64.
        h, f, v = np.empty(diagonal.shape, diagonal.dtype), np.empty(data.shape, data.dtype), np.empty(dense.shape)
        factors.append(StageFactor(diagonal, dense, data, h, f, v))
    return tuple(factors)


def factor_tail(structure, lams, stages, schur, logdet) -> Factor:
    """The factor, given those of its stages, the tail's Schur complement (lower triangle) and the stages' log|M|."""
    n_random = sum(t.n_levels * t.width for t in structure.tail if t.penalized)
    scale = scalar_scale(structure, lams, structure.m)
    if scale is not None:
        full = np.empty_like(schur)
        run(kernels.scale_lower, len(scale), 4 * TAIL_GRAIN, schur, scale, n_random, full)
    else:
        full = np.ascontiguousarray(scale_tail(structure, lams, np.tril(schur) + np.tril(schur, -1).T, structure.m))
        # The ridge comes after the scaling: M = Lambda'Z'WZ Lambda + I.
        index = np.arange(n_random)
        full[index, index] += 1.0
    # A lower triangle in C order is an upper one in Fortran's, so LAPACK works in place without a copy.
    upper, info = lapack.dpotrf(full.T, lower=0, overwrite_a=1, clean=0)
    if info:
        raise NotPositiveDefiniteError(f"pivot {info} of {len(full)} is not positive")
    tail = upper.T
    logs = 2.0 * np.log(np.diagonal(tail))
    return Factor(
        structure,
        tuple(lams),
        stages,
        schur,
        tail,
        n_random,
        len(full) - 1 - n_random,
        logdet + float(logs[:n_random].sum()),
        float(logs[n_random:-1].sum()),
        float(tail[-1, -1]) ** 2,
    )


def triangular(lower: np.ndarray, rhs: np.ndarray, transposed: bool = False) -> np.ndarray:
    """Solve lower x = rhs (or lower' x = rhs); lower is C-ordered, so LAPACK sees its transpose."""
    if not len(lower):
        return rhs
    x, info = lapack.dtrtrs(lower.T, rhs, lower=0, trans=0 if transposed else 1)
    if info:
        raise NotPositiveDefiniteError("singular triangular factor")
    return x
