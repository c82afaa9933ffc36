import numpy as np
import pytest

from bigmm.errors import UsageError
from bigmm.optimize import minimize, nlopt_methods
from tests.optimize.problems import criterion_problem, quadratic

NAMES = sorted(nlopt_methods.ALGORITHMS)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_finds_the_minimum_of_a_quadratic(name):
    problem = quadratic([[4.0, 1.0], [1.0, 3.0]], [1.0, -0.5], [0.0, 0.0])
    theta, value, evaluations, gradients = nlopt_methods.run(problem, problem.starts[0], name)
    np.testing.assert_allclose(theta, [1.0, -0.5], atol=1e-3)
    assert value == pytest.approx(0.0, abs=1e-6)
    assert evaluations > 0
    assert (gradients > 0) == nlopt_methods.ALGORITHMS[name].startswith("LD")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["one", "crossed", "one slope"])
def test_every_name_fits_a_mixed_model(name, kind):
    problem = criterion_problem(kind)
    best = minimize(problem, "newton")
    outcome = minimize(problem, name)
    assert best.converged
    assert outcome.converged, outcome.advice
    assert outcome.method == name
    assert outcome.value == pytest.approx(best.value, abs=1e-4)
    np.testing.assert_allclose(outcome.theta, best.theta, atol=0.02)


@pytest.mark.parametrize("spelling", ["BOBYQA", "LN_BOBYQA", "nlopt_ln_bobyqa", "NLOPT_LN_BOBYQA"])
def test_spellings(spelling):
    assert nlopt_methods.algorithm(spelling) == "LN_BOBYQA"


def test_an_unknown_name_lists_the_others():
    with pytest.raises(
        UsageError, match="unknown optimizer 'adam': choose 'auto', 'newton' or one of bobyqa, newuoa, cobyla"
    ):
        minimize(criterion_problem("one"), "adam")


def test_the_best_point_seen_is_kept(monkeypatch):
    monkeypatch.setattr(nlopt_methods, "MAX_EVALUATIONS", 7)
    problem = criterion_problem("crossed slope")
    theta, value, evaluations, _ = nlopt_methods.run(problem, problem.starts[0], "nelder_mead")
    assert evaluations == 7
    assert value == problem.value(theta)
    assert value <= problem.value(problem.starts[0])
