"""What the iterative solver's probes leave uncertain, checked against the exact solver on a third of InstEval:
likelihood-ratio tests, conditional standard deviations, leverages, standard errors, degrees of freedom."""

from __future__ import annotations

import pickle
from dataclasses import replace

import dask.dataframe as dd
import numpy as np
import pyarrow as pa
import pytest

import bigmm
from bigmm.blocks.iterative import conditional
from bigmm.datasets import insteval
from bigmm.errors import UsageError
from bigmm.results import LmmResults
from bigmm.results.predictor import predictor, variance
from bigmm.results.rows import Predict

PLAIN, SERVICE = "y ~ 1 + (1 | s) + (1 | d)", "y ~ service + (1 | s) + (1 | d)"
THIRD, SLOPE = "y ~ service + (1 | s) + (1 | d) + (1 | dept)", "y ~ service + (1 | s) + (1 + service | d)"
MC_TOL = (0.05, 0.5)
"""Few probes, so that errors are large enough to be seen."""


@pytest.fixture(scope="module")
def frame():
    everything = insteval()
    return everything[everything["d"].astype(int) <= 700]


@pytest.fixture(scope="module")
def fit(frame):
    """Fits by formula, criterion, solver and seed, each once."""
    known = {}

    def one(formula, reml=False, solver="iterative", seed=0):
        key = formula, reml, solver, seed
        if key not in known:
            known[key] = bigmm.lmm(formula, frame, reml=reml, solver=solver, seed=seed, mc_tol=MC_TOL)
        return known[key]

    return one


@pytest.fixture
def estimated(monkeypatch):
    """No row is solved for: all is estimated."""
    monkeypatch.setattr(conditional, "EXACT_WORK", 0.0)


@pytest.mark.parametrize(
    "pair", [(PLAIN, SERVICE), (SERVICE, THIRD), (SERVICE, SLOPE)], ids=["mean", "factor", "slope"]
)
@pytest.mark.parametrize("reml", [False, True], ids=["ML", "REML"])
def test_a_likelihood_ratio_has_common_probes_and_says_its_error(fit, pair, reml):
    exact = bigmm.lrt(*(fit(f, reml, "exact") for f in pair)).iloc[1]
    table = bigmm.lrt(*(fit(f, reml) for f in pair)).iloc[1]
    assert table["Probes"] == "common probes"
    assert table["MC error"] > 0
    assert abs(table["Chisq"] - exact["Chisq"]) < 4.0 * table["MC error"] + 1e-5
    others = bigmm.lrt(fit(pair[0], reml), fit(pair[1], reml, seed=7)).iloc[1]
    assert others["Probes"] == "independent probes: the seeds differ"
    independent = np.hypot(*(fit(f, False).monte_carlo_error["objective"] for f in pair))
    assert table["MC error"] < (1.5 if "service |" in pair[1] else 0.9) * independent
    assert abs(others["Chisq"] - exact["Chisq"]) < 4.0 * others["MC error"] + 1e-5


def test_common_probes_make_a_test_of_the_mean_far_more_precise(fit):
    common = bigmm.lrt(fit(PLAIN), fit(SERVICE))["MC error"].iloc[1]
    assert common < 0.05 * fit(PLAIN).monte_carlo_error["objective"]


def test_the_objectives_that_are_compared_eliminate_the_same_factors(fit):
    """Lecturers are nested in departments, so the larger model eliminates both and probes the students instead."""
    assert fit(SERVICE).monte_carlo_error["probed"] == ["d"] and fit(THIRD).monte_carlo_error["probed"] == ["s"]
    before = fit(SERVICE).objective
    smaller, larger = bigmm.lrt(fit(SERVICE), fit(THIRD))["deviance"]
    assert larger == fit(THIRD).objective and smaller != before
    assert abs(smaller - before) < 5.0 * fit(SERVICE).monte_carlo_error["objective"]
    assert fit(SERVICE).objective == before


def test_an_exact_fit_against_an_iterative_one(fit):
    row = bigmm.lrt(fit(PLAIN, solver="exact"), fit(SERVICE)).iloc[1]
    assert row["Probes"] == "one fit is exact"
    assert row["MC error"] == fit(SERVICE).monte_carlo_error["objective"]


def test_a_decision_that_hangs_on_the_probes_is_named(fit, monkeypatch):
    table = bigmm.lrt(fit(PLAIN), fit(SERVICE, seed=7)).iloc[1]
    from scipy import stats

    level = stats.chi2.sf(table["Chisq"] + table["MC error"], 1)  # as if the usual level were just beside the result
    monkeypatch.setattr("bigmm.results.comparison.LEVEL", level)
    assert "could flip" in bigmm.lrt(fit(PLAIN), fit(SERVICE, seed=7))["Probes"].iloc[1]


def test_the_error_of_each_probe_is_kept_on_disk(fit, tmp_path):
    fit(PLAIN).save(tmp_path / "fit")
    again = bigmm.load(tmp_path / "fit")
    error = fit(PLAIN).monte_carlo_error
    assert again.monte_carlo_error == error and len(error["objective_each"]) == error["probes"]
    assert np.mean(error["objective_each"]) == pytest.approx(fit(PLAIN).objective, rel=1e-12)
    assert again.objective == fit(PLAIN).objective
    here, there = (bigmm.lrt(model, fit(SERVICE)).iloc[1] for model in (fit(PLAIN), again))
    assert there["Chisq"] == here["Chisq"] and there["MC error"] == here["MC error"]


def test_the_summary_and_the_record_say_what_the_probes_are(fit):
    error, text = fit(PLAIN).monte_carlo_error, str(fit(PLAIN).summary())
    assert f"iterative solver with {error['probes']} probes, {error['deflation']} deflation vectors (seed 0)" in text
    assert f"Monte Carlo error of the objective {error['objective']:.2g}" in text
    share = error["theta"][0] / error["theta_statistical"][0]
    assert f"of theta {share:.2%}, " in text
    record = fit(PLAIN).as_record()["monte_carlo_error"]
    assert record["probed"] == ["d"] and record["mc_tol"] == list(MC_TOL)


@pytest.fixture(scope="module")
def both(fit):
    """One model by both solvers, at the theta that the iterative one found."""
    ours, exact = fit(SLOPE, True), fit(SLOPE, True, "exact").fitted
    here = replace(exact, theta=ours.theta, estimates=exact.criterion.estimates(ours.theta))
    return ours, LmmResults(here)


def rms(errors):
    return float(np.sqrt(np.mean(np.square(errors))))


def test_conditional_sds_are_estimated_with_calibrated_errors(both, estimated):
    ours, exact = (model.ranef(condvar=True) for model in both)
    for group, ran in exact.items():
        for name in [column for column in ran if column.endswith("_sd")]:
            error = ours[group][f"{name}_mcse"]
            assert np.all(error > 0) and (error / ran[name]).max() < 0.01
            assert 0.5 < rms((ours[group][name] - ran[name]) / error) < 2.0
    tidy = both[0].tidy("ran_vals")
    assert np.all(tidy["std.error_mcse"] < 0.01 * tidy["std.error"])


def test_conditional_sds_are_exact_where_that_is_cheap(both, monkeypatch):
    monkeypatch.setattr(conditional, "EXACT_WORK", np.inf)
    monkeypatch.setattr(conditional, "rows_within", lambda factor: 10**9)
    ours, exact = (model.ranef(condvar=True)["d"] for model in both)
    assert not [column for column in ours if column.endswith("_mcse")]
    np.testing.assert_allclose(ours["Intercept_sd"], exact["Intercept_sd"], rtol=1e-7)


def test_chosen_levels_are_exact_however_many_there_are(both, estimated):
    ours, exact = both
    labels = list(exact.ranef()["d"].index[[3, 100, -1]])
    chosen = ours.ranef(condvar=True, levels={"d": labels})
    assert list(chosen) == ["d"] and list(chosen["d"].index) == labels
    assert list(chosen["d"]) == ["Intercept", "service[T.1]", "Intercept_sd", "service[T.1]_sd"]
    np.testing.assert_allclose(chosen["d"], exact.ranef(condvar=True)["d"].loc[labels], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(exact.ranef(True, {"d": labels})["d"], exact.ranef(True)["d"].loc[labels], rtol=1e-12)


def test_levels_that_are_not_there_are_refused(fit):
    with pytest.raises(UsageError, match="no grouping 'x'; there are s, d"):
        fit(PLAIN).ranef(levels={"x": [1]})
    with pytest.raises(UsageError, match="'d' has no level 'nobody' with rows"):
        fit(PLAIN).ranef(levels={"d": ["nobody"]})


def test_leverages_are_exact_for_few_rows(both, frame):
    ours, exact = (model.augment(frame.head(100)) for model in both)
    assert list(ours) == list(exact)
    np.testing.assert_allclose(ours[".hat"], exact[".hat"], rtol=1e-6)
    np.testing.assert_allclose(ours[".cooksd"], exact[".cooksd"], rtol=1e-4, atol=1e-12)


def test_leverages_of_all_rows_are_estimated_and_sum_to_the_effective_df(both, estimated):
    ours, exact = both
    table, truth = ours.augment(), exact.augment()[".hat"]
    assert 0.5 < rms((table[".hat"] - truth) / table[".hat_mcse"]) < 2.0
    assert (table[".hat_mcse"] / truth).median() < 0.01
    assert table[".hat"].sum() == pytest.approx(exact.effective_df["total"], rel=1e-4)


def test_effective_df_says_its_error(both):
    ours, exact = both
    assert exact.effective_df_error is None
    assert 0 < ours.effective_df_error < 1.0
    assert abs(ours.effective_df["total"] - exact.effective_df["total"]) < 4.0 * ours.effective_df_error


def test_standard_errors_of_many_predictions_are_estimated(both, frame, estimated, tmp_path):
    ours, exact = both
    new = frame.head(2000)
    got, truth = ours.predict(new, se=True), exact.predict(new, se=True)
    assert list(got) == ["prediction", "se", "se_mcse"] and list(truth) == ["prediction", "se"]
    assert rms((got["se"] - truth["se"]) / got["se_mcse"]) < 2.0
    lazy = ours.predict(dd.from_pandas(new, npartitions=3), se=True)
    assert list(lazy.columns) == list(got)
    np.testing.assert_allclose(lazy.compute(), got, rtol=1e-5)
    again = pickle.loads(pickle.dumps(ours)).predict(new, se=True)
    np.testing.assert_allclose(again, got, rtol=1e-3)
    task = Predict(predictor(ours.fitted), "population", variance(ours.fitted, None))
    there = pickle.loads(pickle.dumps(task))(pa.Table.from_pandas(new, preserve_index=False), 0)
    np.testing.assert_allclose(there["se"], got["se"], rtol=1e-5)
    fixed = ours.predict(new, random=False, se=True)
    assert list(fixed) == ["prediction", "se"]


def test_unseen_levels_count_with_their_prior_variance(both, frame, estimated):
    ours, exact = both
    new = frame.head(50).assign(d="nobody")
    np.testing.assert_allclose(ours.predict(new, se=True)["se"], exact.predict(new, se=True)["se"], rtol=1e-3)
