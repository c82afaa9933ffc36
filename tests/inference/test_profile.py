"""Profile limits agree with lme4's, refined by the reference script's own root search where it has one.

Refined limits agree within 1e-5 of their width, lme4's splines within 1e-2 (their own error).
"""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import norm

import bigmm
from bigmm.datasets import sleepstudy
from bigmm.errors import UsageError
from tests.test_reference import CASES, REFERENCE, fit_case, levels_of, python_name

INFERENCE = json.loads((REFERENCE / "reference_inference.json").read_text())["cases"]
NAMES = sorted(
    name for name, case in INFERENCE.items() if "profile_ci" in case and not CASES[name]["expected"]["is_singular"]
)
SLOW = {"fifty_by_two_b_ml"}


def our_name(name: str, case: dict) -> str:
    return name.replace("(Intercept)", "Intercept") if "|" in name else python_name(name, levels_of(case["data"]))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in SLOW])
def test_limits(name):
    case, expected = CASES[name], INFERENCE[name]
    table = fit_case(case).conf_int(method="profile", parameters="all")
    refined = expected.get("profile_ci_refined", {})
    for parameter, limits in {**expected["profile_ci"], **refined}.items():
        row, width = table.loc[our_name(parameter, case)], limits[1] - limits[0]
        tolerance = (1e-5 if parameter in refined else 1e-2) * width
        np.testing.assert_allclose(row.to_numpy(), limits, atol=tolerance, rtol=0, err_msg=parameter)
    assert len(table) == len(expected["profile_ci"])


def test_a_reml_fit_has_the_profile_of_the_ml_fit():
    """lme4's limits of Days, 7.358653 and 13.575919, are those of the fit by maximum likelihood."""
    model = bigmm.lmm("Reaction ~ Days + (Days | Subject)", sleepstudy())
    row = model.conf_int(method="profile", parameters=["Days"]).loc["Days"]
    np.testing.assert_allclose(row.to_numpy(), [7.358652, 13.575920], atol=1e-5)
    table = model.profile(["Days"]).table
    assert (np.diff(table["zeta"]) > 0).all() and (np.diff(table["value"]) > 0).all()
    middle = np.interp(-1.959964, table["zeta"], table["value"])
    assert middle == pytest.approx(7.358652, abs=0.05)


def test_what_has_no_profile():
    model = bigmm.lmm("Reaction ~ Days + (1 | Subject)", sleepstudy())
    with pytest.raises(
        UsageError, match=r"parameters='Day': choose 'beta', 'theta', 'all', or among sd_Intercept\|Subject"
    ):
        model.conf_int(method="profile", parameters=["Day"])
    cbpp = REFERENCE / "data" / "cbpp.parquet"
    model = bigmm.glmm("incidence / size ~ period + (1 | herd)", cbpp, family="binomial")
    with pytest.raises(UsageError, match="profiles are available for linear mixed models"):
        model.conf_int(method="profile")


def groups_of_three(seed: int, rows: int, centred: bool) -> pd.DataFrame:
    """40 groups with three effects each, which sum to zero or are an autoregression, and some rows for each."""
    rng, times = np.random.default_rng(seed), np.arange(3)
    effects = rng.normal(size=(40, 3))
    if centred:
        effects -= effects.mean(axis=1, keepdims=True)
    else:
        effects = effects @ np.linalg.cholesky(0.8 ** np.abs(np.subtract.outer(times, times))).T
    group, time = np.repeat(np.arange(40), 3 * rows), np.tile(np.repeat(times, rows), 40)
    x = rng.normal(size=len(group))
    y = 1.0 + 0.5 * x + effects[group, time] + 0.5 * rng.normal(size=len(group))
    return pd.DataFrame({"g": group, "t": [f"t{number}" for number in time], "x": x, "y": y})


def group_moments(data: pd.DataFrame) -> np.ndarray:
    """(rows, rows, 3, 3) products of 1, x and y of any two rows of a group, summed over the groups."""
    rows = int((data["g"] == 0).sum())
    columns = np.stack([np.ones(len(data)), data["x"], data["y"]], axis=1).reshape(-1, rows, 3)
    return np.einsum("gra,gsb->rsab", columns, columns)


def dense_deviance(moments: np.ndarray, covariance: np.ndarray, sigma: float) -> float:
    """Minus twice the log-likelihood of 40 balanced groups, by a dense covariance matrix of one group."""
    rows = len(moments)
    z = np.repeat(np.eye(3), rows // 3, axis=0)
    dense = z @ covariance @ z.T + sigma**2 * np.eye(rows)
    products = np.einsum("rs,rsab->ab", np.linalg.inv(dense), moments)
    squares = products[2, 2] - products[2, :2] @ np.linalg.solve(products[:2, :2], products[:2, 2])
    return 40.0 * (np.linalg.slogdet(dense)[1] + rows * np.log(2.0 * np.pi)) + squares


def dense_profile(data: pd.DataFrame, structure: str, values: dict[str, float], starts: list[list[float]]) -> float:
    """The least dense deviance with some of (sd of t0, rho, sigma) at values; x: log sds, logit rho, log sigma."""
    low = -0.5 if structure == "cs" else -1.0
    lags, moments = np.abs(np.subtract.outer(np.arange(3), np.arange(3))), group_moments(data)

    def deviance(x: np.ndarray) -> float:
        deviations = np.exp(x[:-2]) if structure == "cs" else np.full(3, np.exp(x[0]))
        if "sd" in values:
            deviations[slice(1) if structure == "cs" else slice(3)] = values["sd"]
        rho = values.get("rho", low + (1.0 - low) * expit(x[-2]))
        correlations = rho ** np.minimum(lags, 1) if structure == "cs" else np.where(lags, rho**lags, 1.0)
        return dense_deviance(
            moments, correlations * np.outer(deviations, deviations), values.get("sigma", np.exp(x[-1]))
        )

    options = {"xatol": 1e-6, "fatol": 1e-8, "maxiter": 4000, "maxfev": 4000}
    ends = []
    for start in starts:
        end = minimize(deviance, start, method="Nelder-Mead", options=options)
        ends.append(minimize(deviance, end.x, method="Nelder-Mead", options=options).fun)
    return min(ends)


def test_standard_deviation_of_all_columns_against_dense_algebra():
    """The lower limit of one standard deviation for all columns is not zero where zero is far from the data."""
    data = groups_of_three(3, 3, centred=False)
    model = bigmm.lmm("y ~ x + ar1(0 + t | g)", data, reml=False)
    row = model.conf_int(method="profile", parameters="theta").loc["sd_t[t0]|g"]
    assert row["lower"] > 0.5
    for value in row:
        profiled = dense_profile(data, "ar1", {"sd": value}, [[0.0, 2.0, np.log(0.5)]])
        assert profiled - model.objective == pytest.approx(norm.ppf(0.975) ** 2, abs=1e-5)


def test_profiles_with_a_correlation_at_its_bound_against_dense_algebra():
    """Effects that sum to zero put rho of cs at -1/2; standard deviations and sigma are searched along the bound."""
    data = groups_of_three(11, 3, centred=True)
    with pytest.warns(bigmm.errors.SingularFitWarning):
        model = bigmm.lmm("y ~ x + cs(0 + t | g)", data, reml=False)
    table = model.conf_int(method="profile", parameters=["sd_t[t0]|g", "sigma"])
    starts = [[-0.1, -0.1, -0.1, -14.0, np.log(0.5)]]
    for name, parameter in (("sd_t[t0]|g", "sd"), ("sigma", "sigma")):
        profiled = dense_profile(data, "cs", {parameter: table.loc[name, "upper"]}, starts)
        assert profiled - model.objective == pytest.approx(norm.ppf(0.975) ** 2, abs=1e-4), name


def test_start_with_a_correlation_at_its_bound(recwarn):
    data = groups_of_three(3, 3, centred=False)
    best = bigmm.lmm("y ~ x + ar1(0 + t | g)", data)
    for rho in (-1.0, 1.0):
        model = bigmm.lmm("y ~ x + ar1(0 + t | g)", data, theta0=[1.0, rho])
        np.testing.assert_allclose(model.theta, best.theta, rtol=1e-5)
    assert not recwarn.list
    with pytest.raises(UsageError, match=r"within its bounds \(0 <= g.sd <= inf, -1 <= g.rho <= 1\)"):
        bigmm.lmm("y ~ x + ar1(0 + t | g)", data, theta0=[1.0, 1.5])
