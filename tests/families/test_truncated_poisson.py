"""The zero-truncated Poisson distribution where its mean is near 1 or large, and its mean and link."""

import numpy as np
import pytest

from bigmm.families import family, rows, simulate

# By mpmath 1.3 with 60 digits, from numerical derivatives of y log(lambda) - log(exp(lambda) - 1):
# (link, lambda, y): (ll, d1, w_observed, d w_observed / d eta)
EXTREMES = {
    ("log", 1e-08, 1.0): (
        -5.000000004166658e-09,
        -5.0000000083333245e-09,
        5.000000016666658e-09,
        5.000000033333325e-09,
    ),
    ("log", 1e-08, 3.0): (-36.84136149290473, 1.999999995, 5.000000016666658e-09, 5.000000033333325e-09),
    ("log", 0.4, 2.0): (-1.122948532159382, 0.7867020873121054, 0.2265252528302506, 0.25276928617742744),
    ("log", 41.0, 30.0): (70.40716200112924, -11.000000000000005, 41.0, 41.00000000000011),
    ("log", 10000.0, 9000.0): (72893.06334778565, -1000.0000000000086, 10000.00000000001, 10000.00000000001),
    ("identity", 1e-08, 1.0): (
        -5.000000004166667e-09,
        -0.5000000008333333,
        0.08333333333333333,
        -8.333333333333333e-11,
    ),
    ("identity", 0.3, 2.0): (-1.3577199958370254, 2.8083707531565842, 11.194070779523702, -74.07655630097864),
    ("sqrt", 1e-08, 1.0): (-5.000000004166667e-09, -0.00010000000016666667, 1.000000005, 0.0001),
    ("sqrt", 2.0, 5.0): (1.611149360668586, 3.7999419408647963, 5.86491196356671, -4.764925232849616),
    ("inverse", 0.45, 1.0): (-0.23342330731159444, 0.10881824403931073, 0.10131928418216142, -0.14131725683900662),
    ("inverse", 10000.0, 9000.0): (72893.06334778565, 9999999.999999994, 1099999999999.9998, -4.199999999999999e16),
}
ETA = {"log": np.log, "identity": float, "inverse": lambda rate: 1.0 / rate, "sqrt": np.sqrt}


@pytest.mark.parametrize("point", EXTREMES, ids=str)
def test_digits_at_extreme_means(point):
    link, rate, y = point
    found = rows.score_full(family("truncated_poisson", link), y, 1.0, ETA[link](rate), 1.0)
    np.testing.assert_allclose(found[[0, 1, 3, 5]], EXTREMES[point], rtol=2e-12, atol=2e-15)


@pytest.mark.parametrize("rate", [1e-8, 1e-3, 0.399, 0.401, 3.0, 39.9, 40.1, 1e4])
def test_mean_and_variance_are_those_of_counts_that_are_not_0(rate):
    kind, eta = family("truncated_poisson"), np.log(rate)
    counts = np.arange(1.0, 300.0 if rate < 50.0 else 12_000.0)
    mass = np.exp(rows.log_density(kind, counts, 1.0, eta))
    mean = float(rows.mean(kind, np.array([eta]))[0])
    assert mass.sum() == pytest.approx(1.0, rel=1e-9)
    assert mean == pytest.approx((mass * counts).sum(), rel=1e-9)
    assert float(rows.variance(kind, mean)) == pytest.approx((mass * (counts - mean) ** 2).sum(), rel=1e-7)
    slope = float(rows.mean_derivative(kind, np.array([eta]))[0])
    assert slope == pytest.approx(float(rows.score_full(kind, 1.0, 1.0, eta)[2]), rel=1e-12)


@pytest.mark.parametrize("link", ["log", "identity", "inverse", "sqrt"])
def test_the_link_of_a_mean_is_its_linear_predictor(link):
    kind, rate = family("truncated_poisson", link), np.array([1e-3, 0.3, 0.5, 4.0, 45.0, 1e4])
    eta = ETA[link](rate) if link != "identity" else rate
    np.testing.assert_allclose(rows.eta_of(kind, rows.mean(kind, eta)), eta, rtol=1e-12, atol=1e-12)


def test_a_mean_of_1_has_no_variance_and_a_mean_below_none_at_all():
    kind = family("truncated_poisson")
    assert float(rows.variance(kind, 1.0)) == 0.0 and float(rows.deviance_row(kind, 1.0, 1.0, 1.0)) == 0.0
    assert rows.eta_of(kind, np.array([0.5]))[0] == -np.inf and np.isnan(rows.eta_of(kind, np.array([np.nan]))[0])


def test_deviance_is_twice_the_distance_to_the_saturated_model():
    kind, y = family("truncated_poisson"), np.array([1.0, 2.0, 7.0, 300.0])
    mu = np.array([1.4, 2.0, 5.0, 320.0])
    saturated = np.maximum(rows.eta_of(kind, y), -40.0)
    expected = 6.0 * (
        rows.score_full(kind, y, 1.0, saturated)[0] - rows.score_full(kind, y, 1.0, rows.eta_of(kind, mu))[0]
    )
    np.testing.assert_allclose(rows.deviance_row(kind, y, 3.0, mu), expected, rtol=1e-10, atol=1e-11)


def test_simulated_counts_are_1_where_the_mean_is_near_1():
    kind = family("truncated_poisson")
    for mean in (1.0, 1.0 + 1e-9):
        assert (simulate(kind, np.random.default_rng(1), np.full(1000, mean)) == 1.0).all()
    near = simulate(kind, np.random.default_rng(1), np.full(100_000, 1.01))
    assert near.mean() == pytest.approx(1.01, abs=0.002) and near.max() >= 2.0
