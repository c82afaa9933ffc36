"""A fitted generalized model: its facts by family, summary, tables, record, pickles."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest

import bigmm
from bigmm.errors import UsageError
from bigmm.results import GlmmResults, LmmResults
from tests.results.test_record import FIELDS


def test_facts(poisson):
    assert isinstance(poisson, GlmmResults) and not isinstance(poisson, LmmResults)
    assert (poisson.family.name, poisson.link, poisson.nagq, poisson.laplace) == ("poisson", "log", 1, "expected")
    assert (poisson.se_method, poisson.sigma, poisson.scale, poisson.dispersion) == ("hessian", 1.0, 1.0, 1.0)
    assert poisson.npar == 2 + 4 and poisson.df_resid == poisson.nobs - 6
    assert poisson.deviance == poisson.objective == -2 * poisson.llf == -2 * poisson.logLik()
    assert poisson.aic == poisson.objective + 12 and poisson.bic == poisson.objective + 6 * np.log(400)
    assert poisson.n_groups == {"g": 15, "h": 8} and not poisson.reml
    assert poisson.passes > 3 and poisson.optimizer_result.converged == poisson.converged
    np.testing.assert_allclose(poisson.zvalues, poisson.params / poisson.bse)
    np.testing.assert_allclose(np.sqrt(np.diag(poisson.vcov())), poisson.bse)
    half = 1.959963984540054 * poisson.bse
    np.testing.assert_allclose(poisson.conf_int()["upper"], poisson.params + half)


def test_sigma_and_dispersion_by_family(gamma, negative, some):
    assert gamma.sigma == np.sqrt(gamma.dispersion) and 1 / 3 < gamma.dispersion < 1.2
    assert negative.sigma == 1.0 and negative.dispersion > 1.0
    assert gamma.npar == negative.npar == 4
    assert list(gamma.varcorr["group"]) == ["g", "Residual"] and list(negative.varcorr["group"]) == ["g"]
    assert gamma.varcorr["sdcor"].iloc[-1] == gamma.sigma
    assert list(gamma.tidy("ran_pars")["term"]) == ["sd__Intercept", "sd__Observation"]
    normal = bigmm.glmm("positive ~ x + (1 | g)", some, family="gaussian", link="log", progress=False)
    assert normal.sigma == np.sqrt(normal.dispersion) and list(normal.varcorr["group"]) == ["g", "Residual"]


def test_variances_are_those_of_the_linear_predictor(poisson, gamma):
    """theta is not divided by sigma: Var(b) = lambda lambda'."""
    np.testing.assert_allclose(gamma.varcorr["sdcor"].iloc[0], gamma.theta[0])
    lam = np.array([[poisson.theta[0], 0.0], [poisson.theta[1], poisson.theta[2]]])
    cov = lam @ lam.T
    np.testing.assert_allclose(poisson.varcorr["vcov"].iloc[:3], [cov[0, 0], cov[1, 1], cov[0, 1]])
    b = np.column_stack([poisson.ranef()["g"]["Intercept"], poisson.ranef()["g"]["x"]])
    np.testing.assert_allclose(poisson.u[:30].reshape(15, 2) @ lam.T, b, atol=1e-12)


HEADS = {
    "poisson": (
        "Laplace approximation",
        "poisson (log)",
        None,
        "expected, which are the observed ones with a canonical",
    ),
    "shares": (
        "adaptive Gauss-Hermite quadrature, nagq = 9",
        "binomial (logit)",
        None,
        "expected, which are the observed",
    ),
    "gamma": ("Laplace approximation", "gamma (log)", "variance = phi mu^2 / weight", "observed (the full Laplace"),
    "negative": (
        "Laplace approximation",
        "negative_binomial (log)",
        "shape: variance = mu + mu^2 / shape",
        "observed (the full Laplace likelihood)",
    ),
}


@pytest.mark.parametrize("name", HEADS)
def test_summary(name, request):
    model = request.getfixturevalue(name)
    method, family, meaning, weights = HEADS[name]
    lines = str(model.summary()).splitlines()
    assert lines[0].startswith(f"Generalized linear mixed model fit by maximum likelihood ({method}) (bigmm ")
    assert f" Family: {family}" in lines
    assert any(line.startswith(f"Weights in log|M|: {weights}") for line in lines)
    dispersion = [line for line in lines if line.startswith("Dispersion: ")]
    assert dispersion == ([] if meaning is None else [f"Dispersion: {model.dispersion:.5g} ({meaning})"])
    assert any(line.split() == ["Estimate", "Std.", "Error", "z", "value", "Pr(>|z|)"] for line in lines)
    assert "Standard errors: observed information of the maximised objective" in lines
    assert any(line.strip().startswith("Residual") for line in lines) == (name == "gamma")
    assert f" - {model.passes} passes over 400 rows" in str(model.summary())
    assert repr(model).startswith("<GlmmResults '")


def test_summary_of_the_fast_fit_and_of_compressed_rows(some):
    fast = bigmm.glmm("hit ~ x + (1 | g)", some, family="bernoulli", nagq=0, progress=False)
    text = str(fast.summary())
    assert "(Laplace approximation, nagq = 0: coefficients from PIRLS)" in text
    assert "Standard errors: working model, given theta" in text
    fewer = GlmmResults(replace(fast.fitted, compressed_rows=90))
    assert " - identical rows were counted once: 400 rows are 90 distinct ones" in str(fewer.summary())
    other = bigmm.glmm("hit ~ x + (1 | g)", some, family="bernoulli", link="probit", se="rx", progress=False)
    assert "Weights in log|M|: expected (lme4's criterion)" in str(other.summary())
    assert "Standard errors: working model, given theta" in str(other.summary())


def test_record(negative, shares):
    record = json.loads(json.dumps(negative.as_record(), allow_nan=False))
    assert set(FIELDS) <= set(record)
    assert [record[name] for name in ("family", "link", "reml", "nagq")] == ["negative_binomial", "log", False, 1]
    assert record["dispersion"] == negative.dispersion and record["sigma"] == 1.0
    assert (record["laplace"], record["se_method"], record["compressed_rows"]) == ("observed", "hessian", None)
    assert record["passes"] == negative.passes and record["varcorr"][-1]["group"] == "g"
    assert shares.as_record()["nagq"] == 9


def test_glance_and_tidy(poisson):
    row = poisson.glance().iloc[0]
    assert list(row.index) == ["nobs", "sigma", "logLik", "AIC", "BIC", "deviance", "df.residual"]
    assert row["sigma"] == 1.0 and row["deviance"] == poisson.objective
    assert list(poisson.tidy("ran_pars")["term"]) == ["sd__Intercept", "sd__x", "cor__Intercept.x", "sd__Intercept"]
    assert len(poisson.tidy("ran_vals")) == 15 * 2 + 8


def test_frozen_and_pickled(poisson, some):
    with pytest.raises(ValueError, match="read-only"):
        poisson.theta[...] = 0.0
    again = pickle.loads(pickle.dumps(poisson))
    assert isinstance(again, GlmmResults) and str(again.summary()) == str(poisson.summary())
    np.testing.assert_allclose(again.predict(some, se=True), poisson.predict(some, se=True), rtol=1e-12)
    with pytest.raises(UsageError, match="this fit was saved or pickled and no longer knows its data; pass newdata"):
        again.residuals()


def test_what_is_not_there_yet(poisson):
    with pytest.raises(UsageError, match=r"bootstrap\(\) is not available in this version"):
        poisson.bootstrap()
    with pytest.raises(UsageError, match=r"refit\(\) is not available in this version; call bigmm.lmm\(\) or glmm\(\)"):
        poisson.refit()
    with pytest.raises(UsageError, match="profiles are available for linear mixed models"):
        poisson.conf_int(method="profile")
