"""Every linear mixed model of tests/reference, fitted from Parquet, agrees with lme4 1.1-31 within tolerances.

Objective within 1e-5 + 1e-8 |objective| or lower; fixed effects within 1e-4 of their standard error; standard errors,
sigma and standard deviations within 1e-4, correlations 1e-3; conditional modes within 1e-3 of their standard deviation;
predictions within 1e-4 of the response's scale. The fit of a case is shared by its tests.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import bigmm

REFERENCE = Path(__file__).parent / "reference"
DOCUMENT = json.loads((REFERENCE / "reference.json").read_text())
CASES = {case["id"]: case for case in DOCUMENT["cases"]}
RELATIVE = 1e-4


def levels_of(data: str) -> dict[str, list[str]]:
    """Factors of a data set with the order of their levels."""
    columns = DOCUMENT["datasets"][data]["columns"]
    return {column["name"]: column["levels"] for column in columns if column["type"] == "category"}


def python_name(r_name: str, factors: dict[str, list[str]]) -> str:
    """R's coefficient name in formulaic's spelling: "recipeB:temp" is "recipe[T.B]:temp"."""

    def part(name: str) -> str:
        for factor, levels in factors.items():
            if name.startswith(factor) and name.removeprefix(factor) in levels:
                return f"{factor}[T.{name.removeprefix(factor)}]"
        return name

    return "Intercept" if r_name == "(Intercept)" else ":".join(map(part, r_name.split(":")))


def fit_case(case: dict):
    data = DOCUMENT["datasets"][case["data"]]["file"]
    return bigmm.lmm(
        case["formula"],
        REFERENCE / data,
        reml=case["REML"],
        weights=case["weights"],
        offset=case["offset"],
        categories=levels_of(case["data"]),
    )


class Fit:
    """One case: what lme4 gave, what bigmm gives, and the names between them."""

    def __init__(self, case: dict):
        self.case, self.expected = case, case["expected"]
        self.factors = levels_of(case["data"])
        self.model = fit_case(case)

    def named(self, values: dict[str, float]) -> dict[str, float]:
        return {python_name(name, self.factors): value for name, value in values.items()}

    def path(self) -> Path:
        return REFERENCE / DOCUMENT["datasets"][self.case["data"]]["file"]

    def deviation(self, group: str, name: str | None) -> float:
        """lme4's standard deviation of one random effect; `||` has split its group into g, g.1, ..."""
        rows = [row for row in self.expected["varcorr"] if row["var1"] == name and row["var2"] is None]
        return next(row["sdcor"] for row in rows if row["group"].split(".")[0] == group)


@pytest.fixture(scope="module", params=sorted(CASES))
def fit(request) -> Fit:
    return Fit(CASES[request.param])


def objective_tolerance(objective: float) -> float:
    return 1e-5 + 1e-8 * abs(objective)


def test_every_case_is_here():
    assert len(CASES) == 51
    assert len(DOCUMENT["lrt"]) == 7


def test_objective(fit):
    expected = fit.expected["objective"]
    tolerance = objective_tolerance(expected)
    assert fit.model.objective <= expected + tolerance
    assert fit.model.objective >= expected - max(1e-2, tolerance)  # lower is better, but not another function
    assert fit.model.llf == -fit.model.objective / 2
    assert fit.model.converged


def test_criterion_at_other_theta(fit):
    for point in fit.expected["objective_at"]:
        value = fit.model.fitted.criterion.value(np.array(point["theta"], dtype=float))
        assert value == pytest.approx(point["objective"], rel=1e-9, abs=1e-6)


def test_information_criteria_and_counts(fit):
    expected, model = fit.expected, fit.model
    tolerance = 10 * objective_tolerance(expected["objective"])
    assert model.aic == pytest.approx(expected["AIC"], abs=tolerance)
    assert model.bic == pytest.approx(expected["BIC"], abs=tolerance)
    assert (model.npar, model.df_resid, model.nobs) == (expected["npar"], expected["df_resid"], expected["nobs"])
    assert dict(model.n_groups) == expected["ngroups"]
    assert model.is_singular == expected["is_singular"]


def test_fixed_effects(fit):
    fixef, errors = fit.named(fit.expected["fixef"]), fit.named(fit.expected["se"])
    dropped = fit.expected.get("dropped_columns") or []
    names = [name for name in fit.model.params.index if name not in dropped]
    assert names == list(fixef)
    assert fit.model.params[dropped].isna().all()
    for name in names:
        assert fit.model.params[name] == pytest.approx(fixef[name], abs=1e-4 * errors[name], rel=0), name
        assert fit.model.bse[name] == pytest.approx(errors[name], rel=RELATIVE), name


def test_covariance_of_the_fixed_effects(fit):
    names = list(fit.named(fit.expected["fixef"]))
    expected = np.array(fit.expected["vcov_beta"], dtype=float)
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    actual = fit.model.cov_params().loc[names, names].to_numpy()
    np.testing.assert_array_less(np.abs(actual - expected) / scale, 3 * RELATIVE)


def test_variance_components(fit):
    expected = fit.expected["varcorr"]
    assert fit.model.sigma == pytest.approx(fit.expected["sigma"], rel=RELATIVE)
    actual = fit.model.varcorr.to_dict("records")
    assert len(actual) == len(expected)
    largest = max(row["sdcor"] for row in expected if row["var2"] is None)
    for row, ours in zip(expected, actual):
        names = [python_name(name, fit.factors) if name else None for name in (row["var1"], row["var2"])]
        assert ours["group"] == row["group"]
        assert [ours["name1"] or None, ours["name2"] or None] == names
        if row["sdcor"] is None or not fit.expected["theta_unique"]:
            continue
        if row["var2"]:
            assert ours["sdcor"] == pytest.approx(row["sdcor"], abs=1e-3), row
        else:
            # a deviation that is next to nothing counts on the scale of the others
            slack = RELATIVE * max(abs(row["sdcor"]), 1e-3 * largest) + 1e-5 * largest
            assert ours["sdcor"] == pytest.approx(row["sdcor"], abs=slack), row


def test_conditional_modes(fit):
    frames = fit.model.ranef()
    assert set(frames) == set(fit.expected["ngroups"])
    assert {group: len(frame) for group, frame in frames.items()} == fit.expected["ngroups"]
    for row in fit.expected["ranef_sample"]:
        actual = frames[row["group"]].loc[row["level"], python_name(row["term"], fit.factors)]
        tolerance = 1e-3 * fit.deviation(row["group"], row["term"]) + 1e-7
        assert actual == pytest.approx(row["value"], abs=tolerance), row


def test_conditional_standard_deviations(fit):
    if not fit.expected["theta_unique"]:
        pytest.skip("theta is not unique")
    frames = fit.model.ranef(condvar=True)
    for row in fit.expected["condvar_sample"]:
        actual = frames[row["group"]].loc[row["level"], python_name(row["term"], fit.factors) + "_sd"]
        floor = 1e-3 * fit.deviation(row["group"], row["term"]) + 1e-7
        assert actual == pytest.approx(row["sd"], rel=2 * RELATIVE, abs=1e-4 * floor), row


def test_fitted_values_and_residuals(fit):
    response = fit.case["formula"].split("~")[0].strip()
    fitted = fit.model.predict(fit.path())
    resid = pd.read_parquet(fit.path())[response].to_numpy(dtype=float) - fitted
    scale = fit.expected["sigma"]
    np.testing.assert_allclose(fitted[:10], fit.expected["fitted_sample"], atol=1e-3 * scale, rtol=0)
    np.testing.assert_allclose(resid[:10], fit.expected["resid_sample"]["response"], atol=1e-3 * scale, rtol=0)
    assert fitted.sum() == pytest.approx(fit.expected["fitted_sum"], rel=1e-6)
    assert np.square(resid).sum() == pytest.approx(fit.expected["resid_ss_response"], rel=1e-3)
    if fit.model.nobs <= 5000:
        table = fit.model.augment(fit.path())
        np.testing.assert_allclose(table[".fitted"], fitted, rtol=1e-12, atol=1e-12 * scale)
        np.testing.assert_allclose(table[".resid"], resid, rtol=0, atol=1e-9 * scale)
        if fit.case["weights"] is None:
            assert table[".hat"].sum() == pytest.approx(fit.expected["hat_trace"], rel=RELATIVE)


def test_trace_of_the_hat_matrix(fit):
    effective = fit.model.effective_df
    assert effective["total"] == pytest.approx(fit.expected["hat_trace"], rel=RELATIVE)
    if "hat" in fit.expected:
        assert effective["fixed"] == pytest.approx(fit.expected["hat"]["trace_Px"], rel=RELATIVE)
        assert effective["random"] == pytest.approx(fit.expected["hat"]["trace_Pz"], rel=RELATIVE)


def test_pieces_of_the_criterion(fit):
    pieces, estimates = fit.expected["devcomp"], fit.model.fitted.estimates
    assert estimates.pwrss == pytest.approx(pieces["pwrss"], rel=3 * RELATIVE)
    theta = np.array(fit.expected["theta"], dtype=float)
    assert fit.model.fitted.criterion.value(theta) == pytest.approx(fit.expected["objective"], rel=1e-9, abs=1e-6)


def test_predictions(fit):
    for request in fit.expected.get("predict_newdata", []):
        actual = fit.model.predict(
            pd.DataFrame(request["newdata"]),
            random=request["re_form"] != "none",
            new_levels="population" if request["allow_new_levels"] else "raise",
        )
        expected = np.array(request["expected"], dtype=float)
        np.testing.assert_allclose(
            actual, expected, atol=1e-4 * np.nanmax(np.abs(expected)), rtol=0, err_msg=request["what"]
        )


@pytest.mark.parametrize("test", DOCUMENT["lrt"], ids=lambda test: test["id"])
def test_likelihood_ratio(test):
    table = bigmm.lrt(fit_case(CASES[test["small"]]), fit_case(CASES[test["big"]]))
    assert len(table) == 2
    tolerance = 10 * objective_tolerance(test["AIC"][0])
    for ours, theirs in (("npar", "npar"), ("AIC", "AIC"), ("BIC", "BIC"), ("logLik", "logLik")):
        np.testing.assert_allclose(table[ours], test[theirs], atol=tolerance, rtol=0, err_msg=ours)
    last = table.iloc[-1]
    chisq, df, p = last["Chisq"], last["Df"], last["Pr(>Chisq)"]
    assert chisq == pytest.approx(test["chisq"], abs=tolerance)
    assert df == test["df"]
    assert p == pytest.approx(test["p"], rel=1e-3)


def test_interaction_grouping_orders_agree():
    """The same grouping written the other way round is the same model."""
    case = CASES["pastes_sampleonly_ml"]
    other = fit_case(case | {"formula": "strength ~ 1 + (1 | cask:batch)"})
    assert other.objective == pytest.approx(case["expected"]["objective"], abs=1e-5)
