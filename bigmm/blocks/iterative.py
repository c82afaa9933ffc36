"""What the blocked Cholesky factor gives, from conjugate gradients and probes instead: same quantities, with error
bars.

    log|M|  = log|stages| + log|L L'| + tr log S_hat,   S_hat = I - X_hat with zero diagonal blocks in X_hat

and tr f as in `probes`, with f(s) = log s + 1 - s, whose first moment is exactly zero by the normalisation (a free
control variate: ALGORITHMS section 2).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bigmm.blocks.analysis import analyse
from bigmm.blocks.factor import Factor, eliminate_stages, factorize
from bigmm.blocks.gram import Gram
from bigmm.blocks.krylov import (
    TOLERANCE,
    Solved,
    TailOperator,
    conjugate_gradients,
    effects_of,
    lanczos_quadrature,
    lower_root,
    subtract_levels,
    tail_operator,
)
from bigmm.blocks.probes import Keys, Probes, keys_of, standard_error
from bigmm.blocks.row_structure import Order, chain_gram, row_structure
from bigmm.blocks.solve import Solution, forward
from bigmm.blocks.structure import Structure

PROBE_TOLERANCE = 3e-6
"""Relative residual of the probes' solves, in float32: their own Monte Carlo error is far larger."""
CURVATURE_TOLERANCE = 1e-4
"""Relative residual for average information, which only shapes the steps."""


@dataclass(frozen=True, slots=True)
class IterativeStructure:
    """tail: the whole model without a dense tail; chain: only the terms that are eliminated exactly, for their own
    part of the selected inverse; chain_terms: their numbers in the model."""

    tail: Structure
    chain: Structure
    chain_terms: tuple[int, ...]


def analyse_iterative(gram: Gram, order: Order | None = None) -> IterativeStructure:
    """Symbolic analysis for the iterative solver; order: see `row_structure`."""
    structure = row_structure(gram, order)
    chosen = tuple(stage.term for stage in structure.stages)
    return IterativeStructure(structure, analyse(chain_gram(gram, chosen)), chosen)


def probe_keys(structure: IterativeStructure) -> Keys:
    """What the probes of a model are keyed by."""
    return keys_of(structure.tail)


@dataclass(frozen=True, slots=True)
class IterativeFactor:
    """operator; chain: exact factor of the chain alone; dense (r, m): normalised tail rows of [X y]; solved (r, m):
    S_hat^-1 of them; corner (m, m) lower Cholesky factor of what is left of [X y]'[X y]; probes and their solutions
    (probes first, then the basis); logdet_z with its standard error; logdet_each (t,): log|M| as each single probe
    would have it, their mean is logdet_z; logdet_x, pwrss exact to the solver's tolerance; iterations of the data and
    of the probe solve."""

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
    logdet_each: np.ndarray
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
        subtract_levels(stage, part, part.v, dense)
    dense = operator.normalised(dense)
    data = conjugate_gradients(operator, dense)
    vv = np.tril(vv) + np.tril(vv, -1).T
    corner = lower_root(gram.xy - vv - dense.T @ data.x)
    start = np.concatenate([probes.vectors, probes.basis], axis=1)
    solved = conjugate_gradients(operator, start.astype(np.float32), PROBE_TOLERANCE)
    each = logdet + operator.logdet + _trace_each(probes, solved)
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
        float(each.mean()),
        standard_error(each),
        each,
        float(logs[:-1].sum()),
        float(corner[-1, -1]) ** 2,
        (data.iterations, solved.iterations),
    )


def _trace_each(probes: Probes, solved: Solved) -> np.ndarray:
    """(t,) tr log S_hat as each single probe would have it."""
    t = probes.vectors.shape[1]
    norms = np.concatenate([(part**2).sum(axis=0) for part in (probes.vectors, probes.basis)])
    values = lanczos_quadrature(solved, norms, first_moment_free)
    return values[:t] + values[t:].sum()


def with_more_probes(factor: IterativeFactor, probes: Probes) -> IterativeFactor:
    """The factor at the same Lambda with more probes, of which the first are its own: only the new ones are solved."""
    old = factor.probes.vectors.shape[1]
    new = np.ascontiguousarray(probes.vectors[:, old:].astype(np.float32))
    more = conjugate_gradients(factor.operator, new, PROBE_TOLERANCE)
    solved = _inserted(factor.probe_solution, more, old)
    base = factor.logdet_each[0] - _trace_each(factor.probes, factor.probe_solution)[0]
    each = base + _trace_each(probes, solved)
    return replace(
        factor,
        probes=probes,
        probe_solution=solved,
        logdet_z=float(each.mean()),
        logdet_error=standard_error(each),
        logdet_each=each,
        iterations=(factor.iterations[0], solved.iterations),
    )


def _inserted(first: Solved, more: Solved, at: int) -> Solved:
    """The columns of ``more`` put before column ``at`` of ``first``; resting columns have NaN coefficients."""
    steps = max(first.iterations, more.iterations)

    def columns(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.concatenate([a[:, :at], b, a[:, at:]], axis=1)

    def padded(a: np.ndarray) -> np.ndarray:
        return np.concatenate([a, np.full((steps - len(a), a.shape[1]), np.nan)])

    return Solved(
        columns(first.x, more.x),
        columns(first.image, more.image),
        steps,
        columns(padded(first.alpha), padded(more.alpha)),
        columns(padded(first.beta), padded(more.beta)),
    )


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
    return Solution(beta, tuple(e[:, :, 0] for e in effects_of(whole, factor.operator, tail, v)))


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
