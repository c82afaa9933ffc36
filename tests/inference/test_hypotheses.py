"""Hypotheses as text, lists and matrices."""

from __future__ import annotations

import numpy as np
import pytest

import bigmm
from bigmm.datasets import sleepstudy
from bigmm.errors import UsageError
from bigmm.inference.hypotheses import hypotheses

NAMES = ("Intercept", "x1", "x2", "f[T.b]", "f[T.b]:x1", "log(x)", "C(h, Sum)[S.a]", "x")


def row(**weights: float) -> list[float]:
    return [weights.get(name, 0.0) for name in NAMES]


@pytest.mark.parametrize(
    ("text", "matrix", "values"),
    [
        ("x1", [row(x1=1)], [0]),
        ("x1 - x2 = 0", [row(x1=1, x2=-1)], [0]),
        ("x1 = x2", [row(x1=1, x2=-1)], [0]),
        ("x1 == 3", [row(x1=1)], [3]),
        ("2*x1 + 1 = x2/4", [row(x1=2, x2=-0.25)], [-1]),
        ("-(x1 - 2*x) = 1.5", [row(x1=-1, x=2)], [1.5]),
        ("x1 = x2, x = 1", [row(x1=1, x2=-1), row(x=1)], [0, 1]),
        ("x1 = x2 = 0", [row(x1=1, x2=-1), row(x2=1)], [0, 0]),
        ("f[T.b]:x1 + f[T.b]", [row(**{"f[T.b]:x1": 1, "f[T.b]": 1})], [0]),
        ("log(x) - C(h, Sum)[S.a]", [row(**{"log(x)": 1, "C(h, Sum)[S.a]": -1})], [0]),
        (["x", "x1 = 2"], [row(x=1), row(x1=1)], [0, 2]),
        (np.array(row(x=1)), [row(x=1)], [0]),
        ((np.array([row(x=1), row(x1=1)]), [1, 2]), [row(x=1), row(x1=1)], [1, 2]),
    ],
)
def test_meaning(text, matrix, values):
    result = hypotheses(text, NAMES)
    np.testing.assert_array_equal(result.matrix, matrix)
    np.testing.assert_array_equal(result.values, values)
    assert len(result.names) == len(matrix)


def test_a_hypothesis_is_called_as_it_was_written():
    assert hypotheses("f[T.b]:x1 = log(x), x", NAMES).names == ("f[T.b]:x1 = log(x)", "x")
    assert hypotheses((np.array(row(x1=1, x2=-2)), 3), NAMES).names == ("x1 - 2*x2 = 3",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("z = 0", "names 'z', which is no coefficient; the coefficients are Intercept"),
        ("x1*x2", "multiplies coefficients"),
        ("1/x1 = 2", "divides by a coefficient"),
        ("x1/0", "divides by a coefficient or by zero"),
        ("x1 +", "cannot be read at 'x1 [+]'"),
        ("x1 = x1", "has no coefficient in it"),
        ("1 = 0", "has no coefficient in it"),
        ("", "cannot be read"),
        ("__import__('os')", "holds more than numbers"),
        ("x1 if x2 else x", "holds more than numbers"),
        ("True*x1", "holds more than numbers"),
        (np.ones(3), r"one number for each of the 8 coefficients .* has shape \(1, 3\)"),
        (np.full(8, np.nan), "must be finite"),
        ("1e400*x1", "must be finite"),
        ("x1 = 1" + 400 * "0", "must be finite"),
        ("1e200*(1e200*x1)", "must be finite"),
        ({"x1": 1}, "hypotheses are text such as"),
        ([], "hypotheses are text such as|has shape"),
    ],
)
def test_what_cannot_be_read(text, message):
    with pytest.raises(UsageError, match=message):
        hypotheses(text, NAMES)


@pytest.mark.parametrize("ddf", ["satterthwaite", "kenward-roger", "normal"])
def test_joint_test_does_not_depend_on_the_unit_of_a_covariate(ddf):
    """A covariate in a unit 1e9 times smaller: the same F, and degrees of freedom of the same order."""
    rng, data = np.random.default_rng(1), sleepstudy()
    data = data.assign(z=rng.normal(size=len(data)), x=rng.normal(size=len(data)))
    tests = []
    for unit in (1.0, 1e9):
        model = bigmm.lmm("Reaction ~ x + z + (1 | Subject)", data.assign(z=unit * data["z"]))
        tests.append(model.f_test("Intercept = 300, x = 0, z = 0", ddf=ddf).iloc[0])
        beta, covariance = np.asarray(model.params), np.asarray(model.cov_params(ddf=ddf))
        errors = np.sqrt(np.diagonal(covariance))
        t = (beta - [300.0, 0.0, 0.0]) / errors
        wald = t @ np.linalg.solve(covariance / np.outer(errors, errors), t) / 3.0
        if ddf != "kenward-roger":  # whose statistic has a scale
            assert tests[-1]["F"] == pytest.approx(wald, rel=1e-6)
    assert tests[1]["F"] == pytest.approx(tests[0]["F"], rel=1e-5)
    if ddf == "kenward-roger":
        assert tests[1]["dendf"] == pytest.approx(tests[0]["dendf"], rel=1e-5)
