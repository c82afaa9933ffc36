"""Log densities against scipy.stats, residuals against R, simulated moments."""

import numpy as np
import pytest
from scipy import optimize, stats

from bigmm.families import family, rows, simulate
from tests.families.lme4_rows import LME4_RESIDUALS, SHAPE
from tests.families.pairs import PAIRS, PHI, sample_rows


def truncated_poisson(y, mean):
    """Log mass of a Poisson count that is not 0, by the mean of those counts."""
    rate = np.array([optimize.brentq(lambda r, m=m: r / -np.expm1(-r) - m, 1e-12, m, xtol=1e-15) for m in mean])
    return stats.poisson.logpmf(y, rate) - np.log(-np.expm1(-rate))


# R's densities in scipy's words; w divides phi of a scale, multiplies the rest (binomial: trials)
LOG_DENSITIES = {
    "bernoulli": lambda y, w, mu: w * stats.bernoulli.logpmf(y, mu),
    "binomial": lambda y, w, mu: stats.binom.logpmf(np.round(w * y), w, mu),
    "poisson": lambda y, w, mu: w * stats.poisson.logpmf(y, mu),
    "negative_binomial": lambda y, w, mu: w * stats.nbinom.logpmf(y, PHI, PHI / (PHI + mu)),
    "gaussian": lambda y, w, mu: stats.norm.logpdf(y, mu, np.sqrt(PHI / w)),
    "gamma": lambda y, w, mu: stats.gamma.logpdf(y, w / PHI, scale=mu * PHI / w),
    "inverse_gaussian": lambda y, w, mu: stats.invgauss.logpdf(y, mu * PHI / w, scale=w / PHI),
    "beta": lambda y, w, mu: w * stats.beta.logpdf(y, mu * PHI, (1.0 - mu) * PHI),
    "truncated_poisson": lambda y, w, mu: w * truncated_poisson(y, mu),
}


@pytest.mark.parametrize("kind", PAIRS, ids=str)
def test_log_likelihood_is_r_s_density(kind):
    y, w, eta = sample_rows(kind)
    found = rows.log_density(kind, y, w, eta, PHI)
    np.testing.assert_allclose(found, LOG_DENSITIES[kind.name](y, w, rows.mean(kind, eta)), rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("name", ["bernoulli", "binomial", "poisson", "negative_binomial", "gamma", "inverse_gaussian"])
def test_deviance_is_twice_the_distance_to_the_saturated_model(name):
    kind = family(name, "identity")
    y, w, mu = sample_rows(kind)
    inner = np.clip(y, 1e-12, 1.0 - 1e-12) if name in ("bernoulli", "binomial") else np.maximum(y, 1e-12)
    scale = 1.0 if name == "negative_binomial" or not kind.has_dispersion else PHI
    saturated = rows.score_full(kind, y, w, inner, PHI)[0]
    expected = 2.0 * scale * (saturated - rows.score_full(kind, y, w, mu, PHI)[0])
    found = rows.deviance_row(kind, y, w, mu, PHI)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    assert found.min() >= 0.0 and found.max() > 0.1


def test_deviance_keeps_its_digits_near_a_perfect_fit():
    y, mu = 5.0, 5.0 * (1.0 + 1e-7)
    relative = (y - mu) / mu
    assert rows.deviance_row(family("poisson"), y, 1.0, mu) == pytest.approx(mu * relative**2, rel=1e-6, abs=0.0)
    assert rows.deviance_row(family("gamma"), y, 1.0, mu) == pytest.approx(relative**2, rel=1e-6, abs=0.0)


@pytest.mark.parametrize("name", LME4_RESIDUALS)
def test_residuals_are_lme4_s(name):
    y, w, mu, pearson, deviance = np.array(LME4_RESIDUALS[name]).T
    kind = family(name)
    np.testing.assert_allclose(rows.pearson_residuals(kind, y, w, mu, SHAPE), pearson, rtol=1e-8)
    np.testing.assert_allclose(rows.deviance_residuals(kind, y, w, mu, SHAPE), deviance, rtol=1e-6)


@pytest.mark.parametrize("name", LOG_DENSITIES)
def test_simulated_responses_have_the_family_s_mean_and_variance(name):
    n, w, phi = 40_000, 3.0, 0.4
    kind, mu = family(name), 1.6 if name == "truncated_poisson" else 0.6
    y = simulate(kind, np.random.default_rng(5), np.full(n, mu), w, phi)
    variance = float(rows.variance(kind, mu, phi))
    # weights divide the variance of a mean of trials and of what has phi / w; counts have none
    variance /= w if name in ("binomial", "gaussian", "gamma", "inverse_gaussian") else 1.0
    assert y.mean() == pytest.approx(mu, abs=5.0 * np.sqrt(variance / n))
    assert y.var() == pytest.approx(variance, rel=0.08)
    assert np.array_equal(y, simulate(kind, np.random.default_rng(5), np.full(n, mu), w, phi))


def test_simulated_counts_of_an_absurd_mean_do_not_stop():
    kind = family("poisson")
    assert simulate(kind, np.random.default_rng(1), rows.mean(kind, np.array([500.0]))) > 1e17
