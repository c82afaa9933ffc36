"""The blocked Cholesky factor of Omega(theta) = [Lambda'A_ZZ Lambda + I, Lambda'A_Z,Xy; ., A_Xy,Xy] (DESIGN section 4).

`factorize` eliminates the stages of a `Structure` and factors the dense tail. What is read off it: log|M|, log|X'V^-1X|,
the penalized weighted residual sum of squares, the solution, quadratic forms with Omega^-1, and its selected inverse.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import lapack

from bigmm.blocks import kernels
from bigmm.blocks.parallel import run
from bigmm.blocks.structure import Stage, Structure

GRAIN = 2048  # levels per range; fewer are not worth a thread
TAIL_GRAIN = 32


class NotPositiveDefiniteError(ArithmeticError):
    """The tail has no Cholesky factor at this theta (overflow, or a perfect fit)."""


@dataclass(frozen=True, slots=True)
class StageFactor:
    """diagonal (q, k, k), dense (q, k, m), data (nnz, k): Schur complement so far, unscaled; h, f, v: see `eliminate`."""

    diagonal: np.ndarray
    dense: np.ndarray
    data: np.ndarray
    h: np.ndarray
    f: np.ndarray
    v: np.ndarray


@dataclass(frozen=True, slots=True)
class Factor:
    """lams: per term (k, k) Lambda's block in the working basis; stages: per stage; schur: (r_raw + m,) square, lower, the
    unscaled tail; tail: (N, N) lower C-ordered Cholesky factor of the scaled tail, N = r + f + p + 1 (columns: random
    effects, fixed factors, dense X, y); n_random = r; n_fixed = f + p; logdet_z = log|M|; logdet_x = log|X'V^-1X|;
    pwrss = r2.
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
    m, r_raw = structure.m, structure.r_raw
    schur = structure.base.copy()
    current = [(s.diagonal, s.dense, s.data) for s in structure.stages]
    for number in range(1, len(current)):
        diagonal, dense, data = current[number]
        current[number] = (diagonal.copy(), dense.copy(), data.copy())
    factors, logdet = [], 0.0
    for number, stage in enumerate(structure.stages):
        factor, stage_logdet, vv = _eliminate(stage, lams[stage.term], *current[number])
        logdet += stage_logdet
        lower = np.tril_indices(m)
        schur[r_raw + lower[0], r_raw + lower[1]] -= vv[lower]
        if r_raw:
            run(
                kernels.update_tail,
                r_raw,
                TAIL_GRAIN,
                stage.colptr,
                stage.entry,
                stage.level,
                stage.tail_start,
                stage.columns,
                factor.f,
                factor.v,
                schur,
            )
        for parent in stage.parents:
            run(
                kernels.update_parent,
                len(parent.start) - 1,
                GRAIN,
                parent.order,
                parent.start,
                parent.block,
                parent.position,
                stage.indptr,
                factor.f,
                factor.v,
                *_as_targets(current[parent.stage]),
            )
        factors.append(factor)
    return _factor_tail(structure, lams, tuple(factors), schur, logdet)


def _as_targets(current):
    diagonal, dense, data = current
    return diagonal, dense, data


def _eliminate(stage: Stage, lam, diagonal, dense, data) -> tuple[StageFactor, float, np.ndarray]:
    h, f, v = np.empty_like(diagonal), np.empty_like(data), np.empty_like(dense)
    parts = run(
        kernels.eliminate,
        stage.n_levels,
        stage.grain,
        lam,
        stage.multiplicity,
        diagonal,
        dense,
        stage.indptr,
        data,
        h,
        f,
        v,
    )
    logdet = float(sum(part[0] for part in parts))
    return StageFactor(diagonal, dense, data, h, f, v), logdet, sum(part[1] for part in parts)


def scalar_scale(structure: Structure, lams, n_dense: int) -> np.ndarray | None:
    """(r_raw + n_dense,) the diagonal of B where every tail term is a scalar random effect, else None."""
    if any(t.width > 1 or not t.penalized for t in structure.tail):
        return None
    return np.concatenate([np.full(t.n_levels, lams[t.term][0, 0]) for t in structure.tail] + [np.ones(n_dense)])


def scale_tail(structure: Structure, lams, matrix: np.ndarray, n_dense: int) -> np.ndarray:
    """B'matrix B with B = blockdiag(Lambda of the tail, contrasts, I): (r_raw + n_dense)^2 -> scaled coordinates."""
    return _scale_rows(structure, lams, _scale_rows(structure, lams, matrix, n_dense).T, n_dense).T


def _scale_rows(structure: Structure, lams, matrix: np.ndarray, n_dense: int) -> np.ndarray:
    pieces = []
    for t in structure.tail:
        rows = matrix[t.offset : t.stop]
        if not t.penalized:
            pieces.append(t.contrast.T @ rows)
        elif t.width == 1:
            pieces.append(rows * lams[t.term][0, 0])
        else:
            blocks = rows.reshape(t.n_levels, t.width, -1)
            pieces.append(np.einsum("cb,lcn->lbn", lams[t.term], blocks).reshape(rows.shape))
    return np.concatenate([*pieces, matrix[structure.r_raw : structure.r_raw + n_dense]])


def unscale_tail(structure: Structure, lams, matrix: np.ndarray, n_fixed: int) -> np.ndarray:
    """B matrix B' back to raw columns; fixed columns are absent (zero) when n_fixed == 0."""
    return _unscale_rows(structure, lams, _unscale_rows(structure, lams, matrix, n_fixed).T, n_fixed).T


def _unscale_rows(structure: Structure, lams, matrix: np.ndarray, n_fixed: int) -> np.ndarray:
    pieces, at = [], 0
    for t in structure.tail:
        if not t.penalized:
            size = t.contrast.shape[1] if n_fixed else 0
            pieces.append(t.contrast[:, :size] @ matrix[at : at + size])
        else:
            size = t.n_levels * t.width
            rows = matrix[at : at + size]
            if t.width == 1:
                pieces.append(rows * lams[t.term][0, 0])
            else:
                blocks = rows.reshape(t.n_levels, t.width, -1)
                pieces.append(np.einsum("bc,lcn->lbn", lams[t.term], blocks).reshape(rows.shape))
        at += size
    return np.concatenate([*pieces, matrix[at:]])


def _factor_tail(structure, lams, stages, schur, logdet) -> Factor:
    n_random = sum(t.n_levels * t.width for t in structure.tail if t.penalized)
    scale = scalar_scale(structure, lams, structure.m)
    if scale is not None:
        full = np.empty_like(schur)
        run(kernels.scale_lower, len(scale), 4 * TAIL_GRAIN, schur, scale, n_random, full)
    else:
        full = np.ascontiguousarray(scale_tail(structure, lams, np.tril(schur) + np.tril(schur, -1).T, structure.m))
        each = np.arange(n_random)
        full[each, each] += 1.0
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


@dataclass(frozen=True, slots=True)
class Solution:
    """beta: (f + p,) fixed factors' coefficients then dense ones, working basis; effects: per term (q, k), b = Lambda u in
    the working basis (for unpenalized factors: contrast @ coefficients)."""

    beta: np.ndarray
    effects: tuple[np.ndarray, ...]


def solve(factor: Factor) -> Solution:
    """Back-substitution for the response column: conditional modes and fixed effects at this theta."""
    structure = factor.structure
    n = len(factor.tail) - 1
    x = _triangular(factor.tail[:n, :n], factor.tail[n, :n].copy(), transposed=True)
    beta = x[factor.n_random :]
    n_dense = structure.m - 1
    terms = structure.gram.terms
    effects: list[np.ndarray] = [np.zeros(0)] * len(terms)
    raw = _unscale_rows(structure, factor.lams, x[:, None], max(factor.n_fixed, 1))[: structure.r_raw, 0]
    for t in structure.tail:
        effects[t.term] = raw[t.offset : t.stop].reshape(t.n_levels, t.width)
    # later stages have global columns r_raw.. in the order of the chain
    solution = np.concatenate([raw, np.zeros(sum(s.n_levels * s.width for s in structure.stages))])
    starts = structure.r_raw + np.cumsum([0, *[s.n_levels * s.width for s in structure.stages]])
    coefficients = np.append(-beta[len(beta) - n_dense :], 1.0)
    for number in range(len(structure.stages) - 1, -1, -1):
        stage, part = structure.stages[number], factor.stages[number]
        out = np.empty((stage.n_levels, stage.width))
        run(
            kernels.backsolve,
            stage.n_levels,
            stage.grain,
            part.h,
            part.f,
            part.v,
            stage.indptr,
            stage.columns,
            solution,
            coefficients,
            out,
        )
        solution[starts[number] : starts[number + 1]] = out.ravel()
        effects[stage.term] = out
    return Solution(beta, tuple(effects))


def _triangular(lower: np.ndarray, rhs: np.ndarray, transposed: bool = False) -> np.ndarray:
    """Solve lower x = rhs (or lower' x = rhs); lower is C-ordered, so LAPACK sees its transpose."""
    if not len(lower):
        return rhs
    x, info = lapack.dtrtrs(lower.T, rhs, lower=0, trans=0 if transposed else 1)
    if info:
        raise NotPositiveDefiniteError("singular triangular factor")
    return x


def quadratic(factor: Factor, rhs: tuple[np.ndarray, ...], rhs_x: np.ndarray) -> np.ndarray:
    """rhs' Omega_ZX^-1 rhs for right-hand sides given unscaled: per term (q, k, nr), and (p, nr) for dense X.

    The unpenalized factors' entries of ``rhs`` are per level too. Returns (nr, nr).
    """
    structure = factor.structure
    nr = rhs_x.shape[1]
    below = {s.term: rhs[s.term].copy() for s in structure.stages}
    tail = np.concatenate([rhs[t.term].reshape(-1, nr) for t in structure.tail] + [rhs_x])
    total = np.zeros((nr, nr))
    for stage, part in zip(structure.stages, factor.stages, strict=True):
        w = np.empty_like(below[stage.term])
        parts = run(kernels.forward_levels, stage.n_levels, stage.grain, part.h, part.v, below[stage.term], w)
        tail[structure.r_raw :] -= sum(p[0] for p in parts)[:-1]
        total += sum(p[1] for p in parts)
        if structure.r_raw:
            run(
                kernels.forward_tail,
                structure.r_raw,
                TAIL_GRAIN,
                stage.colptr,
                stage.entry,
                stage.level,
                part.f,
                w,
                tail,
            )
        for parent in stage.parents:
            target = below[structure.stages[parent.stage].term]
            run(
                kernels.forward_parent,
                len(parent.start) - 1,
                GRAIN,
                parent.order,
                parent.start,
                parent.block,
                part.f,
                w,
                target,
            )
    scaled = _scale_rows(structure, factor.lams, tail, structure.m - 1)
    n = len(factor.tail) - 1
    x = _triangular(factor.tail[:n, :n], scaled)
    return total + x.T @ x


def multiply(structure: Structure, x: tuple[np.ndarray, ...], with_fixed: bool = False) -> tuple[np.ndarray, ...]:
    """Z'W Z x, x per term (q, k, nr); columns of unpenalized factors count among Z only ``with_fixed``."""
    gram = structure.gram
    used = [term.penalized or with_fixed for term in gram.terms]
    x = tuple(np.ascontiguousarray(x_j) for x_j in x)
    out = [np.zeros(x_j.shape) for x_j in x]
    for j, term in enumerate(gram.terms):
        if used[j]:
            run(kernels.multiply_own, term.n_levels, GRAIN, term.diagonal, x[j], out[j])
    for (j, k), block in gram.cross.items():
        turned = structure.turned[j, k]
        for source, target, b in ((k, j, block), (j, k, turned)):
            if used[source]:
                n = gram.terms[target].n_levels
                run(kernels.multiply, n, GRAIN, b.indptr, b.indices, b.data, x[source], out[target])
    return tuple(out)


def tall_product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a'b for tall (n, i) and (n, j): ranges summed in order, the same bits on any number of threads."""
    return sum(run(kernels.tall_product, len(a), 4 * GRAIN, a, b))


ROWS_AT_ONCE = 1024


def row_quadratics(
    factor: Factor, x: np.ndarray, refs: tuple[np.ndarray, ...], z: tuple[np.ndarray, ...]
) -> np.ndarray:
    """[Lambda'z; x]'Omega^-1 [Lambda'z; x] for each row; x (n, f + p) factor columns first, refs and z per penalized term
    in the working basis; a level of -1 contributes nothing. Returns (n,)."""
    pieces = []
    for lo in range(0, len(x), ROWS_AT_ONCE):
        part = slice(lo, lo + ROWS_AT_ONCE)
        pieces.append(_row_quadratics(factor, x[part], [r[part] for r in refs], [a[part] for a in z]))
    return np.concatenate(pieces) if pieces else np.zeros(0)


def _row_quadratics(factor: Factor, x, refs, z) -> np.ndarray:
    structure, n = factor.structure, len(x)
    pending = {s.term: [(refs[s.term], z[s.term])] for s in structure.stages}
    tail = np.zeros((structure.r_raw, n))
    for t in structure.tail:
        if t.penalized:
            rows = np.flatnonzero(refs[t.term] >= 0)
            for a in range(t.width):
                tail[t.offset + refs[t.term][rows] * t.width + a, rows] = z[t.term][rows, a]
    x = x.copy()
    n_dense = structure.m - 1
    total = np.zeros(n)
    for stage, part in zip(structure.stages, factor.stages, strict=True):
        for level, w in _per_level(pending[stage.term], part.h):
            rows = np.flatnonzero(level >= 0)
            total[rows] += (w[rows] ** 2).sum(axis=1)
            x[rows, x.shape[1] - n_dense :] -= np.einsum("nka,nk->na", part.v[level[rows]][:, :, :-1], w[rows])
            for parent in stage.parents:
                term = structure.stages[parent.stage].term
                width = structure.stages[parent.stage].width
                entries = parent.block[level[rows]][:, None] + np.arange(width)
                above, change = np.full(n, -1, np.int64), np.zeros((n, width))
                above[rows] = parent.level[level[rows]]
                change[rows] = -np.einsum("nwk,nk->nw", part.f[entries], w[rows])
                pending[term].append((above, change))
            counts = stage.indptr[level[rows] + 1] - stage.tail_start[level[rows]]
            owner = np.repeat(rows, counts)
            entries = np.repeat(stage.tail_start[level[rows]] - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts)
            entries = entries + np.arange(len(owner))
            change = -np.einsum("ek,ek->e", part.f[entries], w[owner])
            np.add.at(tail, (stage.columns[entries], owner), change)
    scaled = _scale_rows(structure, factor.lams, np.vstack([tail, x[:, x.shape[1] - n_dense :].T]), n_dense)
    at = factor.n_random
    scaled[at : at + factor.n_fixed - n_dense] += x[:, : x.shape[1] - n_dense].T
    size = len(factor.tail) - 1
    return total + (_triangular(factor.tail[:size, :size], np.asfortranarray(scaled)) ** 2).sum(axis=0)


def _per_level(pending, h):
    """Merge the pending right-hand sides of one stage: one (level, h rhs) per distinct level a row touches."""
    level, rhs = pending[0][0].astype(np.int64), pending[0][1].copy()
    apart = []
    for above, change in pending[1:]:
        same = (above == level) | (above < 0)
        free = (level < 0) & (above >= 0)
        level = np.where(free, above, level)
        rhs[same | free] += change[same | free]
        clash = ~(same | free)
        if clash.any():
            apart.append((np.where(clash, above, -1), np.where(clash[:, None], change, 0.0)))
    for lev, r in [(level, rhs), *apart]:
        safe = np.maximum(lev, 0)
        w = np.einsum("nab,nb->na", h[safe], r)
        w[lev < 0] = 0.0
        yield lev, w
