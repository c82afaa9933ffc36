"""Rows of the fit that it could not use have no fitted value, and levels without such rows are new levels.

R's na.exclude pads fitted values and residuals with NA where a row has a missing value in any variable of the model;
rows of weight zero are not padded.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bigmm
from bigmm.errors import DataError


@pytest.fixture(scope="module")
def data():
    """Five rows without y, all rows of f = c without x, all rows of g = 3 without y."""
    rng, n = np.random.default_rng(0), 160
    g, f = rng.integers(0, 8, n), rng.choice(list("abc"), n)
    frame = pd.DataFrame({"x": rng.normal(size=n), "f": f, "g": g, "w": rng.choice([1.0, 2.0], n)})
    frame["y"] = 5 + frame.x + (f == "b") + rng.normal(size=8)[g] + rng.normal(size=n)
    frame["c"] = rng.poisson(3, n).astype(float)
    lost = (np.arange(n) < 5) | (g == 3)
    return frame.assign(y=frame.y.mask(lost), c=frame.c.mask(lost), x=frame.x.mask(frame.f == "c"))


@pytest.fixture(scope="module")
def linear(data):
    return bigmm.lmm("y ~ x + f + (1 | g)", data)


@pytest.fixture(scope="module")
def poisson(data):
    return bigmm.glmm("c ~ x + f + (1 | g)", data, family="poisson")


@pytest.mark.parametrize("kind", ["linear", "poisson"])
def test_dropped_rows_have_nan(kind, data, request):
    model = request.getfixturevalue(kind)
    dropped = data.isna().any(axis=1).to_numpy()
    assert dropped.sum() == sum(dict(model.fitted.dropped).values())
    per_row = [model.fittedvalues, model.resid, model.residuals("pearson"), model.predict(random=False)]
    per_row += [
        model.predict(type="link"),
        model.predict(se=True)["se"],
        model.simulate(),
        model.simulate(nsim=2)[:, 1],
    ]
    per_row += [model.predict(new_levels="raise"), model.predict(new_levels="missing")]
    table = model.augment()
    per_row += [table[name] for name in table.columns if name.startswith(".")]
    for values in per_row:
        np.testing.assert_array_equal(np.isnan(values), dropped)


def test_kept_rows_are_predicted_as_new_rows(linear, data):
    kept = data.dropna()
    np.testing.assert_allclose(linear.fittedvalues[kept.index], linear.predict(kept), rtol=1e-13)
    np.testing.assert_allclose(linear.resid[kept.index], kept.y - linear.predict(kept), rtol=1e-9, atol=1e-12)


def test_an_intercept_alone_has_nan_too(data):
    model = bigmm.lmm("y ~ 1 + (1 | g)", data)
    np.testing.assert_array_equal(np.isnan(model.fittedvalues), data.y.isna())


def test_new_rows_need_no_response(linear, data):
    """The same rows as new data are predicted: the response is no covariate."""
    rows = data[data.f != "c"]
    assert np.isfinite(linear.predict(rows)).all()


def test_rows_of_weight_zero_are_predicted(data):
    """As in R, whose model frame holds them; unless no other row has their level."""
    data = data.dropna().reset_index(drop=True)
    weights = np.where(np.arange(len(data)) < 4, 0.0, data.w)
    model = bigmm.lmm("y ~ x + f + (1 | g)", data, weights=weights)
    assert np.isfinite(model.fittedvalues).all() and np.isfinite(model.resid).all()
    alone = np.where(data.f == "b", 0.0, data.w)
    data = pd.concat([data, data.assign(f="d")], ignore_index=True)
    model = bigmm.lmm("y ~ x + f + (1 | g)", data, weights=np.concatenate([alone, data.w[: len(alone)]]))
    np.testing.assert_array_equal(np.isnan(model.fittedvalues), data.f == "b")


def test_levels_without_complete_rows_are_new_levels(linear, tmp_path):
    new = pd.DataFrame({"x": [0.5, 0.5], "f": ["a", "a"], "g": [3, 4]})
    average = linear.predict(new, random=False)[0]
    linear.save(tmp_path / "fit")
    for model in (linear, bigmm.load(tmp_path / "fit")):
        found = model.predict(new)
        assert found[0] == average != found[1]
        assert np.isnan(model.predict(new, new_levels="missing")).tolist() == [True, False]
        with pytest.raises(DataError, match="'g' is '3' in row 1, a level not in the fit"):
            model.predict(new, new_levels="raise")
        assert 3 not in model.ranef()["g"].index
        with pytest.raises(DataError, match="'f' holds 'c' in row 1"):
            model.predict(new.assign(f="c"))


def test_the_summary_names_lost_levels(linear, data, tmp_path):
    line = "level c of f has no complete row and was dropped"
    linear.save(tmp_path / "fit")
    assert line in str(linear.summary()) and line in str(bigmm.load(tmp_path / "fit").summary())
    two = bigmm.lmm("y ~ f + (1 | g)", data.assign(y=data.y.mask(data.f != "a"), f=data.f.mask(data.g == 1, "d")))
    assert "2 levels of f have no complete row and were dropped: b, c" in str(two.summary())


def test_a_grouping_whose_levels_were_kept_in_the_design(data):
    """No factor is coded here, so the design still knows level 3 of g, which has no complete row."""
    model = bigmm.lmm("y ~ x + (1 | g)", data)
    assert model.fitted.layout.groupings[0].n_levels == 8 and model.n_groups == {"g": 7}
    new = pd.DataFrame({"x": [0.5, 0.5], "g": [4, 3]})
    assert np.isnan(model.predict(new, new_levels="missing")).tolist() == [False, True]
    with pytest.raises(DataError, match="'g' is '3' in row 2, a level without complete rows in the fit"):
        model.predict(new, new_levels="raise")
    assert model.simulate(new, seed=1)[1] != model.simulate(new, seed=1, use_modes=True)[1]
