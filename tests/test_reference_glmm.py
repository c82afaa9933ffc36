"""Every generalized linear mixed model of tests/reference, fitted from Parquet, agrees with lme4 1.1-31.

Families with a dispersion agree with glmmTMB's full-likelihood Laplace fit of the same model (`crosscheck`), because
lme4's criterion is no likelihood there. Objective within 1e-4 + 1e-7 |objective| or lower; fixed effects and standard
errors within 1e-2 of a standard error; standard deviations within 1e-3; fitted values and residuals within 1e-5 where
the optimum is that well determined. The fit of a case is shared by its tests.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import bigmm

REFERENCE = Path(__file__).parent / "reference"
DOCUMENT = json.loads((REFERENCE / "reference_glmm.json").read_text())
CASES = {case["id"]: case for case in DOCUMENT["cases"]}
SPELLED = {"Gamma": "gamma", "inverse.gaussian": "inverse_gaussian", "negative.binomial": "negative_binomial"}
LIKELIHOOD = [name for name, case in CASES.items() if case["family"] not in SPELLED]
CROSSCHECKED = [name for name, case in CASES.items() if case["family"] in SPELLED and "crosscheck" in case["expected"]]


def levels_of(data: str) -> dict[str, list[str]]:
    """Factors of a data set with the order of their levels."""
    columns = DOCUMENT["datasets"][data]["columns"]
    return {column["name"]: column["levels"] for column in columns if column["type"] == "category"}


def python_name(r_name: str, factors: dict[str, list[str]]) -> str:
    """R's coefficient name in formulaic's spelling: "period2" is "period[T.2]"."""
    for factor, levels in factors.items():
        if r_name.startswith(factor) and r_name.removeprefix(factor) in levels:
            return f"{factor}[T.{r_name.removeprefix(factor)}]"
    return "Intercept" if r_name == "(Intercept)" else r_name


class Fit:
    """One case: what lme4 (or glmmTMB) gave, what bigmm gives, and the names between them."""

    def __init__(self, case: dict):
        self.case, self.expected = case, case["expected"]
        self.factors = levels_of(case["data"])
        self.path = REFERENCE / DOCUMENT["datasets"][case["data"]]["file"]
        self.model = bigmm.glmm(
            case["formula"],
            self.path,
            family=SPELLED.get(case["family"], case["family"]),
            link=case["link"],
            nagq=case["nAGQ"],
            weights=case["weights"],
            offset=case["offset"],
            categories=self.factors,
        )

    def named(self, values: dict[str, float]) -> dict[str, float]:
        return {python_name(name, self.factors): value for name, value in values.items()}

    def deviation(self, group: str, term: str) -> float:
        rows = [row for row in self.expected["varcorr"] if row["var1"] == term and row["var2"] is None]
        return next(row["sdcor"] for row in rows if row["group"] == group)


FITS: dict[str, Fit] = {}


def fit_of(name: str) -> Fit:
    if name not in FITS:
        FITS[name] = Fit(CASES[name])
    return FITS[name]


@pytest.fixture(params=LIKELIHOOD)
def fit(request) -> Fit:
    return fit_of(request.param)


@pytest.fixture(params=CROSSCHECKED)
def checked(request) -> Fit:
    return fit_of(request.param)


def test_every_case_is_here():
    """Those left out are lme4's dispersion families without a crosscheck: nothing to compare with."""
    assert (len(CASES), len(LIKELIHOOD), len(CROSSCHECKED), len(DOCUMENT["lrt"])) == (51, 44, 3, 2)


def compare_objective(model, expected: float) -> None:
    tolerance = 1e-4 + 1e-7 * abs(expected)
    assert model.objective <= expected + tolerance
    assert model.objective >= expected - max(1e-2, tolerance)  # lower is better, but not another function
    assert model.llf == -model.objective / 2
    assert model.converged


def compare_coefficients(fit: Fit, fixef: dict, errors: dict) -> None:
    fixef, errors = fit.named(fixef), fit.named(errors)
    assert list(fit.model.params.index) == list(fixef)
    for name, value in fixef.items():
        assert fit.model.params[name] == pytest.approx(value, abs=1e-2 * errors[name], rel=0), name
        assert fit.model.bse[name] == pytest.approx(errors[name], rel=1e-2), name


def test_objective(fit):
    compare_objective(fit.model, fit.expected.get("objective_full", fit.expected["objective"]))


@pytest.mark.parametrize("name", [name for name in LIKELIHOOD if CASES[name]["nAGQ"] >= 9])
def test_quadrature_is_the_marginal_likelihood(name):
    """Fine numerical integration at lme4's estimates."""
    fit = fit_of(name)
    exact = fit.expected["exact_marginal_logLik_at_estimates"]
    assert fit.model.llf == pytest.approx(exact, abs=2e-4 * abs(exact) / 100 + 1e-3)


def test_information_criteria_and_counts(fit):
    expected, model = fit.expected, fit.model
    shift = expected.get("objective_full", expected["objective"]) - expected["objective"]
    tolerance = 1e-3 + 1e-6 * abs(expected["objective"])
    assert model.aic - shift == pytest.approx(expected["AIC"], abs=tolerance)
    assert model.bic - shift == pytest.approx(expected["BIC"], abs=tolerance)
    assert (model.npar, model.df_resid, model.nobs) == (expected["npar"], expected["df_resid"], expected["nobs"])
    assert dict(model.n_groups) == expected["ngroups"]
    assert model.is_singular == expected["is_singular"]
    assert (model.sigma, model.dispersion) == (1.0, 1.0)


def test_fixed_effects(fit):
    compare_coefficients(fit, fit.expected["fixef"], fit.expected["se"])
    assert fit.model.se_method == ("hessian" if fit.case["nAGQ"] else "rx")


def test_variance_components(fit):
    expected, actual = fit.expected["varcorr"], fit.model.varcorr.to_dict("records")
    assert len(actual) == len(expected)
    largest = max(row["sdcor"] for row in expected if row["var2"] is None)
    for row, ours in zip(expected, actual):
        names = [python_name(name, fit.factors) if name else None for name in (row["var1"], row["var2"])]
        assert [ours["group"], ours["name1"], ours["name2"]] == [row["group"], *names]
        slack = 1e-2 if row["var2"] else 1e-3 * row["sdcor"] + 1e-3 * largest
        assert ours["sdcor"] == pytest.approx(row["sdcor"], abs=slack), row


def test_conditional_modes_and_their_deviations(fit):
    frames = fit.model.ranef(condvar=True)
    assert {group: len(frame) for group, frame in frames.items()} == fit.expected["ngroups"]
    for row, spread in zip(fit.expected["ranef_sample"], fit.expected["condvar_sample"], strict=True):
        term, frame = python_name(row["term"], fit.factors), frames[row["group"]]
        scale = fit.deviation(row["group"], row["term"])
        assert frame.loc[row["level"], term] == pytest.approx(row["value"], abs=2e-3 * scale), row
        assert frame.loc[spread["level"], f"{term}_sd"] == pytest.approx(spread["sd"], abs=1e-3 * scale), spread


def test_log_determinant_at_the_mode(fit):
    assert fit.model.fitted.estimates.logdet_z == pytest.approx(fit.expected["devcomp"]["ldL2"], rel=2e-3)


def test_fitted_values_and_residuals(fit):
    """The first ten rows, and sums over all."""
    model, expected = fit.model, fit.expected
    fitted = model.predict(fit.path)
    scale = max(1.0, np.abs(expected["fitted_sample"]).max())
    np.testing.assert_allclose(fitted[:10], expected["fitted_sample"], atol=1e-5 * scale)
    assert fitted.sum() == pytest.approx(expected["fitted_sum"], rel=1e-5)
    for kind, values in expected["resid_sample"].items():
        actual = model.residuals(kind, fit.path)
        size = max(1.0, np.abs(values).max())
        np.testing.assert_allclose(actual[:10], values, atol=1e-5 * size, err_msg=kind)
        if kind == "response":
            assert np.square(actual).sum() == pytest.approx(expected["resid_ss_response"], rel=1e-4)


def test_augment_agrees_with_the_parts(fit):
    table = fit.model.augment(fit.path)
    np.testing.assert_allclose(table[".mu"], fit.model.predict(fit.path), rtol=1e-12)
    np.testing.assert_allclose(table[".fitted"], fit.model.predict(fit.path, type="link"), rtol=1e-12)
    np.testing.assert_allclose(table[".resid"], fit.model.residuals("deviance", fit.path), rtol=1e-12)
    np.testing.assert_allclose(table[".wtres"], fit.model.residuals("pearson", fit.path), rtol=1e-12)
    assert table[".hat"].sum() == pytest.approx(fit.model.effective_df["total"], rel=1e-6)


def test_predictions(fit):
    for request in fit.expected.get("predict_newdata", []):
        actual = fit.model.predict(
            pd.DataFrame(request["newdata"]),
            random=request["re_form"] != "none",
            new_levels="population" if request["allow_new_levels"] else "raise",
            type=request["type"],
        )
        expected = np.array(request["expected"], dtype=float)
        slack = 1e-3 * np.nanmax(np.abs(expected))
        np.testing.assert_allclose(actual, expected, atol=slack, rtol=0, err_msg=request["what"])


def test_families_with_a_dispersion(checked):
    """glmmTMB's sigma is sqrt(phi) for the gamma and the shape for the negative binomial."""
    check, model = checked.expected["crosscheck"], checked.model
    compare_objective(model, check["objective"])
    compare_coefficients(checked, check["fixef"], check["se"])
    assert model.laplace == "observed"
    scaled = checked.case["family"] == "Gamma"
    assert (model.sigma if scaled else model.dispersion) == pytest.approx(check["sigma"], rel=1e-3)
    ((group, terms),) = check["sd"].items()
    ((_, deviation),) = terms.items()
    table = model.varcorr
    assert list(table["group"]) == ([group, "Residual"] if scaled else [group])
    assert table["sdcor"].iloc[0] == pytest.approx(deviation, rel=1e-3)
    assert model.npar == checked.expected["npar"]


@pytest.mark.parametrize("test", DOCUMENT["lrt"], ids=lambda test: test["id"])
def test_likelihood_ratio(test):
    table = bigmm.lrt(fit_of(test["big"]).model, fit_of(test["small"]).model)
    for column in ("npar", "AIC", "BIC", "logLik"):
        np.testing.assert_allclose(table[column], test[column], atol=1e-3, rtol=0, err_msg=column)
    last = table.iloc[-1]
    assert last["Chisq"] == pytest.approx(test["chisq"], abs=1e-3)
    assert last["Df"] == test["df"]
    assert last["Pr(>Chisq)"] == pytest.approx(test["p"], rel=1e-3)


@pytest.mark.parametrize(
    "name", ["cbpp_nagq1", "cbpp_nagq9", "poisson_slope_nagq1", "verbagg_nagq0", "gamma_log_nagq1"]
)
def test_saved_and_loaded(name, tmp_path):
    """Loading evaluates log|M|, and the Laplace objective, again."""
    model = fit_of(name).model
    loaded = bigmm.load(model.save(tmp_path / "model"))
    assert loaded.as_record() == model.as_record()
    assert str(loaded.summary()) == str(model.summary())
