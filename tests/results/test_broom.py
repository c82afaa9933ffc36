"""Tidy tables carry broom.mixed's columns and names."""

from __future__ import annotations

import numpy as np
import pytest

from bigmm.errors import UsageError


def test_fixed(sleep):
    table = sleep.tidy()
    head = ["effect", "term", "estimate", "std.error", "statistic", "df", "p.value", "conf.low", "conf.high"]
    assert list(table.columns) == head
    assert list(table["term"]) == ["Intercept", "Days"] and set(table["effect"]) == {"fixed"}
    np.testing.assert_allclose(table["statistic"], table["estimate"] / table["std.error"])
    assert (table["conf.low"] < table["estimate"]).all() and (table["estimate"] < table["conf.high"]).all()


def test_parameters(sleep):
    table = sleep.tidy("ran_pars")
    assert list(table.columns) == ["effect", "group", "term", "estimate"]
    assert list(table["term"]) == ["sd__Intercept", "sd__Days", "cor__Intercept.Days", "sd__Observation"]
    np.testing.assert_allclose(table["estimate"], sleep.varcorr["sdcor"])
    variances = sleep.tidy("ran_pars", scales="vcov")
    assert list(variances["term"]) == ["var__Intercept", "var__Days", "cov__Intercept.Days", "var__Observation"]
    np.testing.assert_allclose(variances["estimate"], sleep.varcorr["vcov"])


def test_modes(sleep):
    table = sleep.tidy("ran_vals")
    assert list(table.columns) == ["effect", "group", "level", "term", "estimate", "std.error"]
    assert len(table) == 36 and set(table["term"]) == {"Intercept", "Days"}
    frame = sleep.ranef(condvar=True)["Subject"]
    one = table[(table["level"] == "335") & (table["term"] == "Days")].iloc[0]
    assert one["estimate"] == frame.loc["335", "Days"]
    assert one["std.error"] == frame.loc["335", "Days_sd"]


def test_glance(sleep):
    row = sleep.glance().iloc[0]
    assert list(row.index) == ["nobs", "sigma", "logLik", "AIC", "BIC", "REMLcrit", "df.residual"]
    assert row["REMLcrit"] == pytest.approx(1743.62827, abs=1e-4)
    assert row["AIC"] == pytest.approx(row["REMLcrit"] + 12) and row["df.residual"] == 174
    assert row["BIC"] == pytest.approx(row["REMLcrit"] + 6 * np.log(180))
    assert (sleep.aic, sleep.bic, sleep.llf) == (row["AIC"], row["BIC"], row["logLik"])


def test_wrong_choices(sleep):
    with pytest.raises(UsageError, match=r"tidy\(effects='random'\): choose one of fixed, ran_pars, ran_vals"):
        sleep.tidy("random")
    with pytest.raises(UsageError, match=r"tidy\(scales='var'\): choose one of sdcor, vcov"):
        sleep.tidy("ran_pars", scales="var")


def test_several_kinds_follow_each_other(sleep):
    """broom.mixed's tidy(effects = c("fixed", "ran_pars")): one table, the columns of either missing in the other."""
    table = sleep.tidy(["fixed", "ran_pars"])
    assert list(table.columns[:4]) == ["effect", "group", "term", "estimate"]
    assert list(table["effect"]) == ["fixed"] * 2 + ["ran_pars"] * 4
    np.testing.assert_array_equal(table["estimate"][:2], sleep.tidy()["estimate"])
    np.testing.assert_array_equal(table["estimate"][2:], sleep.tidy("ran_pars")["estimate"])
    assert table["std.error"][2:].isna().all() and table["group"][:2].isna().all()
    assert list(sleep.tidy(("fixed", "ran_vals")).columns[:4]) == ["effect", "group", "level", "term"]
    assert sleep.tidy(["ran_pars"]).equals(sleep.tidy("ran_pars"))
    for wrong in ([], ["fixed", "other"], [["fixed"]], None, {"fixed": 1}):
        with pytest.raises(UsageError, match="choose one of fixed, ran_pars, ran_vals, or a list of them"):
            sleep.tidy(wrong)


def test_what_is_inside_is_shown_in_a_line(sleep):
    assert len(repr(sleep.fitted)) < 200 and "fittedvalues" in repr(sleep.fitted)
