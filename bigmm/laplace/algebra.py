"""The linear algebra behind PIRLS and the Laplace gradient, in two kinds with the same operations.

| operation   | exact (blocked Cholesky)      | iterative (Schur complement applied, probes)                   |
|-------------|-------------------------------|----------------------------------------------------------------|
| factor      | stages and a dense tail       | stages; the tail is normalised only                            |
| solve       | forward and back substitution | conjugate gradients                                            |
| complete    | nothing more                  | probes and a fixed basis are solved for: log|M| with its error |
| leverages   | selected inverse on a pattern | exact first part, the rest from probes and basis               |
| information | forward substitution          | conjugate gradients, loosely                                   |

Right-hand sides are unscaled: Lambda'rhs is meant, and solutions are effects, Lambda t.
"""

from __future__ import annotations

from copy import copy
from functools import partial
from typing import Any, Protocol

import numpy as np

from bigmm.blocks.exact.factor import Factor, factorize
from bigmm.blocks.exact.inverse import selected_inverse
from bigmm.blocks.exact.rhs import solve_for
from bigmm.blocks.exact.solve import multiply, quadratic
from bigmm.blocks.gram import Gram
from bigmm.blocks.iterative import factor as iterative
from bigmm.blocks.iterative.factor import IterativeFactor, Precision
from bigmm.blocks.iterative.probes import Probes, draw_probes
from bigmm.blocks.iterative.sampled import SampledFactor, sample
from bigmm.blocks.iterative.traces import inverse
from bigmm.blocks.numeric_update import Refill, RowRefill
from bigmm.laplace.leverages import Leverages
from bigmm.objective.algebra import projections_of
from bigmm.objective.boundary import Projections, extrapolated
from bigmm.objective.information import Changes, average_information, changes_of
from bigmm.objective.start import level_squares

Terms = tuple[np.ndarray, ...]

SINGLE_PRECISION = 1_000_000
"""From so many numbers in cross blocks on, they and the vectors of the tail are float32: Newton's method needs exact
scores, not an exact matrix, and what is estimated has a larger error anyway."""
PRECISIONS = {
    np.dtype(np.float32): Precision(np.float32, 1e-5, np.float32, 1e-4),
    np.dtype(np.float64): Precision(np.float64, 1e-10, np.float64, 1e-9),
}
"""By the type of the numbers: what float32 can reach, and close to exact."""
LOOSE = 1e-3
"""Relative residual of solves that only shape the steps; quadratic forms are good to its square."""


class LaplaceAlgebra(Protocol):
    """What `CrossedLaplace` asks for; completed factors have logdet_z."""

    name: str
    kind: np.dtype

    def factor(self, gram: Gram, lams: Terms) -> Any: ...

    def solve(self, factor: Any, rhs: Terms, rhs_x: np.ndarray, random_only: bool) -> tuple[Terms, np.ndarray]: ...

    def remainder(self, factor: Any, rhs: Terms, effects: Terms, tau: np.ndarray) -> Terms: ...

    def product(self, factor: Any, effects: Terms) -> Terms: ...

    def complete(self, factor: Any) -> Any: ...

    def leverages(self, complete: Any) -> Leverages: ...

    def information(self, complete: Any, score: Terms, places: list) -> tuple[np.ndarray, np.ndarray]: ...


class ExactAlgebra:
    """Exact to rounding; needs a dense block of the size of the tail."""

    name = "exact"
    kind = np.dtype(np.float64)

    def __init__(self) -> None:
        self.refills: dict[int, Refill] = {}

    def factor(self, gram: Gram, lams: Terms) -> Factor:
        """Factor of M (and of the fixed effects when the sums have them)."""
        m = len(gram.xy)
        if m not in self.refills:
            self.refills[m] = Refill(gram)
        return factorize(self.refills[m](gram), lams)

    def solve(self, factor: Factor, rhs: Terms, rhs_x: np.ndarray, random_only: bool) -> tuple[Terms, np.ndarray]:
        """See `blocks.rhs.solve_for`."""
        return solve_for(factor, rhs, rhs_x, random_only)

    def remainder(self, factor: Factor, rhs: Terms, effects: Terms, tau: np.ndarray) -> Terms:
        """rhs - Z'W (Z effects + X tau) per term (q, k)."""
        return _difference(factor, rhs, self.product(factor, effects), tau)

    def product(self, factor: Factor, effects: Terms) -> Terms:
        """Z'W Z effects."""
        return tuple(w[:, :, 0] for w in multiply(factor.structure, tuple(e[:, :, None] for e in effects)))

    def complete(self, factor: Factor) -> Factor:
        """The factor has all of it."""
        return factor

    def leverages(self, complete: Factor) -> Leverages:
        """From the selected inverse on the pattern of pairs."""
        found = selected_inverse(complete, with_fixed=False, pattern=True)
        return Leverages(found.covariances, found.pairs, None, None, np.zeros(0), found.projected, [])

    def information(self, complete: Factor, score: Terms, places: list) -> tuple[np.ndarray, np.ndarray]:
        """(X'V^-1X (p, p), average information (n_theta, n_theta)) of the working linear model."""
        ask = partial(quadratic, complete)
        theta = average_information(complete.structure, ask, _changes(complete, places), score)
        n = len(complete.tail) - 1
        lower = np.tril(complete.tail[complete.n_random : n, complete.n_random : n])
        return lower @ lower.T, theta


class IterativeAlgebra:
    """Solves to a tolerance; log|M| and leverages are estimates.

    probes: number of random vectors; deflation: size of the basis of the largest eigenvalues; both are made at the
    first factor that is completed and then kept, so that the objective is a deterministic function of its parameters.
    """

    name = "iterative"

    def __init__(self, pattern: Gram, probes: int, deflation: int, seed: int, kind: Any = None):
        entries = sum(block.data.size for block in pattern.cross.values())
        self.kind = np.dtype(kind or (np.float32 if entries >= SINGLE_PRECISION else np.float64))
        self.n_probes, self.n_deflation, self.seed = probes, deflation, seed
        self.refill = RowRefill(pattern)
        self.probes: Probes | None = None

    def enlarged(self) -> IterativeAlgebra:
        """Twice as many probes and deflation vectors, made at the next factor."""
        out = copy(self)
        out.n_probes, out.n_deflation, out.probes = 2 * self.n_probes, 2 * self.n_deflation, None
        return out

    def factor(self, gram: Gram, lams: Terms) -> IterativeFactor:
        """See `blocks.iterative.factorize_iteratively`."""
        return iterative.factorize_iteratively(self.refill(gram), lams, PRECISIONS[self.kind], with_y=False)

    def solve(
        self, factor: IterativeFactor, rhs: Terms, rhs_x: np.ndarray, random_only: bool
    ) -> tuple[Terms, np.ndarray]:
        """See `blocks.iterative.solve_for`."""
        wide = tuple(r[:, :, None] for r in rhs)
        n = factor.n_dense
        wide_x = np.zeros((n, 1)) if random_only else rhs_x[:, None]
        effects, tau = iterative.solve_for(factor, wide, wide_x, random_only)
        return tuple(e[:, :, 0] for e in effects), tau[:, 0]

    def remainder(self, factor: IterativeFactor, rhs: Terms, effects: Terms, tau: np.ndarray) -> Terms:
        """rhs - Z'W (Z effects + X tau) per term (q, k).

        That is Lambda'^-1 Lambda^-1 effects, by the equation that the effects solve: a difference would blow their
        error up. A singular Lambda has no inverse, and then the difference it is.
        """
        if all(np.linalg.cond(lam) < 1e6 for lam in factor.lams):
            found = []
            for e, lam in zip(effects, factor.lams, strict=True):
                inverse = np.linalg.inv(lam)
                found.append(e @ (inverse.T @ inverse))
            return tuple(found)
        return _difference(factor, rhs, self.product(factor, effects), tau)

    def product(self, factor: IterativeFactor, effects: Terms) -> Terms:
        """Z'W Z effects."""
        return tuple(w[:, :, 0] for w in multiply(factor.structure, tuple(e[:, :, None] for e in effects)))

    def complete(self, factor: IterativeFactor) -> SampledFactor:
        """Probes are drawn at the first factor and kept."""
        if self.probes is None:
            self.probes = draw_probes(factor.operator, self.n_probes, self.n_deflation, self.seed)
            self.n_deflation = self.probes.basis.shape[1]  # fewer where the tail has few columns
        return sample(factor, self.probes)

    def leverages(self, complete: SampledFactor) -> Leverages:
        """See `blocks.traces.inverse`."""
        found = inverse(complete, with_pairs=True)

        def at(lams: Terms) -> Projections:
            other = iterative.factorize_iteratively(complete.analysed, lams, complete.precision, with_y=False)
            return projections_of(inverse(sample(other, complete.probes), with_pairs=False), other)

        known = projections_of(found, complete), complete.lams, level_squares(complete.structure.gram)
        projections = extrapolated(*known, at)
        start, rest = (tuple(np.ascontiguousarray(x, self.kind) for x in terms) for terms in (found.start, found.rest))
        weight = found.weight.astype(self.kind)
        return Leverages(found.known, found.pairs, start, rest, weight, projections.sums, list(projections.spread))

    def information(self, complete: SampledFactor, score: Terms, places: list) -> tuple[np.ndarray, np.ndarray]:
        """(X'V^-1X (p, p), average information (n_theta, n_theta)) of the working linear model."""
        ask = partial(iterative.quadratic, complete, tolerance=LOOSE)
        theta = average_information(complete.structure, ask, _changes(complete, places), score)
        root = iterative.fixed_part(complete).root
        return root @ root.T, theta


def _changes(complete: Factor | SampledFactor, places: list) -> Changes:
    return changes_of([term.basis for term in complete.structure.gram.terms], complete.lams, places)


def _difference(factor: Any, rhs: Terms, image: Terms, tau: np.ndarray) -> Terms:
    terms = factor.structure.gram.terms
    return tuple(r - w - t.dense[:, :, :-1] @ tau for r, w, t in zip(rhs, image, terms, strict=True))
