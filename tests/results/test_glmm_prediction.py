"""Prediction on both scales with standard errors, residuals and broom's columns, against dense algebra."""

from __future__ import annotations

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import bigmm
from bigmm.errors import DataError, UsageError
from tests.results.oracle import indicator


@pytest.fixture(scope="module")
def working(poisson, some):
    """(linear predictor, working weights, [X Z], inverse of [X Z]'W[X Z] + prior precision) at the mode, all dense."""
    x = np.column_stack([np.ones(len(some)), some["x"]])
    g, h = (pd.Categorical(some[c]).codes for c in "gh")
    z = np.hstack([indicator(g, x, 15), indicator(h, x[:, :1], 8)])
    b = np.concatenate([np.ravel(part) for part in poisson.fitted.estimates.b])
    eta = x @ poisson.beta + z @ b + some["off"]
    rows, prior = np.hstack([x, z]), np.zeros((2 + z.shape[1],) * 2)
    slope, intercept = (np.linalg.inv(lam @ lam.T) for lam in poisson.fitted.lambdas())
    prior[2:32, 2:32], prior[32:, 32:] = np.kron(np.eye(15), slope), np.kron(np.eye(8), intercept)
    weights = np.exp(eta).to_numpy()
    return eta.to_numpy(), weights, rows, np.linalg.inv(rows.T @ (weights[:, None] * rows) + prior)


def test_both_scales(poisson, some, working):
    eta = working[0]
    np.testing.assert_allclose(poisson.predict(some, type="link"), eta, rtol=1e-10)
    np.testing.assert_allclose(poisson.predict(some), np.exp(eta), rtol=1e-10)
    np.testing.assert_array_equal(poisson.fittedvalues, poisson.predict(some))
    fixed = poisson.beta[0] + poisson.beta[1] * some["x"] + some["off"]
    np.testing.assert_allclose(poisson.predict(some, random=False), np.exp(fixed), rtol=1e-10)


def test_standard_errors(poisson, some, working):
    eta, _, rows, inverse = working
    spread = np.sqrt(np.einsum("ij,jk,ik->i", rows, inverse, rows))
    np.testing.assert_allclose(poisson.predict(some, type="link", se=True)["se"], spread, rtol=1e-7)
    np.testing.assert_allclose(poisson.predict(some, se=True)["se"], spread * np.exp(eta), rtol=1e-7)
    x = rows[:, :2]
    fixed = poisson.predict(some, random=False, se=True)
    expected = np.sqrt(np.einsum("ij,jk,ik->i", x, poisson.vcov().to_numpy(), x)) * fixed["prediction"]
    np.testing.assert_allclose(fixed["se"], expected, rtol=1e-10)


def test_decreasing_link_has_positive_errors(some):
    rng = np.random.default_rng(1)
    mu = 1.0 / (2.0 + 0.2 * some["x"].clip(-2, 2) + rng.normal(0.0, 0.1, 15)[pd.Categorical(some["g"]).codes])
    frame = some.assign(z=rng.gamma(5.0, mu / 5.0))
    model = bigmm.glmm("z ~ x + (1 | g)", frame, family="gamma", link="inverse", progress=False)
    table = model.predict(frame, se=True)
    link = model.predict(frame, type="link", se=True)
    np.testing.assert_allclose(table["se"], link["se"] / link["prediction"] ** 2, rtol=1e-10)
    assert (table["se"] > 0).all()


def test_conditional_deviations(poisson, working):
    """lme4's condVar: given beta, so X leaves the algebra."""
    _, weights, rows, inverse = working
    z = rows[:, 2:]
    prior = np.linalg.inv(inverse)[2:, 2:] - z.T @ (weights[:, None] * z)
    spread = np.sqrt(np.diag(np.linalg.inv(z.T @ (weights[:, None] * z) + prior)))
    frames = poisson.ranef(condvar=True)
    np.testing.assert_allclose(frames["g"][["Intercept_sd", "x_sd"]].to_numpy().ravel(), spread[:30], rtol=1e-6)
    np.testing.assert_allclose(frames["h"]["Intercept_sd"], spread[30:], rtol=1e-6)


def test_augment(poisson, some, working):
    eta, weights, rows, inverse = working
    table, mu = poisson.augment(some), np.exp(eta)
    new = ".fitted .resid .hat .cooksd .fixed .mu .offset .sqrtXwt .sqrtrwt .weights .wtres".split()
    assert list(table.columns) == [*some.columns, *new]
    hat = weights * np.einsum("ij,jk,ik->i", rows, inverse, rows)
    pearson = (some["y"] - mu) / np.sqrt(mu)
    expected = {
        ".fitted": eta,
        ".resid": poisson.residuals("deviance"),
        ".hat": hat,
        ".cooksd": (pearson / (1 - hat)) ** 2 * hat / 2,
        ".mu": mu,
        ".offset": some["off"],
        ".sqrtXwt": np.sqrt(mu),
        ".sqrtrwt": 1 / np.sqrt(mu),
        ".weights": np.ones(len(some)),
        ".wtres": pearson,
    }
    for name, values in expected.items():
        np.testing.assert_allclose(table[name], values, rtol=1e-6, atol=1e-9, err_msg=name)
    assert poisson.effective_df["total"] == pytest.approx(hat.sum())


def test_augment_with_observed_weights_needs_the_response(gamma, some):
    """Observed weights depend on the response; the fit's own leverages add up to its effective degrees of freedom."""
    assert gamma.augment(some)[".hat"].sum() == pytest.approx(gamma.effective_df["total"], rel=1e-6)
    bare = gamma.augment(some.drop(columns="positive").iloc[:5])
    assert bare[".hat"].isna().all() and bare[".mu"].notna().all() and bare[".resid"].isna().all()


def test_expected_weights_need_no_response(poisson, some):
    bare = poisson.augment(some.drop(columns="y"))
    np.testing.assert_allclose(bare[".hat"], poisson.augment(some)[".hat"], rtol=1e-12)
    assert bare[".resid"].isna().all()


def test_residuals(poisson, shares, some):
    mu = poisson.predict(some)
    np.testing.assert_allclose(poisson.resid, some["y"] - mu, rtol=1e-12)
    np.testing.assert_allclose(poisson.residuals("working"), some["y"] / mu - 1.0, rtol=1e-9, atol=1e-12)
    p = shares.predict(some)
    expected = (some["share"] - p) * np.sqrt(some["size"] / (p * (1 - p)))
    np.testing.assert_allclose(shares.residuals("pearson", some), expected, rtol=1e-9)
    with pytest.raises(
        UsageError, match=r"residuals\(type='raw'\): choose one of response, pearson, deviance, working"
    ):
        poisson.residuals("raw")


def test_residuals_of_a_linear_model(crossed, rows):
    weighted = crossed.resid * np.sqrt(rows["w"])
    np.testing.assert_allclose(crossed.residuals("pearson"), weighted, rtol=1e-12)
    np.testing.assert_allclose(crossed.residuals("deviance"), weighted, rtol=1e-12)
    np.testing.assert_allclose(crossed.residuals("working"), rows["y"] - crossed.predict(rows), atol=1e-12)


def test_trials_are_needed(shares, some):
    bare = some[["x", "g"]]
    assert np.isfinite(shares.predict(bare)).all()
    for call, what in [
        (lambda: shares.residuals("pearson", bare), r"residuals\('pearson'\)"),
        (lambda: shares.augment(bare), r"augment\(\)"),
        (lambda: shares.simulate(bare), r"simulate\(\)"),
    ]:
        with pytest.raises(UsageError, match=f"{what} needs the numbers of trials of the binomial response: give the"):
            call()
    assert np.isnan(shares.residuals("response", bare)).all()


def test_three_ways_to_write_trials(shares, some):
    """cbind, successes / trials, and proportions with weights: the same model and residuals."""
    ratio = bigmm.glmm("yes / size ~ x + (1 | g)", some, family="binomial", nagq=9, progress=False)
    weighted = bigmm.glmm("share ~ x + (1 | g)", some, family="binomial", nagq=9, weights="size", progress=False)
    for other in (ratio, weighted):
        assert other.objective == pytest.approx(shares.objective, abs=1e-6)
        np.testing.assert_allclose(other.residuals("deviance"), shares.residuals("deviance"), atol=1e-5)
        np.testing.assert_allclose(other.augment(some)[".weights"], some["size"])


def test_factor_responses(some):
    """The first level is 0; residuals know it."""
    model = bigmm.glmm("hit ~ x + (1 | g)", some, family="bernoulli", progress=False)
    np.testing.assert_allclose(model.resid, (some["hit"] == "yes") - model.predict(some), atol=1e-12)


def test_new_levels_and_missing_values(poisson, some):
    new = some.iloc[:4].assign(g=["new", "g00", None, "g01"], x=[0.5, np.nan, 0.1, 0.2])
    population = poisson.predict(new, se=True)
    assert population["prediction"].isna().tolist() == population["se"].isna().tolist() == [False, True, False, False]
    assert np.isnan(poisson.predict(new, new_levels="missing")).tolist() == [True, True, True, False]
    with pytest.raises(DataError, match="'g' is 'new' in row 1, a level not in the fit"):
        poisson.predict(new, new_levels="raise")
    with pytest.raises(UsageError, match="type='mean': choose one of response, link"):
        poisson.predict(new, type="mean")


def test_out_of_core_and_lazily(poisson, some, generalized_lake, tmp_path):
    expected = poisson.predict(some, se=True)
    out = poisson.predict(generalized_lake, se=True, out=tmp_path / "p", keep=["y"])
    written = pq.read_table(out).to_pandas()
    assert list(written.columns) == ["y", "prediction", "se"]
    np.testing.assert_allclose(written[["prediction", "se"]], expected, rtol=1e-10)
    lazy = poisson.predict(dd.from_pandas(some, npartitions=3), type="link")
    assert isinstance(lazy, dd.Series)
    np.testing.assert_allclose(
        lazy.compute(scheduler="synchronous"), np.log(expected["prediction"]), rtol=1e-9, atol=1e-9
    )
    poisson.augment(generalized_lake, out=tmp_path / "a", keep=[])
    np.testing.assert_allclose(pq.read_table(tmp_path / "a").to_pandas()[".mu"], expected["prediction"], rtol=1e-10)
    np.testing.assert_allclose(poisson.residuals("deviance", generalized_lake), poisson.residuals("deviance"))


def test_no_rows(poisson, some):
    assert poisson.predict(some.iloc[:0]).shape == (0,)
    assert poisson.residuals("pearson", some.iloc[:0]).shape == (0,)
