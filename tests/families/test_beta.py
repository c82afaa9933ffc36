"""The beta distribution where its shapes are tiny or huge, its information, its deviance."""

import numpy as np
import pytest
from scipy import integrate, stats

from bigmm.families import family, rows
from tests.families.pairs import slope

# By mpmath 1.3 with 60 digits, from numerical derivatives of the log density less its free part, logit link:
# (phi, eta, y): (ll, d1, w_observed, d w_observed / d eta, and d ll, d d1, d w_observed by log phi)
EXTREMES = {
    (0.01, -40.0, 0.3): (
        -44.60873693542748,
        1.0,
        8.532010960244553e-18,
        8.532010960244553e-18,
        0.9964332505606127,
        -3.4613700722201414e-20,
        3.4613700722201414e-20,
    ),
    (0.01, 0.7, 1e-12): (
        -6.296133182270611,
        -0.3976492538676557,
        0.42283082376522224,
        -0.16941108940123023,
        0.8154450451013414,
        -0.061285799821995196,
        -0.02058305154462526,
    ),
    (0.3, 12.0, 0.9999): (
        -13.204031318922556,
        -0.9999714870361974,
        2.851269836947558e-05,
        -2.8512167507509644e-05,
        0.9999544010008284,
        1.5597412069456685e-05,
        1.55972380662249e-05,
    ),
    (9.9, -3.0, 0.0001): (
        -3.9195870435150866,
        -2.190624373202635,
        3.1047908264486512,
        2.8376818182943544,
        -1.7939136708037513,
        -2.8731464135317735,
        2.924121458347961,
    ),
    (10.1, -0.2, 0.3): (
        -0.9901191625875126,
        -1.5650609022579012,
        2.9254089064703233,
        -0.2651726867556154,
        0.020688608460506262,
        -1.6214366543771568,
        2.644777502934448,
    ),
    (1000.0, -12.0, 0.0001): (
        -5.202890269901398,
        0.9893286339844257,
        0.010732816606103856,
        0.01085516704713356,
        0.8954769789042296,
        -0.0045795561731609424,
        0.0047020770062217426,
    ),
    (1000000.0, -0.2, 0.3): (
        -49922.274238210695,
        -160216.8980927298,
        263485.3221333939,
        -28382.165573644168,
        -49927.064915580406,
        -160216.9479267942,
        263485.07461648114,
    ),
    (1000000.0, 5.0, 0.9999): (
        -21559.68555384611,
        27989.42323778824,
        34263.31521071724,
        -39991.58732774832,
        -21562.66763034008,
        27989.91656967172,
        34263.30853792393,
    ),
    (5.0, -300.0, 1e-12): (
        -298.3905620875709,
        1.0,
        0.0,
        8.843436600416711e-75,
        0.999999999995,
        0.0,
        -1.6867516709168837e-80,
    ),
}


@pytest.mark.parametrize("point", EXTREMES, ids=str)
def test_digits_at_extreme_means_and_precisions(point):
    phi, eta, y = point
    score = rows.score_full(family("beta"), y, 1.0, eta, phi)
    dispersion = rows.dispersion_derivatives(family("beta"), y, 1.0, eta, phi)
    ours = [score[0], score[1], score[3], score[5], *dispersion]
    np.testing.assert_allclose(np.array(ours, dtype=float), EXTREMES[point], rtol=2e-13, atol=1e-13)


@pytest.mark.parametrize("link", ["logit", "cloglog"])
@pytest.mark.parametrize(("phi", "eta"), [(3.0, 0.4), (40.0, -1.5)])
def test_the_expected_weight_is_the_expectation_of_the_observed_one(link, phi, eta):
    kind = family("beta", link)
    mu = float(rows.mean(kind, np.array([eta]))[0])

    def expectation(entry):
        def integrand(y):
            return stats.beta.pdf(y, mu * phi, (1.0 - mu) * phi) * entry(rows.score_full(kind, y, 1.0, eta, phi))

        return integrate.quad(integrand, 0.0, 1.0, epsabs=1e-11, epsrel=1e-11, limit=400)[0]

    expected = float(rows.score_full(kind, 0.5, 1.0, eta, phi)[2])
    assert expectation(lambda row: float(row[3])) == pytest.approx(expected, rel=1e-7)
    assert expectation(lambda row: float(row[1]) ** 2) == pytest.approx(expected, rel=1e-7)
    assert expectation(lambda row: float(row[1])) == pytest.approx(0.0, abs=1e-7 * expected)


def test_the_slope_of_the_expected_weight_is_kept_in_the_tails():
    kind, eta = family("beta"), np.array([-30.0, -8.0, 8.0, 30.0])
    for phi in (0.01, 5.0, 1e4):
        found = rows.score_full(kind, 0.3, 1.0, eta, phi)[4]
        expected = slope(lambda at, phi=phi: rows.score_full(kind, 0.3, 1.0, at, phi)[2], eta)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("phi", [0.05, 2.0, 300.0])
def test_deviance_is_twice_the_distance_to_the_best_mean(phi):
    kind, y, mu = family("beta"), np.array([1e-4, 0.2, 0.5, 0.97]), np.array([0.3, 0.25, 0.5, 0.4])
    etas = np.linspace(-14.0, 14.0, 560_001)
    best = np.array([rows.score_full(kind, value, 1.0, etas, phi)[0].max() for value in y])
    expected = 2.0 * 1.5 * (best - rows.score_full(kind, y, 1.0, np.log(mu / (1.0 - mu)), phi)[0])
    np.testing.assert_allclose(rows.deviance_row(kind, y, 1.5, mu, phi), expected, rtol=1e-6, atol=1e-7)


def test_a_precise_beta_is_a_normal_distribution():
    y, mu, phi = 0.3002, 0.3, 1e9
    normal = stats.norm.logpdf(y, mu, np.sqrt(mu * (1.0 - mu) / phi))
    found = float(rows.log_density(family("beta", "identity"), y, 1.0, mu, phi))
    assert found == pytest.approx(normal, rel=2e-3)


def test_draws_of_tiny_shapes_stay_inside():
    kind = family("beta")
    draws = kind.distribution.simulate(np.random.default_rng(3), np.full(2000, 0.4), np.ones(2000), 0.01)
    assert draws.min() > 0.0 and draws.max() < 1.0
    quantiles = kind.distribution.quantile(np.array([0.0, 1e-12, 0.5, 1.0]), np.full(4, 0.4), np.ones(4), 0.01)
    assert quantiles.min() > 0.0 and quantiles.max() < 1.0 and (np.diff(quantiles) >= 0.0).all()
