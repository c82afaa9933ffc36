"""Simulated responses of generalized models: reproducible, independent of partitioning, in the family's range."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bigmm


def test_partitioning_does_not_matter(poisson, some, generalized_lake):
    whole = poisson.simulate(some, seed=4, nsim=2)
    assert whole.shape == (400, 2)
    np.testing.assert_array_equal(poisson.simulate(generalized_lake, seed=4, nsim=2), whole)
    np.testing.assert_array_equal(poisson.simulate(seed=4), whole[:, 0])
    assert (poisson.simulate(some, seed=5) != whole[:, 0]).any()


@pytest.mark.parametrize("name", ["poisson", "shares", "gamma", "negative"])
def test_ranges(name, request, some):
    model = request.getfixturevalue(name)
    draws = model.simulate(some, seed=1)
    assert np.isfinite(draws).all() and draws.min() >= 0.0 and draws.std() > 0.0
    if name in ("poisson", "negative"):
        np.testing.assert_array_equal(draws, np.round(draws))
    if name == "shares":  # a proportion of the row's trials
        counts = draws * some["size"]
        np.testing.assert_allclose(counts, np.round(counts), atol=1e-9)
        assert draws.max() <= 1.0


def test_bernoulli_draws_are_zero_and_one(some):
    model = bigmm.glmm("hit ~ x + (1 | g)", some, family="bernoulli", nagq=0, progress=False)
    draws = model.simulate(some, seed=2, nsim=400, use_modes=True)
    assert set(np.unique(draws)) == {0.0, 1.0}
    p = model.predict(some)
    error = (draws.mean(axis=1) - p) / np.sqrt(p * (1 - p) / 400)
    assert error.std() == pytest.approx(1.0, rel=0.15) and abs(error.mean()) < 0.25


def test_moments_with_estimated_modes(gamma, negative, some):
    for model, variance in [
        (gamma, lambda mu: gamma.dispersion * mu**2),
        (negative, lambda mu: mu + mu**2 / negative.dispersion),
    ]:
        mu = model.predict(some)
        draws = model.simulate(some, seed=3, nsim=300, use_modes=True)
        error = (draws.mean(axis=1) - mu) / np.sqrt(variance(mu) / 300)
        assert error.std() == pytest.approx(1.0, rel=0.15)


def test_new_effects_spread_the_means(poisson):
    """Over replicates log E(y) = x'beta + offset + half the variance of z'b."""
    new = pd.DataFrame({"x": [1.0], "off": [1.0], "g": ["g00"], "h": ["h0"]})
    cov_g, cov_h = (lam @ lam.T for lam in poisson.fitted.lambdas())
    variance = np.ones(2) @ cov_g @ np.ones(2) + cov_h[0, 0]
    draws = poisson.simulate(new, seed=1, nsim=4000)
    expected = np.exp(poisson.predict(new, random=False, type="link")[0] + variance / 2)
    assert draws.mean() == pytest.approx(expected, rel=0.12)


def test_rows_that_cannot_be_predicted(poisson, some):
    assert np.isnan(poisson.simulate(some.assign(x=np.nan).iloc[:3])).all()
