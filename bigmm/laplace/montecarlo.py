"""How far the probes of the iterative solver may have moved a generalized model's parameters."""

from __future__ import annotations

import numpy as np

from bigmm.laplace.block_layout import LinearPredictor
from bigmm.laplace.crossed import AtMode, CrossedLaplace
from bigmm.laplace.leverages import ThirdOrder, spread_part, third_order_sums
from bigmm.objective.factorization import Probing, Terms
from bigmm.objective.krylov import MOST_PROBES
from bigmm.objective.montecarlo import ProbeError, parameter_errors


class ProbedLaplace(CrossedLaplace):
    """`CrossedLaplace` by a solver with probes."""

    @property
    def probed(self) -> ProbedLaplace:
        """The engine itself."""
        return self

    @property
    def probing(self) -> Probing:
        """The random vectors of the solver."""
        probing = self.solver.probing
        if probing is None:
            raise TypeError(f"the {self.solver.name} solver has no probes")
        return probing

    def probe_error(self, psi: np.ndarray, inward: np.ndarray, outward: np.ndarray) -> ProbeError:
        """See `probe_error`."""
        return probe_error(self, psi, inward, outward)

    def enlarge(self, probes: int, deflation: int) -> None:
        """Go on with more random vectors, made at the next factor."""
        self.use(self.solver.enlarged(probes, deflation))

    def value_error(self, psi: np.ndarray, error: float, tolerance: float) -> tuple[float, Probing]:
        """See `ProbedEngine.value_error`."""
        solver, probing = self.solver, self.probing
        while error > tolerance and probing.probes < MOST_PROBES:
            self.enlarge(2 * probing.probes, 2 * probing.deflation)
            error = self.at_mode(psi, False).factor.logdet_error
            probing = self.probing
        # The search's vectors come back: the parameters belong to them, and do not feel the error of the value.
        self.use(solver)
        return error, probing


def probe_error(
    engine: CrossedLaplace, psi: np.ndarray, inward: np.ndarray | None = None, outward: np.ndarray | None = None
) -> ProbeError:
    """From the spread over probes at psi; raises NotPositiveDefiniteError.

    Parameters
    ----------
    psi : the engine's.
    inward : (engine's P, P) derivative of the engine's psi by the search's point; None: the identity.
    outward : (P, P) derivative of the parameters that are reported by the search's point; None: the identity.
    """
    hessian = engine.evaluate(psi).hessian
    gradients, objective = gradient_spread(engine, psi)
    if inward is not None:
        hessian, gradients = inward.T @ hessian @ inward, gradients @ inward
    return ProbeError(objective, *parameter_errors(gradients, hessian, outward=outward))


def gradient_spread(engine: CrossedLaplace, psi: np.ndarray) -> tuple[np.ndarray, float]:
    """The spread of the gradient over probes, at the engine's psi.

    Returns
    -------
    tuple : (t, P) the gradient that each single probe would give, up to a part that all have in common, and the
        standard error of log|M|.
    """
    state, parameters = engine.at_mode(psi, True), engine.parameters
    leverages = state.factor.leverages()
    assert leverages.start is not None and leverages.image is not None
    t = len(leverages.spread)
    places = engine.roots.elements
    traces = [[2.0 * (sums[j] @ state.lams[j])[row, column] for j, row, column in places] for sums in leverages.spread]
    point = LinearPredictor(state.mode.beta, state.effects, state.phi, engine.observed)
    third = None
    if parameters.with_phi:
        third = third_order_sums(
            engine.shards.fold, engine.wiring, engine.rules, engine.windows, point, True, leverages
        )
    along_x, along_z = directions(engine, state, third)
    # The first t vectors are the probes. Those after them are common to all probes, and have no spread.
    start, others = (tuple(x[:, :, :t] for x in terms) for terms in (leverages.start, leverages.image))
    task = engine.rules, point, parameters.with_phi, start, others, along_x, along_z
    out = sum(engine.shards.map(spread_part, *task))
    engine.passes += 1 + parameters.with_phi
    n = parameters.n_beta
    # The direct change of M by each probe; what passes through the weights is in `out` already.
    out[:, n : n + parameters.n_theta] += np.array(traces).reshape(t, -1)
    return out, state.factor.logdet_error


def directions(engine: CrossedLaplace, state: AtMode, third: ThirdOrder | None) -> tuple[np.ndarray, Terms]:
    """Derivatives of the mode along psi: of beta (p, P) and of the effects, per term (q, k, P); third: where there is a
    dispersion."""
    parameters, gram, score, u = engine.parameters, state.factor_o.structure.gram, state.sums.score, state.mode.u
    p, solve = len(state.mode.beta), state.factor_o.effects
    columns = []
    for a in range(parameters.n_beta):
        effects, _ = solve(tuple(-t.dense[:, :, a] for t in gram.terms), np.zeros(p), True)
        # The mode answers to beta by Z'WX; beta itself moves by one.
        columns.append((np.eye(p)[a], effects))
    for j, row, column in engine.roots.elements:
        # effects move by dLambda u, and answer to Lambda'^-1 dLambda's
        moved = [np.zeros_like(x) for x in u]
        moved[j][:, row] = u[j][:, column]
        pull = np.zeros_like(u[j])
        pull[:, column] = score[j][:, row]
        rhs = [-x for x in state.factor_o.product(tuple(moved))]
        rhs[j] = rhs[j] + pull @ np.linalg.pinv(state.lams[j])
        xs = -sum(np.einsum("qkp,qk->p", t.dense[:, :, :-1], x) for t, x in zip(gram.terms, moved, strict=True))
        answer, dbeta = solve(tuple(rhs), xs, not engine.profile)
        columns.append((dbeta, tuple(a + b for a, b in zip(answer, moved, strict=True))))
    if third is not None:
        answer, dbeta = solve(third.z_phi, third.phi[2:], not engine.profile)
        columns.append((dbeta, answer))
    along_x = np.array([dbeta for dbeta, _ in columns]).T.reshape(p, -1)
    return along_x, tuple(np.stack([effects[j] for _, effects in columns], axis=-1) for j in range(len(u)))
