"""A quoted column is a term of its own, whatever its name looks like. The right fit is that under another name."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bigmm
from bigmm.design.formula.expression import label, quoted, unparse
from bigmm.design.formula.grammar import parse_expression
from bigmm.design.formula.tokens import tokenize


@pytest.fixture(scope="module")
def data():
    rng, n = np.random.default_rng(3), 160
    g = rng.integers(0, 8, n)
    frame = pd.DataFrame({"x": rng.normal(size=n), "z": rng.uniform(1, 2, n), "q": rng.normal(size=n), "g": g})
    frame["h"], frame["f"] = rng.integers(0, 5, n), rng.choice(list("abc"), n)
    return frame.assign(y=1 + frame.x + rng.normal(size=8)[g] + rng.normal(size=n))


# (formula with Q for the column, its name, names of the coefficients)
CASES = [
    ("y ~ Q + log(z) + (1 | g)", "log(z)", ["Intercept", "`log(z)`", "log(z)"]),
    ("y ~ Q * log(z) + (1 | g)", "log(z)", ["Intercept", "`log(z)`", "log(z)", "`log(z)`:log(z)"]),
    ("y ~ Q + log(z) + (Q + log(z) | g)", "log(z)", ["Intercept", "`log(z)`", "log(z)"]),
    ("y ~ scale(Q) + scale(log(z)) + (1 | g)", "log(z)", ["Intercept", "scale(`log(z)`)", "scale(log(z))"]),
    ("y ~ I(Q * 2) + I(log(z) * 2) + (1 | g)", "log(z)", ["Intercept", "I(`log(z)` * 2)", "I(log(z) * 2)"]),
    ("y ~ Q + x:z + (1 | g)", "x:z", ["Intercept", "`x:z`", "x:z"]),
    ("y ~ Q + f + (1 | g)", "f[T.b]", ["Intercept", "`f[T.b]`", "f[T.b]", "f[T.c]"]),
    (
        "y ~ Q + poly(x, 2) + (1 | g)",
        "poly(x, 2)[1]",
        ["Intercept", "`poly(x, 2)[1]`", "poly(x, 2)[1]", "poly(x, 2)[2]"],
    ),
    ("y ~ Q + x + (1 | g)", "Intercept", ["Intercept", "`Intercept`", "x"]),
    ("y ~ Q + x + (1 | g)", "1", ["Intercept", "1", "x"]),
    ("y ~ Q + x + (1 | g)", "TRUE", ["Intercept", "TRUE", "x"]),
    ("y ~ I(Q) + x + (1 | g)", "None", ["Intercept", "I(None)", "x"]),
    # as before where nothing else has the name
    ("y ~ Q + x + (Q | g)", "my column", ["Intercept", "my column", "x"]),
    ("y ~ Q + x + (1 | g)", "log(z)", ["Intercept", "log(z)", "x"]),
    ("Q ~ log(z) + x + (1 | g)", "log(z)", ["Intercept", "log(z)", "x"]),
    ("y ~ x + offset(Q) + offset(log(z)) + (1 | g)", "log(z)", ["Intercept", "x"]),
]


@pytest.mark.parametrize(("formula", "name", "names"), CASES)
def test_the_fit_is_that_under_another_name(formula, name, names, data, tmp_path):
    renamed = data.rename(columns={"q": name})
    found, right = bigmm.lmm(formula.replace("Q", f"`{name}`"), renamed), bigmm.lmm(formula.replace("Q", "q"), data)
    assert list(found.params.index) == names
    np.testing.assert_allclose(found.params, right.params, atol=1e-6)
    assert found.objective == pytest.approx(right.objective, abs=1e-7)
    np.testing.assert_allclose(found.predict(renamed), right.predict(data), atol=1e-6)
    found.save(tmp_path / "fit")
    np.testing.assert_allclose(bigmm.load(tmp_path / "fit").predict(renamed), found.predict(renamed))


def test_a_grouping_column_named_like_an_interaction(data):
    named = data.assign(**{"g:h": data.f})
    found, right = bigmm.lmm("y ~ x + (1 | `g:h`) + (1 | g:h)", named), bigmm.lmm("y ~ x + (1 | f) + (1 | g:h)", data)
    assert found.n_groups == {"g:h": right.n_groups["g:h"], "`g:h`": 3}
    assert found.objective == pytest.approx(right.objective, abs=1e-8)


def test_different_trees_have_different_texts():
    def tree(text):
        return parse_expression(text, tokenize(text))

    for one, other in (("`log(z)`", "log(z)"), ("I(`a - b`)", "I(a - b)"), ("I(`1` + x)", "I(1 + x)")):
        assert unparse(tree(one)) != unparse(tree(other)) and label(tree(one)) == label(tree(other))
    for name in ("x", "a.b", "my column", "größe", ".x"):
        assert quoted(name) == name
    for name in ("a:b", "a-b", "1", "TRUE", "f[T.b]", "a, df=3", "1st"):
        assert quoted(name) == f"`{name}`"
