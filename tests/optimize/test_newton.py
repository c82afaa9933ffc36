from dataclasses import replace

import numpy as np
import pytest

from bigmm.optimize import newton
from bigmm.optimize.outcome import TOLERANCE
from tests.optimize.problems import Local, banana, criterion_problem, quadratic, saddle, wells


def found(problem) -> newton.State:
    return newton.run(problem, newton.init(problem, problem.starts[0]))


def test_a_quadratic_takes_one_step():
    problem = quadratic([[4.0, 1.0], [1.0, 3.0]], [1.0, -2.0], [10.0, 10.0])
    state = found(problem)
    assert state.steps == 1
    np.testing.assert_allclose(state.theta, [1.0, -2.0], rtol=1e-12)
    assert state.decrease < 1e-20


def test_expected_decrease_is_half_the_newton_decrement():
    model = Local(0.0, np.array([2.0, 0.0]), np.diag([8.0, 1.0]))
    assert newton.expected_decrease(model) == pytest.approx(0.25)
    assert newton.expected_decrease(Local(np.nan, model.gradient, model.hessian)) == np.inf
    assert newton.expected_decrease(Local(0.0, np.array([np.nan, 0.0]), model.hessian)) == np.inf


def test_steps_respect_the_radius():
    model = Local(0.0, np.array([100.0, 1.0]), np.diag([4.0, 0.25]))
    for radius in (np.inf, 1.0, 1e-3):
        move, predicted = newton.newton_step(model, np.zeros((2, 2)), radius)
        assert np.linalg.norm(move * np.sqrt([4.0, 0.25])) <= radius * (1 + 1e-9)
        assert predicted > 0


def test_a_curved_valley():
    state = found(banana([-1.2, 1.0]))
    np.testing.assert_allclose(state.theta, [1.0, 1.0], atol=1e-3)
    assert state.model.value < 1e-6
    assert state.steps < 60


def test_negative_curvature_is_left_behind():
    state = found(saddle([0.1]))
    np.testing.assert_allclose(np.abs(state.theta), 1.0, atol=1e-4)


def test_a_start_without_a_value_ends_at_once():
    problem = quadratic([[1.0]], [0.0], [np.nan])
    state = found(problem)
    assert state.steps == 0
    assert state.decrease == np.inf


def learnt_along(hessian, correction, gradient_change, move):
    """`newton.learnt` after a step from a point with gradient 0."""
    zero = Local(0.0, np.zeros(len(move)), hessian)
    before = newton.State(np.zeros(len(move)), zero, correction, np.inf, 0, 1, 1, 1.0)
    return newton.learnt(before, Local(0.0, gradient_change, hessian), move)


def test_what_the_curvature_lacks_is_learnt():
    hessian, truth, move = np.diag([2.0, 3.0]), np.array([[4.0, 1.0], [1.0, 3.5]]), np.array([0.3, -0.2])
    correction = learnt_along(hessian, np.zeros((2, 2)), truth @ move, move)
    np.testing.assert_allclose((hessian + correction) @ move, truth @ move, rtol=1e-12)


def test_a_correction_that_was_learnt_too_large_is_sized():
    hessian, move = np.diag([2.0, 3.0]), np.array([0.3, -0.2])
    wrong = 500.0 * np.outer([1.0, -0.5], [1.0, -0.5])
    truth = np.array([[2.5, 0.1], [0.1, 3.2]])
    correction = learnt_along(hessian, wrong, truth @ move, move)
    assert move @ correction @ move == pytest.approx(move @ (truth - hessian) @ move, rel=1e-12)
    assert np.abs(correction).max() < 1.0


def test_descends_all_the_way():
    problem = criterion_problem("three crossed")
    state = newton.init(problem, problem.starts[0])
    values = [state.model.value]
    while not newton.terminate(state, TOLERANCE):
        state = newton.step(problem, state)
        values.append(state.model.value)
    assert np.all(np.diff(values) <= 1e-9)
    assert state.decrease < TOLERANCE


def test_cheap_problems_are_polished_to_rounding():
    dear, cheap = criterion_problem("crossed"), criterion_problem("crossed", cheap=True)
    plain = found(dear)
    assert newton.polish(dear, plain) is plain
    polished = newton.polish(cheap, plain)
    assert polished.decrease <= plain.decrease
    assert np.abs(polished.model.gradient).max() < 1e-8


def test_wells_have_the_minima_that_the_tests_rely_on():
    problem = wells(1.0, [0.0])
    for at, value in ((0.0, 0.0), (3.0, -1.0)):
        model = problem.evaluate(np.array([at]))
        assert model.value == pytest.approx(value)
        assert model.gradient[0] == pytest.approx(0.0, abs=1e-9)
        assert model.hessian[0, 0] > 0


def test_the_end_is_sharpened_by_the_exact_gradient():
    # the gradient has a rounding error of 1e-9, and the curvature is a quarter too large
    exact = quadratic([[4.0, 1.0], [1.0, 3.0]], [1.0, -2.0], [1.1, -2.1])

    def rounded(theta):
        model = exact.evaluate(theta)
        return Local(model.value, model.gradient + 1e-9, 1.25 * model.hessian)

    problem = replace(exact, evaluate=rounded, cheap=True, exact_gradient=lambda theta: exact.evaluate(theta).gradient)
    state = newton.polish(problem, found(problem))
    assert 1e-11 < np.abs(state.theta - [1.0, -2.0]).max() < 1e-8
    np.testing.assert_allclose(newton.sharpen(problem, state).theta, [1.0, -2.0], rtol=1e-15)


def test_what_is_no_end_is_not_sharpened():
    problem = replace(quadratic([[1.0]], [0.0], [1.0]), exact_gradient=lambda theta: theta)
    state = newton.init(problem, problem.starts[0])
    assert newton.sharpen(problem, state) is state
