"""Driving a score to zero: as fast as Newton where the curvature is right, and faster than it where it is not."""

import numpy as np
import pytest

from bigmm.optimize import score
from tests.optimize.problems import problem, quadratic

MINIMUM = np.array([0.6, 0.5])
MATRIX = np.array([[2e5, 3e4], [3e4, 1e5]])


def search(curvature, cubic=0.0):
    """(theta, evaluations) from nearby; the gradient is MATRIX (t - MINIMUM) and a cubic's, the curvature as given."""

    def gradient(t):
        return MATRIX @ (t - MINIMUM) + cubic * (t - MINIMUM) ** 2

    given = problem(lambda t: 0.5 * (t - MINIMUM) @ MATRIX @ (t - MINIMUM), gradient, curvature, MINIMUM - 0.03)
    theta, _, evaluations = score.run(given, given.evaluate, given.starts[0])
    return theta, evaluations


def test_the_minimum_is_found():
    theta, evaluations = search(lambda t: MATRIX)
    np.testing.assert_allclose(theta, MINIMUM, atol=1e-12)
    assert evaluations == 2


def test_the_right_curvature_needs_no_learning(monkeypatch):
    """What the long first step says about the curvature on its way would spoil the second."""
    monkeypatch.setattr(score, "MAX_STEPS", 2)
    curvature = lambda t: MATRIX + np.diag(2 * 3e5 * (t - MINIMUM))  # noqa: E731
    plain = np.abs(search(curvature, 3e5)[0] - MINIMUM).max()
    monkeypatch.setattr(score, "SLOW", 0.0)
    assert plain < 0.25 * np.abs(search(curvature, 3e5)[0] - MINIMUM).max()


def test_a_wrong_curvature_is_learnt(monkeypatch):
    theta, learning = search(lambda t: 1.8 * MATRIX)
    np.testing.assert_allclose(theta, MINIMUM, atol=1e-5)
    monkeypatch.setattr(score, "learnt", lambda state, model, move: state.correction)
    assert learning < search(lambda t: 1.8 * MATRIX)[1]


def test_a_start_that_is_the_end_costs_one_evaluation():
    given = quadratic(MATRIX, MINIMUM, MINIMUM)
    assert score.run(given, given.evaluate, MINIMUM)[2] == 1


def test_the_search_ends_where_what_is_left_is_small_beside_what_is_wanted():
    assert score.stop_below(0.01) == score.TOLERANCE
    assert score.stop_below(0.001) < 0.02 * score.TOLERANCE
    ends = []
    for tolerance in (1e-2, 1e-12):
        given = problem(
            lambda t: float(np.sum((t - MINIMUM) ** 2 + (t - MINIMUM) ** 4)),
            lambda t: 2.0 * (t - MINIMUM) + 4.0 * (t - MINIMUM) ** 3,
            lambda t: 3.0 * np.eye(2),
            MINIMUM - 0.3,
            tolerance=tolerance,
        )
        ends.append(np.abs(score.run(given, given.evaluate, given.starts[0])[0] - MINIMUM).max())
    assert ends[1] < 0.01 * ends[0]


def test_a_scale_that_falls_to_zero_does_not_hold_up_the_others():
    """Its step is cut by the factor; the others go where they should beside it, not a share of the way."""
    given = quadratic([[2.0, 0.9], [0.9, 1.0]], [1.0, -0.8], [0.1, 0.5], lower=[-np.inf, 0.0])
    start = given.starts[0]
    after = start + score._step(given, start, given.evaluate(start), np.zeros((2, 2)))
    assert after[1] == 0.5 / score.FACTOR
    assert given.evaluate(after).gradient[0] == pytest.approx(0.0, abs=1e-12)
