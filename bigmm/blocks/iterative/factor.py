"""The iterative solver's factor: chains of nested terms are eliminated, the tail's Schur complement S is applied.

One factor serves linear models, whose columns are [X y], and generalized ones at one set of working weights, whose
columns are X. Solutions are exact to a tolerance; log|M| and blocks of the inverse need probes (`sampled`, `traces`).
Right-hand sides are unscaled, so that rhs stands for Lambda'rhs, and solutions are effects, Lambda t.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bigmm.blocks.exact.factor import StageFactor, eliminate_stages
from bigmm.blocks.exact.solve import Solution, forward
from bigmm.blocks.exact.sweeps import subtract_levels
from bigmm.blocks.iterative.krylov import TailOperator, conjugate_gradients, effects_of, lower_root, tail_operator
from bigmm.blocks.iterative.structure import IterativeStructure
from bigmm.blocks.structure import Structure


@dataclass(frozen=True, slots=True)
class Precision:
    """Types of the tail's vectors and relative residuals of their solves.

    Quadratic forms of the model's own right-hand sides are good to the square of the residual. Probes need less, since
    their Monte Carlo error is far larger.
    """

    data: Any
    tolerance: float
    probes: Any
    probe_tolerance: float


@dataclass(frozen=True, slots=True)
class Fixed:
    """The first c columns of [X y] beside the random effects.

    dense (r, c) are the normalised tail rows of Z'W[X y], and solved (r, c) = S_hat^-1 dense took so many iterations.
    root (c, c) is the lower Cholesky factor of the Schur complement of [X y]'W[X y].
    """

    dense: np.ndarray
    solved: np.ndarray
    root: np.ndarray
    iterations: int


@dataclass(frozen=True, slots=True)
class IterativeFactor:
    """The factor of Omega under the iterative solver.

    Attributes
    ----------
    analysed: the analysis, of which ``structure`` is the whole model.
    operator: the tail's Schur complement.
    logdet: log|M| but for tr(log S_hat + I - S_hat).
    vv: (m, m) what the stages take from [X y]'W[X y].
    columns: number of columns of [X y] to solve for.
    precision: types and tolerances of the solves.
    cache: the solutions for these columns, filled by the first call of `fixed_part`.
    """

    analysed: IterativeStructure
    operator: TailOperator
    logdet: float
    vv: np.ndarray
    columns: int
    precision: Precision
    # A list in a frozen record, filled once: what it holds is a function of the other fields.
    cache: list[Fixed]

    @property
    def structure(self) -> Structure:
        """The whole model, without a dense tail."""
        return self.analysed.whole

    @property
    def lams(self) -> tuple[np.ndarray, ...]:
        """Per term (k, k) Lambda's block in the working basis."""
        return self.operator.lams

    @property
    def stages(self) -> tuple[StageFactor, ...]:
        """The factors of the stages."""
        return self.operator.stages

    @property
    def n_dense(self) -> int:
        """p, the number of columns of X."""
        return self.structure.m - 1

    @property
    def logdet_x(self) -> float:
        """log|X'V^-1X|."""
        return 2.0 * float(np.log(np.diagonal(fixed_part(self).root)[: self.n_dense]).sum())

    @property
    def pwrss(self) -> float:
        """r2; only with y among the columns."""
        return float(fixed_part(self).root[self.n_dense, self.n_dense]) ** 2


def factorize_iteratively(
    analysed: IterativeStructure, lams: tuple[np.ndarray, ...], precision: Precision, with_y: bool
) -> IterativeFactor:
    """Eliminate the stages and normalise the tail. With y the criterion needs its residual: solve for [X y] too.

    Raises NotPositiveDefiniteError.
    """
    structure = analysed.whole
    stages, logdet, vv = eliminate_stages(structure, lams)
    operator = tail_operator(analysed, lams, stages)
    vv = np.tril(vv) + np.tril(vv, -1).T
    columns = structure.m - 1 + with_y
    logdet += operator.logdet
    factor = IterativeFactor(analysed, operator, logdet, vv, columns, precision, [])
    if with_y:
        fixed_part(factor)
    return factor


# -------------------------------------------------------------------------------------------- columns of X and y


def fixed_part(factor: IterativeFactor) -> Fixed:
    """The solutions for the columns of [X y], computed by the first call; raises NotPositiveDefiniteError."""
    return _with_tail(factor, np.zeros((factor.operator.size, 0)))[0] if not factor.cache else factor.cache[0]


def _with_tail(factor: IterativeFactor, tail: np.ndarray, tolerance: float | None = None) -> tuple[Fixed, np.ndarray]:
    """(`fixed_part`, S_hat^-1 tail). The first call solves for both in one block of right-hand sides."""
    if factor.cache:
        return factor.cache[0], _solved(factor, tail, tolerance)[0]
    # One block of right-hand sides: an iteration reads the matrix once, however many columns there are.
    dense, c = _dense_rows(factor), factor.columns
    both, iterations = _solved(factor, np.concatenate([dense, tail], axis=1), tolerance)
    solved = np.ascontiguousarray(both[:, :c])
    matrix = factor.structure.gram.xy[:c, :c] - factor.vv[:c, :c] - dense.T @ solved
    factor.cache[:] = [Fixed(dense, solved, lower_root(matrix), iterations)]
    return factor.cache[0], both[:, c:]


def _dense_rows(factor: IterativeFactor) -> np.ndarray:
    """(r, c) normalised tail rows of Z'W[X y] once the stages are eliminated."""
    structure, c = factor.structure, factor.columns
    terms = (structure.gram.terms[t.term].dense[:, :, :c] for t in structure.tail)
    dense = np.concatenate([term.reshape(-1, c) for term in terms])
    for stage, part in zip(structure.stages, factor.stages, strict=True):
        subtract_levels(stage, part, part.v[:, :, :c], dense)
    return factor.operator.normalised(dense)


def _solved(factor: IterativeFactor, rhs: np.ndarray, tolerance: float | None) -> tuple[np.ndarray, int]:
    """(S_hat^-1 rhs (r, nv) in float64, iterations)."""
    kind, usual = factor.precision.data, factor.precision.tolerance
    rhs = rhs.astype(kind, copy=False)
    solved = conjugate_gradients(factor.operator, rhs, usual if tolerance is None else tolerance)
    # Iterations run in the type of the data; what is made of their results is float64.
    return solved.x.astype(np.float64, copy=False), solved.iterations


# ---------------------------------------------------------------------------------------------------- solves


def effects(factor: IterativeFactor, x: np.ndarray, v: Sequence[np.ndarray] | None = None) -> tuple[np.ndarray, ...]:
    """Per term (q, k, nv) unscaled, from the tail's normalised solution x (r, nv) and the stages' forward sides v."""
    return effects_of(factor.structure, factor.operator, factor.operator.raw(x), v)


def solve(factor: IterativeFactor) -> Solution:
    """Fixed effects and conditional modes for the response's column, working basis."""
    fixed_columns, n = fixed_part(factor), factor.n_dense
    beta = np.linalg.solve(fixed_columns.root[:n, :n].T, fixed_columns.root[n, :n])
    coefficients = np.append(-beta, 1.0)
    v = [(part.v @ coefficients)[:, :, None] for part in factor.stages]
    solved = effects(factor, (fixed_columns.solved @ coefficients)[:, None], v)
    return Solution(beta, tuple(e[:, :, 0] for e in solved))


def fixed_effects_of_levels(factor: IterativeFactor) -> tuple[np.ndarray, ...]:
    """Per term (q, k, p) Lambda M^-1 Lambda'Z'WX."""
    n = factor.n_dense
    v = [np.ascontiguousarray(part.v[:, :, :n]) for part in factor.stages]
    return effects(factor, np.ascontiguousarray(fixed_part(factor).solved[:, :n]), v)


def solve_for(
    factor: IterativeFactor, rhs: tuple[np.ndarray, ...], rhs_x: np.ndarray, random_only: bool
) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """(Lambda t per term (q, k, nr), tau (p, nr)) with Omega (t, tau) = (Lambda'rhs, rhs_x); see `rhs.solve_for`."""
    n, nr = factor.n_dense, rhs_x.shape[1]
    swept = forward(factor.structure, factor.stages, rhs, rhs_x)
    tail = factor.operator.normalised(swept.tail)
    if random_only:
        tau, x = np.zeros((n, nr)), _solved(factor, tail, None)[0]
    else:
        fixed_columns, x = _with_tail(factor, tail)
        root = fixed_columns.root[:n, :n]
        tau = np.linalg.solve(root.T, np.linalg.solve(root, swept.fixed - fixed_columns.dense[:, :n].T @ x))
        x = x - fixed_columns.solved[:, :n] @ tau
    v = [w - part.v[:, :, :n] @ tau for w, part in zip(swept.w, factor.stages, strict=True)]
    return effects(factor, x, v), tau


def quadratic(
    factor: IterativeFactor, rhs: tuple[np.ndarray, ...], rhs_x: np.ndarray, tolerance: float | None = None
) -> np.ndarray:
    """rhs'Omega_ZX^-1 rhs, (nr, nr); rhs per term (q, k, nr), rhs_x (p, nr); see `blocks.solve.quadratic`."""
    n = factor.n_dense
    swept = forward(factor.structure, factor.stages, rhs, rhs_x)
    tail = factor.operator.normalised(swept.tail)
    fixed_columns, inner = _with_tail(factor, tail, tolerance)
    half = np.linalg.solve(fixed_columns.root[:n, :n], swept.fixed - fixed_columns.dense[:, :n].T @ inner)
    total = swept.total + tail.T @ inner + half.T @ half
    # tail'inner is symmetric up to the tolerance of the solve only.
    return 0.5 * (total + total.T)
