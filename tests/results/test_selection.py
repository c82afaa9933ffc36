"""predict(random=...): some of the random effects, with their standard errors, against dense matrices; refusals."""

from __future__ import annotations

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest

import bigmm
from bigmm.datasets import pastes
from bigmm.errors import DataError, UsageError
from bigmm.results.selection import selection

PARTS = {
    "group": (["g"], {"g": [0, 1]}),
    "other group": (["h"], {"h": [0]}),
    "whole term": (["(1 + x | g)"], {"g": [0, 1]}),
    "implicit intercept": (["(x|g)"], {"g": [0, 1]}),
    "intercept of a term": (["(1 | g)"], {"g": [0]}),
    "slope of a term": (["(0 + x | g)"], {"g": [1]}),
    "both groups": (("g", "(1 | h)"), {"g": [0, 1], "h": [0]}),
    "a sum of terms": (["(0 + x | g) + (1 | h)"], {"g": [1], "h": [0]}),
}


def masked(dense, rows, chosen):
    """Columns of Z of the chosen effects only, in the order of the oracle: 12 x 2 of g, then 7 of h."""
    mask = np.zeros(dense.z.shape[1])
    for slot in chosen.get("g", []):
        mask[slot:24:2] = 1.0
    if "h" in chosen:
        mask[24:] = 1.0
    return dense.z * mask


@pytest.mark.parametrize("part", PARTS)
def test_some_effects_and_their_errors_are_the_dense_ones(crossed, rows, dense, part):
    """x'beta + z_s'b_s, and Var(x'(beta_hat - beta) + z_s'(b_s_hat - b_s)), by textbook formulas on V."""
    random, chosen = PARTS[part]
    z = masked(dense, rows, chosen)
    out = crossed.predict(rows, random=random, se=True)
    np.testing.assert_allclose(out["prediction"], dense.x @ dense.beta + z @ dense.b + rows["off"], rtol=1e-8)
    np.testing.assert_allclose(out["se"], np.sqrt(dense.error_variance(dense.x, z)), rtol=1e-8)


def test_all_listed_is_all_and_none_listed_is_none(crossed, rows):
    np.testing.assert_array_equal(crossed.predict(rows, random=["g", "h"]), crossed.predict(rows))
    everything = crossed.predict(rows, random=["h", "g"], se=True)
    pd.testing.assert_frame_equal(everything, crossed.predict(rows, se=True))
    pd.testing.assert_frame_equal(
        crossed.predict(rows, random=[], se=True), crossed.predict(rows, random=False, se=True)
    )


def test_only_the_chosen_groups_are_needed(crossed, rows):
    bare = rows[["x", "off", "h"]]
    np.testing.assert_allclose(crossed.predict(bare, random=["h"]), crossed.predict(rows, random=["h"]), rtol=1e-13)
    with pytest.raises(DataError, match="column 'g' is missing"):
        crossed.predict(bare, random=["g"])


def test_new_levels_of_other_groups_do_not_matter(crossed, rows):
    new = rows.iloc[:3].assign(g="NEW")
    expected = crossed.predict(rows.iloc[:3], random=["h"])
    for choice in ("raise", "missing", "population"):
        np.testing.assert_allclose(crossed.predict(new, random=["h"], new_levels=choice), expected, rtol=1e-13)
    with pytest.raises(DataError, match="NEW"):
        crossed.predict(new, random=["g"], new_levels="raise")
    assert np.isnan(crossed.predict(new, random=["g"], new_levels="missing")).all()
    out = crossed.predict(new, random=["g"], se=True)
    prior = np.linalg.norm(
        crossed.sigma * crossed.fitted.lambdas()[0].T @ np.column_stack([np.ones(3), new["x"]]).T, axis=0
    )
    fixed = crossed.predict(new, random=False, se=True)["se"]
    np.testing.assert_allclose(out["se"] ** 2, fixed**2 + prior**2, rtol=1e-8)


def test_generalized_model_adds_up(poisson, some):
    """On the scale of the linear predictor parts add up; modes come from ranef."""
    link = {part: poisson.predict(some, random=part, type="link") for part in (True, False)}
    by_g, by_h = (poisson.predict(some, random=[name], type="link") for name in "gh")
    np.testing.assert_allclose(by_g + by_h - link[False], link[True], rtol=1e-10, atol=1e-12)
    modes = poisson.ranef()["h"]["Intercept"]
    np.testing.assert_allclose(by_h - link[False], modes.loc[some["h"]].to_numpy(), rtol=1e-8, atol=1e-12)
    response = poisson.predict(some, random=["(1 | h)"])
    np.testing.assert_allclose(response, np.exp(by_h), rtol=1e-12)


def test_generalized_standard_errors_are_those_of_the_working_model(poisson, some):
    """Inverse of [X Z]'W[X Z] + diag(0, G^-1) at the mode, dense; the response's by the delta method."""
    x = np.column_stack([np.ones(len(some)), some["x"]])
    g, h = (pd.Categorical(some[c]).codes for c in "gh")
    z = np.zeros((len(some), 15 * 2 + 8))
    for column in range(2):
        z[np.arange(len(some)), 2 * g + column] = x[:, column]
    z[np.arange(len(some)), 30 + h] = 1.0
    lambdas = poisson.fitted.lambdas()
    prior = np.zeros((38, 38))
    prior[:30, :30] = np.kron(np.eye(15), lambdas[0] @ lambdas[0].T)
    prior[30:, 30:] = np.eye(8) * lambdas[1][0, 0] ** 2
    mu = poisson.predict(some)
    c = np.hstack([x, z])
    information = c.T @ (mu[:, None] * c)
    information[2:, 2:] += np.linalg.inv(prior)
    covariance = np.linalg.inv(information)
    for name, columns in (("g", slice(2, 32)), ("h", slice(32, 40))):
        a = np.zeros_like(c)
        a[:, :2], a[:, columns] = x, c[:, columns]
        expected = np.sqrt(np.einsum("ij,jk,ik->i", a, covariance, a))
        out = poisson.predict(some, random=[name], type="link", se=True)
        np.testing.assert_allclose(out["se"], expected, rtol=2e-5)
        np.testing.assert_allclose(
            poisson.predict(some, random=[name], se=True)["se"],
            out["se"] * poisson.predict(some, random=[name]),
            rtol=1e-10,
        )


def test_nested_groups_by_any_name():
    rows = pastes()
    fit = bigmm.lmm("strength ~ 1 + (1 | batch / cask)", rows)
    batch = fit.predict(rows, random=["batch"])
    assert len(np.unique(batch.round(9))) == 10, "one value a batch"
    inner = fit.predict(rows, random=["cask:batch"])
    for name in ("batch:cask", "(1 | batch:cask)"):
        np.testing.assert_array_equal(fit.predict(rows, random=[name]), inner)
    for both in (["batch/cask"], ["(1 | batch / cask)"], ["batch", "batch:cask"]):
        np.testing.assert_array_equal(fit.predict(rows, random=both), fit.predict(rows))


def test_two_terms_of_one_group(rows):
    fit = bigmm.lmm("y ~ x + (1 | g) + (0 + x | g)", rows)
    population = fit.predict(rows, random=False)
    slope = fit.predict(rows, random=["(0 + x | g)"])
    modes = fit.ranef()["g"].loc[rows["g"]]
    np.testing.assert_allclose(slope - population, modes["x"].to_numpy() * rows["x"], rtol=1e-8, atol=1e-11)
    np.testing.assert_array_equal(fit.predict(rows, random=["g.1"]), slope)
    np.testing.assert_array_equal(fit.predict(rows, random=["(x || g)"]), fit.predict(rows))
    np.testing.assert_array_equal(fit.predict(rows, random=["g"]), fit.predict(rows))


def test_factors_as_covariates(rows):
    rows = rows.assign(f=np.where(rows["x"] > 1.0, "high", "low"))
    fit = bigmm.lmm("y ~ f + (f | g) + (1 | h)", rows)
    np.testing.assert_array_equal(fit.predict(rows, random=["(1 + f | g)"]), fit.predict(rows, random=["g"]))
    expected = fit.predict(rows, random=False) + fit.ranef()["g"]["Intercept"].loc[rows["g"]].to_numpy()
    np.testing.assert_allclose(fit.predict(rows, random=["(1 | g)"]), expected, rtol=1e-10)


def test_lazily_and_from_a_saved_fit(crossed, rows, tmp_path):
    expected = crossed.predict(rows, random=["(1 | h)"], se=True)
    lazy = crossed.predict(dd.from_pandas(rows, npartitions=2), random=["(1 | h)"], se=True)
    pd.testing.assert_frame_equal(lazy.compute(scheduler="synchronous").reset_index(drop=True), expected)
    again = bigmm.load(crossed.save(tmp_path / "fit"))
    pd.testing.assert_frame_equal(again.predict(rows, random=["(1 | h)"], se=True), expected)


@pytest.mark.parametrize("random", ["no", "population", "g", 1.5, 1, 0, None, {"g"}, np.array(["g"])])
def test_only_true_false_or_a_list(crossed, random):
    with pytest.raises(UsageError, match="random=.*: it is True .*, False .*, or a list of groups or terms such as"):
        selection(crossed.fitted, random)


def test_a_name_instead_of_a_list_is_shown_as_one(crossed):
    with pytest.raises(UsageError, match=r"for one group write \['g'\]"):
        crossed.predict(random="g")
    with pytest.raises(UsageError, match=r"for one group write \['\(1\+x\|g\)'\]"):
        crossed.predict(random="(1+x|g)")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("G", r"names 'G', .*; did you mean 'g'\? it has g, h, \(1 \+ x \| g\), \(1 \| h\)"),
        ("(1 | q)", r"names '\(1 \| q\)', which is no group or term of the fit; did you mean '\(1 \| h\)'"),
        ("(w | g)", "which is no group or term of the fit"),
        ("(x | h)", "the fit has no random effect of 'x' by 'h'; it has g, h"),
        ("x + (1 | g)", "which has more than random terms"),
        ("", "which is no group or term of the fit"),
        ("(1 | ", "which is no group or term of the fit"),
        (3, r"lists groups or terms as text, such as \['g'\], not 3"),
    ],
)
def test_unknown_names(crossed, name, message):
    with pytest.raises(UsageError, match=message):
        crossed.predict(random=[name])


def test_flags_are_true_or_false(crossed):
    for call in (
        lambda: crossed.predict(se="no"),
        lambda: crossed.simulate(use_modes="no"),
        lambda: crossed.ranef(condvar="no"),
    ):
        with pytest.raises(UsageError, match="must be True or False, got 'no'"):
            call()
