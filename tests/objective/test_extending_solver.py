"""The worked page of `docs/extending/solver.md` is code that runs."""

import re
from pathlib import Path

import numpy as np
import pytest

import bigmm
from bigmm.datasets import penicillin, sleepstudy
from bigmm.objective import solvers


@pytest.fixture
def dense(monkeypatch):
    """The page's solver, by the name that the page gives it."""
    text = (Path(__file__).parents[2] / "docs" / "extending" / "solver.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    space: dict = {}
    exec(compile(code, "solver.md", "exec"), space)  # noqa: S102 - the page is ours
    monkeypatch.setitem(solvers.LINEAR_SOLVERS, "dense", lambda gram, seed: space["DenseSolver"](gram))


@pytest.mark.parametrize(
    ("formula", "data"),
    [("Reaction ~ Days + (Days | Subject)", sleepstudy), ("diameter ~ 1 + (1 | plate) + (1 | sample)", penicillin)],
)
@pytest.mark.parametrize("reml", [True, False])
def test_the_dense_solver_of_the_page_agrees_with_the_exact_one(dense, formula, data, reml):
    rows = data()
    expected, ours = bigmm.lmm(formula, rows, reml=reml), bigmm.lmm(formula, rows, reml=reml, solver="dense")
    assert (ours.solver, ours.fitted.solver_reason) == ("dense", "as asked for") or "level by level" in (
        ours.fitted.solver_reason
    )
    assert ours.converged and ours.objective == pytest.approx(expected.objective, rel=1e-12)
    np.testing.assert_allclose(ours.theta, expected.theta, rtol=1e-5)
    np.testing.assert_allclose(ours.bse, expected.bse, rtol=1e-5)


@pytest.mark.parametrize("theta", [[0.7, 0.4], [0.0, 0.4], [0.0, 0.0]], ids=str)
def test_every_answer_of_the_page_is_that_of_the_exact_solver(dense, theta):
    rows, theta = penicillin(), np.array(theta)
    fitted = bigmm.lmm("diameter ~ 1 + (1 | plate) + (1 | sample)", rows).fitted
    gram = fitted.criterion.gram
    exact = solvers.LINEAR_SOLVERS["exact"](gram, 0)
    ours = solvers.LINEAR_SOLVERS["dense"](gram, 0)
    criteria = [type(fitted.criterion)(gram, fitted.criterion.covariances, True, solver) for solver in (exact, ours)]
    evaluations = [criterion.evaluate(theta) for criterion in criteria]
    assert evaluations[1].value == pytest.approx(evaluations[0].value, rel=1e-12)
    np.testing.assert_allclose(evaluations[1].gradient, evaluations[0].gradient, atol=1e-8)
    np.testing.assert_allclose(evaluations[1].hessian, evaluations[0].hessian, rtol=1e-8, atol=1e-8)
    factors = [criterion.factor(theta) for criterion in criteria]
    for a, b in zip(*(factor.level_variances(1.0) for factor in factors), strict=True):
        np.testing.assert_allclose(b.value, a.value, atol=1e-10)
    x = np.ones((3, 1))
    refs, z = (np.array([0, 3, -1]), np.array([1, -1, 2])), (np.ones((3, 1)), np.ones((3, 1)))
    forms = [factor.rows(x, refs, z) for factor in factors]
    np.testing.assert_allclose(forms[1], forms[0], atol=1e-10)
