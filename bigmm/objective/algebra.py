"""The linear algebra behind a criterion, in two kinds with the same operations.

| operation            | exact (blocked Cholesky)     | iterative (Schur complement applied, probes)        |
|----------------------|------------------------------|-----------------------------------------------------|
| factor               | `factorize`                  | `factorize_iteratively`, probes solved for          |
| solve                | back-substitution            | conjugate gradients                                 |
| quadratic            | forward substitution         | conjugate gradients                                 |
| projected            | selected inverse             | exact parts + deflation + mean over probes          |
| covariances          | selected inverse             | `objective.conditional`: solves or probes           |
| rows                 | forward substitution per row | conjugate gradients per block of rows               |
| monte_carlo          | nothing                      | what each probe says                                |
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any, Protocol

import numpy as np

from bigmm.blocks.analysis import analyse
from bigmm.blocks.exact.factor import Factor, factorize
from bigmm.blocks.exact.inverse import selected_inverse
from bigmm.blocks.exact.rows import row_quadratics
from bigmm.blocks.exact.solve import Solution, quadratic, solve
from bigmm.blocks.gram import Gram
from bigmm.blocks.iterative import conditional, sampled
from bigmm.blocks.iterative import factor as iterative
from bigmm.blocks.iterative.factor import IterativeFactor, Precision, fixed_part
from bigmm.blocks.iterative.probes import Probes, draw_probes, keys_of, make_probes, most_deflation
from bigmm.blocks.iterative.sampled import SampledFactor
from bigmm.blocks.iterative.structure import Order, analyse_iterative
from bigmm.blocks.iterative.traces import EstimatedCovariances, Inverse, summed_covariances
from bigmm.blocks.structure import Structure
from bigmm.objective.boundary import Projections, extrapolated
from bigmm.objective.information import Changes
from bigmm.objective.moments import Lams, LevelMoments, LevelsHere, Modes
from bigmm.objective.templates import Templates

PRECISION = Precision(np.float64, 1e-8, np.float32, 3e-6)
CURVATURE_TOLERANCE = 1e-4
"""Relative residual for average information, which only shapes the steps."""


class Algebra(Protocol):
    """What a criterion asks for; factors have logdet_z, logdet_x, pwrss."""

    name: str

    @property
    def structure(self) -> Structure: ...

    def factor(self, lams: Lams) -> Any: ...

    def solve(self, factor: Any) -> Solution: ...

    def quadratic(self, factor: Any, rhs: tuple[np.ndarray, ...], rhs_x: np.ndarray) -> np.ndarray: ...

    def projected(self, factor: Any, with_fixed: bool) -> tuple[np.ndarray | None, ...]: ...

    def covariances(self, factor: Any) -> tuple[np.ndarray | None, ...]: ...

    def fixed_root(self, factor: Any) -> np.ndarray: ...

    def rows(self, factor: Any, x: np.ndarray, refs: tuple, z: tuple) -> np.ndarray: ...

    def moments(
        self, factor: Any, solution: Solution, lams: Lams, changes: Changes, with_fixed: bool
    ) -> LevelMoments: ...

    def modes(self, factor: Any, solution: Solution, lams: Lams, joint: Lams) -> Modes: ...

    def start(self, templates: Templates) -> np.ndarray: ...

    def squares(self) -> tuple[np.ndarray, ...]: ...

    def level_counts(self) -> tuple[int, ...]: ...

    def compressed(self) -> Gram | None: ...

    def gathered_gram(self) -> Gram | None: ...


class ExactAlgebra(LevelsHere):
    """Blocked Cholesky factor; results are exact to rounding."""

    name = "exact"

    def __init__(self, gram: Gram, structure: Structure | None = None):
        self.structure = analyse(gram) if structure is None else structure

    def factor(self, lams: Lams) -> Factor:
        """See `blocks.factor.factorize`."""
        return factorize(self.structure, lams)

    def solve(self, factor: Factor) -> Solution:
        """See `blocks.solve.solve`."""
        return solve(factor)

    def quadratic(self, factor: Factor, rhs: tuple[np.ndarray, ...], rhs_x: np.ndarray) -> np.ndarray:
        """See `blocks.solve.quadratic`."""
        return quadratic(factor, rhs, rhs_x)

    def projected(self, factor: Factor, with_fixed: bool) -> tuple[np.ndarray | None, ...]:
        """Per term sum over levels of (Z'PZ)_ll, (k, k)."""
        return selected_inverse(factor, with_fixed=with_fixed).projected

    def covariances(self, factor: Factor) -> tuple[np.ndarray | None, ...]:
        """Per term (q, k, k) Lambda (M^-1)_ll Lambda'."""
        return selected_inverse(factor, with_fixed=False, covariances=True).covariances

    def fixed_root(self, factor: Factor) -> np.ndarray:
        """(rank, rank) lower Cholesky factor of X'V^-1X, factor columns first; what stands above is not defined."""
        n = len(factor.tail) - 1
        return factor.tail[factor.n_random : n, factor.n_random : n]

    def rows(self, factor: Factor, x: np.ndarray, refs: tuple, z: tuple) -> np.ndarray:
        """See `blocks.rows.row_quadratics`."""
        return row_quadratics(factor, x, refs, z)


class IterativeAlgebra(LevelsHere):
    """Conjugate gradients and probes; log|M| and traces have a Monte Carlo error, all else is exact to the tolerance.

    probes: number of random vectors; deflation: size of the fixed basis of the largest eigenvalues; both are made at
    the first theta and then kept, so that the objective is a deterministic function of theta. order: of elimination,
    where it is that of another model.
    """

    name = "iterative"

    def __init__(self, gram: Gram, probes: int = 8, deflation: int = 16, seed: int = 0, order: Order | None = None):
        self.n_probes, self.n_deflation, self.seed = probes, deflation, seed
        self.analysed = analyse_iterative(gram, order)
        self.probes: Probes | None = None
        self._known: SampledFactor | None = None
        self._traces: tuple[SampledFactor, bool, Projections] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_known": None, "_traces": None}

    @property
    def structure(self) -> Structure:  # type: ignore[override]
        """The whole model, without a dense tail."""
        return self.analysed.whole

    def factor(self, lams: Lams) -> SampledFactor:
        """See `blocks.iterative.factorize_iteratively` and `blocks.sampled.sample`."""
        known, self._known, self._traces = self._known, None, None  # an old factor is freed before a new one is made
        if known is not None and all(map(np.array_equal, known.lams, lams)):
            return known
        del known
        found = iterative.factorize_iteratively(self.analysed, lams, PRECISION, with_y=True)
        if self.probes is None:
            self.probes = draw_probes(found.operator, self.n_probes, self.n_deflation, self.seed)
            self.n_deflation = self.probes.basis.shape[1]  # fewer where the tail has few columns
        return sampled.sample(found, self.probes)

    def enlarged(self, factor: SampledFactor, probes: int, deflation: int) -> IterativeAlgebra:
        """The same with more probes; what the factor has solved already is kept, for the next `factor` at its theta.

        A larger basis is made anew at that theta, and so are the probes' solutions.
        """
        assert self.probes is not None
        larger = copy(self)
        deflation = min(deflation, most_deflation(factor.operator))
        larger.n_probes, larger.n_deflation, larger._traces, larger.probes = probes, deflation, None, None
        if deflation == self.n_deflation:
            keys = keys_of(self.structure)
            larger.probes = make_probes(self.probes.basis, factor.operator.size, probes, self.seed, keys)
            larger._known = sampled.with_more_probes(factor, larger.probes)
        return larger

    def _estimated(self, factor: SampledFactor, with_fixed: bool) -> Projections:
        known = self._traces
        if known is None or known[0] is not factor or known[1] != with_fixed:
            known = self._traces = (factor, with_fixed, self._projections(factor, with_fixed))
        return known[2]

    def _projections(self, factor: SampledFactor, with_fixed: bool) -> Projections:
        """What a nearly singular Lambda hides is extrapolated: see `boundary`."""
        sizes = iter(self.squares())
        squares = [next(sizes) if term.penalized else None for term in self.structure.gram.terms]

        def at(lams: Lams) -> Projections:
            other = iterative.factorize_iteratively(self.analysed, lams, PRECISION, with_y=False)
            return projections_of(summed_covariances(sampled.sample(other, factor.probes), with_fixed), other)

        found = projections_of(summed_covariances(factor, with_fixed), factor)
        return extrapolated(found, factor.lams, squares, at)

    def solve(self, factor: SampledFactor) -> Solution:
        """See `blocks.iterative.solve`."""
        return iterative.solve(factor)

    def quadratic(self, factor: SampledFactor, rhs: tuple, rhs_x: np.ndarray) -> np.ndarray:
        """See `blocks.iterative.quadratic`; to the precision that curvature needs."""
        return iterative.quadratic(factor, rhs, rhs_x, CURVATURE_TOLERANCE)

    def projected(self, factor: SampledFactor, with_fixed: bool) -> tuple[np.ndarray | None, ...]:
        """Per term sum over levels of (Z'PZ)_ll, (k, k), estimated."""
        return self._estimated(factor, with_fixed).sums

    def spread(self, factor: SampledFactor, with_fixed: bool) -> Sequence[tuple[np.ndarray, ...]]:
        """`projected` as each single probe would have it: a list over probes."""
        return self._estimated(factor, with_fixed).spread

    def covariances(self, factor: SampledFactor) -> tuple[np.ndarray | None, ...]:
        """Never whole: `objective.conditional` has the variances, solved for where they are few, else estimated."""
        raise NotImplementedError("use objective.conditional.level_variances")

    def fixed_root(self, factor: SampledFactor) -> np.ndarray:
        """(rank, rank) lower Cholesky factor of X'V^-1X."""
        return fixed_part(factor).root[:-1, :-1]

    def rows(self, factor: SampledFactor, x: np.ndarray, refs: tuple, z: tuple) -> np.ndarray:
        """See `blocks.conditional.exact_rows`; `objective.conditional` estimates many rows instead."""
        return conditional.exact_rows(factor, x, refs, z)


def projections_of(covariances: EstimatedCovariances | Inverse, factor: IterativeFactor) -> Projections:
    """`projection` of every term's total (k, k) at the factor's Lambda, and the same as each probe has it."""

    def all_terms(totals: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        terms = factor.structure.gram.terms
        return tuple(projection(a, lam, t.n_levels) for a, lam, t in zip(totals, factor.lams, terms, strict=True))

    return Projections(all_terms(covariances.sums), [all_terms(each) for each in zip(*covariances.spread, strict=True)])


def projection(total: np.ndarray, lam: np.ndarray, n_levels: int) -> np.ndarray:
    """sum over levels of (Z'PZ)_ll = lam^-T (q I - lam^-1 total lam^-T) lam^-1, total = sum of Lambda (Omega^-1)_ll
    Lambda'.

    A singular lam has no inverse: its null directions get a zero (see `objective.boundary`). Covariates may be of any
    size, so rows are compared with themselves.
    """
    sizes = np.linalg.norm(lam, axis=1)
    sizes[sizes == 0.0] = 1.0
    inverse = np.linalg.pinv(lam / sizes[:, None], rcond=1e-8) / sizes
    keep = inverse @ lam
    return inverse.T @ (n_levels * keep @ keep.T - inverse @ total @ inverse.T) @ inverse
