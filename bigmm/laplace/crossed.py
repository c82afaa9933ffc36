"""Any number of crossed or nested terms: PIRLS on the blocked factor, the Laplace deviance and its exact gradient.

PIRLS: Bates, Maechler, Bolker and Walker (2015); the gradient is DESIGN section 5 with q_i = z_i'v + x_i'tau, where
(v, tau) solves the observed-weight system for the derivative of log|M| at the mode. Every sum over rows is a map-reduce
over shards; everything else happens in the blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from bigmm.blocks.factor import Factor, NotPositiveDefiniteError, factorize
from bigmm.blocks.gram import Gram
from bigmm.blocks.inverse import selected_inverse
from bigmm.blocks.refill import Refill
from bigmm.blocks.rhs import solve_for
from bigmm.blocks.solve import multiply, quadratic, solve
from bigmm.families import Family
from bigmm.laplace import passes
from bigmm.laplace.evaluation import GlmmEvaluation, Parameters
from bigmm.laplace.wiring import Rows, Wiring, gram_of
from bigmm.objective.information import average_information
from bigmm.objective.templates import Templates

SETTLED = 1e-10
MAX_STEPS = 100


@dataclass(frozen=True, slots=True)
class Sums:
    """Working sums at one linear predictor: log-likelihood, Z's per term (q, k), and the blocks of A."""

    ll: float
    score: tuple[np.ndarray, ...]
    diagonal: np.ndarray
    dense: np.ndarray
    cross: np.ndarray
    xy: np.ndarray


@dataclass(frozen=True, slots=True)
class Mode:
    """Where PIRLS ended: u per term (q, k) spherical, beta (p,), penalized deviance -2 ll + |u|^2, steps, settled."""

    u: tuple[np.ndarray, ...]
    beta: np.ndarray
    penalized: float
    steps: int
    settled: bool


def working_shard(rows: Rows, model: tuple, shapes: tuple, beta, b, phi, observed: bool, with_x: bool) -> tuple:
    """One shard's working sums; a pure task."""
    total, vectors, diagonal, dense, cross, xy = (np.zeros(shape) for shape in shapes)
    passes.working_sums(
        rows.arrays(), model, beta, b, phi, observed, with_x, total, vectors, diagonal, dense, cross, xy
    )
    return total, vectors, diagonal, dense, cross, xy


def third_order_shard(rows: Rows, model: tuple, q: int, beta, b, phi, observed, with_phi, j_diagonal, j_cross) -> tuple:
    """One shard's third-order sums; a pure task."""
    p = len(beta)
    out = (np.zeros(p), np.zeros(p), np.zeros(q), np.zeros(2 + p), np.zeros(q))
    passes.third_order_sums(rows.arrays(), model, beta, b, phi, observed, with_phi, j_diagonal, j_cross, *out)
    return out


class CrossedLaplace:
    """The Laplace deviance as a function of psi; remembers the last mode as the next start.

    ``map_shards(task, *args) -> list`` runs a task on every shard and returns results in the shards' order;
    observed: log|M| with observed weights; profile: beta comes from PIRLS (nagq = 0), psi holds theta only.
    """

    def __init__(
        self,
        map_shards: Callable[..., list],
        wiring: Wiring,
        family: Family,
        templates: Templates,
        parameters: Parameters,
        observed: bool,
        constant: float,
        beta0: np.ndarray,
    ):
        self.map_shards, self.wiring, self.family, self.templates = map_shards, wiring, family, templates
        self.parameters, self.observed, self.constant = parameters, observed, constant
        self.profile = parameters.profile
        self.refills: dict[int, Refill] = {}
        self.u = tuple(np.zeros((q, k)) for q, k in zip(wiring.n_levels, wiring.width, strict=True))
        self.beta = np.asarray(beta0, float)
        self.passes = 0
        self._last: tuple[bytes, Mode] | None = None

    # ------------------------------------------------------------------------------------------------ sums over rows

    def sums(self, beta, effects, phi: float, observed: bool, with_x: bool) -> Sums:
        """One look at all rows."""
        wiring = self.wiring
        m = (len(beta) if with_x else 0) + 1
        cross = sum(block.data.size for block in wiring.pattern.cross.values())
        shapes = (
            (1,),
            (wiring.q,),
            (int((wiring.width**2 * wiring.n_levels).sum()),),
            (wiring.q * m,),
            (cross,),
            (m, m),
        )
        parts = self.map_shards(
            working_shard, wiring.model(self.family, m), shapes, beta, wiring.flat(effects), phi, observed, with_x
        )
        self.passes += 1
        total, vectors, diagonal, dense, cross, xy = (sum(values) for values in zip(*parts, strict=True))
        xy[-1, -1] = passes.LAST_CORNER
        return Sums(float(total[0]), wiring.terms(vectors), diagonal, dense, cross, xy)

    def gram(self, sums: Sums) -> Gram:
        """The sums as blocks."""
        return gram_of(self.wiring, sums.diagonal, sums.dense, sums.cross, sums.xy)

    def factor(self, sums: Sums, lams) -> Factor:
        """Factor of M (and of the fixed effects when the sums have them)."""
        gram = self.gram(sums)
        m = len(sums.xy)
        if m not in self.refills:
            self.refills[m] = Refill(gram)
        return factorize(self.refills[m](gram), lams)

    # ------------------------------------------------------------------------------------------------ the mode

    def mode(self, psi: np.ndarray) -> Mode:
        """PIRLS from the last mode; from zero when that fails."""
        key = psi.tobytes()
        if self._last is not None and self._last[0] == key:
            return self._last[1]
        found = self._pirls(psi, self.u, self.beta)
        if not found.settled:
            found = self._pirls(psi, tuple(np.zeros_like(u) for u in self.u), self.beta)
        if found.settled:
            self.u = found.u
            if self.profile:
                self.beta = found.beta
        self._last = (key, found)
        return found

    def _pirls(self, psi, u, beta) -> Mode:
        theta_beta, theta, phi = self.parameters.split(psi)
        beta = beta if self.profile else theta_beta
        lams = self.templates.joint(theta)
        old: tuple | None = None
        best, gain = np.inf, np.inf
        for step in range(MAX_STEPS):
            effects = tuple(u_j @ lam.T for u_j, lam in zip(u, lams, strict=True))
            try:
                observed = not self.family.canonical
                sums = self.sums(beta, effects, phi, observed, self.profile)
                penalized = -2.0 * sums.ll + sum(float((u_j**2).sum()) for u_j in u)
                overshot = not np.isfinite(penalized) or penalized > best + 1e-10 * (1.0 + abs(best))
                if old is not None and overshot and gain > 1e-3:
                    u = tuple(0.5 * (a + c) for a, c in zip(u, old[0], strict=True))
                    beta = 0.5 * (beta + old[1])
                    gain *= 0.5
                    continue
                if not np.isfinite(penalized):
                    break
                try:
                    factor = self.factor(sums, lams)
                except NotPositiveDefiniteError:
                    sums = self.sums(beta, effects, phi, False, self.profile)
                    factor = self.factor(sums, lams)
            except NotPositiveDefiniteError:
                break
            new_u, new_beta, gain = self._newton(factor, sums, lams, u, beta, effects)
            best = penalized
            if gain <= SETTLED * (1.0 + abs(penalized)):  # the last step squares the error
                return Mode(new_u, new_beta, penalized - gain, step + 1, True)
            old, u, beta = (u, beta), new_u, new_beta
        return Mode(u, beta, best, MAX_STEPS, False)

    def _newton(self, factor, sums: Sums, lams, u, beta, effects):
        """The next u (and beta), and what the step should gain in penalized deviance."""
        solution = solve(factor)
        fitted = multiply(factor.structure, tuple(e[:, :, None] for e in solution.effects))
        new_beta = solution.beta if self.profile else beta
        new_u, gain = [], 0.0
        for j, (u_j, lam) in enumerate(zip(u, lams, strict=True)):
            dense = factor.structure.gram.terms[j].dense
            rest = dense[:, :, -1] - fitted[j][:, :, 0]
            if self.profile:
                rest = rest - dense[:, :, :-1] @ solution.beta
            new_u.append(rest @ lam)
            slope = sums.score[j] @ lam - u_j
            gain += float((slope * (new_u[j] - u_j)).sum())
        if self.profile:
            xy = sums.xy
            working = xy[:-1, :-1] @ beta + sum(
                np.einsum("qkp,qk->p", t.dense[:, :, :-1], e)
                for t, e in zip(factor.structure.gram.terms, effects, strict=True)
            )
            gain += float((xy[:-1, -1] - working) @ (new_beta - beta))
        return tuple(new_u), new_beta, gain

    # ------------------------------------------------------------------------------------------------ value, gradient

    def value(self, psi: np.ndarray) -> float:
        """The Laplace deviance; inf where there is no mode."""
        mode = self.mode(psi)
        if not mode.settled:
            return np.inf
        _, theta, phi = self.parameters.split(psi)
        lams = self.templates.joint(theta)
        effects = tuple(u @ lam.T for u, lam in zip(mode.u, lams, strict=True))
        try:
            factor = self.factor(self.sums(mode.beta, effects, phi, self.observed, False), lams)
        except NotPositiveDefiniteError:
            return np.inf
        return mode.penalized + factor.logdet_z + self.constant

    def evaluate(self, psi: np.ndarray) -> GlmmEvaluation:
        """Value, exact gradient and a curvature to start from (working-model information)."""
        mode = self.mode(psi)
        _, theta, phi = self.parameters.split(psi)
        lams = self.templates.joint(theta)
        effects = tuple(u @ lam.T for u, lam in zip(mode.u, lams, strict=True))
        n = self.parameters.size
        try:
            if not mode.settled:
                raise NotPositiveDefiniteError("no mode")
            sums = self.sums(mode.beta, effects, phi, self.observed, True)
            factor = self.factor(sums, lams)
            factor_o = factor
            if not (self.family.canonical or self.observed):
                factor_o = self.factor(self.sums(mode.beta, effects, phi, True, True), lams)
        except NotPositiveDefiniteError:
            return GlmmEvaluation(np.inf, np.full(n, np.nan), np.full((n, n), np.nan))
        value = mode.penalized + factor.logdet_z + self.constant
        inverse = selected_inverse(factor, with_fixed=False, pattern=True)
        gradient = self._gradient(mode, phi, lams, effects, sums, factor_o, inverse)
        return GlmmEvaluation(value, gradient, self._curvature(factor, sums, lams, inverse))

    def _gradient(self, mode, phi, lams, effects, sums, factor_o, inverse) -> np.ndarray:
        wiring, parameters = self.wiring, self.parameters
        j_diagonal = wiring.flat(inverse.covariances)
        j_cross = np.concatenate([inverse.pairs[pair].ravel() for pair in wiring.pairs] or [np.zeros(0)])
        parts = self.map_shards(
            third_order_shard,
            wiring.model(self.family, 1),
            wiring.q,
            mode.beta,
            wiring.flat(effects),
            phi,
            self.observed,
            parameters.with_phi,
            j_diagonal,
            j_cross,
        )
        self.passes += 1
        xs, x_c, z_c, phi_sums, z_phi = (sum(values) for values in zip(*parts, strict=True))
        z_c = wiring.terms(z_c)
        gram = factor_o.structure.gram
        if self.profile:
            v, tau = solve_for(factor_o, z_c, x_c)
        else:
            v, tau = solve_for(factor_o, z_c, np.zeros(0), random_only=True)
            tau = np.zeros(len(mode.beta))
        moved = multiply(factor_o.structure, tuple(x[:, :, None] for x in v))
        # Z'W q with q = Z v + X tau
        pulled = [moved[j][:, :, 0] + gram.terms[j].dense[:, :, :-1] @ tau for j in range(len(v))]
        spherical = [(c - w) @ lam for c, w, lam in zip(z_c, pulled, lams, strict=True)]
        theta_gradient = []
        for j, row, column in self.templates.places():
            along = -2.0 * sums.score[j][:, row] + z_c[j][:, row] - pulled[j][:, row]
            theta_gradient.append(
                along @ mode.u[j][:, column]
                + 2.0 * (inverse.projected[j] @ lams[j])[row, column]
                + sums.score[j][:, row] @ spherical[j][:, column]
            )
        xq = gram.xy[:-1, :-1] @ tau + sum(
            np.einsum("qkp,qk->p", t.dense[:, :, :-1], x) for t, x in zip(gram.terms, v, strict=True)
        )
        phi_gradient = -2.0 * phi_sums[0] + phi_sums[1] + float(wiring.flat(v) @ z_phi + tau @ phi_sums[2:])
        return parameters.join(-2.0 * xs + x_c - xq, np.array(theta_gradient), phi_gradient)

    def _curvature(self, factor: Factor, sums: Sums, lams, inverse) -> np.ndarray:
        """Information of the working linear model: X'V^-1X for beta, average information for theta."""
        places = self.templates.places()
        theta = average_information(factor.structure, partial(quadratic, factor), lams, sums.score, places)
        for a, (j, row, column) in enumerate(places):
            pull = inverse.projected[j] - sums.score[j].T @ sums.score[j]
            for b, (j2, row2, column2) in enumerate(places):
                if j == j2 and column == column2:
                    theta[a, b] += 2.0 * pull[row, row2]
        n = len(factor.tail) - 1
        lower = np.tril(factor.tail[factor.n_random : n, factor.n_random : n])
        return self.parameters.blocks(2.0 * lower @ lower.T, theta, 0.5 * self.parameters.rows)
