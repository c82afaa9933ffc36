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

from bigmm.blocks import sampled, schur
from bigmm.blocks.factor import Factor, factorize
from bigmm.blocks.gram import Gram
from bigmm.blocks.inverse import selected_inverse
from bigmm.blocks.probes import Probes, draw_probes
from bigmm.blocks.refill import Refill, RowRefill
from bigmm.blocks.rhs import solve_for
from bigmm.blocks.solve import multiply, quadratic
from bigmm.laplace.leverages import Leverages
from bigmm.objective.algebra import projection
from bigmm.objective.information import average_information

Terms = tuple[np.ndarray, ...]

SINGLE_PRECISION = 1_000_000
"""From so many numbers in cross blocks on, they and the vectors of the tail are float32: Newton's method needs exact
scores, not an exact matrix, and what is estimated has a larger error anyway."""
NEAR_BOUNDARY = 0.1
"""A scale counts as close to 0 where a level of average information shrinks its effect to a hundredth."""
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
        theta = average_information(complete.structure, ask, complete.lams, score, places)
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

    def factor(self, gram: Gram, lams: Terms) -> schur.SchurFactor:
        """See `blocks.schur.eliminate`."""
        return schur.eliminate(self.refill(gram), lams)

    def solve(
        self, factor: schur.SchurFactor, rhs: Terms, rhs_x: np.ndarray, random_only: bool
    ) -> tuple[Terms, np.ndarray]:
        """See `blocks.schur.solve_for`."""
        wide = tuple(r[:, :, None] for r in rhs)
        n = factor.n_dense
        effects, tau = schur.solve_for(factor, wide, np.zeros((n, 1)) if random_only else rhs_x[:, None], random_only)
        return tuple(e[:, :, 0] for e in effects), tau[:, 0]

    def remainder(self, factor: schur.SchurFactor, rhs: Terms, effects: Terms, tau: np.ndarray) -> Terms:
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

    def product(self, factor: schur.SchurFactor, effects: Terms) -> Terms:
        """Z'W Z effects."""
        return tuple(w[:, :, 0] for w in multiply(factor.structure, tuple(e[:, :, None] for e in effects)))

    def complete(self, factor: schur.SchurFactor) -> sampled.SampledFactor:
        """Probes are drawn at the first factor and kept."""
        if self.probes is None:
            self.probes = draw_probes(factor.operator, self.n_probes, self.n_deflation, self.seed)
        return sampled.sample(factor, self.probes)

    def leverages(self, complete: sampled.SampledFactor) -> Leverages:
        """See `blocks.sampled.inverse`."""
        found, factor = sampled.inverse(complete), complete.factor
        levels = [term.n_levels for term in factor.structure.gram.terms]
        known = list(zip(factor.lams, levels, strict=True))
        projected = tuple(projection(j, lam, q) for j, (lam, q) in zip(found.sums, known, strict=True))
        projected = self._at_boundary(factor, projected)
        spread = [
            tuple(projection(j[v], lam, q) for j, (lam, q) in zip(found.spread, known, strict=True))
            for v in range(complete.n_probes)
        ]
        start, rest = (tuple(np.ascontiguousarray(x, self.kind) for x in terms) for terms in (found.start, found.rest))
        weight = found.weight.astype(self.kind)
        return Leverages(found.known, found.pairs, start, rest, weight, projected, spread)

    def _at_boundary(self, factor: schur.SchurFactor, projected: Terms) -> Terms:
        """The sums of (Z'V^-1Z)_ll that a scale of 0 hides, from a scale close to it: they are continuous there, and
        say whether a variance of 0 is a minimum."""
        terms = factor.structure.gram.terms
        near = tuple(_off_zero(lam, term.diagonal) for lam, term in zip(factor.lams, terms, strict=True))
        if all(np.array_equal(lam, other) for lam, other in zip(factor.lams, near, strict=True)):
            return projected
        assert self.probes is not None
        found = sampled.inverse(sampled.sample(schur.eliminate(factor.structure, near), self.probes)).sums
        return tuple(
            old if np.array_equal(lam, other) else projection(j, other, term.n_levels)
            for old, lam, other, j, term in zip(projected, factor.lams, near, found, terms, strict=True)
        )

    def information(self, complete: sampled.SampledFactor, score: Terms, places: list) -> tuple[np.ndarray, np.ndarray]:
        """(X'V^-1X (p, p), average information (n_theta, n_theta)) of the working linear model."""
        factor = complete.factor
        ask = partial(schur.quadratic, factor, tolerance=LOOSE)
        theta = average_information(factor.structure, ask, factor.lams, score, places)
        root = schur.fixed_part(factor).root
        return root @ root.T, theta


def _off_zero(lam: np.ndarray, diagonal: np.ndarray) -> np.ndarray:
    """lam with scales of 0 replaced by ones that hardly matter; diagonal: (q, k, k) Z'WZ per level."""
    small = NEAR_BOUNDARY / np.sqrt(np.maximum(np.einsum("lkk->k", diagonal) / len(diagonal), 1e-300))
    scales = np.diagonal(lam)
    return lam + np.diag(np.where(np.abs(scales) < 1e-3 * small, small - scales, 0.0))


def _difference(factor: Any, rhs: Terms, image: Terms, tau: np.ndarray) -> Terms:
    terms = factor.structure.gram.terms
    return tuple(r - w - t.dense[:, :, :-1] @ tau for r, w, t in zip(rhs, image, terms, strict=True))
