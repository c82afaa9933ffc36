"""The exact solver: a blocked Cholesky factor of M, whose answers are exact to rounding."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Self

import numpy as np

from bigmm.blocks.analysis import analyse
from bigmm.blocks.exact.factor import Factor, factorize
from bigmm.blocks.exact.inverse import selected_inverse
from bigmm.blocks.exact.rhs import solve_for
from bigmm.blocks.exact.rows import row_quadratics
from bigmm.blocks.exact.solve import Solution, quadratic, solve
from bigmm.blocks.gram import Gram
from bigmm.blocks.numeric_update import NumericUpdate
from bigmm.blocks.structure import Structure, elimination_order
from bigmm.objective.driver_levels import DriverFactor, DriverLevels, ExactFactor
from bigmm.objective.factorization import Lams, Leverages, Terms
from bigmm.objective.refinement import Refined, refined

CHEAP_TAIL = 200
"""Columns of the dense tail up to which an evaluation costs about a millisecond."""
CHEAP_LEVELS = 20_000
"""Random effects up to which it does."""


class CholeskyFactor(DriverFactor, ExactFactor):
    """A `WorkingFactorization` by `blocks.factor`; it needs a dense block of the size of the tail."""

    def __init__(self, blocks: Factor):
        self.blocks, self.structure, self.gram = blocks, blocks.structure, blocks.structure.gram
        self.lams, self.logdet_z, self.logdet_x, self.pwrss = (
            blocks.lams,
            blocks.logdet_z,
            blocks.logdet_x,
            blocks.pwrss,
        )

    def solution(self) -> Solution:
        """See `blocks.solve.solve`."""
        return solve(self.blocks)

    def quadratic(self, rhs: Terms, rhs_x: np.ndarray) -> np.ndarray:
        """See `blocks.solve.quadratic`."""
        return quadratic(self.blocks, rhs, rhs_x)

    def projected(self, with_fixed: bool) -> tuple[np.ndarray | None, ...]:
        """See `Factorization.projected`."""
        return selected_inverse(self.blocks, with_fixed=with_fixed).projected

    def covariances(self) -> tuple[np.ndarray | None, ...]:
        """See `ExactFactor.covariances`."""
        return selected_inverse(self.blocks, with_fixed=False, covariances=True).covariances

    def fixed_root(self) -> np.ndarray:
        """See `Factorization.fixed_root`."""
        # The tail has the order random effects, X, y. The leading block of the factor of [X y] is the factor of X
        # alone.
        n = len(self.blocks.tail) - 1
        return np.tril(self.blocks.tail[self.blocks.n_random : n, self.blocks.n_random : n])

    def rows(self, x: np.ndarray, refs: tuple[np.ndarray, ...], z: tuple[np.ndarray, ...]) -> np.ndarray:
        """See `blocks.rows.row_quadratics`."""
        return row_quadratics(self.blocks, x, refs, z)

    def refined(self) -> Refined:
        """See `objective.refinement`."""
        return refined(self.structure, self.blocks)

    def effects(self, rhs: Terms, rhs_x: np.ndarray, random_only: bool) -> tuple[Terms, np.ndarray]:
        """See `blocks.rhs.solve_for`."""
        return solve_for(self.blocks, rhs, rhs_x, random_only)

    def remainder(self, rhs: Terms, effects: Terms, tau: np.ndarray) -> Terms:
        """See `WorkingFactorization.remainder`."""
        return self.difference(rhs, effects, tau)

    def leverages(self) -> Leverages:
        """From the selected inverse on the pattern of pairs."""
        inverse = selected_inverse(self.blocks, with_fixed=False, pattern=True)
        return Leverages(inverse.covariances, inverse.pairs, None, None, np.zeros(0), inverse.projected, [])


class CholeskySolver(DriverLevels):
    """Both a `Solver` of the blocks of a linear model and a `WorkingSolver` of other numbers in their pattern."""

    name = "exact"
    is_exact = True
    dtype = np.dtype(np.float64)
    probing = None
    probed: tuple[str, ...] = ()
    eliminated: tuple[str, ...] = ()

    def __init__(self, gram: Gram):
        self.gram = gram
        self._updates: dict[int, NumericUpdate] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return CholeskySolver, (self.gram,)  # the analysis costs less than its transport

    @cached_property
    def structure(self) -> Structure:
        """The blocks in their order of elimination."""
        return analyse(self.gram)

    @property
    def is_cheap(self) -> bool:
        """Whether an evaluation costs about a millisecond; a function of sizes alone, so that fits are reproducible."""
        terms, (_, tail) = self.gram.terms, elimination_order(self.gram)
        # Cost is cubic in the dense tail, which has [X y] too, and linear in what is eliminated level by level.
        size = sum(terms[t].n_levels * terms[t].width for t in tail) + len(self.gram.xy)
        return size <= CHEAP_TAIL and sum(t.n_levels * t.width for t in terms) <= CHEAP_LEVELS

    def factor(self, lams: Lams, gram: Gram | None = None) -> CholeskyFactor:
        """See `blocks.factor.factorize`; gram: other numbers in the pattern of the solver's blocks."""
        return CholeskyFactor(factorize(self.structure if gram is None else self._updated(gram), lams))

    def _updated(self, gram: Gram) -> Structure:
        m = len(gram.xy)  # Newton's steps of the modes have no columns of X
        if m not in self._updates:
            self._updates[m] = NumericUpdate(gram)
        return self._updates[m](gram)

    def enlarged(self, probes: int, deflation: int, factor: Any = None) -> Self:
        """An exact solver has nothing to enlarge."""
        return self

    def reordered(self, first: Sequence[str], probes: int, deflation: int) -> CholeskySolver:
        """log|M| is exact in any order of elimination."""
        return self

    def gathered(self) -> CholeskySolver:
        """All levels are on the driver."""
        return self
