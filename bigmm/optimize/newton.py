"""Newton's method with average information in a trust region (More and Sorensen 1983), as init / step / terminate.

Where the mean is misspecified, average information is far from the Hessian. Symmetric rank-one updates learn a
correction from gradient differences, as NL2SOL does for Gauss-Newton (Dennis, Gay and Welsch 1981).

theta is unconstrained: the objective is even in the sign of every scale, or of a column of lambda. So a boundary at
0 is an ordinary stationary point, whose curvature decides whether it is a minimum.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bigmm.optimize.outcome import LocalModel, Problem

LAST_DIGIT = 1e-28
"""Expected decrease at which `polish` ends. Rounding does not allow it as a rule, and the search stalls before."""
MAX_STEPS = 100
SHARP = 1e-8
"""Expected decrease from which on steps on the exact gradient are taken without a comparison of values."""
MAX_SHARPENINGS = 10


@dataclass(frozen=True, slots=True)
class State:
    """The state of the search.

    Attributes
    ----------
    theta : (n,) the point.
    model : the local model there.
    correction : (n, n) learnt correction of the model's curvature.
    radius : trust radius, in curvature units.
    steps, evaluations, gradient_evaluations : counts.
    decrease : expected decrease of one more step.
    stalled : whether no step makes progress.
    """

    theta: np.ndarray
    model: LocalModel
    correction: np.ndarray
    radius: float
    steps: int
    evaluations: int
    gradient_evaluations: int
    decrease: float
    stalled: bool = False


def init(problem: Problem, start: np.ndarray) -> State:
    """Evaluate the start."""
    model = _local_model(problem, start)
    # The radius starts infinite: average information sets the length of the first step.
    correction = np.zeros((len(start), len(start)))
    return State(start, model, correction, np.inf, 0, 1, 1, expected_decrease(model))


def _local_model(problem: Problem, theta: np.ndarray) -> LocalModel:
    if problem.evaluate is None:
        raise TypeError("Newton's method needs a gradient")
    return problem.evaluate(theta)


def is_finite(model: LocalModel) -> bool:
    """Are value, gradient and curvature numbers?"""
    return bool(np.isfinite(model.value) and np.all(np.isfinite(model.gradient)) and np.all(np.isfinite(model.hessian)))


def scaled_eigen(model: LocalModel, correction: np.ndarray | float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Eigenvalues, eigenvectors of the curvature in units where its diagonal is about 1, and that scale (n,)."""
    hessian = model.hessian + correction
    # A correction may cancel a diagonal element, which would leave its parameter without a unit.
    diagonal = np.maximum(np.abs(np.diagonal(hessian)), 0.1 * np.abs(np.diagonal(model.hessian)))
    scale = np.sqrt(np.maximum(diagonal, 1e-10 * max(diagonal.max(initial=0.0), 1e-300)))
    values, vectors = np.linalg.eigh(hessian / scale[:, None] / scale)
    return values, vectors, scale


def expected_decrease(model: LocalModel, correction: np.ndarray | float = 0.0) -> float:
    """Half the Newton decrement g'|H|^-1 g: what one more step should gain."""
    if not is_finite(model):
        return np.inf
    values, vectors, scale = scaled_eigen(model, correction)
    g = vectors.T @ (model.gradient / scale)
    # Absolute values: a step along negative curvature gains too.
    return float(0.5 * np.sum(g * g / np.maximum(np.abs(values), 1e-8)))


def newton_step(model: LocalModel, correction: np.ndarray, radius: float) -> tuple[np.ndarray, float]:
    """(step, predicted decrease) of the quadratic model with |curvature|, no longer than the radius in scaled units."""
    values, vectors, scale = scaled_eigen(model, correction)
    g = vectors.T @ (model.gradient / scale)
    size = np.maximum(np.abs(values), 1e-6)

    def damped(damping: float) -> np.ndarray:
        return np.asarray(-g / (size + damping))

    damping = 0.0
    if np.linalg.norm(damped(0.0)) > radius:
        # At the upper end the step is within the radius whatever the curvature.
        low, high = 0.0, float(np.linalg.norm(g)) / radius
        # Bisection to the last bit costs nothing beside an evaluation.
        for _ in range(60):
            damping = 0.5 * (low + high)
            low, high = (damping, high) if np.linalg.norm(damped(damping)) > radius else (low, damping)
    s = damped(damping)
    predicted = -(g @ s + 0.5 * np.sum(size * s * s))
    return (vectors @ s) / scale, float(predicted)


def step(problem: Problem, state: State) -> State:
    """One trial point: accepted when the objective falls (or, at rounding level, when the gradient does)."""
    move, predicted = newton_step(state.model, state.correction, state.radius)
    trial = state.theta + move
    value = problem.value(trial)
    gain = state.model.value - value
    # Gains below this are rounding of the value. There the gradient, which has more digits, decides.
    rounding = 1e-13 * (1.0 + abs(state.model.value))
    model = state.model
    if gain > 1e-4 * predicted or (abs(gain) <= rounding and predicted <= 10 * rounding):
        model = _local_model(problem, trial)
    if model is not state.model and is_finite(model):  # a point without a slope is no place to stand
        correction = learnt(state, model, move)
        decrease = expected_decrease(model, correction)
        length = _scaled_length(state, move)
        radius = state.radius
        # The usual thresholds of trust-region methods (Nocedal and Wright 2006, algorithm 4.1).
        if gain > 0.75 * predicted:
            radius = max(radius, 2.0 * length) if np.isfinite(radius) else radius
        elif gain < 0.25 * predicted:
            radius = 0.5 * length
        # Newton's method is quadratic: a step that does not even quarter the decrease is at rounding level.
        stalled = predicted <= rounding and decrease >= 0.25 * state.decrease
        if stalled and decrease >= state.decrease:
            return replace(
                state,
                steps=state.steps + 1,
                evaluations=state.evaluations + 1,
                stalled=True,
                gradient_evaluations=state.gradient_evaluations + 1,
            )
        return State(
            trial,
            model,
            correction,
            radius,
            state.steps + 1,
            state.evaluations + 1,
            state.gradient_evaluations + 1,
            decrease,
            stalled,
        )
    # Shorter than the step that failed, not than the radius: the step may have been well within it.
    radius = 0.25 * _scaled_length(state, move)
    stalled = predicted <= rounding or radius < 1e-12
    return replace(state, radius=radius, steps=state.steps + 1, evaluations=state.evaluations + 1, stalled=stalled)


def learnt(state: State, model: LocalModel, move: np.ndarray) -> np.ndarray:
    """Symmetric rank-one update of the correction, so that curvature times the step is the change of the gradient.

    Where that would take too large an update, what was learnt elsewhere is wrong here: it is sized first, as NL2SOL
    does, so that it counts at most as much as this step tells.
    """
    _, _, scale = scaled_eigen(model)
    change = model.gradient - state.model.gradient - model.hessian @ move
    before = abs(float(move @ state.correction @ move))
    share = min(1.0, abs(float(move @ change)) / before) if before > 0.0 else 1.0
    for correction in (state.correction, share * state.correction):
        missing, along = (change - correction @ move) / scale, move * scale
        against, length = float(missing @ along), float(along @ along)
        # a tiny step tells rounding, a tiny denominator tells nothing
        if length < 1e-10 or abs(against) <= 1e-4 * np.sqrt(length) * np.linalg.norm(missing):
            return correction
        # no correction is worth many times the curvature
        if missing @ missing <= 100.0 * abs(against):
            return correction + np.outer(missing * scale, missing * scale) / against
    return correction


def _scaled_length(state: State, move: np.ndarray) -> float:
    _, _, scale = scaled_eigen(state.model, state.correction)
    return float(np.linalg.norm(move * scale))


def terminate(state: State, tolerance: float) -> bool:
    """A minimum to the tolerance, no progress possible, or too many steps."""
    if state.stalled or state.steps >= MAX_STEPS or not np.isfinite(state.decrease):
        return True
    return state.decrease <= tolerance


def run(problem: Problem, state: State, tolerance: float | None = None) -> State:
    """Step until terminate."""
    tolerance = problem.tolerance if tolerance is None else tolerance
    while not terminate(state, tolerance):
        state = step(problem, state)
    return state


def polish(problem: Problem, state: State) -> State:
    """To the last digit, where evaluations cost nothing."""
    return run(problem, state, LAST_DIGIT) if problem.cheap else state


def sharpen(problem: Problem, state: State) -> State:
    """Newton's steps on the exact gradient from an end that only rounding is left of, while each is less than half as
    long as the one before. Values are not compared: they have fewer digits than the gradient."""
    # Near the end only: without a comparison of values Newton's method may diverge from afar.
    if problem.exact_gradient is None or not 0.0 <= state.decrease <= SHARP:
        return state
    theta, before, count = state.theta, np.sqrt(SHARP), 0
    while count < MAX_SHARPENINGS:
        count += 1
        exact = Stepped(state.model.value, problem.exact_gradient(theta), state.model.hessian)
        if not np.all(np.isfinite(exact.gradient)):
            return state
        move, _ = newton_step(exact, state.correction, np.inf)
        length = _scaled_length(state, move)
        # Quadratic convergence more than halves a step, so the first one that is not halved is rounding.
        if not length < 0.5 * before:
            break
        theta, before = theta + move, length
    model = _local_model(problem, theta)
    if not model.value <= state.model.value + 1e-11 * (1.0 + abs(state.model.value)):
        return state
    evaluations, gradients = state.evaluations + 1, state.gradient_evaluations + count + 1
    return replace(state, theta=theta, model=model, evaluations=evaluations, gradient_evaluations=gradients)


@dataclass(frozen=True, slots=True)
class Stepped:
    """A local model whose value is one Newton step further than its gradient and curvature."""

    value: float
    gradient: np.ndarray
    hessian: np.ndarray


def last_step(problem: Problem, state: State) -> State:
    """Take the step that a certified end still offers: it squares the error for the price of one value."""
    if not 0.0 < state.decrease <= problem.tolerance:
        return state
    move, _ = newton_step(state.model, state.correction, state.radius)
    value = problem.value(state.theta + move)
    if not value <= state.model.value + 1e-13 * (1.0 + abs(state.model.value)):
        return replace(state, evaluations=state.evaluations + 1)
    model = Stepped(value, state.model.gradient, state.model.hessian)
    return replace(state, theta=state.theta + move, model=model, evaluations=state.evaluations + 1)
