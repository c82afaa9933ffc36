"""Root finding on an estimated score: Newton steps without a line search, the curvature learnt as it goes.

Probes make the value and the gradient two deterministic functions that agree only up to a Monte Carlo error, so near
the end a comparison of values would stop the search too early; what is driven to zero is the score itself.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bigmm.optimize.newton import State, Stepped, expected_decrease, learnt, newton_step
from bigmm.optimize.outcome import LocalModel, Problem

TOLERANCE = 1e-6
"""Expected decrease at which the score counts as zero: theta is then within 0.1 % of its standard error."""
MAX_STEPS = 50
FACTOR = 4.0
"""A scale changes at most by this factor in one step."""
SLOW = 0.01
"""The curvature is corrected when a step leaves more than this of the expected decrease: where average information is
nearly the Hessian, what a long step says about the curvature on its way would only do harm at its end."""
WORSE = 1.0
"""A step that raises the value by more than this (deviance units) is halved."""


def stop_below(share: float) -> float:
    """Expected decrease at which a step of d standard errors, which is worth d^2, is small beside a share of them."""
    return min(TOLERANCE, (0.1 * share) ** 2)


def run(
    problem: Problem, evaluate: Callable[[np.ndarray], LocalModel], start: np.ndarray
) -> tuple[np.ndarray, LocalModel, int]:
    """(theta, model there, evaluations)."""
    theta, model, evaluations = start, evaluate(start), 1
    correction = np.zeros_like(model.hessian)
    for _ in range(MAX_STEPS):
        if not expected_decrease(model, correction) > problem.tolerance or not np.isfinite(model.value):
            break
        move = _limited(problem, theta, _step(problem, theta, model, correction))
        # A step that is still worse after 8 halvings is not one of descent.
        for _ in range(8):
            trial = evaluate(theta + move)
            evaluations += 1
            if trial.value <= model.value + WORSE:
                break
            move = 0.5 * move
        else:
            break
        if expected_decrease(trial, correction) > SLOW * expected_decrease(model, correction):
            correction = learnt(State(theta, model, correction, np.inf, 0, 0, 0, np.inf), trial, move)
        theta, model = theta + move, trial
    return theta, model, evaluations


def _step(problem: Problem, theta: np.ndarray, model: LocalModel, correction: np.ndarray) -> np.ndarray:
    """Newton's step; a scale that would change its sign, or fall by more than the factor, falls by the factor, and the
    other elements step as they should beside that."""
    move, free = np.zeros(len(theta)), np.ones(len(theta), bool)
    # Each round fixes at least one scale, so the loop ends.
    while free.any():
        free_block = np.ix_(free, free)
        fixed_part = (model.hessian + correction)[np.ix_(free, ~free)] @ move[~free]
        reduced = Stepped(model.value, model.gradient[free] + fixed_part, model.hessian[free_block])
        move[free], _ = newton_step(reduced, correction[free_block], np.inf)
        low = free & (problem.lower == 0) & (theta != 0)
        # Zero is a stationary point of an even objective: a scale that is thrown there would stay.
        low[low] = 1.0 + move[low] / theta[low] < 1.0 / FACTOR
        if not low.any():
            break
        move[low] = (1.0 / FACTOR - 1.0) * theta[low]
        free &= ~low
    return move


def _limited(problem: Problem, theta: np.ndarray, move: np.ndarray) -> np.ndarray:
    """Shorten the step until no scale grows by more than the factor."""
    scales = (problem.lower == 0) & (theta != 0)
    growth = float(np.max(move[scales] / theta[scales], initial=0.0))
    # The whole step is shortened, not one element: its direction stays.
    return move * min(1.0, (FACTOR - 1.0) / max(growth, 1e-300))
