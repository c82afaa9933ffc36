"""M of a generalized model at one set of working weights, with the tail applied and not formed.

`eliminate` is all that Newton's steps need; what a determinant and leverages need beyond it is in `sampled`. Right-hand
sides are given unscaled, Lambda'rhs being meant, as everywhere in this room.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from bigmm.blocks.factor import StageFactor, eliminate_stages
from bigmm.blocks.krylov import (
    TailOperator,
    conjugate_gradients,
    effects_of,
    lower_root,
    subtract_levels,
    tail_operator,
)
from bigmm.blocks.solve import forward
from bigmm.blocks.structure import Structure

TOLERANCES = {np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-10}
"""Relative residual of solves, by the type of the numbers: what float32 can reach, and close to exact."""


@dataclass(slots=True)
class Fixed:
    """The fixed effects' part, made when it is first asked for: dense (r, p) normalised tail rows of Z'WX, solved:
    S_hat^-1 of them, root (p, p): lower Cholesky factor of X'V^-1X."""

    dense: np.ndarray
    solved: np.ndarray
    root: np.ndarray


@dataclass(frozen=True, slots=True)
class SchurFactor:
    """structure, without a dense tail; lams per term; operator: the tail; logdet_exact: log|M| but for
    log|S_hat|; kind: the type of the tail's vectors; cache: the fixed effects' part once it is known."""

    structure: Structure
    lams: tuple[np.ndarray, ...]
    operator: TailOperator
    logdet_exact: float
    vv: np.ndarray
    kind: np.dtype
    cache: list[Fixed] = field(default_factory=list)

    @property
    def stages(self) -> tuple[StageFactor, ...]:
        return self.operator.stages

    @property
    def n_dense(self) -> int:
        return self.structure.m - 1


def eliminate(structure: Structure, lams: tuple[np.ndarray, ...]) -> SchurFactor:
    """Eliminate the stages and normalise the tail; raises NotPositiveDefiniteError."""
    stages, logdet, vv = eliminate_stages(structure, lams)
    operator = tail_operator(structure, lams, stages)
    kind = structure.stages[0].data.dtype
    vv = np.tril(vv) + np.tril(vv, -1).T
    return SchurFactor(structure, lams, operator, logdet + operator.logdet, vv, kind)


# ------------------------------------------------------------------------------------------------ right-hand sides


def dense_rows(factor: SchurFactor) -> np.ndarray:
    """(r, p) normalised tail rows of Z'WX once the stages are eliminated."""
    structure, m = factor.structure, factor.structure.m
    whole = np.concatenate([structure.gram.terms[t.term].dense.reshape(-1, m) for t in structure.tail])
    dense = np.ascontiguousarray(whole[:, :-1])
    for stage, part in zip(structure.stages, factor.stages, strict=True):
        subtract_levels(stage, part, part.v[:, :, :-1], dense)
    return factor.operator.normalised(dense)


def with_fixed(factor: SchurFactor, dense: np.ndarray, solved: np.ndarray) -> Fixed:
    """The fixed effects' part from their rows and solutions; raises NotPositiveDefiniteError."""
    n = factor.n_dense
    matrix = factor.structure.gram.xy[:n, :n] - factor.vv[:n, :n] - dense.T @ solved
    root = lower_root(matrix)
    factor.cache[:] = [Fixed(dense, solved, root)]
    return factor.cache[0]


def solved(factor: SchurFactor, rhs: np.ndarray, tolerance: float | None = None) -> np.ndarray:
    """S_hat^-1 rhs in float64 for normalised rhs (r, nv)."""
    tolerance = TOLERANCES[factor.kind] if tolerance is None else tolerance
    return conjugate_gradients(factor.operator, rhs.astype(factor.kind), tolerance).x.astype(np.float64)


def fixed_part(factor: SchurFactor) -> Fixed:
    """The fixed effects' part, solved for when nothing has asked for it yet."""
    if not factor.cache:
        dense = dense_rows(factor)
        with_fixed(factor, dense, solved(factor, dense))
    return factor.cache[0]


def _with_tail(factor: SchurFactor, tail: np.ndarray, tolerance: float | None = None) -> tuple[Fixed, np.ndarray]:
    """(the fixed effects' part, S_hat^-1 tail): where the first is not known yet, in one block of right-hand sides."""
    if factor.cache:
        return factor.cache[0], solved(factor, tail, tolerance)
    dense, n = dense_rows(factor), factor.n_dense
    both = solved(factor, np.concatenate([dense, tail], axis=1), tolerance)
    return with_fixed(factor, dense, both[:, :n]), both[:, n:]


def solve_for(
    factor: SchurFactor, rhs: tuple[np.ndarray, ...], rhs_x: np.ndarray, random_only: bool
) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """(Lambda t per term (q, k, nr), tau (p, nr)) with Omega (t, tau) = (Lambda'rhs, rhs_x); see `rhs.solve_for`."""
    n, nr = factor.n_dense, rhs_x.shape[1]
    swept = forward(factor.structure, factor.stages, rhs, rhs_x)
    tail = factor.operator.normalised(swept.tail)
    if random_only:
        tau, x = np.zeros((n, nr)), solved(factor, tail)
    else:
        known, x = _with_tail(factor, tail)
        half = np.linalg.solve(known.root, swept.fixed - known.dense.T @ x)
        tau = np.linalg.solve(known.root.T, half)
        x = x - known.solved @ tau
    v = [w - part.v[:, :, :-1] @ tau for w, part in zip(swept.w, factor.stages, strict=True)]
    return effects(factor, x, v), tau


def effects(factor: SchurFactor, x: np.ndarray, v: list[np.ndarray] | None = None) -> tuple[np.ndarray, ...]:
    """Per term (q, k, nv) unscaled, from the tail's normalised solution x (r, nv) and the stages' forward sides v."""
    return effects_of(factor.structure, factor.operator, factor.operator.raw(x), v)


def quadratic(
    factor: SchurFactor, rhs: tuple[np.ndarray, ...], rhs_x: np.ndarray, tolerance: float | None = None
) -> np.ndarray:
    """rhs'Omega_ZX^-1 rhs, (nr, nr); see `blocks.solve.quadratic`."""
    swept = forward(factor.structure, factor.stages, rhs, rhs_x)
    tail = factor.operator.normalised(swept.tail)
    known, inner = _with_tail(factor, tail, tolerance)
    half = np.linalg.solve(known.root, swept.fixed - known.dense.T @ inner)
    total = swept.total + tail.T @ inner + half.T @ half
    return 0.5 * (total + total.T)
