"""What the probes of an iterative factor say about the inverse: sums of its diagonal blocks, and the blocks
themselves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bigmm.blocks import krylov_kernels as kernels
from bigmm.blocks.inverse import selected_inverse
from bigmm.blocks.iterative import IterativeFactor
from bigmm.blocks.krylov import ROWS, back_substitute, effects_of
from bigmm.blocks.parallel import run
from bigmm.blocks.probes import sum_and_spread


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
        sums[place.term], spread[place.term] = sum_and_spread(known, each, t)
    for stage, x, y, known in zip(whole.stages, stage_rest, stage_start, exact, strict=True):
        sums[stage.term], spread[stage.term] = sum_and_spread(known, _products(x, y), t)
    if with_fixed and factor.n_dense:
        for term, extra in enumerate(_fixed_part(factor)):
            sums[term] = sums[term] + extra
            spread[term] = spread[term] + extra
    return EstimatedCovariances(tuple(sums), tuple(spread))


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
    return [np.einsum("lav,lbv->ab", e @ root.T, e @ root.T) for e in effects_of(whole, operator, tail, v)]
