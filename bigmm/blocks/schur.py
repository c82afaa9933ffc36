"""M of a generalized model at one set of working weights, with the tail applied and not formed.

`eliminate` is all that Newton's steps need; what a determinant and leverages need beyond it is in `sampled`. Right-hand
sides are given unscaled, Lambda'rhs being meant, as everywhere in this room.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from bigmm.blocks.factor import NotPositiveDefiniteError, StageFactor, eliminate_stages
from bigmm.blocks.krylov import TailOperator, back_substitute, conjugate_gradients, subtract_levels, tail_operator
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
    try:
        root = np.linalg.cholesky(0.5 * (matrix + matrix.T))
    except np.linalg.LinAlgError:
        raise NotPositiveDefiniteError("the fixed effects' Schur complement is not positive definite") from None
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
        if not factor.cache:  # both in one block of right-hand sides
            dense = dense_rows(factor)
            both = solved(factor, np.concatenate([dense, tail], axis=1))
            known, x = with_fixed(factor, dense, both[:, :n]), both[:, n:]
        else:
            known, x = factor.cache[0], solved(factor, tail)
        half = np.linalg.solve(known.root, swept.fixed - known.dense.T @ x)
        tau = np.linalg.solve(known.root.T, half)
        x = x - known.solved @ tau
    v = [w - part.v[:, :, :-1] @ tau for w, part in zip(swept.w, factor.stages, strict=True)]
    return effects(factor, x, v), tau


def effects(factor: SchurFactor, x: np.ndarray, v: list[np.ndarray] | None = None) -> tuple[np.ndarray, ...]:
    """Per term (q, k, nv) unscaled, from the tail's normalised solution x (r, nv) and the stages' forward sides v."""
    structure, raw = factor.structure, factor.operator.raw(x)
    out: list[np.ndarray] = [np.zeros(0)] * len(structure.gram.terms)
    for t in structure.tail:
        out[t.term] = raw[t.offset : t.stop].reshape(t.n_levels, t.width, -1)
    for stage, values in zip(structure.stages, back_substitute(structure, factor.stages, raw, v), strict=True):
        out[stage.term] = values
    return tuple(out)


def quadratic(
    factor: SchurFactor, rhs: tuple[np.ndarray, ...], rhs_x: np.ndarray, tolerance: float | None = None
) -> np.ndarray:
    """rhs'Omega_ZX^-1 rhs, (nr, nr); see `blocks.solve.quadratic`."""
    swept, n = forward(factor.structure, factor.stages, rhs, rhs_x), factor.n_dense
    tail = factor.operator.normalised(swept.tail)
    if factor.cache:
        known, inner = factor.cache[0], solved(factor, tail, tolerance)
    else:
        dense = dense_rows(factor)
        both = solved(factor, np.concatenate([dense, tail], axis=1), tolerance)
        known, inner = with_fixed(factor, dense, both[:, :n]), both[:, n:]
    half = np.linalg.solve(known.root, swept.fixed - known.dense.T @ inner)
    total = swept.total + tail.T @ inner + half.T @ half
    return 0.5 * (total + total.T)
