"""Device functions against scipy.special, to 1e-13 relative (1e-15 absolute beside a zero)."""

import math

import numpy as np
import pytest
from scipy import special as reference

from bigmm.families import special

POSITIVE = np.concatenate([np.logspace(-8, 8, 300), np.linspace(0.5, 3.0, 101), [9.999999, 10.0, 10.000001]])
HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)


def values(function, points):
    return np.array([function(float(p)) for p in points])


@pytest.mark.parametrize(
    ("function", "expected"), [("digamma", reference.digamma), ("trigamma", lambda x: reference.polygamma(1, x))]
)
def test_derivatives_of_log_gamma(function, expected):
    np.testing.assert_allclose(values(getattr(special, function), POSITIVE), expected(POSITIVE), rtol=1e-13, atol=1e-15)


def test_stirling_error_restores_log_gamma():
    x = POSITIVE
    restored = values(special.stirling_error, x) + (x - 0.5) * np.log(x) - x + HALF_LOG_TWO_PI
    np.testing.assert_allclose(restored, reference.gammaln(x), rtol=1e-13, atol=4e-15)


def test_stirling_error_and_log_minus_digamma_keep_their_digits_where_they_are_small():
    # leading terms of the series; the next ones are below 1e-13 of them from 1e7 on
    x = np.array([1e7, 1e9, 1e12])
    np.testing.assert_allclose(values(special.stirling_error, x), 1.0 / (12.0 * x), rtol=1e-13)
    np.testing.assert_allclose(values(special.log_minus_digamma, x), 0.5 / x + 1.0 / (12.0 * x**2), rtol=1e-13)


def test_log_minus_digamma_is_smooth_where_the_series_takes_over():
    x = np.array([0.01, 0.7, 5.0, 9.9999, 10.0001, 30.0])
    expected = np.log(x) - reference.digamma(x)
    np.testing.assert_allclose(values(special.log_minus_digamma, x), expected, rtol=1e-12)


def test_log1p_minus():
    x = np.array([-0.99, -0.3000001, -0.2999999, -0.05, 0.05, 0.2999999, 0.3000001, 5.0])
    np.testing.assert_allclose(values(special.log1p_minus, x), np.log1p(x) - x, rtol=1e-13)
    small = np.array([-1e-5, -1e-9, 1e-12, 1e-6])
    expected = -(small**2) / 2 + small**3 / 3 - small**4 / 4
    np.testing.assert_allclose(values(special.log1p_minus, small), expected, rtol=1e-14)


def test_normal_tail():
    t = np.concatenate([np.linspace(0.0, 12.0, 97), [30.0, 100.0, 1e4, 1e7]])
    log_tail, hazard, excess = np.array([special.normal_tail(float(x)) for x in t]).T
    np.testing.assert_allclose(log_tail, reference.log_ndtr(-t), rtol=1e-13)
    scaled = np.sqrt(2.0 / np.pi) / reference.erfcx(t / np.sqrt(2.0))
    np.testing.assert_allclose(hazard, scaled, rtol=1e-13)
    far = t >= 100.0
    np.testing.assert_allclose(excess[far], 1.0 / t[far] - 2.0 / t[far] ** 3 + 10.0 / t[far] ** 5, rtol=1e-10)
    np.testing.assert_allclose(excess[~far], (scaled - t)[~far], rtol=2e-12)


def test_normal_quantile():
    p = np.concatenate([np.logspace(-300, -0.5, 60), [0.5, 0.5 + 1e-12, 0.9, 1.0 - 1e-10]])
    np.testing.assert_allclose(values(special.normal_quantile, p), reference.ndtri(p), rtol=1e-13, atol=1e-15)
