"""Extreme linear predictors: no nan, no overflow, and the right limits."""

import numpy as np
import pytest
from scipy import special

from bigmm.families import FAMILIES, family, rows
from tests.families.pairs import PAIRS, PHI, slope

EXTREME = np.array(
    [1e-30, 1e-3, 1.0, 8.0, 30.0, 36.0, 38.0, 50.0, 229.0, 231.0, 700.0, 750.0, 1e5, 1e12, 1e80, 1e300, np.inf]
)
BOTH_WAYS = np.concatenate([-EXTREME[::-1], [-0.0, 0.0], EXTREME])
RESPONSES = {"bernoulli": (0.0, 1.0), "binomial": (0.0, 0.25, 1.0), "poisson": (0.0, 3.0, 1e6)}
RESPONSES |= {"beta": (1e-12, 0.3, 1.0 - 1e-12), "truncated_poisson": (1.0, 2.0, 1e6)}


@pytest.mark.parametrize("kind", PAIRS, ids=str)
def test_nothing_is_nan_or_infinite(kind):
    y = np.array(RESPONSES.get(kind.name, (1e-3, 1.0, 1e6)))[:, None]
    found = rows.score_full(kind, y, 4.0, BOTH_WAYS, PHI)
    inside = np.isfinite(found[0, 0])
    assert inside.sum() >= 2 and (found[0][:, ~inside] == -np.inf).all()
    assert np.isfinite(found[:, :, inside]).all() and not found[1:, :, ~inside].any()
    assert (found[2] >= 0.0).all()
    assert np.isfinite(rows.dispersion_derivatives(kind, y, 4.0, BOTH_WAYS, PHI)).all()


@pytest.mark.parametrize("link", FAMILIES["bernoulli"].links[:4])
def test_means_saturate_between_0_and_1_and_never_fall(link):
    mu = rows.mean(family("bernoulli", link), np.concatenate([BOTH_WAYS, np.linspace(-40, 40, 400)]))
    assert mu.min() >= 0.0 and mu.max() <= 1.0
    ordered = rows.mean(family("bernoulli", link), np.sort(np.concatenate([BOTH_WAYS, np.linspace(-9, 9, 400)])))
    assert (np.diff(ordered) >= 0.0).all()


def test_logit_in_both_tails():
    eta = np.array([-700.0, -40.0, 40.0, 700.0])
    hit = rows.score_full(family("bernoulli"), np.array([0.0, 0.0, 1.0, 1.0]), 1.0, eta)
    miss = rows.score_full(family("bernoulli"), np.array([1.0, 1.0, 0.0, 0.0]), 1.0, eta)
    np.testing.assert_allclose(hit[0], -np.exp(-np.abs(eta)), rtol=1e-14)
    np.testing.assert_allclose(miss[0], -np.abs(eta), rtol=1e-14)
    np.testing.assert_allclose(miss[1], -np.sign(eta), rtol=1e-14)
    np.testing.assert_allclose(hit[2], np.exp(-np.abs(eta)), rtol=1e-14)
    np.testing.assert_allclose(hit[4], -np.sign(eta) * np.exp(-np.abs(eta)), rtol=1e-14)


def test_probit_in_both_tails():
    eta = np.array([-700.0, -40.0, -20.0, 20.0, 40.0, 700.0])
    miss = rows.score_full(family("bernoulli", "probit"), (eta < 0.0).astype(float), 1.0, eta)
    t = np.abs(eta)
    np.testing.assert_allclose(miss[0], special.log_ndtr(-t), rtol=1e-13)
    np.testing.assert_allclose(miss[1], -np.sign(eta) * np.sqrt(2 / np.pi) / special.erfcx(t / np.sqrt(2)), rtol=1e-13)
    # hazard' = hazard (hazard - t) = 1 - 1/t^2 + 6/t^4 - 50/t^6 + 518/t^8 ...
    series = 1.0 - t**-2.0 + 6.0 * t**-4.0 - 50.0 * t**-6.0 + 518.0 * t**-8.0
    np.testing.assert_allclose(miss[3], series, rtol=1e-8)


def test_cloglog_in_both_tails():
    kind = family("bernoulli", "cloglog")
    low = rows.score_full(kind, 1.0, 1.0, np.array([-30.0, -300.0]))
    z = np.exp([-30.0, -300.0])
    np.testing.assert_allclose(low[0], [-30.0, -300.0], rtol=1e-14)
    np.testing.assert_allclose(low[2], z, rtol=1e-12)
    np.testing.assert_allclose(low[3], z / 2.0, rtol=1e-12)
    high = rows.score_full(kind, 0.0, 1.0, np.array([5.0, 50.0]))
    np.testing.assert_allclose(high[0], -np.exp([5.0, 50.0]), rtol=1e-14)
    np.testing.assert_allclose(high[1], -np.exp([5.0, 50.0]), rtol=1e-14)


def test_cloglog_is_smooth_where_its_series_takes_over():
    kind, eta = family("bernoulli", "cloglog"), np.log(0.1) + np.array([-1e-3, 0.0, 1e-3])
    observed = rows.score_full(kind, 1.0, 1.0, eta)[3]
    np.testing.assert_allclose(observed, -slope(lambda at: rows.score_full(kind, 1.0, 1.0, at)[1], eta), rtol=1e-8)


def test_cauchit_tail_is_that_of_the_cauchy_distribution():
    found = rows.score_full(family("bernoulli", "cauchit"), 1.0, 1.0, np.array([-1e6]))
    np.testing.assert_allclose(found[0], -np.log(np.pi * 1e6), rtol=1e-11)
    np.testing.assert_allclose(found[1], 1e-6, rtol=1e-9)


def test_the_limit_of_log_means_is_a_wall_of_bad_likelihood_not_an_overflow():
    found = rows.score_full(family("poisson"), 3.0, 1.0, np.array([100.0, 229.0, 400.0]))
    assert (np.diff(found[0]) < 0.0).all() and found[0, 2] > -1e101 and found[1, 2] < -1e99
