"""What the probes of an iterative factor say about the inverse: on the levels that meet in a row, and in sum.

    M^-1 = M_chain^-1 + T S^-1 T',   S_hat^-1 = I + (S_hat^-1 - I),   T: from the tail to all random effects

With one stage and no nested terms in the tail the identity's part is exact, entry by entry (a control variate: it is
most of the answer where levels are large). The rest is q'f q summed over a fixed basis Q and the mean over probes with
their part in Q removed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bigmm.blocks.exact import scatter_kernels
from bigmm.blocks.exact.factor import GRAIN, Factor, StageFactor
from bigmm.blocks.exact.inverse import selected_inverse
from bigmm.blocks.exact.scatter_kernels import TailRows, TermColumns
from bigmm.blocks.exact.sweeps import ROWS
from bigmm.blocks.iterative import krylov_kernels
from bigmm.blocks.iterative.factor import IterativeFactor, effects, fixed_effects_of_levels, fixed_part
from bigmm.blocks.iterative.probes import sum_and_spread
from bigmm.blocks.iterative.sampled import SampledFactor
from bigmm.blocks.parallel import run

Pairs = dict[tuple[int, int], np.ndarray]


@dataclass(frozen=True, slots=True)
class Inverse:
    """J = Lambda M^-1 Lambda' on the levels that meet in a row: J = exact + sum over v of weight_v start_v image_v'.

    Attributes
    ----------
    exact: per term (q, k, k), the part of the diagonal blocks that needs no probes.
    pairs: {(j, k): (nnz, k_j, k_k)}, the same of the blocks of `Gram.cross`. A pair that is not there is zero.
    start, image: per term (q, k, t + d), effects of the probes and the basis, and of their images.
    weight: (t + d,), 1 / t for a probe and 1 for a column of the basis.
    sums: per term (k, k), the estimated sum over levels of J_ll.
    spread: per term (t, k, k), the estimates of single probes, whose mean is in ``sums``.
    """

    exact: tuple[np.ndarray, ...]
    pairs: Pairs
    start: tuple[np.ndarray, ...]
    image: tuple[np.ndarray, ...]
    weight: np.ndarray
    sums: tuple[np.ndarray, ...]
    spread: tuple[np.ndarray, ...]


def inverse(factor: SampledFactor, with_pairs: bool) -> Inverse:
    """The parts of J; without pairs only their diagonal blocks are known."""
    structure, operator, solved, t = factor.structure, factor.operator, factor.solved, factor.n_probes
    exactly = len(structure.stages) == 1 and not operator.nested
    exact_blocks, pairs = (_identity_part if exactly else _chain_part)(factor, with_pairs)
    start_vectors = factor.start
    start = effects(factor, start_vectors)
    remainder = effects(factor, solved.x - start_vectors if exactly else solved.x)
    tail_rest = operator.raw(solved.x - 2.0 * start_vectors + solved.image)
    places = {place.term: place for place in structure.tail}
    own_blocks = operator.diagonal_blocks()
    sums, spread = [], []
    for term, (a, b, exact) in enumerate(zip(start, remainder, exact_blocks, strict=True)):
        total = exact.sum(axis=0)
        if term in places:
            total, place = own_blocks[term].sum(axis=0), places[term]
            # S_hat^-1 = 2 I - S_hat + ..., whose first two parts have known diagonal blocks; of nested terms only I
            b = b - a if term in operator.nested else tail_rest[place.offset : place.stop].reshape(a.shape)
        estimate, block = sum_and_spread(total, _products(a, b), t)
        sums.append(estimate)
        spread.append(block)
    weight = np.append(np.full(t, 1.0 / t), np.ones(start_vectors.shape[1] - t))
    return Inverse(exact_blocks, pairs, start, remainder, weight, tuple(sums), tuple(spread))


@dataclass(frozen=True, slots=True)
class EstimatedCovariances:
    """Sums over levels of Lambda (Omega^-1)_ll Lambda': sums[j] (k, k) per term, spread[j] (t, k, k) what each probe
    would say."""

    sums: tuple[np.ndarray, ...]
    spread: tuple[np.ndarray, ...]


def summed_covariances(factor: SampledFactor, with_fixed: bool) -> EstimatedCovariances:
    """With M^-1 for Omega^-1, or with that of the fixed effects in it (REML)."""
    estimate_parts = inverse(factor, with_pairs=False)
    if not (with_fixed and factor.n_dense):
        return EstimatedCovariances(estimate_parts.sums, estimate_parts.spread)
    extra, n = [], factor.n_dense
    root = np.linalg.inv(fixed_part(factor).root[:n, :n])
    for e in fixed_effects_of_levels(factor):
        # root'root = (X'V^-1X)^-1, so this adds what REML has beyond ML.
        moved = e @ root.T
        extra.append(np.einsum("lav,lbv->ab", moved, moved))
    return EstimatedCovariances(
        *(
            tuple(a + b for a, b in zip(index, extra, strict=True))
            for index in (estimate_parts.sums, estimate_parts.spread)
        )
    )


def _products(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(nv, k, k) sums over levels of x_l y_l', vector by vector; x, y (q, k, nv)."""
    pair = np.ascontiguousarray(x), np.ascontiguousarray(y)
    return sum(run(krylov_kernels.pairwise_products, len(x), ROWS * 8, *pair))


def _identity_part(factor: IterativeFactor, with_pairs: bool) -> tuple[tuple[np.ndarray, ...], Pairs]:
    """M_chain^-1 + T T', for one stage."""
    structure, operator = factor.structure, factor.operator
    (stage,), (part,) = structure.stages, factor.stages
    exact_blocks: list[np.ndarray] = [np.zeros(0)] * len(structure.gram.terms)
    # share is aliased on purpose: `identity_blocks` adds the part of each tail term to it.
    exact_blocks[stage.term] = share = part.h.transpose(0, 2, 1) @ part.h
    pairs: Pairs = {}
    rows = TailRows(stage.tail_start, stage.indptr, stage.columns, part.f)
    own_blocks = operator.diagonal_blocks()
    for place in structure.tail:
        exact_blocks[place.term] = product = own_blocks[place.term]
        block = structure.gram.cross[stage.term, place.term] if with_pairs else None
        # Without pairs the kernel reads these places and writes nothing there.
        first = np.zeros(stage.n_levels, np.int64) if block is None else block.indptr
        cross = np.empty((0 if block is None else len(block.indices), stage.width, place.width), part.f.dtype)
        columns = TermColumns(place.offset, place.stop, place.width)
        run(scatter_kernels.identity_blocks, stage.n_levels, GRAIN, rows, part.h, columns, product, share, cross, first)
        if with_pairs:
            pairs[stage.term, place.term] = cross
    return tuple(exact_blocks), pairs


def _chain_part(factor: IterativeFactor, with_pairs: bool) -> tuple[tuple[np.ndarray, ...], Pairs]:
    """M_chain^-1 alone: where levels' columns overlap, the identity's part is left to probes."""
    chosen = [stage.term for stage in factor.structure.stages]
    estimate_parts = selected_inverse(_chain_factor(factor), with_fixed=False, covariances=True, pattern=with_pairs)
    exact_blocks = [np.zeros_like(term.diagonal) for term in factor.structure.gram.terms]
    for j, block in zip(chosen, estimate_parts.covariances, strict=True):
        exact_blocks[j] = np.asarray(block)
    return tuple(exact_blocks), {(chosen[a], chosen[b]): block for (a, b), block in estimate_parts.pairs.items()}


def _chain_factor(factor: IterativeFactor) -> Factor:
    """The leading block of the factor: the stages' entries in each other's columns, which stand first in their rows."""
    chain = factor.analysed.chain
    stages = []
    for stage, alone, part in zip(factor.structure.stages, chain.stages, factor.stages, strict=True):
        index = len(alone.columns) // max(stage.n_levels, 1)
        block = (stage.indptr[:-1, None] + np.arange(index)).ravel()
        # `selected_inverse` is compiled for float64, rows may be float32.
        data, f = (np.asarray(x[block], np.float64) for x in (part.data, part.f))
        stages.append(StageFactor(part.diagonal, part.dense, data, part.h, f, part.v))
    lams = tuple(factor.lams[stage.term] for stage in factor.structure.stages)
    none = np.zeros((0, 0))
    return Factor(chain, lams, tuple(stages), none, none, 0, 0, factor.logdet, 0.0, 0.0)
