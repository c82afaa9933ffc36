"""`solver="iterative"` end to end, beside the exact solver where both are possible."""

import numpy as np
import pandas as pd
import pytest

import bigmm
from bigmm.datasets import insteval
from bigmm.errors import UsageError
from bigmm.objective import solvers
from bigmm.planning import solver_choice

FORMULA = "y ~ service + (1 | s) + (1 | d) + (1 | dept)"


@pytest.fixture(scope="module", params=[False, True], ids=["ML", "REML"])
def fits(request):
    frame = insteval()
    exact = bigmm.lmm(FORMULA, frame, reml=request.param)
    return exact, bigmm.lmm(FORMULA, frame, reml=request.param, solver="iterative", mc_tol=(0.01, 0.01)), frame


def test_objective_agrees_within_the_stated_error(fits):
    exact, ours, _ = fits
    error = ours.monte_carlo_error["objective"]
    assert error < 0.01
    assert abs(ours.objective - exact.objective) < 4.0 * error + 1e-3


def test_theta_is_within_a_percent_of_its_standard_error(fits):
    exact, ours, _ = fits
    statistical = np.array(ours.monte_carlo_error["theta_statistical"])
    assert np.all(np.abs(ours.theta - exact.theta) < 0.01 * statistical)
    assert np.all(np.array(ours.monte_carlo_error["theta"]) < 0.01 * statistical)


def test_estimates_agree(fits):
    exact, ours, _ = fits
    assert ours.converged and ours.solver == "iterative"
    np.testing.assert_allclose(ours.params, exact.params, atol=1e-3 * exact.bse.min())
    np.testing.assert_allclose(ours.bse, exact.bse, rtol=1e-3)
    assert ours.sigma == pytest.approx(exact.sigma, rel=1e-5)
    for group, frame in exact.ranef().items():
        np.testing.assert_allclose(ours.ranef()[group], frame, atol=1e-3 * frame.to_numpy().std())


def test_prediction_errors_and_effective_df_agree(fits):
    exact, ours, frame = fits
    new = frame.head(40)
    got, expected = ours.predict(new, se=True), exact.predict(new, se=True)
    np.testing.assert_allclose(got["se"], expected["se"], rtol=1e-3)
    assert ours.effective_df["total"] == pytest.approx(exact.effective_df["total"], rel=1e-3)


def test_slopes_and_the_same_bits():
    rng = np.random.default_rng(0)
    n = 6000
    frame = bigmm.datasets.insteval().head(n).assign(x=rng.standard_normal(n))
    formula = "y ~ x + (1 + x | s) + (1 | d)"
    exact = bigmm.lmm(formula, frame)
    ours = bigmm.lmm(formula, frame, solver="iterative")
    again = bigmm.lmm(formula, frame, solver="iterative")
    statistical = np.array(ours.monte_carlo_error["theta_statistical"])
    assert np.all(np.abs(ours.theta - exact.theta) < 0.05 * statistical + 1e-4)
    assert ours.objective == again.objective and np.array_equal(ours.theta, again.theta)


def test_two_chains_of_nested_factors_agree_with_the_exact_solver():
    rng = np.random.default_rng(1)
    n, rooms, cities = 20_000, 400, 300
    school, region = rng.integers(0, 60, rooms), rng.integers(0, 12, cities)
    room, city = rng.integers(0, rooms, n), rng.integers(0, cities, n)
    x = rng.standard_normal(n)
    effects = [rng.standard_normal(q) * sd for q, sd in ((rooms, 0.4), (60, 0.3), (cities, 0.4), (12, 0.3))]
    slope = 0.2 * rng.standard_normal(cities)
    y = rng.standard_normal(n) + effects[0][room] + effects[1][school[room]]
    y += effects[2][city] + slope[city] * x + effects[3][region[city]]
    frame = pd.DataFrame({"y": y, "x": x, "room": room, "school": school[room], "city": city, "region": region[city]})
    formula = "y ~ x + (1 | school/room) + (1 | region) + (1 + x | region:city)"
    exact = bigmm.lmm(formula, frame)
    ours = bigmm.lmm(formula, frame, solver="iterative")
    found = ours.monte_carlo_error
    assert ours.converged and set(found["probed"]) == {"region:city", "region"}
    assert found["objective"] <= 0.05 and found["probes"] <= 16
    assert abs(ours.objective - exact.objective) < 4.0 * found["objective"] + 1e-3
    assert np.all(np.abs(ours.theta - exact.theta) < 0.02 * np.array(found["theta_statistical"]))
    np.testing.assert_allclose(ours.bse, exact.bse, rtol=1e-3)
    new = frame.head(40)
    np.testing.assert_allclose(ours.predict(new, se=True)["se"], exact.predict(new, se=True)["se"], rtol=1e-3)


def test_auto_chooses_by_size_and_says_why(monkeypatch):
    frame = insteval()
    assert "small" in bigmm.lmm(FORMULA, frame.head(3000)).fitted.solver_reason
    monkeypatch.setattr(solver_choice, "EXACT_TAIL", 100)
    chosen = bigmm.lmm(FORMULA, frame.head(3000))
    assert chosen.solver == "iterative"
    assert "Gflop" in chosen.fitted.solver_reason


def test_one_factor_needs_no_iteration():
    fit = bigmm.lmm("y ~ 1 + (1 | s)", insteval().head(3000), solver="iterative")
    assert fit.solver == "exact"
    assert "nothing to iterate on" in fit.fitted.solver_reason


def test_a_fixed_factor_with_many_levels_names_the_options():
    rng = np.random.default_rng(0)
    n = 3000
    frame = insteval().head(n).assign(f=[f"f{i:03d}" for i in np.r_[0:260, rng.integers(0, 260, n - 260)]])
    formula = "y ~ f + (1 | s) + (1 | d)"
    assert "fixed factor 'f'" in bigmm.lmm(formula, frame).fitted.solver_reason
    with pytest.raises(UsageError, match=r"does not take the fixed factor 'f' \(260 levels\): use solver='exact'"):
        bigmm.lmm(formula, frame, solver="iterative")


def test_enlarged_probes_give_the_same_theta_in_one_more_evaluation(monkeypatch):
    monkeypatch.setattr(solvers, "FIRST_DEFLATION", 2)
    frame = insteval()
    formula = "y ~ 1 + (1 | s) + (1 | d)"
    loose = bigmm.lmm(formula, frame, solver="iterative", mc_tol=(1.0, 100.0))
    error = loose.monte_carlo_error["objective"]
    tight = bigmm.lmm(formula, frame, solver="iterative", mc_tol=(1.0, 0.7 * error))
    found = tight.monte_carlo_error
    assert found["deflation"] == 2 and found["probes"] > loose.monte_carlo_error["probes"]
    assert found["objective"] <= 0.7 * error
    assert tight.optimizer_result.evaluations <= loose.optimizer_result.evaluations + 2
    exact = bigmm.lmm(formula, frame, solver="exact")
    assert abs(tight.objective - exact.objective) < 4.0 * found["objective"]


def test_unknown_solver():
    with pytest.raises(UsageError, match="choose 'auto', 'exact' or 'iterative'"):
        bigmm.lmm(FORMULA, insteval(), solver="magic")


def test_save_and_load_keep_the_probes(fits, tmp_path):
    _, ours, _ = fits
    ours.save(tmp_path / "fit")
    again = bigmm.load(tmp_path / "fit")
    assert again.solver == "iterative"
    assert again.monte_carlo_error == ours.monte_carlo_error
    assert abs(again.objective - ours.objective) < 8 * ours.monte_carlo_error["objective"] + 1e-4


def test_likelihood_ratio_test_says_its_error():
    frame = insteval()
    small = bigmm.lmm("y ~ 1 + (1 | s) + (1 | d)", frame, reml=False, solver="iterative")
    big = bigmm.lmm("y ~ service + (1 | s) + (1 | d)", frame, reml=False, solver="iterative")
    exact = bigmm.lrt(
        bigmm.lmm("y ~ 1 + (1 | s) + (1 | d)", frame, reml=False),
        bigmm.lmm("y ~ service + (1 | s) + (1 | d)", frame, reml=False),
    )
    table = bigmm.lrt(small, big)
    error = table["MC error"].iloc[1]
    assert 0 < error < 0.1
    assert abs(table["Chisq"].iloc[1] - exact["Chisq"].iloc[1]) < 4 * error
