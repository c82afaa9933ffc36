"""The linear algebra behind a criterion, in two kinds with the same operations.

| operation            | exact (blocked Cholesky)     | iterative (Schur complement applied, probes)        |
|----------------------|------------------------------|-----------------------------------------------------|
| factor               | `factorize`                  | `factorize_iteratively`                             |
| solve                | back-substitution            | conjugate gradients                                 |
| quadratic            | forward substitution         | conjugate gradients                                 |
| projected            | selected inverse             | exact parts + deflation + mean over probes          |
| covariances          | selected inverse             | `objective.conditional`: solves or probes           |
| rows                 | forward substitution per row | conjugate gradients per block of rows               |
| monte_carlo          | nothing                      | what each probe says                                |
"""

from __future__ import annotations

from copy import copy
from typing import Any, Protocol

import numpy as np

from bigmm.blocks import conditional, iterative, traces
from bigmm.blocks.analysis import analyse
from bigmm.blocks.factor import Factor, factorize
from bigmm.blocks.gram import Gram
from bigmm.blocks.inverse import selected_inverse
from bigmm.blocks.probes import Probes, draw_probes, make_probes
from bigmm.blocks.row_structure import Order
from bigmm.blocks.rows import row_quadratics
from bigmm.blocks.solve import Solution, quadratic, solve
from bigmm.blocks.structure import Structure
from bigmm.objective.moments import Lams, LevelMoments, LevelsHere, Modes, Places
from bigmm.objective.templates import Templates


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
        self, factor: Any, solution: Solution, lams: Lams, places: Places, with_fixed: bool
    ) -> LevelMoments: ...

    def modes(self, factor: Any, solution: Solution, lams: Lams, joint: Lams) -> Modes: ...

    def start(self, templates: Templates) -> np.ndarray: ...

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
        self.analysed = iterative.analyse_iterative(gram, order)
        self.probes: Probes | None = None
        self._known: iterative.IterativeFactor | None = None
        self._traces: tuple[iterative.IterativeFactor, bool, traces.EstimatedCovariances] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_known": None, "_traces": None}

    @property
    def structure(self) -> Structure:  # type: ignore[override]
        """The whole model, without a dense tail."""
        return self.analysed.tail

    def factor(self, lams: Lams) -> iterative.IterativeFactor:
        """See `blocks.iterative.factorize_iteratively`."""
        known, self._known, self._traces = self._known, None, None  # an old factor is freed before a new one is made
        if known is not None and all(map(np.array_equal, known.operator.lams, lams)):
            return known
        del known
        if self.probes is None:
            operator = iterative.operator_at(self.analysed, lams)
            self.probes = draw_probes(operator, self.n_probes, self.n_deflation, self.seed)
        return iterative.factorize_iteratively(self.analysed, lams, self.probes)

    def enlarged(self, factor: iterative.IterativeFactor, probes: int, deflation: int) -> IterativeAlgebra:
        """The same with more probes; what the factor has solved already is kept, for the next `factor` at its theta.

        A larger basis is made anew at that theta, and so are the probes' solutions.
        """
        assert self.probes is not None
        larger = copy(self)
        larger.n_probes, larger.n_deflation, larger._traces, larger.probes = probes, deflation, None, None
        if deflation == self.n_deflation:
            keys = iterative.probe_keys(self.analysed)
            larger.probes = make_probes(self.probes.basis, factor.operator.size, probes, self.seed, keys)
            larger._known = iterative.with_more_probes(factor, larger.probes)
        return larger

    def _estimated(self, factor: iterative.IterativeFactor, with_fixed: bool) -> traces.EstimatedCovariances:
        if self._traces is None or self._traces[0] is not factor or self._traces[1] != with_fixed:
            self._traces = (factor, with_fixed, traces.summed_covariances(factor, with_fixed))
        return self._traces[2]

    def solve(self, factor: iterative.IterativeFactor) -> Solution:
        """See `blocks.iterative.solve`."""
        return iterative.solve(factor)

    def quadratic(self, factor: iterative.IterativeFactor, rhs: tuple, rhs_x: np.ndarray) -> np.ndarray:
        """See `blocks.iterative.quadratic`; to the precision that curvature needs."""
        return iterative.quadratic(factor, rhs, rhs_x, iterative.CURVATURE_TOLERANCE)

    def projected(self, factor: iterative.IterativeFactor, with_fixed: bool) -> tuple[np.ndarray | None, ...]:
        """Per term sum over levels of (Z'PZ)_ll, (k, k), estimated."""
        lams = factor.operator.lams
        return tuple(
            projection(total, lam, term.n_levels)
            for total, lam, term in zip(
                self._estimated(factor, with_fixed).sums, lams, self.structure.gram.terms, strict=True
            )
        )

    def spread(self, factor: iterative.IterativeFactor, with_fixed: bool) -> list[tuple[np.ndarray, ...]]:
        """`projected` as each single probe would have it: a list over probes."""
        lams = factor.operator.lams
        estimated = self._estimated(factor, with_fixed).spread
        return [
            tuple(
                projection(each[i], lam, term.n_levels)
                for each, lam, term in zip(estimated, lams, self.structure.gram.terms, strict=True)
            )
            for i in range(self.n_probes)
        ]

    def covariances(self, factor: iterative.IterativeFactor) -> tuple[np.ndarray | None, ...]:
        """Never whole: `objective.conditional` has the variances, solved for where they are few, else estimated."""
        raise NotImplementedError("use objective.conditional.level_variances")

    def fixed_root(self, factor: iterative.IterativeFactor) -> np.ndarray:
        """(rank, rank) lower Cholesky factor of X'V^-1X."""
        return factor.corner[:-1, :-1]

    def rows(self, factor: iterative.IterativeFactor, x: np.ndarray, refs: tuple, z: tuple) -> np.ndarray:
        """See `blocks.conditional.exact_rows`; `objective.conditional` estimates many rows instead."""
        return conditional.exact_rows(factor, x, refs, z)


def projection(total: np.ndarray, lam: np.ndarray, n_levels: int) -> np.ndarray:
    """sum over levels of (Z'PZ)_ll = lam^-T (q I - lam^-1 total lam^-T) lam^-1, total = sum of Lambda (Omega^-1)_ll
    Lambda'.

    A singular lam has no inverse: its null directions get a zero, for the search never starts there.
    """
    inverse = np.linalg.pinv(lam, rcond=1e-8)
    keep = inverse @ lam
    return inverse.T @ (n_levels * keep @ keep.T - inverse @ total @ inverse.T) @ inverse
