"""The iterative solver where a variance is zero, and what it says of itself."""

import numpy as np
import pandas as pd
import pytest

import bigmm
from bigmm.datasets import insteval
from bigmm.errors import UsageError


def crossed(seed):
    """a and b matter, m (8 levels), the slope of x and the pairs of a and b do not."""
    rng, n = np.random.default_rng(5), 6000
    frame = pd.DataFrame({"a": rng.integers(0, 450, n), "b": rng.integers(0, 250, n), "x": rng.normal(size=n)})
    frame["y"] = 0.3 * frame.x + 0.6 * rng.normal(size=450)[frame.a] + 0.5 * rng.normal(size=250)[frame.b]
    frame["y"] += rng.normal(size=n)
    return frame.assign(m=np.random.default_rng(seed).integers(0, 8, n))


FORMULAS = (
    "y ~ x + (1 | a) + (1 | b) + (1 | m)",
    "y ~ x + (1 + x | a) + (1 + x | b)",
    "y ~ x + (1 | a) + (0 + x | a) + (1 | b)",
    "y ~ x + (1 | a) + (1 | b) + (1 | a:b)",
    "y ~ x + (1 | a) + (1 | b) + (1 + x | m)",
)


@pytest.mark.parametrize("reml", [False, True])
@pytest.mark.parametrize("formula", FORMULAS)
def test_variances_of_zero_are_certified(formula, reml):
    zeros = 0
    for seed in range(3):
        frame = crossed(seed)
        exact = bigmm.lmm(formula, frame, solver="exact", reml=reml)
        model = bigmm.lmm(formula, frame, solver="iterative", reml=reml, seed=seed)
        assert model.converged, model.optimizer_result.advice
        assert abs(model.objective - exact.objective) < 5.0 * model.monte_carlo_error["objective"] + 1e-3
        assert model.optimizer_result.evaluations < 25
        assert np.all(np.array(model.monte_carlo_error["theta_statistical"]) > 0)
        zeros += exact.is_singular
        if exact.is_singular and (exact.theta == 0).any():
            assert model.is_singular
    assert zeros or "m)" not in formula


def test_the_stated_error_of_theta_covers_where_the_search_stopped():
    frame, formula = insteval(), "y ~ service + (1 | s) + (1 | d)"
    exact = bigmm.lmm(formula, frame, solver="exact", reml=False)
    away = []
    for seed in range(5):
        model = bigmm.lmm(formula, frame, solver="iterative", reml=False, seed=seed, mc_tol=(0.002, 0.01))
        away.append((model.theta - exact.theta) / np.array(model.monte_carlo_error["theta"]))
    assert np.sqrt(np.mean(np.square(away))) < 2.0


def test_deflation_vectors_are_those_in_use():
    frame = crossed(0).assign(b=lambda d: d.b % 100)
    model = bigmm.lmm("y ~ 1 + (1 | a) + (1 | b)", frame, solver="iterative", mc_tol=(1e-6, 1e-6))
    assert model.monte_carlo_error["deflation"] == 25
    assert f"{model.monte_carlo_error['probes']} probes, 25 deflation vectors" in str(model.summary())
    generalized = bigmm.glmm(
        "k ~ 1 + (1 | a) + (1 | b)", frame.assign(k=1 * (frame.y > 0)), family="bernoulli", solver="iterative",
        mc_tol=(1e-3, 1e-3),
    )  # fmt: skip
    assert generalized.monte_carlo_error["deflation"] <= 25


@pytest.mark.parametrize("optimizer", ["bobyqa", "lbfgs"])
def test_an_optimizer_that_would_not_be_used_is_refused(optimizer):
    frame = crossed(0)
    with pytest.raises(UsageError, match=f"optimizer='{optimizer}' needs exact values .* solver='exact'"):
        bigmm.lmm("y ~ 1 + (1 | a) + (1 | b)", frame, solver="iterative", optimizer=optimizer)
    binary = frame.assign(k=1 * (frame.y > 0))
    with pytest.raises(UsageError, match=f"optimizer='{optimizer}' needs exact values .* solver='exact'"):
        bigmm.glmm("k ~ 1 + (1 | a) + (1 | b)", binary, family="bernoulli", solver="iterative", optimizer=optimizer)


@pytest.mark.parametrize("seed", [-1, 1.5, "1", None, True, np.nan])
def test_what_is_no_seed(seed):
    frame = crossed(0)
    for fit in (
        lambda: bigmm.lmm("y ~ 1 + (1 | a)", frame, seed=seed),
        lambda: bigmm.glmm("k ~ 1 + (1 | a)", frame.assign(k=1), family="poisson", seed=seed),
    ):
        with pytest.raises(UsageError, match="seed must be a whole number that is not negative, got"):
            fit()


def test_whole_numbers_of_any_kind_are_seeds():
    frame = crossed(0)
    models = [bigmm.lmm("y ~ 1 + (1 | a) + (1 | b)", frame, solver="iterative", seed=s) for s in (3, np.uint8(3))]
    assert models[0].objective == models[1].objective
    assert models[1].monte_carlo_error["seed"] == 3
