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


def test_p_values_are_normal(sleep):
    np.testing.assert_allclose(sleep.pvalues, 2 * stats.norm.sf(np.abs(sleep.zvalues)), rtol=1e-12)


def test_wald_intervals(sleep):
    limits = sleep.conf_int(level=0.9)
    half = (limits["upper"] - limits["lower"]) / 2
    np.testing.assert_allclose(half, 1.6448536269514722 * sleep.bse, rtol=1e-10)
    np.testing.assert_allclose(limits.mean(axis=1), sleep.params, rtol=1e-12)


def test_vcov_is_cov_params(sleep):
    assert sleep.vcov().equals(sleep.cov_params())
    np.testing.assert_allclose(np.sqrt(np.diag(sleep.vcov())), sleep.bse)
    assert sleep.fixef().equals(sleep.params)


def test_other_methods_say_what_is_available(sleep):
    with pytest.raises(UsageError, match=r"conf_int\(method='profile'\) is not available; available: wald"):
        sleep.conf_int(method="profile")


@pytest.mark.parametrize("level", [0, 1, 95, -0.5])
def test_level_outside_the_unit_interval(sleep, level):
    with pytest.raises(UsageError, match=r"level must lie between 0 and 1, got .*; 0.95 means a 95% interval"):
        sleep.conf_int(level=level)
