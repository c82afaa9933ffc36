"""Any number of crossed or nested terms: PIRLS on the blocked factor, the Laplace deviance and its gradient.

PIRLS: Bates, Maechler, Bolker and Walker (2015); the gradient is that of docs/theory/laplace.md with q_i = z_i'v +
x_i'tau, where (v, tau) solves the observed-weight system for the derivative of log|M| at the mode. Every sum over
rows is a map-reduce over shards; everything else happens in the blocks, by a `WorkingSolver`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bigmm.blocks.exact.factor import NotPositiveDefiniteError
from bigmm.blocks.gram import Gram
from bigmm.execute import Sharded
from bigmm.families import Family
from bigmm.laplace.block_layout import BlockLayout, LinearPredictor, NumberedRows, gram_of
from bigmm.laplace.leverages import third_order_sums
from bigmm.laplace.objective import EnginePoint, ModeBlocks, Parameters, ProbedEngine
from bigmm.laplace.working_sums import WorkingSums, working_part, working_sums
from bigmm.objective.covariances import RootElements
from bigmm.objective.evaluation import Evaluation, no_evaluation
from bigmm.objective.factorization import Leverages, Terms, WorkingFactorization, WorkingSolver
from bigmm.objective.information import average_information, changes_of

# PIRLS ends when a step should gain less than this share of the penalized deviance; that step is still taken.
SETTLED = 1e-10
MAX_STEPS = 100
SAME = 1e-12
"""Relative difference of parameters that are the same point, after a change of coordinates and back."""


@dataclass(frozen=True, slots=True)
class Mode:
    """The end of PIRLS.

    Attributes
    ----------
    u : per term (q, k) spherical modes.
    beta : (p,) coefficients, those of psi unless they are profiled.
    penalized : -2 ll + |u|^2.
    steps : Newton steps that were taken.
    settled : whether this is a mode.
    """

    u: Terms
    beta: np.ndarray
    penalized: float
    steps: int
    settled: bool


@dataclass(frozen=True, slots=True)
class AtMode:
    """The mode at psi, the sums over rows and the factor there; factor_o is the factor with observed weights."""

    mode: Mode
    lams: Terms
    effects: Terms
    phi: float
    sums: WorkingSums
    factor: WorkingFactorization
    factor_o: WorkingFactorization
    penalized: float


class CrossedLaplace:
    """The Laplace deviance as a function of psi; remembers the last mode as the next start.

    Parameters
    ----------
    shards : each a `block_layout.NumberedRows`.
    observed : whether log|M| has observed weights.
    parameters : of psi. Where they are profiled, beta comes from PIRLS (nagq = 0), and psi holds theta only.
    beta0 : (p,) start of PIRLS.
    """

    def __init__(
        self,
        shards: Sharded,
        wiring: BlockLayout,
        family: Family,
        roots: RootElements,
        parameters: Parameters,
        observed: bool,
        constant: float,
        beta0: np.ndarray,
        solver: WorkingSolver,
    ):
        self.shards, self.wiring, self.family, self.roots = shards, wiring, family, roots
        self.parameters, self.observed, self.constant, self.solver = parameters, observed, constant, solver
        self.profile = parameters.profile
        self.rules = wiring.rules(family)
        # Fetched once: the driver cuts the known blocks of J by shard at every gradient.
        self.windows = shards.map(entry_windows)
        self.u = tuple(np.zeros((q, k)) for q, k in zip(wiring.n_levels, wiring.width, strict=True))
        self.lams: Terms | None = None
        self.beta = np.asarray(beta0, float)
        self.passes = 0
        self._last: tuple[np.ndarray, Mode] | None = None
        self._evaluated: tuple[np.ndarray, Evaluation] | None = None

    @property
    def probed(self) -> ProbedEngine | None:
        """None: see `laplace.montecarlo.ProbedLaplace`."""
        return None

    # ------------------------------------------------------------------------------------------------ sums over rows

    def sums(self, beta, effects: Terms, phi: float, observed: bool, with_x: bool) -> WorkingSums:
        """One look at all rows."""
        self.passes += 1
        m = (len(beta) if with_x else 0) + 1
        task = working_part, self.rules, LinearPredictor(beta, effects, phi, observed), with_x, self.solver.dtype
        return working_sums(self.shards.fold, self.wiring, m, self.solver.dtype, *task)

    def gram(self, sums: WorkingSums) -> Gram:
        """The sums as blocks."""
        return gram_of(self.wiring, sums.diagonal, sums.dense, sums.cross, sums.xy)

    def factor(self, sums: WorkingSums, lams: Terms) -> WorkingFactorization:
        """Factor of M (and of the fixed effects when the sums have them)."""
        return self.solver.factor(lams, self.gram(sums))

    # ------------------------------------------------------------------------------------------------ the mode

    def mode(self, psi: np.ndarray) -> Mode:
        """PIRLS from the last mode; from zero when that fails."""
        # A search asks for the value and then for the gradient at the same point.
        if self._last is not None and same_point(self._last[0], psi):
            return self._last[1]
        lams = self.roots.joint(self.parameters.split(psi)[1])
        mode = self._pirls(psi, self._start(lams), self.beta)
        if not mode.settled:
            mode = self._pirls(psi, tuple(np.zeros_like(u) for u in self.u), self.beta)
        if mode.settled:
            # Only modes become a start: the end of a failed search may be far away from all of them.
            self.u, self.lams = mode.u, lams
            if self.profile:
                self.beta = mode.beta
        self._last = (psi.copy(), mode)
        return mode

    def _start(self, lams: Terms) -> Terms:
        """The last modes; where steps of theta are long, the u with the same effects: the rows say what these are."""
        if self.solver.is_exact or self.lams is None:
            return self.u
        # Pseudo-inverse: a square root may be singular at the boundary, where effects do not determine u.
        pairs = zip(self.u, self.lams, lams, strict=True)
        return tuple(u @ old.T @ np.linalg.pinv(new).T for u, old, new in pairs)

    def _pirls(self, psi, u: Terms, beta) -> Mode:
        theta_beta, theta, phi = self.parameters.split(psi)
        beta = beta if self.profile else theta_beta
        lams = self.roots.joint(theta)
        if not np.all(np.isfinite(psi)):
            return Mode(u, beta, np.inf, 0, False)
        inverses = tuple(np.linalg.pinv(lam) for lam in lams)
        u = tuple(within_range(u_j, lam, inverse) for u_j, lam, inverse in zip(u, lams, inverses, strict=True))
        old: tuple | None = None
        best, gain = np.inf, np.inf
        for step in range(MAX_STEPS):
            effects = tuple(u_j @ lam.T for u_j, lam in zip(u, lams, strict=True))
            try:
                # Newton's method has observed weights. For a canonical link the expected ones are equal.
                observed = not self.family.canonical
                sums = self.sums(beta, effects, phi, observed, self.profile)
                penalized = -2.0 * sums.ll + squared_length(u)
                # A rise within 1e-10 is rounding of the sums. So is any loss of a step that should gain less than 1e-3.
                overshot = not np.isfinite(penalized) or penalized > best + 1e-10 * (1.0 + abs(best))
                if old is not None and overshot and gain > 1e-3:
                    u = tuple(0.5 * (a + c) for a, c in zip(u, old[0], strict=True))
                    beta = 0.5 * (beta + old[1])
                    # The promise shrinks with the step, so halvings end where rounding begins.
                    gain *= 0.5
                    continue
                if not np.isfinite(penalized):
                    break
                try:
                    factor = self.factor(sums, lams)
                except NotPositiveDefiniteError:
                    # Expected weights give an ascent direction everywhere (docs/theory/laplace.md, "The mode").
                    sums = self.sums(beta, effects, phi, False, self.profile)
                    factor = self.factor(sums, lams)
                du, dbeta, gain = self._newton(factor, sums, inverses, u, beta, effects)
            except NotPositiveDefiniteError:
                break
            best, old = penalized, (u, beta)
            u, beta = tuple(a + d for a, d in zip(u, du, strict=True)), beta + dbeta
            if gain <= SETTLED * (1.0 + abs(penalized)):  # the last step squares the error
                return Mode(u, beta, penalized - gain, step + 1, True)
        return Mode(u, beta, best, MAX_STEPS, False)

    def _newton(self, factor: WorkingFactorization, sums: WorkingSums, inverses: Terms, u: Terms, beta, effects: Terms):
        """Newton's step of u and beta, and what it should gain in penalized deviance.

        In steps and not in positions, so that a solution to few digits is as good as it says. u = Lambda'a throughout,
        and with r = Z's - a the right-hand side is Lambda'r, whatever Lambda.
        """
        remainder = tuple(s - u_j @ inverse for s, u_j, inverse in zip(sums.score, u, inverses, strict=True))
        xs = self._fixed_score(sums, beta, effects) if self.profile else np.zeros(0)
        change, dbeta = factor.effects(remainder, xs, not self.profile)
        dbeta = dbeta if self.profile else np.zeros_like(beta)
        gain = sum(float((r * d).sum()) for r, d in zip(remainder, change, strict=True))
        gain += float(xs @ dbeta) if self.profile else 0.0
        return tuple(d @ inverse.T for d, inverse in zip(change, inverses, strict=True)), dbeta, gain

    def _fixed_score(self, sums: WorkingSums, beta, effects: Terms) -> np.ndarray:
        """X's from the working response's column."""
        m, xy = len(sums.xy), sums.xy
        random, start = np.zeros(m - 1), 0
        for e in effects:
            dense = sums.dense[start : start + e.size * m].reshape(*e.shape, m)
            random += np.einsum("qkp,qk->p", dense[:, :, :-1], e)
            start += e.size * m
        # W y* = W (X beta + Z b) + s, so X's is X'Wy* less X'W times the linear predictor without its offset.
        return xy[:-1, -1] - xy[:-1, :-1] @ beta - random

    # ------------------------------------------------------------------------------------------------ value, gradient

    def at_mode(self, psi: np.ndarray, with_x: bool) -> AtMode:
        """The mode and the factor there; raises NotPositiveDefiniteError."""
        mode = self.mode(psi)
        if not mode.settled:
            raise NotPositiveDefiniteError("no mode")
        _, theta, phi = self.parameters.split(psi)
        lams = self.roots.joint(theta)
        effects = tuple(u @ lam.T for u, lam in zip(mode.u, lams, strict=True))
        sums = self.sums(mode.beta, effects, phi, self.observed, with_x)
        factor = factor_o = self.factor(sums, lams)
        # The mode moves by observed weights, whatever weights log|M| has.
        if with_x and not (self.family.canonical or self.observed):
            factor_o = self.factor(self.sums(mode.beta, effects, phi, True, True), lams)
        penalized = -2.0 * sums.ll + squared_length(mode.u)
        return AtMode(mode, lams, effects, phi, sums, factor, factor_o, penalized)

    def value(self, psi: np.ndarray) -> float:
        """The Laplace deviance; inf where there is no mode."""
        if self._evaluated is not None and same_point(self._evaluated[0], psi):
            return self._evaluated[1].value
        try:
            state = self.at_mode(psi, False)
            return state.penalized + state.factor.logdet_z + self.constant
        except NotPositiveDefiniteError:
            return np.inf

    def evaluate(self, psi: np.ndarray) -> Evaluation:
        """Value, gradient and a curvature to start from (working-model information)."""
        if self._evaluated is None or not same_point(self._evaluated[0], psi):
            self._evaluated = (psi.copy(), self._evaluate(psi))
        return self._evaluated[1]

    def _evaluate(self, psi: np.ndarray) -> Evaluation:
        try:
            state = self.at_mode(psi, True)
            leverages = state.factor.leverages()
            gradient, remainder = self._gradient(state, leverages)
            hessian = self._curvature(state, leverages, remainder)
        except NotPositiveDefiniteError:
            return no_evaluation(self.parameters.size)
        return Evaluation(state.penalized + state.factor.logdet_z + self.constant, gradient, hessian)

    def _gradient(self, state: AtMode, leverages: Leverages) -> tuple[np.ndarray, Terms]:
        """The gradient, and Z' times that of log|M| in the linear predictor."""
        parameters, score, u = self.parameters, state.sums.score, state.mode.u
        point = LinearPredictor(state.mode.beta, state.effects, state.phi, self.observed)
        third = third_order_sums(
            self.shards.fold, self.wiring, self.rules, self.windows, point, parameters.with_phi, leverages
        )
        self.passes += 1
        gram = state.factor_o.structure.gram
        v, tau = state.factor_o.effects(third.z_c, third.x_c, not self.profile)
        # Z'c - Z'Wq with q = Z v + X tau
        remainder = state.factor_o.remainder(third.z_c, v, tau)
        spherical = [r @ lam for r, lam in zip(remainder, state.lams, strict=True)]
        theta_gradient = []
        # Three parts by element: through eta, the direct change of M, and that of the mode's equation.
        for j, row, column in self.roots.elements:
            along = remainder[j][:, row] - 2.0 * score[j][:, row]
            theta_gradient.append(
                along @ u[j][:, column]
                + 2.0 * (leverages.projected[j] @ state.lams[j])[row, column]
                + score[j][:, row] @ spherical[j][:, column]
            )
        xq = gram.xy[:-1, :-1] @ tau + sum(
            np.einsum("qkp,qk->p", t.dense[:, :, :-1], x) for t, x in zip(gram.terms, v, strict=True)
        )
        by_phi = sum(float((a * z).sum()) for a, z in zip(v, third.z_phi, strict=True)) + tau @ third.phi[2:]
        phi_gradient = -2.0 * third.phi[0] + third.phi[1] + by_phi
        beta_gradient = -2.0 * third.xs + third.x_c - xq
        return parameters.join(beta_gradient, np.array(theta_gradient), phi_gradient), tuple(remainder)

    def _curvature(self, state: AtMode, leverages: Leverages, remainder: Terms) -> np.ndarray:
        """Information of the working linear model: X'V^-1X for beta, average information for theta.

        The part that average information lacks vanishes at an inner optimum. In a column of lambda that is 0 it is all
        of the curvature: there the modes are u = lambda'Z's, and the part is the gradient's factor beside lambda.
        """
        places, score = self.roots.elements, state.sums.score
        factor = state.factor
        changes = changes_of([term.basis for term in factor.structure.gram.terms], factor.lams, places)
        theta, root = average_information(factor.structure, factor.quadratic, changes, score), factor.fixed_root()
        # The part that does not vanish in a column of zeros (docs/theory/laplace.md, "Curvature").
        for a, (j, row, column) in enumerate(places):
            answer = remainder[j].T @ score[j]
            pull = leverages.projected[j] - score[j].T @ score[j] + 0.5 * (answer + answer.T)
            for b, (j2, row2, column2) in enumerate(places):
                if j == j2 and column == column2:
                    theta[a, b] += 2.0 * pull[row, row2]
        return self.parameters.blocks(2.0 * (root @ root.T), theta, 0.5 * self.parameters.rows)

    def at_optimum(self, point: EnginePoint, observed: bool) -> ModeBlocks:
        """See `LaplaceObjective.at_optimum`."""
        mode = self.mode(point.psi)
        effects = tuple(u @ lam.T for u, lam in zip(mode.u, point.lams, strict=True))
        sums = self.sums(mode.beta, effects, point.phi, observed, True)
        gram = self.gram(sums)
        diagonal, dense = tuple(t.diagonal for t in gram.terms), tuple(t.dense for t in gram.terms)
        # The pattern has only levels with rows, whose numbers the assembled model has.
        return ModeBlocks(None, diagonal, dense, gram.cross, gram.xy, mode.beta, mode.u, sums.ll)

    def use(self, solver: WorkingSolver) -> None:
        """Go on with another solver."""
        if solver is not self.solver:
            # The mode stays: it is a start for any solver.
            self.solver, self._evaluated = solver, None


def entry_windows(rows: NumberedRows) -> np.ndarray:
    """A shard's windows of entries; a pure task."""
    return rows.entry_windows


def same_point(a: np.ndarray, b: np.ndarray) -> bool:
    """The same parameters but for rounding in a change of coordinates."""
    return bool(np.all(np.abs(a - b) <= SAME * (np.abs(a) + np.abs(b))))


def squared_length(u: Terms) -> float:
    """|u|^2."""
    return sum(float((u_j**2).sum()) for u_j in u)


def within_range(u: np.ndarray, lam: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """u without what no Lambda'a can be: the prior alone says that it is zero."""
    # The projector on the range of Lambda'. Where Lambda is regular u passes through without a product's rounding.
    keep = inverse @ lam
    return u if np.allclose(keep, np.eye(len(keep)), rtol=0.0, atol=1e-6) else u @ keep.T
