"""Beta and truncated Poisson models from the table to the saved fit: what is not in tests/test_reference_glmmtmb.py."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import integrate, stats

import bigmm
from bigmm.cli.app import run
from bigmm.errors import DataError, UsageError
from bigmm.sklearn import GLMMRegressor

FORMULA = {"beta": "share ~ x + (1 | g)", "truncated_poisson": "count ~ x + (1 | g)"}


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    rng = np.random.default_rng(11)
    rows, groups = 240, 16
    g, x = rng.integers(0, groups, rows), np.round(rng.normal(size=rows), 2)
    eta = 0.2 + 0.5 * x + rng.normal(0.0, 0.6, groups)[g]
    mu, rate = 1.0 / (1.0 + np.exp(-eta)), np.exp(eta)
    share = np.clip(np.round(rng.beta(9.0 * mu, 9.0 * (1.0 - mu)), 4), 1e-4, 0.9999)
    count = stats.poisson.ppf(np.exp(-rate) + rng.random(rows) * -np.expm1(-rate), rate)
    return pd.DataFrame({"x": x, "g": [f"g{i:02d}" for i in g], "share": share, "count": count, "w": 1 + g % 3})


@pytest.fixture(scope="module", params=FORMULA)
def family(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def model(family, table) -> bigmm.GlmmResults:
    return bigmm.glmm(FORMULA[family], table, family=family)


def log_density(family, y, eta, phi):
    if family == "beta":
        mu = 1.0 / (1.0 + np.exp(-eta))
        return stats.beta.logpdf(y, mu * phi, (1.0 - mu) * phi)
    rate = np.exp(eta)
    return stats.poisson.logpmf(y, rate) - np.log(-np.expm1(-rate))


def test_quadrature_is_the_marginal_likelihood(family, table):
    model = bigmm.glmm(FORMULA[family], table, family=family, nagq=15)
    deviation = model.varcorr["sdcor"].iloc[0]
    total = 0.0
    for _, group in table.groupby("g"):
        y = group[model.fitted.layout.response].to_numpy()
        eta = model.params["Intercept"] + model.params["x"] * group["x"].to_numpy()

        def integrand(b, y=y, eta=eta):
            return np.exp(log_density(family, y, eta + b, model.dispersion).sum()) * stats.norm.pdf(b, 0.0, deviation)

        total += np.log(integrate.quad(integrand, -5.0, 5.0, epsabs=0.0, epsrel=1e-11, limit=300)[0])
    assert model.llf == pytest.approx(total, abs=1e-5)


def test_fast_coefficients_are_near_those_of_laplace(family, table, model):
    fast = bigmm.glmm(FORMULA[family], table, family=family, nagq=0)
    assert fast.converged
    np.testing.assert_allclose(fast.params, model.params, atol=0.3 * model.bse.max())
    assert fast.objective >= model.objective - 1e-6


def test_rows_twice_are_rows_of_weight_two(family, table):
    once = bigmm.glmm(FORMULA[family], table.assign(two=2.0), family=family, weights="two")
    twice = bigmm.glmm(FORMULA[family], pd.concat([table, table]), family=family)
    assert once.objective == pytest.approx(twice.objective, abs=1e-6)
    np.testing.assert_allclose(once.params, twice.params, rtol=1e-5)
    np.testing.assert_allclose(once.bse, twice.bse, rtol=1e-4)


def test_identical_truncated_counts_are_counted_once(table):
    coarse = table.assign(x=np.round(table["x"]))
    formula = FORMULA["truncated_poisson"]
    counted = bigmm.glmm(formula, coarse, family="truncated_poisson")
    apart = bigmm.glmm(formula, coarse, family="truncated_poisson", compress=False)
    assert counted.fitted.compressed_rows < len(coarse)
    assert counted.objective == pytest.approx(apart.objective, abs=1e-8)


def test_the_summary_names_family_and_dispersion(family, model):
    text = str(model.summary())
    assert f"{family} (" in text
    assert ("precision: variance = mu (1 - mu) / (1 + precision)" in text) == (family == "beta")


def test_simulated_responses_are_in_range_and_have_the_model_s_mean(family, table, model):
    draws = np.column_stack([model.simulate(table, seed=seed) for seed in range(40)])
    if family == "beta":
        assert draws.min() > 0.0 and draws.max() < 1.0
    else:
        assert draws.min() >= 1.0 and (draws == np.round(draws)).all()


def test_residuals_and_augmented_columns_are_finite(family, table, model):
    for kind in ("response", "pearson", "deviance", "working"):
        residuals = np.asarray(model.residuals(kind, data=table))
        assert np.isfinite(residuals).all()
    signs = np.sign(np.asarray(model.residuals("response", data=table)))
    assert (np.sign(np.asarray(model.residuals("deviance", data=table))) * signs >= 0.0).all()


def test_a_saved_fit_is_the_fit(tmp_path, table, model):
    model.save(tmp_path / "fit")
    again = bigmm.load(tmp_path / "fit")
    assert (again.family, again.objective, again.dispersion) == (model.family, model.objective, model.dispersion)
    np.testing.assert_array_equal(again.predict(table), model.predict(table))


def test_anova_tests_a_covariate(family, table, model):
    smaller = bigmm.glmm(FORMULA[family].replace("x +", "1 +"), table, family=family)
    compared = bigmm.lrt(smaller, model)
    statistic = smaller.objective - model.objective
    assert str(compared).count("\n") >= 2
    assert statistic > 20.0


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("beta", 0.0, "response 0: a beta response lies strictly between 0 and 1"),
        ("beta", 1.0, "response 1: a beta response lies strictly between 0 and 1"),
        ("truncated_poisson", 0.0, "response 0: a truncated_poisson response is a count 1, 2, 3, ..."),
    ],
)
def test_a_response_out_of_range_is_named_with_its_column(table, name, value, message):
    response = FORMULA[name].split(" ~")[0]
    wrong = table.assign(**{response: table[response].where(table.index != 17, value)})
    with pytest.raises(DataError) as caught:
        bigmm.glmm(FORMULA[name], wrong, family=name)
    assert message in str(caught.value) and repr(response) in str(caught.value)


def test_expected_weights_are_refused_for_beta(table):
    with pytest.raises(UsageError, match="laplace='expected' is no likelihood for beta"):
        bigmm.glmm(FORMULA["beta"], table, family="beta", laplace="expected")


def test_beta_responses_without_error_are_advised_on(table):
    exact = table.assign(share=1.0 / (1.0 + np.exp(-0.3 - 0.5 * table["x"])))
    with pytest.warns(bigmm.BigmmWarning, match="the precision of the beta grows without limit"):
        bigmm.glmm(FORMULA["beta"], exact, family="beta")


def test_the_command_line_fits_it(tmp_path, family, table, model):
    table.to_parquet(tmp_path / "rows.parquet")
    out = tmp_path / "out"
    assert run(["fit", FORMULA[family], str(tmp_path / "rows.parquet"), "--family", family, "--out", str(out)]) == 0
    record = json.loads((out / "fit.json").read_text())
    assert (record["family"], record["link"]) == (family, model.link)
    assert record["objective"] == pytest.approx(model.objective, abs=1e-7)


def test_the_regressor_takes_it(family, table, model):
    regressor = GLMMRegressor(FORMULA[family], family=family).fit(table)
    np.testing.assert_allclose(regressor.predict(table), model.predict(table), rtol=1e-6)
    assert 0.0 < regressor.score(table) < 1.0
