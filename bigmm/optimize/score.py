"""Root finding on an estimated score: Newton steps without a line search, the curvature learnt as it goes.

Probes make the value and the gradient two deterministic functions that agree only up to a Monte Carlo error, so near
the end a comparison of values would stop the search too early; what is driven to zero is the score itself.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bigmm.optimize.newton import State, expected_decrease, learnt, newton_step
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


def run(
    problem: Problem, evaluate: Callable[[np.ndarray], LocalModel], start: np.ndarray
) -> tuple[np.ndarray, LocalModel, int]:
    """(theta, model there, evaluations)."""
    theta, model, evaluations = start, evaluate(start), 1
    correction = np.zeros_like(model.hessian)
    for _ in range(MAX_STEPS):
        if not expected_decrease(model, correction) > TOLERANCE or not np.isfinite(model.value):
            break
        move, _ = newton_step(model, correction, np.inf)
        move = _limited(problem, theta, move)
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


def _limited(problem: Problem, theta: np.ndarray, move: np.ndarray) -> np.ndarray:
    """Shorten the step until no scale changes sign or by more than a factor."""
    scales = (problem.lower == 0) & (theta != 0)
    ratio = 1.0 + move[scales] / theta[scales]
    fraction = 1.0
    for r in ratio:
        if r < 1.0 / FACTOR:
            fraction = min(fraction, (1.0 - 1.0 / FACTOR) / (1.0 - r))
        elif r > FACTOR:
            fraction = min(fraction, (FACTOR - 1.0) / (r - 1.0))
    return fraction * move
