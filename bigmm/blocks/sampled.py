"""What Newton's steps do not need: log|M|, traces and leverages, from probes and a fixed basis.

    M^-1 = M_chain^-1 + T S^-1 T',   S_hat^-1 = I + (S_hat^-1 - I),   T: from the tail to all random effects

The identity's part is exact, entry by entry (a control variate: it is most of the answer where levels are large);
the rest is q'f q summed over a fixed basis Q and the mean over probes with their part in Q removed, as in `iterative`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bigmm.blocks import scatter_kernels as kernels
from bigmm.blocks.analysis import analyse
from bigmm.blocks.factor import GRAIN, factorize
from bigmm.blocks.inverse import selected_inverse
from bigmm.blocks.iterative import first_moment_free
from bigmm.blocks.krylov import conjugate_gradients, lanczos_quadrature
from bigmm.blocks.parallel import run
from bigmm.blocks.probes import Probes, standard_error, sum_and_spread
from bigmm.blocks.row_structure import chain_gram
from bigmm.blocks.schur import SchurFactor, effects

PROBE_TOLERANCES = {np.dtype(np.float32): 1e-4, np.dtype(np.float64): 1e-9}
"""Relative residual of the probes' solves; quadratic forms are good to its square."""


@dataclass(frozen=True, slots=True)
class SampledFactor:
    """factor; start, solution, image (r, t + d): probes then basis, S_hat^-1 and S_hat of them; weight (t + d,): 1 / t
    for probes, 1 for the basis; logdet_each (t,): log|M| as each single probe would have it."""

    factor: SchurFactor
    start: np.ndarray
    solution: np.ndarray
    image: np.ndarray
    weight: np.ndarray
    logdet_each: np.ndarray

    @property
    def n_probes(self) -> int:
        return len(self.logdet_each)

    @property
    def logdet_z(self) -> float:
        """log|M|."""
        return float(self.logdet_each.mean())

    @property
    def logdet_error(self) -> float:
        """Its Monte Carlo standard error."""
        return standard_error(self.logdet_each)


def sample(factor: SchurFactor, probes: Probes) -> SampledFactor:
    """Solve for probes and basis; raises NotPositiveDefiniteError."""
    t, d = probes.vectors.shape[1], probes.basis.shape[1]
    start = np.concatenate([probes.vectors, probes.basis], axis=1).astype(factor.kind)
    found = conjugate_gradients(factor.operator, start, PROBE_TOLERANCES[factor.kind])
    norms = np.einsum("rv,rv->v", start, start, dtype=np.float64)
    values = lanczos_quadrature(found, norms, first_moment_free)
    each = factor.logdet_exact + values[t:].sum() + values[:t]
    weight = np.append(np.full(t, 1.0 / t), np.ones(d))
    return SampledFactor(factor, start, found.x, found.image, weight, each)


@dataclass(frozen=True, slots=True)
class Inverse:
    """J = Lambda M^-1 Lambda' on the levels that meet in a row: J = known + sum over v of weight_v start_v rest_v'.

    known: per term (q, k, k) exact diagonal blocks; pairs: {(j, k): (nnz, k_j, k_k)} exact blocks of `Gram.cross`, an
    absent pair being zero; start, rest: per term (q, k, nv);
    sums: per term (k, k) estimated sum over levels of J_ll; spread: per term (t, k, k) what each probe would say.
    """

    known: tuple[np.ndarray, ...]
    pairs: dict[tuple[int, int], np.ndarray]
    start: tuple[np.ndarray, ...]
    rest: tuple[np.ndarray, ...]
    weight: np.ndarray
    sums: tuple[np.ndarray, ...]
    spread: tuple[np.ndarray, ...]


def inverse(sampled: SampledFactor) -> Inverse:
    """The parts of J."""
    factor, structure = sampled.factor, sampled.factor.structure
    nested = len(structure.stages) > 1
    known, pairs = _chain_part(factor) if nested else _identity_part(factor)
    start = effects(factor, sampled.start)
    # with nested terms the identity's part is left to the probes
    rest = effects(factor, sampled.solution if nested else sampled.solution - sampled.start)
    tail_rest = factor.operator.raw(sampled.solution - 2.0 * sampled.start + sampled.image)
    sums, spread = [], []
    places = {t.term: (number, t) for number, t in enumerate(structure.tail)}
    for term, (a, b, exact) in enumerate(zip(start, rest, known, strict=True)):
        total = exact.sum(axis=0)
        if term in places:  # S^-1 = 2 I - S + ..., whose first two parts have known diagonal blocks
            number, t = places[term]
            b, block = tail_rest[t.offset : t.stop].reshape(a.shape), factor.operator.into[number]
            total = np.einsum("lab,lcb->ac", block, block)
        each = np.einsum("lav,lbv->vab", a, b, dtype=np.float64, optimize=True)
        estimate, own = sum_and_spread(total, each, sampled.n_probes)
        sums.append(estimate)
        spread.append(own)
    return Inverse(known, pairs, start, rest, sampled.weight, tuple(sums), tuple(spread))


def _identity_part(factor: SchurFactor) -> tuple[tuple[np.ndarray, ...], dict]:
    """M_chain^-1 + T T' on the pattern, for one stage."""
    structure, operator = factor.structure, factor.operator
    (stage,), (part,) = structure.stages, factor.stages
    known: list[np.ndarray] = [np.zeros(0)] * len(structure.gram.terms)
    own = part.h.transpose(0, 2, 1) @ part.h
    pairs = {}
    for t, into in zip(structure.tail, operator.into, strict=True):
        product = np.ascontiguousarray(into @ into.transpose(0, 2, 1))
        known[t.term] = product
        block = structure.gram.cross[stage.term, t.term]
        cross = np.empty((len(block.indices), stage.width, t.width), part.f.dtype)
        run(
            kernels.identity_blocks,
            stage.n_levels,
            GRAIN,
            stage.tail_start,
            stage.indptr,
            stage.columns,
            part.h,
            part.f,
            t.offset,
            t.stop,
            t.width,
            product,
            own,
            cross,
            block.indptr,
        )
        pairs[stage.term, t.term] = cross
    known[stage.term] = own
    return tuple(known), pairs


def _chain_part(factor: SchurFactor) -> tuple[tuple[np.ndarray, ...], dict]:
    """M_chain^-1 alone, from its own factor."""
    structure = factor.structure
    gram, chosen = structure.gram, [stage.term for stage in structure.stages]
    own = factorize(analyse(chain_gram(gram, chosen)), tuple(factor.lams[j] for j in chosen))
    found = selected_inverse(own, with_fixed=False, pattern=True)
    known = [np.zeros_like(term.diagonal) for term in gram.terms]
    for j, block in zip(chosen, found.covariances, strict=True):
        known[j] = np.asarray(block)
    return tuple(known), {(chosen[a], chosen[b]): block for (a, b), block in found.pairs.items()}
