"""Our encoding of the fixed part equals formulaic's, on random formulas and frames cut into many partitions."""

from __future__ import annotations

import formulaic
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.design.frames import frame, learned, model_matrix

NUMERIC = ("x", "z", "I(x ** 2)", "np.log(w)", "poly(x, 2)", "scale(z)", "center(x)", "exp(x)", "count", "b")
FACTORS = ("f", "h", "C(k)", "C(f, Treatment('mid'))", "C(f, Sum)", "C(k, Helmert)", "C(k, Poly)", "C(k, Diff)")

factors = st.sampled_from(NUMERIC + FACTORS)
products = st.lists(factors, min_size=2, max_size=3, unique=True)
terms = st.one_of(
    factors,
    st.builds(lambda names, op: op.join(names), products, st.sampled_from([":", "*"])),
    st.builds(lambda a, b, c: f"({a} + {b}):{c}", factors, factors, factors),
    st.builds(lambda a, b: f"({a} + {b})**2", factors, factors),
    st.builds(lambda a, b: f"{a} / {b}", factors, factors),
)
intercepts = st.sampled_from(["1 + ", "", "0 + ", "-1 + "])


def formulaic_matrix(rhs: str, data: pd.DataFrame) -> pd.DataFrame:
    names = {"exp": np.exp}
    return formulaic.model_matrix(rhs, data.astype({"b": float}), context=names)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(intercept=intercepts, chosen=st.lists(terms, min_size=1, max_size=3, unique=True), seed=st.integers(0, 9))
def test_names_and_values_equal_formulaic(intercept, chosen, seed):
    data = frame(seed=seed)
    rhs = intercept + " + ".join(chosen)
    expected = formulaic_matrix(rhs, data)
    spec = learned(f"y ~ {rhs} + (1 | g)", data)
    # formulaic keeps contr.treatment's spelling of arguments, as we do
    assert list(spec.layout.fixed_names) == list(expected.columns)
    np.testing.assert_allclose(model_matrix(spec, data), expected.to_numpy(dtype=float), atol=1e-9)


@pytest.mark.parametrize(
    "term",
    [
        "bs(x, df=5)",
        "bs(x, df=4, degree=2)",
        "bs(x, knots=[-0.5, 0.5])",
        "cr(x, df=4)",
        "poly(x, 3)",
        "poly(x, 2, raw=True)",
    ],
)
def test_splines_equal_formulaic(term):
    data = frame(90)
    spec = learned(f"y ~ {term} + (1 | g)", data)
    expected = formulaic_matrix(term, data)
    assert list(spec.layout.fixed_names) == [name.replace(" = ", "=") for name in expected.columns]
    np.testing.assert_allclose(model_matrix(spec, data), expected.to_numpy(dtype=float), atol=1e-9)


def test_r_spellings_mean_the_same():
    data = frame()
    pairs = [
        ("I(x^2) + (x + z)^2", "I(x**2) + (x + z)**2"),
        ("z %in% f", "z %in% f"),
        ("C(f, contr.sum)", "C(f, contr.sum)"),
        ("C(f, contr.treatment(base = 'mid'))", "C(f, contr.treatment(base='mid'))"),
    ]
    for ours, theirs in pairs:
        spec = learned(f"y ~ {ours} + (1 | g)", data)
        expected = formulaic_matrix(theirs, data)
        assert list(spec.layout.fixed_names) == list(expected.columns)
        np.testing.assert_allclose(model_matrix(spec, data), expected.to_numpy(dtype=float), atol=1e-12)


def test_contrasts_argument_equals_the_call_in_the_formula():
    data = frame()
    by_argument = learned("y ~ f * x + (1 | g)", data, contrasts={"f": "Treatment(base='mid')"})
    by_call = learned("y ~ C(f, Treatment('mid')) * x + (1 | g)", data)
    assert by_argument.layout.fixed_names == ("Intercept", "f[T.hi]", "f[T.lo]", "x", "f[T.hi]:x", "f[T.lo]:x")
    np.testing.assert_array_equal(model_matrix(by_argument, data), model_matrix(by_call, data))


def test_one_says_which_weights_give_the_constant():
    data = frame()
    for rhs in ("x", "0 + f", "0 + f:h", "0 + f + x", "f:h"):
        spec = learned(f"y ~ {rhs} + (1 | g)", data)
        np.testing.assert_allclose(model_matrix(spec, data) @ spec.layout.one, 1.0, rtol=1e-15)
    assert learned("y ~ 0 + x + (1 | g)", data).layout.one is None
    assert learned("y ~ 0 + x:f + (1 | g)", data).layout.one is None


def test_factors_with_many_levels_stay_level_numbers():
    n = 1500
    data = frame(n)
    data["many"] = np.random.default_rng(1).permutation(n) % 300
    rhs = "C(many) + x + C(many):z + f"
    spec = learned(f"y ~ {rhs} + (1 | g)", data, partition_bytes=1 << 15)
    assert len(spec.layout.fixed_factors) == 2
    assert sorted(spec.layout.columns) == ["1", "f[T.lo]", "f[T.mid]", "x", "z"]
    expected = formulaic_matrix(rhs, data)
    assert list(spec.layout.fixed_names) == list(expected.columns)
    np.testing.assert_allclose(model_matrix(spec, data), expected.to_numpy(dtype=float), atol=1e-12)
