"""Which method, which start, which boundary, and when a minimum is called one."""

from dataclasses import replace

import numpy as np
import pytest

from bigmm.optimize import Problem, minimize, newton, nlopt_methods, score
from tests.optimize.problems import banana, criterion_problem, problem, quadratic, saddle, wells


def test_auto_is_newton_and_certified():
    outcome = minimize(criterion_problem("three crossed"))
    assert (outcome.method, outcome.status, outcome.advice) == ("newton", "converged", "")
    assert outcome.expected_decrease < 1e-6
    assert outcome.max_abs_gradient < 1e-2
    assert 1 < outcome.gradient_evaluations <= outcome.evaluations + 2


def test_restarts_find_the_better_of_two_minima():
    far, near = [2.9, 2.9, 2.9], [0.2, 0.2, 0.2]
    outcome = minimize(wells(1.0, near, far, cheap=True))
    np.testing.assert_allclose(outcome.theta, 3.0, atol=1e-5)
    assert outcome.value == pytest.approx(-3.0)
    assert outcome.starts == 2


@pytest.mark.parametrize(("cheap", "n"), [(False, 3), (True, 2)])
def test_one_start_where_evaluations_are_dear_or_theta_is_short(cheap, n):
    outcome = minimize(wells(1.0, [0.2] * n, [2.9] * n, cheap=cheap))
    assert outcome.starts == 1
    assert outcome.converged
    assert not outcome.theta.any()


def test_a_boundary_is_exactly_zero_and_certified():
    outcome = minimize(wells(-1.0, [0.3]))
    assert outcome.converged
    assert outcome.theta[0] == 0.0
    assert outcome.at_boundary.all()
    assert outcome.max_abs_gradient == 0.0


@pytest.mark.parametrize("method", ["newton", "lbfgs"])
def test_a_saddle_is_not_reported_as_a_minimum(method):
    outcome = minimize(saddle([0.0]), method)
    assert outcome.theta[0] == 0.0
    assert (outcome.status, outcome.converged) == ("stopped", False)
    assert outcome.advice == "a variance at zero would be better positive: try another optimizer or start (theta0=)"


def test_a_saddle_between_the_axes():
    """Two elements of one template column: neither alone lowers the function, both together do."""
    outcome = minimize(
        problem(
            lambda t: t @ t - 6 * t[0] * t[1] + (t @ t) ** 2,
            lambda t: 2 * t - 6 * t[::-1] + 4 * (t @ t) * t,
            lambda t: np.array([[2.0, -6.0], [-6.0, 2.0]]) + 4 * (t @ t) * np.eye(2) + 8 * np.outer(t, t),
            [0.0, 0.0],
            lower=[0.0, -np.inf],
        ),
        "newton",
    )
    assert not outcome.theta.any()
    assert not outcome.converged
    assert outcome.advice.startswith("a variance at zero would be better positive")


def test_auto_leaves_a_saddle():
    outcome = minimize(saddle([0.0]))
    assert outcome.converged
    assert outcome.method == "newton, then bobyqa"
    np.testing.assert_allclose(outcome.theta, 1.0, atol=1e-4)


def test_a_mixed_model_started_at_the_saddle():
    start = criterion_problem("crossed")
    at_zero = replace(start, starts=(np.zeros(2),))
    assert not minimize(at_zero, "newton").converged
    outcome = minimize(at_zero)
    assert outcome.converged
    assert outcome.value == pytest.approx(minimize(start).value, abs=1e-6)


def test_signs_are_rectified():
    outcome = minimize(wells(1.0, [-2.9]))
    np.testing.assert_allclose(outcome.theta, 3.0, atol=1e-4)


def test_too_few_steps_are_said_with_advice(monkeypatch):
    monkeypatch.setattr(newton, "MAX_STEPS", 2)
    outcome = minimize(banana([-1.2, 1.0]), "newton")
    assert outcome.status == "stopped"
    assert outcome.expected_decrease > 1e-4
    assert "a further step would still lower the criterion by about" in outcome.advice
    assert "optimizer='bobyqa'" in outcome.advice


def test_too_few_evaluations_are_said_with_advice(monkeypatch):
    monkeypatch.setattr(nlopt_methods, "MAX_EVALUATIONS", 5)
    outcome = minimize(criterion_problem("crossed slope"), "bobyqa")
    assert not outcome.converged
    assert "a simpler random-effects structure" in outcome.advice


def test_a_function_without_a_value():
    outcome = minimize(
        problem(lambda t: np.inf, lambda t: np.full(1, np.nan), lambda t: np.full((1, 1), np.nan), [1.0]), "newton"
    )
    assert not outcome.converged
    assert outcome.advice.startswith("the criterion is not finite here")


def test_nothing_to_minimise():
    empty = problem(lambda t: 3.0, lambda t: np.zeros(0), lambda t: np.zeros((0, 0)), [])
    outcome = minimize(empty)
    assert (outcome.value, outcome.converged, outcome.method) == (3.0, True, "none")


def without_gradient(given: Problem) -> Problem:
    return replace(given, evaluate=None)


@pytest.mark.parametrize("method", ["auto", "newton", "cobyla", "nelder_mead"])
def test_without_a_gradient(method):
    outcome = minimize(without_gradient(quadratic([[4.0, 1.0], [1.0, 3.0]], [1.0, 0.5], [0.1, 0.1])), method)
    assert outcome.converged, outcome.advice
    assert outcome.method == (method if method in nlopt_methods.ALGORITHMS else "bobyqa")
    np.testing.assert_allclose(outcome.theta, [1.0, 0.5], atol=1e-3)
    assert outcome.gradient_evaluations == 0


def test_without_a_gradient_at_a_bound():
    outcome = minimize(without_gradient(quadratic(np.eye(2), [-1.0, 2.0], [1.0, 1.0], lower=[0.0, -np.inf])))
    assert outcome.converged, outcome.advice
    assert outcome.theta[0] == 0.0
    np.testing.assert_allclose(outcome.theta[1], 2.0, atol=1e-4)
    np.testing.assert_array_equal(outcome.at_boundary, [True, False])


def test_without_a_gradient_agrees_with_newton_on_a_mixed_model():
    given = criterion_problem("crossed")
    assert minimize(without_gradient(given)).value == pytest.approx(minimize(given).value, abs=1e-4)


def test_without_a_gradient_too_few_evaluations_are_said(monkeypatch):
    monkeypatch.setattr(nlopt_methods, "MAX_EVALUATIONS", 3)
    outcome = minimize(without_gradient(banana([-1.2, 1.0])))
    assert not outcome.converged
    assert "by finite differences the criterion could still fall by about" in outcome.advice


def blind(start, **options) -> Problem:
    """A model that sees a minimum wherever it is: only values tell."""
    return problem(
        lambda t: 5.0 + float(t[0] > 0.5), lambda t: np.zeros(1), lambda t: np.eye(1), start, lower=[0.0], **options
    )


def test_an_end_above_another_evaluated_point_is_refused(monkeypatch):
    def astray(given, evaluate, start):
        evaluate(np.array([0.25]))
        return start, evaluate(start), 2

    monkeypatch.setattr(score, "run", astray)
    monkeypatch.setattr(score, "WORSE", 0.5)
    assert minimize(blind([0.25], noisy=True)).converged
    outcome = minimize(blind([1.0], noisy=True))
    assert (outcome.value, outcome.status) == (6.0, "stopped")
    assert outcome.advice.startswith("the criterion was lower by 1 at another point of the search")


def test_the_search_goes_on_from_a_lower_point(monkeypatch):
    real = newton.polish

    def astray(given, state):
        given.value(np.array([0.25]))
        return real(given, state)

    monkeypatch.setattr(newton, "polish", astray)
    outcome = minimize(blind([1.0], cheap=True))
    assert outcome.value == 5.0 and outcome.theta[0] == 0.25 and outcome.converged


def test_what_has_run_away_is_no_minimum():
    """At 1e149 neither gradient nor curvature is left, but the value still falls with the logarithm."""
    runaway = problem(
        lambda t: (t[0] - 1.0) ** 2 + 600.0 * np.log(t[1]),
        lambda t: np.array([2.0 * (t[0] - 1.0), 600.0 / t[1]]),
        lambda t: np.array([[2.0, 0.0], [0.0, 600.0 / t[1] ** 2]]),
        [1.0, 1e149],
        lower=[0.0, 0.0],
    )
    outcome = minimize(runaway, "newton")
    assert not outcome.converged
    assert outcome.expected_decrease > 100.0


def test_an_algorithm_without_an_end_is_a_step_that_is_not_taken():
    """numpy's LinAlgError, and curvature that is not a number, are no end of the search."""
    exact = quadratic([[1.0]], [0.0], [10.0])

    def evaluate(theta):
        model = exact.evaluate(theta)
        if abs(theta[0]) < 1e-3:
            return model
        return replace(model, hessian=0.2 * model.hessian)  # the first steps are too long

    def value(theta):
        if theta[0] < -30.0:
            raise np.linalg.LinAlgError("Eigenvalues did not converge")
        return exact.value(theta)

    outcome = minimize(replace(exact, value=value, evaluate=evaluate))
    assert outcome.converged
    assert abs(outcome.theta[0]) < 1e-2

    def without_curvature(theta):
        model = exact.evaluate(theta)
        return replace(model, hessian=np.full((1, 1), np.nan)) if 1.0 < abs(theta[0]) < 9.0 else evaluate(theta)

    assert np.isfinite(minimize(replace(exact, value=value, evaluate=without_curvature)).value)


def test_a_second_method_is_only_taken_where_it_is_lower(monkeypatch):
    """What BOBYQA ends in is no answer where Newton's method had a better one."""
    exact = quadratic([[1.0]], [0.0], [10.0])
    stuck = replace(exact, evaluate=lambda theta: replace(exact.evaluate(theta), gradient=np.array([5.0])))
    monkeypatch.setattr(nlopt_methods, "run", lambda problem, start, name: (np.array([20.0]), 200.0, 1, 0))
    outcome = minimize(stuck)
    assert not outcome.converged
    assert outcome.value <= 50.0
