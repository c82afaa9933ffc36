"""The objectives of generalized models: their parameters psi = (beta, theta, log phi), and what each answers.

`SingleFactor` goes level by level, `NestedFactors` tree by tree, `CrossedLaplace` by blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bigmm.blocks import CrossBlock
from bigmm.objective.evaluation import Objective
from bigmm.objective.factorization import Probing
from bigmm.objective.montecarlo import ProbeError


@dataclass(frozen=True, slots=True)
class Parameters:
    """The parts of psi: p coefficients (none when profile), n_theta covariance parameters, and log phi when with_phi.

    rows: number of rows of the data.
    """

    p: int
    n_theta: int
    with_phi: bool
    profile: bool
    rows: int

    @property
    def n_beta(self) -> int:
        """Number of coefficients in psi."""
        return 0 if self.profile else self.p

    @property
    def size(self) -> int:
        """P, the number of parameters in psi."""
        return self.n_beta + self.n_theta + self.with_phi

    def split(self, psi: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """(beta, theta, phi); phi is 1 for families without dispersion, beta is empty when profiled."""
        # Views of psi: nobody may write to them.
        beta, theta = psi[: self.n_beta], psi[self.n_beta : self.n_beta + self.n_theta]
        return beta, theta, float(np.exp(psi[-1])) if self.with_phi else 1.0

    def join(self, beta: np.ndarray, theta: np.ndarray, log_phi: float) -> np.ndarray:
        """One vector in the order of psi."""
        return np.concatenate([beta[: self.n_beta], theta, [log_phi] if self.with_phi else []])

    def lower(self, theta_lower: np.ndarray) -> np.ndarray:
        """Bounds of psi: only scales have one."""
        return self.join(np.full(self.p, -np.inf), theta_lower, -np.inf)

    def blocks(self, beta: np.ndarray, theta: np.ndarray, log_phi: float) -> np.ndarray:
        """A block-diagonal (P, P) matrix."""
        out = np.zeros((self.size, self.size))
        n = self.n_beta
        out[:n, :n] = beta[:n, :n]
        out[n : n + self.n_theta, n : n + self.n_theta] = theta
        if self.with_phi:
            out[-1, -1] = log_phi
        return out


@dataclass(frozen=True, slots=True)
class EnginePoint:
    """One point in the coordinates of an engine.

    Attributes
    ----------
    psi : (P,) the engine's parameters.
    beta : (n_beta,) coefficients of the working columns.
    lams : per term (k, k) square roots of the covariance.
    phi : dispersion, 1 for families without one.
    """

    psi: np.ndarray
    beta: np.ndarray
    lams: tuple[np.ndarray, ...]
    phi: float


@dataclass(frozen=True, slots=True)
class ModeBlocks:
    """The working linear model at the modes: what standard errors and predictions are read off.

    Attributes
    ----------
    levels : per term (q,) numbers of the levels that have rows; None where the engine has no other levels.
    diagonal : per term (q, k, k) Z'WZ.
    dense : per term (q, k, p + 1) Z'W[X y*].
    cross : {(j, k): Z_j'W Z_k}, as in `Gram`.
    xy : (p + 1, p + 1) [X y*]'W[X y*].
    beta : (p,) coefficients of the working columns.
    u : per term (q, k) spherical modes.
    ll : log-likelihood of the rows given the modes, without constants.
    """

    levels: tuple[np.ndarray, ...] | None
    diagonal: tuple[np.ndarray, ...]
    dense: tuple[np.ndarray, ...]
    cross: dict[tuple[int, int], CrossBlock]
    xy: np.ndarray
    beta: np.ndarray
    u: tuple[np.ndarray, ...]
    ll: float


class LaplaceObjective(Objective, Protocol):
    """-2 log of the integral over the random effects, as a function of the engine's psi."""

    parameters: Parameters
    observed: bool
    """Whether log|M| has observed working weights, not expected ones."""
    passes: int
    """Looks at all rows so far."""

    @property
    def probed(self) -> ProbedEngine | None:
        """The engine itself, where its solver has probes."""
        ...

    def at_optimum(self, point: EnginePoint, observed: bool) -> ModeBlocks:
        """The working blocks at the modes, with observed or expected weights."""
        ...


class ProbedEngine(LaplaceObjective, Protocol):
    """An engine whose solver has probes, so that value and gradient are estimates."""

    @property
    def probing(self) -> Probing:
        """The random vectors of the solver."""
        ...

    def probe_error(self, psi: np.ndarray, inward: np.ndarray, outward: np.ndarray) -> ProbeError:
        """The errors at psi; raises NotPositiveDefiniteError.

        Parameters
        ----------
        psi : (engine's P,) the engine's parameters.
        inward : (engine's P, P) derivative of psi by the point of the search.
        outward : (P, P) derivative of the parameters that are reported by the point of the search.
        """
        ...

    def enlarge(self, probes: int, deflation: int) -> None:
        """Go on with more random vectors."""
        ...

    def value_error(self, psi: np.ndarray, error: float, tolerance: float) -> tuple[float, Probing]:
        """The error of the value, brought below the tolerance by more vectors, and their number. The engine keeps the
        vectors that it has, since its parameters do not feel the error."""
        ...
