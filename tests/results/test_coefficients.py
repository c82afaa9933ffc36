"""Wald tables, lme4's numbers for the sleep study, and the errors of conf_int."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bigmm.errors import UsageError


def test_table_is_lme4s(sleep):
    np.testing.assert_allclose(sleep.params, [251.405105, 10.467286], rtol=1e-6)
    np.testing.assert_allclose(sleep.bse, [6.824597, 1.545790], rtol=1e-4)
    np.testing.assert_allclose(sleep.tvalues, [36.838, 6.771], rtol=1e-3)
    assert list(sleep.params.index) == ["Intercept", "Days"]


def test_p_values_have_satterthwaites_degrees_of_freedom(sleep):
    """lmerTest 3.1.3: 17 degrees of freedom each, p 1.1709e-17 and 3.2638e-06."""
    np.testing.assert_allclose(sleep.tidy()["df"], 17.0, rtol=1e-6)
    np.testing.assert_allclose(sleep.pvalues, [1.1709e-17, 3.2638e-06], rtol=1e-4)
    np.testing.assert_allclose(
        sleep.tidy(ddf="normal")["p.value"], 2 * stats.norm.sf(np.abs(sleep.zvalues)), rtol=1e-12
    )


def test_wald_intervals(sleep):
    limits = sleep.conf_int(level=0.9)
    half = (limits["upper"] - limits["lower"]) / 2
    np.testing.assert_allclose(half, 1.7396067260750676 * sleep.bse, rtol=1e-7)  # t with 17 degrees of freedom
    np.testing.assert_allclose(limits.mean(axis=1), sleep.params, rtol=1e-12)


def test_vcov_is_cov_params(sleep):
    assert sleep.vcov().equals(sleep.cov_params())
    np.testing.assert_allclose(np.sqrt(np.diag(sleep.vcov())), sleep.bse)
    assert sleep.fixef().equals(sleep.params)


def test_other_methods_say_what_is_available(sleep):
    with pytest.raises(UsageError, match=r"conf_int\(method='exact'\) is not available; available: wald, profile"):
        sleep.conf_int(method="exact")
    with pytest.raises(UsageError, match="parameters='theta' needs method='profile'"):
        sleep.conf_int(parameters="theta")


@pytest.mark.parametrize("level", [0, 1, 95, -0.5])
def test_level_outside_the_unit_interval(sleep, level):
    with pytest.raises(UsageError, match=r"level must lie between 0 and 1, got .*; 0.95 means a 95% interval"):
        sleep.conf_int(level=level)


def test_levels_by_either_habit(sleep):
    """level= is R's, alpha= statsmodels'; 2.109816 is the quantile 0.975 of t with 17 degrees of freedom."""
    usual = sleep.conf_int()
    np.testing.assert_allclose(usual["upper"] - usual["lower"], 2 * 2.1098155778 * sleep.bse, rtol=1e-7)
    for same in (sleep.conf_int(alpha=0.05), sleep.conf_int(0.95), sleep.conf_int(level=0.95)):
        np.testing.assert_allclose(same, usual, rtol=1e-13)
    np.testing.assert_allclose(sleep.conf_int(0.9, "wald"), sleep.conf_int(alpha=0.1), rtol=1e-13)
    np.testing.assert_allclose(sleep.tidy(alpha=0.1)["conf.low"], sleep.conf_int(level=0.9)["lower"], rtol=1e-13)
    narrow = sleep.conf_int(level=0.05)
    assert (narrow["upper"] - narrow["lower"] < 0.2 * sleep.bse).all(), "by its name a level may be small"


@pytest.mark.parametrize("bare", [0.05, 0.01, 0.1, np.float64(0.05), 0.49])
def test_a_bare_alpha_is_refused_with_both_spellings(sleep, bare):
    with pytest.raises(UsageError, match="could be alpha or a confidence level: write alpha=.* or level="):
        sleep.conf_int(bare)


def test_the_level_is_given_once_and_is_a_number(sleep):
    with pytest.raises(UsageError, match="give the confidence level once"):
        sleep.conf_int(level=0.9, alpha=0.1)
    with pytest.raises(UsageError, match="give the confidence level once"):
        sleep.conf_int(0.9, level=0.9)
    for value in (95, "Days", True, "0.95", [0.9], float("nan")):
        with pytest.raises(UsageError, match="level must lie between 0 and 1"):
            sleep.conf_int(value)
    with pytest.raises(UsageError, match=r"alpha must lie between 0 and 1, got 5; 0.05 means a 95% interval"):
        sleep.conf_int(alpha=5)
    with pytest.raises(UsageError, match="takes effects and scales by position"):
        sleep.tidy("fixed", "sdcor", 0.05)
