"""Finite differences against the derivatives of functions that have them, and what they certify."""

from __future__ import annotations

import numpy as np
import pytest

from bigmm.optimize import Problem, minimize
from bigmm.optimize.differences import local_model

FREE = np.full(3, -np.inf)


def quartic(scale: float, level: float = 0.0):
    """level + sum of squares and fourth powers with a cross term, minimum at `scale` * (1, 2, 3)."""
    at = scale * np.array([1.0, 2.0, 3.0])

    def function(theta):
        d = (theta - at) / scale
        return level + d @ d + 0.5 * d[0] * d[1] + (d**4).sum()

    return function, at


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e3])
@pytest.mark.parametrize("level", [0.0, 1e6])
def test_gradient_and_curvature(scale, level):
    function, at = quartic(scale, level)
    there = at + scale * np.array([0.1, -0.2, 0.05])
    d = np.array([0.1, -0.2, 0.05])
    model = local_model(function, there, FREE)
    gradient = 2 * d + 0.5 * np.array([d[1], d[0], 0.0]) + 4 * d**3
    hessian = np.diag(2 + 12 * d**2) + 0.5 * np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0]])
    assert scale * model.gradient == pytest.approx(gradient, abs=2e-3)
    assert scale**2 * model.hessian == pytest.approx(hessian, abs=0.1)
    assert model.best[0] <= model.value


def test_at_a_bound_only_the_way_in_counts():
    up = local_model(lambda t: float(2 * t[0] + t[0] ** 2), np.zeros(1), np.zeros(1))
    down = local_model(lambda t: float(-2 * t[0] + t[0] ** 2), np.zeros(1), np.zeros(1))
    assert up.gradient[0] == 0.0
    assert down.gradient[0] == pytest.approx(-2.0, rel=1e-3)


def test_a_minimum_is_certified_and_rectified_to_zero():
    outcome = minimize(Problem(lambda t: 1e3 + float(t[0] ** 2 + (t[1] - 1) ** 2), None, np.zeros(2), (np.ones(2),)))
    assert outcome.converged and outcome.theta[0] == 0.0 and outcome.theta[1] == pytest.approx(1.0, abs=1e-4)
    assert outcome.at_boundary.tolist() == [True, False]


def test_zero_is_not_taken_for_a_minimum_of_an_even_function_that_falls():
    """theta = 0 has no slope, only negative curvature: the search must leave it."""
    outcome = minimize(Problem(lambda t: float((t[0] ** 2 - 1.0) ** 2), None, np.zeros(1), (np.zeros(1),)))
    assert outcome.converged and outcome.theta[0] == pytest.approx(1.0, abs=1e-4)


def test_the_best_start_is_taken():
    """Two wells: the start that lies lower leads to the deeper one."""
    well = lambda t: float((t[0] ** 2 - 4.0) ** 2 + t[0])  # noqa: E731
    outcome = minimize(Problem(well, None, np.full(1, -np.inf), (np.array([3.0]), np.array([-2.1]))))
    assert outcome.theta[0] < 0 and outcome.starts == 2


def test_what_falls_for_ever_is_not_certified():
    outcome = minimize(Problem(lambda t: -float(t[0]), None, np.zeros(1), (np.ones(1),)))
    assert not outcome.converged
    assert "by finite differences the criterion could still fall by about" in outcome.advice
