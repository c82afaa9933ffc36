"""What the blocked Cholesky factor gives, from conjugate gradients and probes instead: same quantities, with error
bars.

    log|M|  = log|stages| + log|L L'| + tr log S_hat,   S_hat = I - X_hat with zero diagonal blocks in X_hat
    tr f    = sum over a fixed deflation basis Q of q'f q + mean over probes z of (z - QQ'z)'f (z - QQ'z)

with f(s) = log s + 1 - s, whose first moment is exactly zero by the normalisation (a free control variate: ALGORITHMS
section 2). Deflation as in Hutch++ (Meyer, Musco, Musco and Woodruff 2021); Q and the probes are fixed by a seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bigmm.blocks import krylov_kernels as kernels
from bigmm.blocks import solve_kernels
from bigmm.blocks.analysis import analyse
from bigmm.blocks.factor import Factor, NotPositiveDefiniteError, eliminate_stages, factorize
from bigmm.blocks.gram import Gram
from bigmm.blocks.inverse import selected_inverse
from bigmm.blocks.krylov import (
    ROWS,
    TOLERANCE,
    Solved,
    TailOperator,
    back_substitute,
    conjugate_gradients,
    lanczos_quadrature,
    tail_operator,
)
from bigmm.blocks.parallel import run
from bigmm.blocks.solve import Solution, forward
from bigmm.blocks.structure import Structure

PROBE_TOLERANCE = 3e-6
"""Relative residual of the probes' solves, in float32: their own Monte Carlo error is far larger."""
CURVATURE_TOLERANCE = 1e-4
"""Relative residual for average information, which only shapes the steps."""


@dataclass(frozen=True, slots=True)
class Probes:
    """basis (r, d) orthonormal columns Q; vectors (r, t) random signs with their part in Q removed."""

    basis: np.ndarray
    vectors: np.ndarray


@dataclass(frozen=True, slots=True)
class IterativeStructure:
    """tail: the whole model without a dense tail; chain: only the terms that are eliminated exactly, for their own
    part of the selected inverse; chain_terms: their numbers in the model."""

    tail: Structure
    chain: Structure
    chain_terms: tuple[int, ...]


def analyse_iterative(gram: Gram) -> IterativeStructure:
    """Symbolic analysis for the iterative solver."""
    structure = analyse(gram, dense_tail=False)
    chosen = tuple(stage.term for stage in structure.stages)
    place = {term: number for number, term in enumerate(chosen)}
    cross = {(place[j], place[k]): b for (j, k), b in gram.cross.items() if j in place and k in place}
    terms = tuple(gram.terms[term] for term in chosen)
    chain = Gram(
        terms,
        cross,
        gram.xy,
        gram.n,
        gram.sum_log_w,
        gram.x_basis,
        gram.y_shift,
        gram.one,
        gram.active,
        gram.fixed_order,
        gram.y_sum_squares_total,
    )
    return IterativeStructure(structure, analyse(chain), chosen)


@dataclass(frozen=True, slots=True)
class IterativeFactor:
    """operator; chain: exact factor of the chain alone; dense (r, m): normalised tail rows of [X y]; solved (r, m):
    S_hat^-1
    of them; corner (m, m) lower Cholesky factor of what is left of [X y]'[X y]; probes and their solutions; logdet_z
    with its standard error; logdet_x, pwrss exact to the solver's tolerance; iterations of the data and of the probe
    solve."""

    structure: IterativeStructure
    operator: TailOperator
    chain: Factor
    dense: np.ndarray
    solved: np.ndarray
    corner: np.ndarray
    probes: Probes
    probe_solution: Solved
    logdet_z: float
    logdet_error: float
    logdet_x: float
    pwrss: float
    iterations: tuple[int, int]

    @property
    def n_dense(self) -> int:
        return self.dense.shape[1] - 1


def first_moment_free(s: np.ndarray) -> np.ndarray:
    """log s + 1 - s."""
    return np.log(s) + 1.0 - s


def factorize_iteratively(structure: IterativeStructure, lams, probes: Probes) -> IterativeFactor:
    """Everything the criterion needs at Lambda; raises NotPositiveDefiniteError."""
    whole, gram = structure.tail, structure.tail.gram
    stages, logdet, vv = eliminate_stages(whole, lams)
    operator = tail_operator(whole, lams, stages)
    m = whole.m
    dense = np.concatenate([gram.terms[t.term].dense.reshape(-1, m) for t in whole.tail])
    for stage, part in zip(whole.stages, stages, strict=True):
        run(
            solve_kernels.forward_tail, whole.r_raw, ROWS, stage.colptr, stage.entry, stage.level, part.f, part.v, dense
        )
    dense = operator.normalised(dense)
    data = conjugate_gradients(operator, dense)
    vv = np.tril(vv) + np.tril(vv, -1).T
    corner = _lower_root(gram.xy - vv - dense.T @ data.x)
    start = np.concatenate([probes.vectors, probes.basis], axis=1)
    solved = conjugate_gradients(operator, start.astype(np.float32), PROBE_TOLERANCE)
    t = probes.vectors.shape[1]
    values = lanczos_quadrature(solved, np.einsum("rv,rv->v", start, start), first_moment_free)
    logs = 2.0 * np.log(np.diagonal(corner))
    chain = factorize(structure.chain, tuple(lams[term] for term in structure.chain_terms))
    return IterativeFactor(
        structure,
        operator,
        chain,
        dense,
        data.x,
        corner,
        probes,
        solved,
        logdet + operator.logdet + float(values[t:].sum() + values[:t].mean()),
        float(values[:t].std(ddof=1) / np.sqrt(t)),
        float(logs[:-1].sum()),
        float(corner[-1, -1]) ** 2,
        (data.iterations, solved.iterations),
    )


def _lower_root(matrix: np.ndarray) -> np.ndarray:
    try:
        return np.linalg.cholesky(0.5 * (matrix + matrix.T))
    except np.linalg.LinAlgError:
        raise NotPositiveDefiniteError("the fixed effects' Schur complement is not positive definite") from None


def make_probes(factor_basis: np.ndarray, r: int, n_probes: int, seed: int) -> Probes:
    """Random signs, fixed by the seed, with their part in the basis removed."""
    rng = np.random.default_rng(np.random.Philox(seed))
    signs = rng.integers(0, 2, size=(n_probes, r)).T * 2.0 - 1.0
    return Probes(factor_basis, np.ascontiguousarray(signs - factor_basis @ (factor_basis.T @ signs)))


def deflation_basis(operator: TailOperator, size: int, seed: int, rounds: int = 12) -> np.ndarray:
    """(r, size) orthonormal columns near the largest |eigenvalues| of X_hat = I - S_hat, by subspace iteration."""
    size = min(size, operator.size // 4)
    rng = np.random.default_rng(np.random.Philox(seed + 1))
    basis = np.linalg.qr(rng.standard_normal((operator.size, size)))[0] if size else np.zeros((operator.size, 0))
    for _ in range(rounds if size else 0):
        basis = np.ascontiguousarray(basis)
        basis = np.linalg.qr(basis - operator.apply(basis.astype(np.float32)))[0]
    return np.ascontiguousarray(basis)


def operator_at(structure: IterativeStructure, lams) -> TailOperator:
    """The normalised Schur complement at Lambda."""
    stages, _, _ = eliminate_stages(structure.tail, lams)
    return tail_operator(structure.tail, lams, stages)


# ---------------------------------------------------------------------------------------------------- solves


def solve(factor: IterativeFactor) -> Solution:
    """Fixed effects and conditional modes, working basis."""
    m = factor.corner.shape[0]
    beta = np.linalg.solve(factor.corner[: m - 1, : m - 1].T, factor.corner[m - 1, : m - 1])
    coefficients = np.append(-beta, 1.0)
    tail = factor.operator.raw((factor.solved @ coefficients)[:, None])
    whole = factor.structure.tail
    v = [(part.v @ coefficients)[:, :, None] for part in factor.operator.stages]
    return Solution(beta, tuple(e[:, :, 0] for e in _effects(whole, factor.operator, tail, v)))


def _effects(whole: Structure, operator: TailOperator, tail: np.ndarray, v) -> tuple[np.ndarray, ...]:
    """Per term (q, k, nv) from the tail's raw values and the stages' back-substitution."""
    out: list[np.ndarray] = [np.zeros(0)] * len(whole.gram.terms)
    for t in whole.tail:
        out[t.term] = tail[t.offset : t.stop].reshape(t.n_levels, t.width, -1)
    for stage, values in zip(whole.stages, back_substitute(whole, operator.stages, tail, v), strict=True):
        out[stage.term] = values
    return tuple(out)


def quadratic(
    factor: IterativeFactor, rhs: tuple[np.ndarray, ...], rhs_x: np.ndarray, tolerance: float = TOLERANCE
) -> np.ndarray:
    """rhs'Omega_ZX^-1 rhs; rhs per term (q, k, nr) unscaled, rhs_x (p, nr); see `blocks.solve.quadratic`."""
    swept = forward(factor.structure.tail, factor.operator.stages, rhs, rhs_x)
    normalised = factor.operator.normalised(swept.tail)
    inner = conjugate_gradients(factor.operator, normalised, tolerance).x
    n = factor.n_dense
    rest = swept.fixed - factor.dense[:, :n].T @ inner
    half = np.linalg.solve(factor.corner[:n, :n], rest)
    return swept.total + normalised.T @ inner + half.T @ half


# ---------------------------------------------------------------------------------------------------- traces


@dataclass(frozen=True, slots=True)
class EstimatedCovariances:
    """Sums over levels of J_ll = Lambda (Omega^-1)_ll Lambda': sums[j] (k, k) per term, spread[j] (t, k, k) what
    each probe would say (their mean is in sums)."""

    sums: tuple[np.ndarray, ...]
    spread: tuple[np.ndarray, ...]


def summed_covariances(factor: IterativeFactor, with_fixed: bool) -> EstimatedCovariances:
    """Sum over levels of J_ll per term: exact parts, deflated part, and the probes' mean.

    Tail: S_hat^-1 = 2 I - S_hat + g, whose first two terms have known diagonal blocks; stages: J = J_chain + T S^-1 T'.
    """
    whole, operator = factor.structure.tail, factor.operator
    t = factor.probes.vectors.shape[1]
    start = np.concatenate([factor.probes.vectors, factor.probes.basis], axis=1)
    solution, image = factor.probe_solution.x, factor.probe_solution.image
    rest = solution - 2.0 * start + image
    exactly = len(whole.stages) == 1  # then the identity in S_hat^-1 = I + ... needs no probes in the stage's part
    raw_start, raw_rest = operator.raw(start), operator.raw(rest)
    raw_solution = operator.raw(solution - start if exactly else solution)
    stage_start = back_substitute(whole, operator.stages, raw_start)
    stage_rest = back_substitute(whole, operator.stages, raw_solution)
    exact = _exact_stage_part(factor)
    sums: list[np.ndarray] = [np.zeros(0)] * len(whole.gram.terms)
    spread: list[np.ndarray] = [np.zeros(0)] * len(whole.gram.terms)
    for number, place in enumerate(whole.tail):
        shape = (place.n_levels, place.width, start.shape[1])
        part = slice(place.offset, place.stop)
        each = _products(raw_rest[part].reshape(shape), raw_start[part].reshape(shape))
        block = operator.into[number]
        known = np.einsum("lab,lcb->ac", block, block)
        _collect(sums, spread, place.term, known, each, t)
    for stage, x, y, known in zip(whole.stages, stage_rest, stage_start, exact, strict=True):
        _collect(sums, spread, stage.term, known, _products(x, y), t)
    if with_fixed and factor.n_dense:
        for term, extra in enumerate(_fixed_part(factor)):
            sums[term] = sums[term] + extra
            spread[term] = spread[term] + extra
    return EstimatedCovariances(tuple(sums), tuple(spread))


def _collect(sums, spread, term, known, each, t) -> None:
    each = 0.5 * (each + each.transpose(0, 2, 1))
    deflated = known + each[t:].sum(axis=0)
    spread[term] = deflated + each[:t]
    sums[term] = deflated + each[:t].mean(axis=0)


def _products(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return sum(run(kernels.pairwise_products, len(x), ROWS * 8, np.ascontiguousarray(x), np.ascontiguousarray(y)))


def _exact_stage_part(factor: IterativeFactor) -> list[np.ndarray]:
    """Per stage the sum of J_chain,ll, and of T L^-T L^-1 T' from the tail's normalisation (S_hat^-1 = I + ...)."""
    whole, operator = factor.structure.tail, factor.operator
    covariances = selected_inverse(factor.chain, with_fixed=False, covariances=True).covariances
    out = [np.asarray(block).sum(axis=0) for block in covariances]
    if len(whole.stages) == 1:
        out[0] = out[0] + _identity_part(factor, whole.stages[0], operator.stages[0])
    return out


def _identity_part(factor: IterativeFactor, stage, part) -> np.ndarray:
    """sum over levels of h'f M M'f'h for scalar tail terms exactly, entry by entry."""
    whole, operator = factor.structure.tail, factor.operator
    total = np.zeros((stage.width, stage.width))
    for place, block in zip(whole.tail, operator.into, strict=True):
        product = block @ block.transpose(0, 2, 1)
        total += _stage_identity(stage, part, place, product)
    return total


def _stage_identity(stage, part, place, product) -> np.ndarray:
    parts = run(
        kernels.stage_identity,
        stage.n_levels,
        ROWS,
        stage.tail_start,
        stage.indptr,
        stage.columns,
        part.h,
        part.f,
        place.offset,
        place.stop,
        place.width,
        product,
    )
    return sum(parts)


def _fixed_part(factor: IterativeFactor) -> list[np.ndarray]:
    """Per term sum over levels of B_l Omega_XX^-1 B_l' with B = Lambda M^-1 Lambda'Z'X (REML)."""
    n = factor.n_dense
    whole, operator = factor.structure.tail, factor.operator
    tail = operator.raw(np.ascontiguousarray(factor.solved[:, :n]))
    v = [np.ascontiguousarray(part.v[:, :, :n]) for part in operator.stages]
    root = np.linalg.inv(factor.corner[:n, :n])
    return [np.einsum("lav,lbv->ab", e @ root.T, e @ root.T) for e in _effects(whole, operator, tail, v)]


# ---------------------------------------------------------------------------------------------------- per level


def level_covariances(factor: IterativeFactor) -> tuple[np.ndarray, ...]:
    """Per term (q, k, k) Lambda (M^-1)_ll Lambda': exact for the chain alone, the rest from basis and probes."""
    whole, operator = factor.structure.tail, factor.operator
    t = factor.probes.vectors.shape[1]
    start = np.concatenate([factor.probes.vectors, factor.probes.basis], axis=1)
    solution, image = factor.probe_solution.x, factor.probe_solution.image
    weight = np.append(np.full(t, 1.0 / t), np.ones(start.shape[1] - t))
    raw_start, raw_rest = operator.raw(start), operator.raw(solution - 2.0 * start + image)
    out: list[np.ndarray] = [np.zeros(0)] * len(whole.gram.terms)
    for number, place in enumerate(whole.tail):
        shape, part = (place.n_levels, place.width, -1), slice(place.offset, place.stop)
        block = operator.into[number]
        out[place.term] = block @ block.transpose(0, 2, 1) + _outer(
            raw_rest[part].reshape(shape), raw_start[part], weight
        )
    chain = selected_inverse(factor.chain, with_fixed=False, covariances=True).covariances
    stage_start = back_substitute(whole, operator.stages, raw_start)
    stage_solution = back_substitute(whole, operator.stages, operator.raw(solution))
    for stage, own, x, y in zip(whole.stages, chain, stage_solution, stage_start, strict=True):
        out[stage.term] = np.asarray(own) + _outer(x, y, weight)
    return tuple(out)


def _outer(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> np.ndarray:
    product = np.einsum("lav,lbv->lab", x * weight, y.reshape(x.shape))
    return 0.5 * (product + product.transpose(0, 2, 1))


ROWS_AT_ONCE = 64


def row_quadratics(factor: IterativeFactor, x: np.ndarray, refs: tuple, z: tuple) -> np.ndarray:
    """[Lambda'z; x]'Omega^-1 [Lambda'z; x] per row, exact to the tolerance, a block of rows at a time; see
    `blocks.rows`."""
    gram = factor.structure.tail.gram
    pieces = []
    for lo in range(0, len(x), ROWS_AT_ONCE):
        part = slice(lo, min(lo + ROWS_AT_ONCE, len(x)))
        n = part.stop - part.start
        rhs = [np.zeros((t.n_levels, t.width, n)) for t in gram.terms]
        for j in range(len(gram.terms)):
            known = np.flatnonzero(refs[j][part] >= 0)
            rhs[j][refs[j][part][known], :, known] = z[j][part][known]
        pieces.append(np.diagonal(quadratic(factor, tuple(rhs), np.ascontiguousarray(x[part].T))))
    return np.concatenate(pieces) if pieces else np.zeros(0)
