"""`glmm(solver="iterative")` end to end, beside the exact solver where both are possible."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest

import bigmm
from bigmm.errors import DataError, MemoryLimitError
from bigmm.objective import krylov
from bigmm.planning import solver_choice
from bigmm.search import stochastic

BERNOULLI = "y ~ 1 + x + (1 | user) + (1 | movie)"
COUNTS = "c ~ 1 + x + (1 + x | user) + (1 | movie) + (1 | month)"


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(4)
    n, users, movies, months = 6000, 250, 120, 12
    user, movie, month = (rng.integers(0, q, n) for q in (users, movies, months))
    x = rng.standard_normal(n)
    eta = 0.3 + 0.2 * x + 0.8 * rng.standard_normal(users)[user] + 0.7 * rng.standard_normal(movies)[movie]
    rate = np.exp(0.4 * eta + 0.2 * (rng.standard_normal(users)[user] * x + rng.standard_normal(months)[month]))
    return pd.DataFrame(
        {
            "user": user,
            "movie": movie,
            "month": month,
            "x": x,
            "y": (rng.random(n) < 1.0 / (1.0 + np.exp(-eta))).astype(int),
            "c": rng.poisson(rate),
            "t": rng.gamma(2.0, rate / 2.0) + 1e-3,
        }
    )


def both(frame, formula, family, **more):
    exact = bigmm.glmm(formula, frame, family=family, solver="exact", **more)
    return exact, bigmm.glmm(formula, frame, family=family, solver="iterative", **more)


@pytest.mark.parametrize("nagq", [0, 1])
@pytest.mark.parametrize(
    ("formula", "family", "link"),
    [
        (BERNOULLI, "bernoulli", "logit"),
        (BERNOULLI, "bernoulli", "cloglog"),
        (COUNTS, "poisson", "log"),
        ("t ~ 1 + x + (1 | user) + (1 | movie)", "gamma", "log"),
    ],
)
def test_both_solvers_agree_within_the_stated_error(frame, formula, family, link, nagq):
    exact, ours = both(frame, formula, family, link=link, nagq=nagq)
    error = ours.monte_carlo_error
    assert ours.converged and ours.solver == "iterative" and exact.solver == "exact"
    assert error["objective"] <= 0.05
    assert abs(ours.objective - exact.objective) < 4.0 * error["objective"] + 1e-4
    statistical = np.array(error["theta_statistical"])
    free = exact.theta > 1e-3
    assert np.all(np.array(error["theta"])[free] <= 0.01 * statistical[free])
    assert np.all(np.abs(ours.theta - exact.theta)[free] < 0.01 * statistical[free])
    np.testing.assert_allclose(ours.beta, exact.beta, atol=0.01 * exact.bse.min())
    np.testing.assert_allclose(ours.bse, exact.bse, rtol=2e-3)
    assert ours.dispersion == pytest.approx(exact.dispersion, rel=1e-3)
    for group, modes in exact.ranef().items():
        np.testing.assert_allclose(ours.ranef()[group], modes, atol=2e-3 * modes.to_numpy().std())


@pytest.fixture(scope="module")
def fits(frame):
    return both(frame, BERNOULLI, "bernoulli")


def test_coefficients_have_error_bars_too(fits):
    error = fits[1].monte_carlo_error
    np.testing.assert_allclose(error["beta_statistical"], fits[1].bse, rtol=0.1)
    assert np.all(np.array(error["beta"]) < 0.01 * np.array(error["beta_statistical"]))
    assert np.mean(error["objective_each"]) == pytest.approx(fits[1].objective, rel=1e-10)


def test_results_read_off_the_working_model(fits, frame):
    exact, ours = fits
    for group, expected in exact.ranef(condvar=True).items():
        found = ours.ranef(condvar=True)[group]
        np.testing.assert_allclose(found["Intercept_sd"], expected["Intercept_sd"], rtol=0.01)
    new = frame.head(30)
    np.testing.assert_allclose(ours.predict(new, se=True)["se"], exact.predict(new, se=True)["se"], rtol=1e-3)
    assert ours.effective_df["total"] == pytest.approx(exact.effective_df["total"], rel=2e-3)
    text = str(ours.summary())
    assert "solver iterative" in text and "Monte Carlo" in text


def test_a_saved_fit_finds_its_own_objective(fits, tmp_path):
    ours = fits[1]
    ours.save(tmp_path / "fit")
    again = bigmm.load(tmp_path / "fit")
    assert again.objective == ours.objective and again.solver == "iterative"
    assert again.monte_carlo_error["objective"] == ours.monte_carlo_error["objective"]
    for group, modes in ours.ranef(condvar=True).items():
        np.testing.assert_allclose(again.ranef(condvar=True)[group], modes, rtol=1e-10)
    assert pickle.loads(pickle.dumps(ours)).objective == ours.objective


@pytest.mark.cluster
def test_the_same_bits_on_any_number_of_threads_and_on_a_cluster(frame, client, monkeypatch):
    monkeypatch.setattr("bigmm.planning.sharding.SMALL_ROWS", 100)
    numbers = []
    for more in ({"n_workers": 1}, {"n_workers": 3}, {"client": client}):
        found = bigmm.glmm(BERNOULLI, frame, family="bernoulli", solver="iterative", **more)
        numbers.append((found.objective, *found.theta, *found.beta, *found.bse))
    assert numbers[0] == numbers[1] == numbers[2]


def test_single_precision_of_large_blocks(fits, frame, monkeypatch):
    monkeypatch.setattr(krylov, "SINGLE_PRECISION", 100)
    ours = bigmm.glmm(BERNOULLI, frame, family="bernoulli", solver="iterative")
    assert ours.fitted.assembled.gram.cross[0, 1].data.dtype == np.float32
    assert ours.objective == pytest.approx(fits[0].objective, abs=0.02)
    np.testing.assert_allclose(ours.theta, fits[0].theta, atol=0.01 * ours.monte_carlo_error["theta_statistical"][0])
    np.testing.assert_allclose(ours.bse, fits[0].bse, rtol=5e-3)


def test_another_seed_is_another_estimate(fits, frame):
    other = bigmm.glmm(BERNOULLI, frame, family="bernoulli", solver="iterative", seed=3)
    assert other.objective != fits[1].objective
    assert abs(other.objective - fits[1].objective) < 5.0 * other.monte_carlo_error["objective"]
    assert other.monte_carlo_error["seed"] == 3


def test_probes_grow_until_the_tolerance_is_met(frame, monkeypatch):
    monkeypatch.setattr("bigmm.objective.solvers.FIRST_PROBES", 2)
    monkeypatch.setattr("bigmm.objective.solvers.FIRST_DEFLATION", 1)
    found = bigmm.glmm(BERNOULLI, frame, family="bernoulli", solver="iterative", mc_tol=(0.001, 0.0005))
    assert found.monte_carlo_error["probes"] > 2 and found.monte_carlo_error["objective"] <= 0.0005
    monkeypatch.setattr(stochastic, "MOST_PROBES", 2)
    monkeypatch.setattr("bigmm.laplace.montecarlo.MOST_PROBES", 2)
    few = bigmm.glmm(BERNOULLI, frame, family="bernoulli", solver="iterative", mc_tol=(1e-9, 1e-9))
    assert few.monte_carlo_error["probes"] == 2
    assert "Monte Carlo error of the objective is still" in few.fitted.outcome.advice


def test_a_variance_of_zero_is_certified(frame):
    rng = np.random.default_rng(8)
    liking = pd.Series(0.5 * (frame.user % 7 - 3) + rng.logistic(size=len(frame)))
    # half of the rows of every movie: they are more alike than chance makes them
    flat = frame.assign(y=(liking > liking.groupby(frame.movie).transform("median")).astype(int))
    exact, ours = both(flat, "y ~ 1 + (1 | user) + (1 | movie)", "bernoulli")
    assert exact.theta[1] == ours.theta[1] == 0.0
    assert ours.converged and ours.fitted.is_singular
    assert ours.objective == pytest.approx(exact.objective, abs=1e-3)


def test_auto_chooses_by_size_and_says_why(frame, monkeypatch):
    small = bigmm.glmm(BERNOULLI, frame, family="bernoulli", nagq=0)
    assert small.solver == "exact" and "small" in small.fitted.solver_reason and small.monte_carlo_error is None
    monkeypatch.setattr(solver_choice, "EXACT_TAIL", 100)
    chosen = bigmm.glmm(BERNOULLI, frame, family="bernoulli", nagq=0)
    assert chosen.solver == "iterative" and "Gflop" in chosen.fitted.solver_reason


def test_memory_is_asked_of_the_solver_that_is_chosen(frame, monkeypatch):
    monkeypatch.setattr(solver_choice, "exact_bytes", lambda *sizes: 1 << 50)
    with pytest.raises(MemoryLimitError, match="solver='iterative'"):
        bigmm.glmm(BERNOULLI, frame, family="bernoulli", solver="exact", memory_limit="8GiB")
    found = bigmm.glmm(BERNOULLI, frame, family="bernoulli", nagq=0, memory_limit="8GiB")
    assert found.solver == "iterative" and "GiB" in found.fitted.solver_reason


def test_one_factor_has_nothing_to_iterate_on(frame):
    found = bigmm.glmm("y ~ x + (1 | user)", frame, family="bernoulli", solver="iterative")
    assert found.solver == "exact" and "nothing to iterate on" in found.fitted.solver_reason


def test_trouble_is_named_as_with_the_exact_solver(frame):
    separated = frame.assign(y=(frame.x > 0).astype(int))
    with pytest.raises(DataError, match="complete separation"):
        bigmm.glmm(BERNOULLI, separated, family="bernoulli", solver="iterative")
