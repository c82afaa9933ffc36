"""Solves and products with the blocked factor: conditional modes, quadratic forms, Z'WZ x."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bigmm.blocks.exact import solve_kernels as kernels
from bigmm.blocks.exact.coordinates import scale_rows, unscale_rows
from bigmm.blocks.exact.factor import GRAIN, TAIL_GRAIN, Factor, StageFactor, triangular
from bigmm.blocks.exact.inverse_kernels import shrinkage_of
from bigmm.blocks.exact.scatter import both_ways
from bigmm.blocks.exact.sweeps import subtract_levels
from bigmm.blocks.parallel import run
from bigmm.blocks.structure import Structure


@dataclass(frozen=True, slots=True)
class Solution:
    """Fixed effects and conditional modes in the working basis.

    beta (f + p,) has the coefficients of fixed factors, then the dense ones. effects has b = Lambda u, (q, k) per term,
    and contrast @ coefficients for an unpenalized factor.
    """

    beta: np.ndarray
    effects: tuple[np.ndarray, ...]


def solve(factor: Factor) -> Solution:
    """Back-substitution for the response column: conditional modes and fixed effects at this theta."""
    n = len(factor.tail) - 1
    # The last row of the factor is L^-1 times the response's column, so half of the substitution is done.
    x = triangular(factor.tail[:n, :n], factor.tail[n, :n].copy(), transposed=True)
    beta = x[factor.n_random :]
    n_dense = factor.structure.m - 1
    coefficients = np.append(-beta[len(beta) - n_dense :], 1.0)
    return Solution(beta, backward(factor, x, tuple(part.v for part in factor.stages), coefficients))


def backward(
    factor: Factor, x: np.ndarray, v: tuple[np.ndarray, ...], coefficients: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Effects per term (q, k), unscaled, from the tail's solution x (r + f + p,) and the stages' h'(v coefficients -
    f ...).

    v: per stage (q, k, m), coefficients (m,): what the stages' forward right-hand sides are combined from.
    """
    structure = factor.structure
    effects: list[np.ndarray] = [np.zeros(0)] * len(structure.gram.terms)
    # At least 1: 0 would say that x has no rows for fixed effects.
    raw = unscale_rows(structure, factor.lams, x[:, None], max(factor.n_fixed, 1))[: structure.r_raw, 0]
    for t in structure.tail:
        effects[t.term] = raw[t.offset : t.stop].reshape(t.n_levels, t.width)
    # later stages have global columns r_raw.. in the order of the chain
    solution = np.concatenate([raw, np.zeros(sum(s.n_levels * s.width for s in structure.stages))])
    starts = structure.r_raw + np.cumsum([0, *[s.n_levels * s.width for s in structure.stages]])
    for number in range(len(structure.stages) - 1, -1, -1):
        stage, part = structure.stages[number], factor.stages[number]
        out = np.empty((stage.n_levels, stage.width))
        combined = part._replace(v=v[number])
        rows = stage.indptr, stage.columns
        run(kernels.backsolve, stage.n_levels, stage.grain, combined, *rows, solution, coefficients, out)
        solution[starts[number] : starts[number + 1]] = out.ravel()
        effects[stage.term] = out
    return tuple(effects)


@dataclass(frozen=True, slots=True)
class Forward:
    """Right-hand sides after the stages are eliminated.

    w is h rhs, (q, k, nr) per stage, and total (nr, nr) the sum of w'w. tail (r_raw, nr) and fixed (p, nr) are the
    unscaled right-hand sides that remain for the tail and for dense X.
    """

    w: tuple[np.ndarray, ...]
    total: np.ndarray
    tail: np.ndarray
    fixed: np.ndarray


def forward(
    structure: Structure, stages: tuple[StageFactor, ...], rhs: tuple[np.ndarray, ...], rhs_x: np.ndarray
) -> Forward:
    """Eliminate the stages from right-hand sides given unscaled: per term (q, k, nr), and (p, nr) for dense X."""
    nr = rhs_x.shape[1]
    # Copies: children subtract from the right-hand sides of the levels that contain them.
    below = {s.term: rhs[s.term].copy() for s in structure.stages}
    tail = np.concatenate([rhs[t.term].reshape(-1, nr) for t in structure.tail] or [np.zeros((0, nr))])
    fixed, total, swept = rhs_x.copy(), np.zeros((nr, nr)), []
    for stage, part in zip(structure.stages, stages, strict=True):
        w = np.empty_like(below[stage.term])
        parts = run(kernels.forward_levels, stage.n_levels, stage.grain, part.h, part.v, below[stage.term], w)
        # The last row belongs to the response, which is no unknown here.
        fixed -= sum(p[0] for p in parts)[:-1]
        total += sum(p[1] for p in parts)
        swept.append(w)
        if structure.r_raw and not len(stage.colptr):  # rows only, see `row_structure`
            subtract_levels(stage, part, w, tail)
        elif structure.r_raw:
            columns = (stage.colptr, stage.entry, stage.level)
            run(kernels.forward_tail, structure.r_raw, TAIL_GRAIN, *columns, part.f, w, tail)
        for parent in stage.parents:
            target = below[structure.stages[parent.stage].term]
            children = (parent.order, parent.start, parent.block)
            run(kernels.forward_parent, len(parent.start) - 1, GRAIN, *children, part.f, w, target)
    return Forward(tuple(swept), total, tail, fixed)


def quadratic(factor: Factor, rhs: tuple[np.ndarray, ...], rhs_x: np.ndarray) -> np.ndarray:
    """rhs' Omega_ZX^-1 rhs for right-hand sides given unscaled: per term (q, k, nr), and (p, nr) for dense X.

    The unpenalized factors' entries of ``rhs`` are per level too. Returns (nr, nr).
    """
    structure = factor.structure
    swept = forward(structure, factor.stages, rhs, rhs_x)
    scaled = scale_rows(structure, factor.lams, np.concatenate([swept.tail, swept.fixed]), structure.m - 1)
    n = len(factor.tail) - 1
    x = triangular(factor.tail[:n, :n], scaled)
    return swept.total + x.T @ x


def multiply(structure: Structure, x: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """Z'W Z x, x per term (q, k, nr), zero for unpenalized factors: their columns do not count among Z."""
    x = tuple(np.ascontiguousarray(x_j) for x_j in x)
    out = _from_others(structure, x, with_fixed=False)
    for j, term in enumerate(structure.gram.terms):
        if term.penalized:
            run(kernels.multiply_own, term.n_levels, GRAIN, term.diagonal, x[j], out[j])
    return out


def _from_others(structure: Structure, x: tuple[np.ndarray, ...], with_fixed: bool) -> tuple[np.ndarray, ...]:
    """Per term j the sum over other terms k of Z_j'W Z_k x_k; unpenalized ones count only ``with_fixed``."""
    gram = structure.gram
    out = tuple(np.zeros(x_j.shape) for x_j in x)
    for (j, k), block in gram.cross.items():
        if (j, k) not in structure.transposed:  # rows only: all terms are random
            out[k][:] += both_ways(block, x[j], x[k], out[j])
            continue
        for source, target, b in ((k, j, block), (j, k, structure.transposed[j, k])):
            if gram.terms[source].penalized or with_fixed:
                n = gram.terms[target].n_levels
                run(kernels.multiply, n, GRAIN, b.indptr, b.indices, b.data, x[source], out[target])
    return out


def residual_products(structure: Structure, lams: tuple[np.ndarray, ...], solution: Solution) -> tuple[np.ndarray, ...]:
    """s = Z'W(y - X beta - Z b) per penalized term, (q, k), working basis; zeros for unpenalized ones.

    A term's own b is not subtracted, which would cancel where levels are large: b = Lambda Lambda's, so that
    (I + Z'WZ Lambda Lambda') s = Z'W(y - X beta - what other terms fit).
    """
    m = structure.m
    residual = np.append(-solution.beta[len(solution.beta) - (m - 1) :], 1.0)  # [X y] residual = y - X beta
    effects = tuple(np.ascontiguousarray(e[:, :, None]) for e in solution.effects)
    out = tuple(o[:, :, 0] for o in _from_others(structure, effects, with_fixed=True))
    for j, term in enumerate(structure.gram.terms):
        if term.penalized:
            kernel = kernels.score_scalars if term.width == 1 else score_levels
            lam = np.ascontiguousarray(lams[j])
            run(kernel, term.n_levels, GRAIN, lam, term.diagonal, term.dense, residual, out[j])
        else:
            out[j][:] = 0.0
    return out


def score_levels(lo: int, hi: int, lam, diagonal, dense, residual, out) -> None:
    """out[i] = (I + diagonal[i] lam lam')^-1 (dense[i] residual - out[i]) for levels lo..hi."""
    kernels.score(lo, hi, shrinkage_of(lo, hi, lam, diagonal), dense, residual, out)


def tall_product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a'b for tall (n, i) and (n, j): ranges summed in order, the same bits on any number of threads."""
    pair = np.ascontiguousarray(a), np.ascontiguousarray(b)
    return sum(run(kernels.tall_product, len(a), 4 * GRAIN, *pair))
