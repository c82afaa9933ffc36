"""Derivatives of the row log-likelihood against finite differences, for every family with every link."""

import math

import numpy as np
import pytest
from scipy import stats

from bigmm.families import family, rows, scores
from tests.families.pairs import DISPERSED, PAIRS, PHI, sample_rows, slope


def assert_close(found, expected, rtol=1e-7):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol * max(1.0, float(np.abs(expected).max()) * 1e-2))


@pytest.mark.parametrize("kind", PAIRS, ids=str)
def test_derivatives_by_eta(kind):
    y, w, eta = sample_rows(kind)
    ll, d1, fisher, observed, fisher_slope, observed_slope = range(6)

    def entry(number):
        return lambda at: rows.score_full(kind, y, w, at, PHI)[number]

    found = rows.score_full(kind, y, w, eta, PHI)
    assert_close(found[d1], slope(entry(ll), eta))
    assert_close(found[observed], -slope(entry(d1), eta))
    assert_close(found[fisher_slope], slope(entry(fisher), eta))
    assert_close(found[observed_slope], slope(entry(observed), eta))


@pytest.mark.parametrize("kind", [kind for kind in PAIRS if kind.name != "beta"], ids=str)
def test_expected_weight_is_squared_slope_over_variance(kind):
    _y, w, eta = sample_rows(kind)
    mu = rows.mean(kind, eta)
    multiplier = w / PHI if kind.name in ("gaussian", "gamma", "inverse_gaussian") else w
    unit = rows.variance(kind, mu, PHI if kind.distribution.dispersion == "shape" else 1.0)
    expected = multiplier * rows.mean_derivative(kind, eta) ** 2 / unit
    found = rows.score_full(kind, mu, w, eta, PHI)
    np.testing.assert_allclose(found[2], expected, rtol=1e-9)
    # the score is linear in y: at y = mu it vanishes and the observed weight is the expected one
    np.testing.assert_allclose(found[1], 0.0, atol=1e-9 * np.abs(expected).max())
    np.testing.assert_allclose(found[3], expected, rtol=1e-9)


@pytest.mark.parametrize("name", ["poisson", "negative_binomial", "truncated_poisson"])
def test_expected_weight_is_the_expectation_of_the_observed_one(name):
    kind, eta = family(name, "identity"), 2.3
    counts = np.arange(1.0 if name == "truncated_poisson" else 0.0, 400.0)
    probability = np.exp(rows.log_density(kind, counts, 1.0, eta, PHI))
    _ll, d1, fisher, observed, *_ = rows.score_full(kind, counts, 1.0, eta, PHI)
    assert probability.sum() == pytest.approx(1.0, rel=1e-12)
    assert (probability * observed).sum() == pytest.approx(fisher[0], rel=1e-12)
    assert (probability * d1**2).sum() == pytest.approx(fisher[0], rel=1e-12)


@pytest.mark.parametrize("kind", DISPERSED, ids=str)
@pytest.mark.parametrize("phi", [0.03, 1.7, 40.0])
def test_derivatives_by_log_dispersion(kind, phi):
    y, w, eta = sample_rows(kind)
    found = rows.dispersion_derivatives(kind, y, w, eta, phi)
    for number, entry in enumerate((0, 1, 3)):
        expected = slope(lambda at, entry=entry: rows.score_full(kind, y, w, eta, np.exp(at))[entry], math.log(phi))
        assert_close(found[number], expected)


def test_families_without_a_dispersion_have_zero_derivatives_by_it():
    for kind in PAIRS:
        if not kind.has_dispersion:
            assert not rows.dispersion_derivatives(kind, *sample_rows(kind), 1.0).any()


def test_score_is_the_head_of_score_full():
    kind = family("binomial", "cloglog")
    full = scores.score_full(kind.family_id, kind.link_id, 0.25, 8.0, -0.3, 1.0)
    assert scores.score(kind.family_id, kind.link_id, 0.25, 8.0, -0.3, 1.0) == full[:4]


@pytest.mark.parametrize("kind", PAIRS, ids=str)
def test_a_row_of_weight_zero_counts_for_nothing(kind):
    y, w, eta = sample_rows(kind, 3)
    assert not rows.score_full(kind, y, 0.0, eta, PHI).any()
    assert not rows.constant(kind, y, 0.0).any()
    assert not rows.dispersion_derivatives(kind, y, 0.0, eta, PHI).any()


@pytest.mark.parametrize(
    ("name", "link", "eta"),
    [
        ("binomial", "log", 0.0),
        ("bernoulli", "identity", 1.0),
        ("bernoulli", "identity", -0.1),
        ("poisson", "identity", -0.1),
        ("gamma", "inverse", 0.0),
        ("poisson", "log", math.nan),
    ],
)
def test_an_eta_without_a_mean_is_a_wall(name, link, eta):
    found = rows.score_full(family(name, link), 1.0, 1.0, eta, 1.0)
    assert found[0] == -math.inf and not found[1:].any()
    assert not rows.dispersion_derivatives(family(name, link), 1.0, 1.0, eta, 1.0).any()


def test_negative_binomial_tends_to_the_poisson_without_losing_digits():
    # ll = poisson + excess + O(theta^-2), lgamma(y + theta) - lgamma(theta) being y log(theta) + ...
    y, mu, shape = np.array([0.0, 3.0, 40.0]), np.array([0.7, 5.0, 31.0]), 1e9
    kind = family("nb")
    excess = ((y - mu) ** 2 - y) / (2.0 * shape)
    poisson = rows.score_full(family("poisson"), y, 1.0, np.log(mu))
    near = rows.score_full(kind, y, 1.0, np.log(mu), shape)
    np.testing.assert_allclose(near[:4], poisson[:4], rtol=1e-6)
    slopes = rows.dispersion_derivatives(kind, y, 1.0, np.log(mu), shape)[0]
    np.testing.assert_allclose(slopes, -excess, rtol=1e-6)


@pytest.mark.parametrize("phi", [1e-8, 1e-3, 1.0, 50.0])
def test_gamma_with_any_shape(phi):
    y, mu = np.array([0.9, 1.0, 1.02]), 1.0 + 0.01 * np.arange(3)
    found = rows.log_density(family("gamma", "log"), y, 2.0, np.log(mu), phi)
    expected = stats.gamma.logpdf(y, 2.0 / phi, scale=mu * phi / 2.0)
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-9 / phi * 1e-5)
