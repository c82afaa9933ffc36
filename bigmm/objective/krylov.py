"""The iterative solver: conjugate gradients on the tail's Schur complement, and probes for log|M| and traces.

Estimates have a Monte Carlo error; all else is exact to a tolerance. The derivation is in docs/iterative.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np

from bigmm.blocks.exact.solve import Solution
from bigmm.blocks.gram import Gram
from bigmm.blocks.iterative import conditional, sampled
from bigmm.blocks.iterative import factor as iterative
from bigmm.blocks.iterative.factor import IterativeFactor, Precision, fixed_part
from bigmm.blocks.iterative.probes import Probes, draw_probes, keys_of, make_probes, most_deflation
from bigmm.blocks.iterative.sampled import SampledFactor
from bigmm.blocks.iterative.structure import IterativeStructure, Order, analyse_iterative
from bigmm.blocks.iterative.traces import EstimatedCovariances, Inverse, inverse, summed_covariances
from bigmm.blocks.numeric_update import RowUpdate
from bigmm.blocks.structure import Structure
from bigmm.objective.boundary import Projections, extrapolated
from bigmm.objective.driver_levels import DriverFactor, DriverLevels
from bigmm.objective.factorization import Lams, Leverages, Probing, Terms, Variances
from bigmm.objective.refinement import Refined
from bigmm.objective.start import level_squares

PRECISION = Precision(np.float64, 1e-8, np.float32, 3e-6)
"""Of linear models: their criterion needs r2 to many digits."""
MOST_PROBES = 256
"""Random vectors beyond which a search does not go."""
SINGLE_PRECISION = 1_000_000
"""Numbers in cross blocks from which on these and the vectors of the tail are float32 in generalized models: Newton's
method needs exact scores, not an exact matrix, and an estimate has a larger error anyway."""
WORKING_PRECISIONS = {
    np.dtype(np.float32): Precision(np.float32, 1e-5, np.float32, 1e-4),
    np.dtype(np.float64): Precision(np.float64, 1e-10, np.float64, 1e-9),
}
"""Of generalized models, by the type of the numbers: what float32 can reach, and close to exact."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Accuracy of the solves.

    Attributes
    ----------
    precision : of the tail's solves.
    curvature : relative residual of the solves that only shape the steps. Their quadratic forms are good to its square.
    with_y : whether [X y] is solved for, or X alone.
    """

    precision: Precision
    curvature: float
    with_y: bool


LINEAR = Accuracy(PRECISION, 1e-4, True)


def working_accuracy(pattern: Gram, dtype: Any = None) -> Accuracy:
    """Of a generalized model with blocks of this pattern; dtype: None chooses by size."""
    entries = sum(block.data.size for block in pattern.cross.values())
    default = np.float32 if entries >= SINGLE_PRECISION else np.float64
    return Accuracy(WORKING_PRECISIONS[np.dtype(dtype or default)], 1e-3, False)


class KrylovFactor(DriverFactor):
    """A `WorkingFactorization` whose probes are solved for when log|M| or a trace is asked for first."""

    def __init__(self, solver: KrylovSolver, blocks: IterativeFactor, sample: SampledFactor | None = None):
        self.solver, self.blocks, self._sample = solver, blocks, sample
        self.structure = blocks.structure
        self._projections: dict[bool, Projections] = {}

    @property
    def sample(self) -> SampledFactor:
        """The blocks with their probes solved for; raises NotPositiveDefiniteError."""
        if self._sample is None:
            self._sample = sampled.sample(self.blocks, self.solver.probes_of(self.blocks))
        return self._sample

    @property
    def lams(self) -> Lams:
        """(k, k) per term, working basis."""
        return self.blocks.lams

    @property
    def logdet_z(self) -> float:
        """log|M|, estimated."""
        return self.sample.logdet_z

    @property
    def logdet_error(self) -> float:
        """Its Monte Carlo standard error."""
        return self.sample.logdet_error

    @property
    def logdet_each(self) -> np.ndarray:
        """(t,) log|M| by each single probe."""
        return self.sample.logdet_each

    @property
    def logdet_x(self) -> float:
        """log|X'V^-1X|."""
        return self.blocks.logdet_x

    @property
    def pwrss(self) -> float:
        """r2."""
        return self.blocks.pwrss

    def solution(self) -> Solution:
        """See `blocks.iterative.solve`."""
        return iterative.solve(self.blocks)

    def quadratic(self, rhs: Terms, rhs_x: np.ndarray) -> np.ndarray:
        """See `blocks.iterative.quadratic`."""
        return iterative.quadratic(self.blocks, rhs, rhs_x, self.solver.accuracy.curvature)

    def projected(self, with_fixed: bool) -> tuple[np.ndarray | None, ...]:
        """See `Factorization.projected`; estimated."""
        return self._estimated(with_fixed).sums

    def spread(self, with_fixed: bool) -> Sequence[tuple[np.ndarray, ...]]:
        """See `Factorization.spread`."""
        return self._estimated(with_fixed).spread

    def _estimated(self, with_fixed: bool) -> Projections:
        if with_fixed not in self._projections:
            covariances = summed_covariances(self.sample, with_fixed)

            def projections_at(lams: Lams) -> Projections:
                other = self._elsewhere(lams)
                return projections_of(summed_covariances(other, with_fixed), other)

            self._projections[with_fixed] = self._extrapolated(covariances, projections_at)
        return self._projections[with_fixed]

    def _elsewhere(self, lams: Lams) -> SampledFactor:
        """The same blocks at another Lambda, with the same probes."""
        # Traces do not depend on y.
        other = iterative.factorize_iteratively(self.blocks.analysed, lams, self.blocks.precision, with_y=False)
        return sampled.sample(other, self.sample.probes)

    def _extrapolated(self, covariances: EstimatedCovariances | Inverse, projections_at: Any) -> Projections:
        """A nearly singular Lambda hides its projections, which are extrapolated: see `boundary`."""
        gram = self.structure.gram
        sizes = iter(level_squares(gram))
        squares = [next(sizes) if term.penalized else None for term in gram.terms]
        return extrapolated(projections_of(covariances, self.blocks), self.lams, squares, projections_at)

    def fixed_root(self) -> np.ndarray:
        """See `Factorization.fixed_root`."""
        n = self.blocks.n_dense
        return fixed_part(self.blocks).root[:n, :n]

    def rows(self, x: np.ndarray, refs: tuple[np.ndarray, ...], z: tuple[np.ndarray, ...]) -> np.ndarray:
        """See `blocks.conditional.exact_rows`."""
        return conditional.exact_rows(self.blocks, x, refs, z)

    def row_estimator(self, rows: int | None) -> conditional.RowEstimator | None:
        """None where solving for the rows takes less than about ten seconds."""
        exact = rows is not None and rows <= conditional.rows_within(self.blocks)
        return None if exact else self._row_estimator()

    def _row_estimator(self) -> conditional.RowEstimator:
        """Of the seed's probes, more of them than the fit has: they are cheap beside the fit's many evaluations."""
        count, keys = conditional.affordable_probes(self.sample), keys_of(self.structure)
        basis = self.sample.probes.basis
        probes = make_probes(basis, self.blocks.operator.size, count, self.solver.seed, keys)
        return conditional.row_estimator(self.sample, probes)

    def level_variances(self, scale: float) -> tuple[Variances, ...]:
        """See `Factorization.level_variances`; of many levels they are estimated."""
        terms = self.structure.gram.terms
        if sum(term.n_levels * term.width for term in terms) <= conditional.rows_within(self.blocks):
            return tuple(Variances(self.selected_variances(scale, j, None), None) for j in range(len(terms)))
        estimator = self._row_estimator()
        pairs = (estimator.levels(j, np.linalg.inv(term.basis)) for j, term in enumerate(terms))
        return tuple(Variances(scale * value, scale * error) for value, error in pairs)

    def selected_variances(self, scale: float, term: int, levels: Any) -> np.ndarray:
        """See `Factorization.selected_variances`; a solve for each level and covariate."""
        block = self.structure.gram.terms[term]
        numbers = np.arange(block.n_levels) if levels is None else np.asarray(levels)
        columns = [
            conditional.exact_rows(self.blocks, None, *conditional.one_term(self.blocks, term, numbers, direction))
            for direction in np.linalg.inv(block.basis)
        ]
        return scale * np.column_stack(columns)

    def refined(self) -> Refined | None:
        """There is no factor to refine with."""
        return None

    def effects(self, rhs: Terms, rhs_x: np.ndarray, random_only: bool) -> tuple[Terms, np.ndarray]:
        """See `blocks.iterative.solve_for`."""
        wide = tuple(r[:, :, None] for r in rhs)
        wide_x = np.zeros((self.blocks.n_dense, 1)) if random_only else rhs_x[:, None]
        effects, tau = iterative.solve_for(self.blocks, wide, wide_x, random_only)
        return tuple(e[:, :, 0] for e in effects), tau[:, 0]

    def remainder(self, rhs: Terms, effects: Terms, tau: np.ndarray) -> Terms:
        """See `WorkingFactorization.remainder`.

        It is Lambda'^-1 Lambda^-1 effects, by the equation that the effects solve: a difference would enlarge the
        error of the solve. A singular Lambda has no inverse, and leaves only the difference.
        """
        # The inverse enters squared: a condition of 1e6 leaves four digits.
        if any(np.linalg.cond(lam) >= 1e6 for lam in self.lams):
            return self.difference(rhs, effects, tau)
        inverses = [np.linalg.inv(lam) for lam in self.lams]
        return tuple(e @ (inverse.T @ inverse) for e, inverse in zip(effects, inverses, strict=True))

    def leverages(self) -> Leverages:
        """See `blocks.traces.inverse`."""
        blocks = inverse(self.sample, with_pairs=True)

        def projections_at(lams: Lams) -> Projections:
            other = self._elsewhere(lams)
            return projections_of(inverse(other, with_pairs=False), other)

        projections, dtype = self._extrapolated(blocks, projections_at), self.solver.dtype
        start, image = (tuple(np.ascontiguousarray(x, dtype) for x in terms) for terms in (blocks.start, blocks.image))
        weight = blocks.weight.astype(dtype)
        return Leverages(blocks.exact, blocks.pairs, start, image, weight, projections.sums, list(projections.spread))


class KrylovSolver(DriverLevels):
    """Both a `Solver` of the blocks of a linear model and a `WorkingSolver` of other numbers in their pattern.

    Probes and basis are made at the first factor whose log|M| or traces are asked for, and then remain, so that the
    objective is a deterministic function of its parameters.

    Parameters
    ----------
    gram : the blocks, or their pattern.
    probes : number of random vectors.
    deflation : size of the basis of the largest eigenvalues.
    seed : of both.
    order : of elimination, where it is that of another model.
    accuracy : of the solves.
    """

    name = "iterative"
    is_exact = False
    is_cheap = False

    def __init__(
        self,
        gram: Gram,
        probes: int = 8,
        deflation: int = 16,
        seed: int = 0,
        order: Order | None = None,
        accuracy: Accuracy = LINEAR,
    ):
        self.gram, self.n_probes, self.n_deflation, self.seed = gram, probes, deflation, seed
        self.order, self.accuracy = order, accuracy
        self.probes: Probes | None = None
        self._next: KrylovFactor | None = None

    def __getstate__(self) -> dict[str, Any]:
        # A factor is many times larger than the blocks, and is made again from the same probes.
        return self.__dict__ | {"_next": None}

    @cached_property
    def analysed(self) -> IterativeStructure:
        """The order of elimination, and the rows of every stage."""
        return analyse_iterative(self.gram, self.order)

    @cached_property
    def update(self) -> RowUpdate:
        """What puts other numbers in the pattern."""
        return RowUpdate(self.gram)

    @property
    def structure(self) -> Structure:
        """The blocks in their order of elimination, without a dense tail."""
        return self.analysed.whole

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the numbers in cross blocks, and of the vectors of the tail."""
        dtype: np.dtype[Any] = np.dtype(self.accuracy.precision.data)
        return dtype

    @property
    def probing(self) -> Probing:
        """See `Probing`."""
        return Probing(self.n_probes, self.n_deflation, self.seed)

    @property
    def probed(self) -> tuple[str, ...]:
        """Names of the factors in the tail: fits with one seed have common probes for the factors they share."""
        return tuple(name for name, _, _ in keys_of(self.structure))

    @property
    def eliminated(self) -> tuple[str, ...]:
        """Names of the factors that are eliminated exactly."""
        return tuple(self.gram.terms[stage.term].name for stage in self.structure.stages)

    def factor(self, lams: Lams, gram: Gram | None = None) -> KrylovFactor:
        """See `blocks.iterative.factorize_iteratively`; gram: other numbers in the pattern of the solver's blocks."""
        ready, self._next = self._next, None  # an old factor is freed before a new one is made
        if ready is not None and gram is None and all(map(np.array_equal, ready.lams, lams)):
            return ready
        del ready
        analysed, accuracy = self.analysed if gram is None else self.update(gram), self.accuracy
        blocks = iterative.factorize_iteratively(analysed, lams, accuracy.precision, with_y=accuracy.with_y)
        return KrylovFactor(self, blocks)

    def probes_of(self, blocks: IterativeFactor) -> Probes:
        """The probes, which are drawn at the first factor that needs them."""
        if self.probes is None:
            self.probes = draw_probes(blocks.operator, self.n_probes, self.n_deflation, self.seed)
            self.n_deflation = self.probes.basis.shape[1]  # fewer where the tail has few columns
        return self.probes

    def enlarged(self, probes: int, deflation: int, factor: KrylovFactor | None = None) -> Self:
        """The same with more probes. With a factor whose basis is large enough, the next `factor` at its Lambda solves
        for the new probes only; a larger basis is made anew, and so are the solutions of the probes."""
        # Shallow: the analysis depends on the pattern alone, so both solvers share it.
        larger = copy(self)
        larger.n_probes, larger.n_deflation, larger.probes, larger._next = probes, deflation, None, None
        if factor is None:
            return larger
        sample = factor.sample
        larger.n_deflation = min(deflation, most_deflation(sample.operator))
        # Solutions for the old probes hold for the old basis only, because the basis is projected out of the probes.
        if larger.n_deflation == self.n_deflation:
            keys = keys_of(self.structure)
            larger.probes = make_probes(sample.probes.basis, sample.operator.size, probes, self.seed, keys)
            more = sampled.with_more_probes(sample, larger.probes)
            larger._next = KrylovFactor(larger, more, more)
        return larger

    def reordered(self, first: Sequence[str], probes: int, deflation: int) -> KrylovSolver:
        """See `Solver.reordered`; log|M| is the same number, but its estimate errs together with the estimates of other
        models that eliminate the same factors."""
        chain = [number for number, term in enumerate(self.gram.terms) if term.name in first]
        order = chain, [number for number in range(len(self.gram.terms)) if number not in chain]
        return KrylovSolver(self.gram, probes, deflation, self.seed, order, self.accuracy)

    def gathered(self) -> KrylovSolver:
        """All levels are on the driver."""
        return self


def projections_of(covariances: EstimatedCovariances | Inverse, factor: IterativeFactor) -> Projections:
    """`projection` of every term's total (k, k) at the factor's Lambda, and the same by each probe."""

    def all_terms(totals: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        terms = factor.structure.gram.terms
        return tuple(projection(a, lam, t.n_levels) for a, lam, t in zip(totals, factor.lams, terms, strict=True))

    return Projections(
        all_terms(covariances.sums), [all_terms(probe) for probe in zip(*covariances.spread, strict=True)]
    )


def projection(total: np.ndarray, lam: np.ndarray, n_levels: int) -> np.ndarray:
    """sum over levels of (Z'PZ)_ll = lam^-T (q I - lam^-1 total lam^-T) lam^-1, (k, k).

    total (k, k) is the sum of Lambda (Omega^-1)_ll Lambda'. A singular lam has no inverse: its null directions get a
    zero (see `objective.boundary`). Covariates may be of any size, so rows are compared with themselves.
    """
    sizes = np.linalg.norm(lam, axis=1)
    sizes[sizes == 0.0] = 1.0
    inverse = np.linalg.pinv(lam / sizes[:, None], rcond=1e-8) / sizes
    # The projection on the range of lam: a null direction has no identity to subtract from either.
    keep = inverse @ lam
    return np.asarray(inverse.T @ (n_levels * keep @ keep.T - inverse @ total @ inverse.T) @ inverse)
