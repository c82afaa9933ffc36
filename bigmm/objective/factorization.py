"""What a model asks of linear algebra, whatever the method.

A `Solver` knows the blocks A of a model and makes a `Factorization` of M = Lambda'Z'WZ Lambda + I for each Lambda.
Linear models have one A; generalized ones give the solver new numbers in the same pattern with every factor.

| answer      | `CholeskySolver`             | `KrylovSolver`                             | `ShardedSolver`         |
|-------------|------------------------------|--------------------------------------------|-------------------------|
| log|M|      | pivots                       | probes and a basis, with an error          | pivots, from all shards |
| solution    | back-substitution            | conjugate gradients                        | the driver's tail       |
| curvature   | forward substitution         | conjugate gradients, loosely               | sums over shards        |
| projected   | selected inverse             | exact parts, deflation, mean over probes   | sums over shards        |
| variances   | selected inverse             | solves where few, else probes              | selected inverse        |
| rows        | forward substitution per row | conjugate gradients per block of rows      | on the driver           |

A new method is one file with these two classes and one line in `objective.solvers`: see docs/extending/solver.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np

from bigmm.blocks.exact.solve import Solution
from bigmm.blocks.gram import Gram
from bigmm.blocks.iterative.conditional import RowEstimator
from bigmm.blocks.structure import Structure
from bigmm.objective.covariances import ModelCovariance
from bigmm.objective.information import Changes
from bigmm.objective.refinement import Refined

Lams = tuple[np.ndarray, ...]
Terms = tuple[np.ndarray, ...]
"""One array for each term of the Gram, (q, k) or (q, k, columns)."""


@dataclass(frozen=True, slots=True)
class LevelMoments:
    """Sums over levels that gradient and curvature are made of, working basis.

    Attributes
    ----------
    outer : per term (k, k), the sum of s_l s_l' with s = Z'W(y - X beta - Z b).
    projected : per term (k, k), the sum of (Z'PZ)_ll; None for unpenalized terms.
    information : (n_theta, n_theta) f_i'P f_j, see `average_information`.
    """

    outer: tuple[np.ndarray, ...]
    projected: tuple[np.ndarray | None, ...]
    information: np.ndarray


@dataclass(frozen=True, slots=True)
class Modes:
    """Per penalized term (q, k) spherical modes u and original modes b; sequences may fetch a term on demand."""

    u: Sequence[np.ndarray]
    b: Sequence[np.ndarray]


@dataclass(frozen=True, slots=True)
class Variances:
    """Variances, and their Monte Carlo standard errors in an array of the same shape, which is None for exact ones."""

    value: np.ndarray
    error: np.ndarray | None

    def roots(self) -> Variances:
        """Standard deviations, with their errors by the delta method."""
        root = np.sqrt(np.maximum(self.value, 0.0))
        # A variance of zero divides by zero in the branch that np.where does not take.
        with np.errstate(divide="ignore", invalid="ignore"):
            error = None if self.error is None else np.where(root > 0, self.error / (2.0 * root), 0.0)
        return Variances(root, error)


@dataclass(frozen=True, slots=True)
class Leverages:
    """J = Lambda M^-1 Lambda' on the levels that meet in a row: J = exact + sum over v of weight_v start_v image_v'.

    Attributes
    ----------
    exact : per term (q, k, k), diagonal blocks without an error.
    pairs : {(j, k): (nnz, k_j, k_k)}, exact blocks between terms; an absent pair is zero.
    start, image : per term (q, k, nv); None where J has no estimated part.
    weight : (nv,), empty there.
    projected : per term (k, k), the sum over levels of (Z'V^-1Z)_ll.
    spread : `projected` by each single probe, empty where it is exact.
    """

    exact: Terms
    pairs: dict[tuple[int, int], np.ndarray]
    start: Terms | None
    image: Terms | None
    weight: np.ndarray
    projected: Terms
    spread: list[Terms]


@dataclass(frozen=True, slots=True)
class Probing:
    """The random vectors that a solver estimates with: the number of probes, the size of the deflation basis (the
    eigenvectors of the largest eigenvalues, which are exact), and the seed of both."""

    probes: int
    deflation: int
    seed: int


class Factorization(Protocol):
    """M at one Lambda, eliminated beside the fixed effects: what every model asks.

    All arrays are in the working basis. log|M| and `projected` of a solver with probes are estimates: `logdet_each` and
    `spread` hold what each single probe says. They are empty where the answers are exact.
    """

    @property
    def lams(self) -> Lams:
        """Per term (k, k) Lambda's block."""
        ...

    @property
    def logdet_z(self) -> float:
        """log|M|."""
        ...

    @property
    def logdet_error(self) -> float:
        """Monte Carlo standard error of log|M|, 0 for an exact solver."""
        ...

    @property
    def logdet_each(self) -> np.ndarray:
        """(t,) log|M| by each single probe."""
        ...

    @property
    def logdet_x(self) -> float:
        """log|X'V^-1X|."""
        ...

    @property
    def pwrss(self) -> float:
        """r2, the penalized weighted residual sum of squares."""
        ...

    def solution(self) -> Solution:
        """Coefficients, and Lambda u."""
        ...

    def projected(self, with_fixed: bool) -> tuple[np.ndarray | None, ...]:
        """Per term (k, k) sum over levels of (Z'PZ)_ll; with_fixed: P projects X out too (REML)."""
        ...

    def spread(self, with_fixed: bool) -> Sequence[tuple[np.ndarray, ...]]:
        """`projected` by each single probe."""
        ...

    def fixed_root(self) -> np.ndarray:
        """(rank, rank) lower Cholesky factor of X'V^-1X, the factors' columns first."""
        ...

    def rows(self, x: np.ndarray, refs: tuple[np.ndarray, ...], z: tuple[np.ndarray, ...]) -> np.ndarray:
        """(n,) [Lambda'z; x]'Omega^-1 [Lambda'z; x] of each row, exact."""
        ...

    def row_estimator(self, rows: int | None) -> RowEstimator | None:
        """The estimator of so many rows' `rows` (None: of an unknown number); None where each row is solved for."""
        ...

    def level_variances(self, scale: float) -> tuple[Variances, ...]:
        """Per penalized term (q, k) scale times the variances of the levels' effects, original basis."""
        ...

    def selected_variances(self, scale: float, term: int, levels: Any) -> np.ndarray:
        """(m, k) exact variances of some levels of one term (None: of all)."""
        ...

    def moments(self, solution: Solution, lams: Lams, changes: Changes, with_fixed: bool) -> LevelMoments:
        """See `LevelMoments`; changes: of Lambda Lambda' by every parameter."""
        ...

    def modes(self, solution: Solution, lams: Lams, joint: Lams) -> Modes:
        """Conditional modes of every penalized term; joint: lambda in the original basis."""
        ...

    def refined(self) -> Refined | None:
        """V^-1[X y] to the last digit; None where the method has no such answer."""
        ...


class WorkingFactorization(Factorization, Protocol):
    """What PIRLS and the gradient of a generalized model ask beside that.

    Right-hand sides are unscaled: Lambda'rhs is meant. Solutions are effects, Lambda t.
    """

    @property
    def structure(self) -> Structure:
        """The blocks in their order of elimination."""
        ...

    def quadratic(self, rhs: Terms, rhs_x: np.ndarray) -> np.ndarray:
        """(nr, nr) rhs'Omega^-1 rhs, as precise as a curvature needs it; rhs (q, k, nr) per term, rhs_x (p, nr)."""
        ...

    def effects(self, rhs: Terms, rhs_x: np.ndarray, random_only: bool) -> tuple[Terms, np.ndarray]:
        """(Lambda t per term (q, k), tau (p,)) with Omega (t, tau) = (Lambda'rhs, rhs_x); random_only: tau = 0."""
        ...

    def product(self, effects: Terms) -> Terms:
        """Per term (q, k) Z'W Z effects."""
        ...

    def remainder(self, rhs: Terms, effects: Terms, tau: np.ndarray) -> Terms:
        """Per term (q, k) rhs - Z'W (Z effects + X tau), where effects and tau solve for rhs."""
        ...

    def leverages(self) -> Leverages:
        """See `Leverages`."""
        ...


class Solver(Protocol):
    """A method of linear algebra, and the blocks A of one linear model.

    Attributes
    ----------
    name : the name that users give it (solver=).
    is_exact : whether its answers are exact to rounding. Those of probes are estimates.
    """

    name: str
    is_exact: bool

    @property
    def is_cheap(self) -> bool:
        """Whether an evaluation costs about a millisecond."""
        ...

    @property
    def gram(self) -> Gram:
        """The blocks A; those of levels are empty where shards hold them."""
        ...

    @property
    def structure(self) -> Structure:
        """The blocks in their order of elimination."""
        ...

    @property
    def probing(self) -> Probing | None:
        """The random vectors; None for an exact method."""
        ...

    @property
    def probed(self) -> tuple[str, ...]:
        """Names of the factors that have probes."""
        ...

    @property
    def eliminated(self) -> tuple[str, ...]:
        """Names of the factors that are eliminated exactly beside them."""
        ...

    def factor(self, lams: Lams) -> Factorization:
        """The factor at Lambda, (k, k) per term in the working basis; raises NotPositiveDefiniteError."""
        ...

    def enlarged(self, probes: int, deflation: int, factor: Any = None) -> Self:
        """The same with more random vectors; factor: one whose solutions are of use at its Lambda."""
        ...

    def reordered(self, first: Sequence[str], probes: int, deflation: int) -> Solver:
        """The same with the factors of these names eliminated, and so many random vectors for the others."""
        ...

    def gathered(self) -> Solver:
        """The same with all levels on the driver; MemoryLimitError where that is too much."""
        ...

    def start(self, covariances: ModelCovariance) -> np.ndarray:
        """(n_theta,) start from moments, see `moment_start`."""
        ...

    def squares(self) -> tuple[np.ndarray, ...]:
        """Per penalized term (k, k) Z'WZ of an average level, working basis."""
        ...

    def level_counts(self) -> tuple[int, ...]:
        """Per penalized term the number of levels."""
        ...

    def compressed(self) -> Gram | None:
        """A smaller Gram with the same criterion, where levels share diagonal blocks; else None."""
        ...


class WorkingSolver(Protocol):
    """A method of linear algebra for working weights that change: every factor has new numbers in the same pattern."""

    name: str
    is_exact: bool

    @property
    def dtype(self) -> np.dtype:
        """Type of the numbers in blocks between levels."""
        ...

    @property
    def probing(self) -> Probing | None:
        """The random vectors; None for an exact method."""
        ...

    def factor(self, lams: Lams, gram: Gram) -> WorkingFactorization:
        """The factor of gram, new numbers in the solver's pattern, at Lambda; raises NotPositiveDefiniteError."""
        ...

    def enlarged(self, probes: int, deflation: int) -> Self:
        """The same with more random vectors."""
        ...
