"""Inverse links, residuals and quantiles on columns with missing values; draws have the family's distribution."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bigmm.families import FAMILIES, family, simulate
from bigmm.results.draws import uniform
from bigmm.results.scale import RESIDUALS, mean, mean_slope, residuals

ETA = np.array([-0.7, np.nan, 0.4])


def test_missing_values_stay_missing():
    for link in ("logit", "probit", "cloglog", "cauchit"):
        assert np.isnan(mean(family("binomial", link), ETA)).tolist() == [False, True, False]
        assert np.isnan(mean_slope(family("binomial", link), ETA)).tolist() == [False, True, False]
    for link in ("log", "sqrt", "inverse", "identity"):
        assert np.isnan(mean(family("poisson", link), ETA)).tolist() == [False, True, False]


@pytest.mark.parametrize("kind", RESIDUALS)
def test_residuals_of_incomplete_rows(kind):
    y, w, eta = np.array([1.0, np.nan, 0.0, 2.0]), np.array([1.0, 1.0, np.nan, 2.0]), np.array([0.1, 0.2, 0.3, np.nan])
    out = residuals(family("poisson"), kind, y, w, eta, 1.0)
    assert np.isnan(out).tolist() == [False, True, True, True]


def test_residuals_by_hand():
    """Binomial, 3 of 4 successes at probability 1/2."""
    model, y, w, eta = family("binomial"), np.array([0.75]), np.array([4.0]), np.array([0.0])
    assert residuals(model, "response", y, w, eta, 1.0)[0] == pytest.approx(0.25)
    assert residuals(model, "pearson", y, w, eta, 1.0)[0] == pytest.approx(0.25 * np.sqrt(4.0 / 0.25))
    unit = 2 * 4 * (0.75 * np.log(0.75 / 0.5) + 0.25 * np.log(0.25 / 0.5))
    assert residuals(model, "deviance", y, w, eta, 1.0)[0] == pytest.approx(np.sqrt(unit))
    assert residuals(model, "working", y, w, eta, 1.0)[0] == pytest.approx(0.25 / 0.25)


CASES = {"bernoulli": 0.3, "binomial": 0.3, "poisson": 2.5, "negative_binomial": 2.5, "beta": 0.3}


@pytest.mark.parametrize("name", FAMILIES)
def test_quantiles_draw_what_the_family_draws(name):
    """By inversion of one uniform a row, against the samplers of `families`."""
    n, rng = 20_000, np.random.default_rng(3)
    mu, w, phi = np.full(n, CASES.get(name, 1.7)), np.full(n, 6.0 if name == "binomial" else 1.0), 0.8
    ours = family(name).distribution.quantile(uniform(5, ("row", 0), 0, n), mu, w, phi)
    theirs = simulate(family(name), rng, mu, w, phi)
    assert stats.ks_2samp(ours, theirs).pvalue > 1e-3
    assert ours.mean() == pytest.approx(mu[0], abs=5 * theirs.std() / np.sqrt(n))
    assert ours.std() == pytest.approx(theirs.std(), rel=0.05)


@pytest.mark.parametrize("name", FAMILIES)
def test_quantiles_increase_with_u(name):
    """Means are monotone in u, so common random numbers work."""
    u = np.linspace(0.001, 0.999, 101)
    mu = np.full(101, CASES.get(name, 1.7))
    assert (np.diff(family(name).distribution.quantile(u, mu, np.full(101, 4.0), 0.8)) >= 0).all()


def test_weights_narrow_the_draws():
    u = uniform(1, ("row", 0), 0, 20_000)
    for name in ("gaussian", "gamma", "inverse_gaussian"):
        one, four = (
            family(name).distribution.quantile(u, np.full(len(u), 1.5), np.full(len(u), w), 0.3) for w in (1.0, 4.0)
        )
        assert four.std() == pytest.approx(one.std() / 2, rel=0.06), name
