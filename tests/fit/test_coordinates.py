"""Covariates of random effects that are far from zero, of any size, or constant: the same model, the same optimum."""

import numpy as np
import pandas as pd
import pytest

import bigmm
from bigmm.planning import placement

SOLVERS = ("exact", "iterative")


def rows(n=4000, slope=0.3):
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"g": rng.integers(0, 200, n), "h": rng.integers(0, 120, n), "x": rng.normal(size=n)})
    frame["y"] = 1 + 0.3 * frame.x + 0.5 * rng.normal(size=200)[frame.g] + 0.4 * rng.normal(size=120)[frame.h]
    frame["y"] += slope * rng.normal(size=200)[frame.g] * frame.x + rng.normal(size=n)
    return frame


@pytest.fixture(scope="module")
def frame():
    return rows()


@pytest.fixture(scope="module", params=SOLVERS)
def centred(request, frame):
    return bigmm.lmm("y ~ x + (1 + x | g) + (1 | h)", frame, solver=request.param, reml=False)


@pytest.mark.parametrize(
    ("mean", "size"), [(3e3, 1.0), (1e4, 1.0), (1e6, 1.0), (0.0, 1e-8), (0.0, 1e8), (2020.0, 1e-2)]
)
def test_a_full_covariance_knows_no_origin_and_no_unit(frame, centred, mean, size):
    moved = frame.assign(x=mean + size * frame.x)
    model = bigmm.lmm("y ~ x + (1 + x | g) + (1 | h)", moved, solver=centred.solver, reml=False)
    error = 4.0 * (model.monte_carlo_error or {"objective": 0.0})["objective"]
    assert model.converged and not model.is_singular
    assert model.objective == pytest.approx(centred.objective, abs=1e-5 + error)
    # how the last digits round decides a few steps of each of four starts; without the coordinates it takes thousands
    assert model.optimizer_result.evaluations <= 4 * centred.optimizer_result.evaluations
    # theta is lme4's: the template of (1, x), whose covariance is that of (1, (x - mean) / size) moved back
    back = np.array([[1.0, -mean / size], [0.0, 1.0 / size]])
    a, b = (np.array([[t[0], 0.0], [t[1], t[2]]]) for t in (model.theta, centred.theta))
    tolerance = 1e-4 if centred.solver == "exact" else 1e-2
    np.testing.assert_allclose(a @ a.T, back @ b @ b.T @ back.T, rtol=tolerance, atol=1e-5 * (1 + (mean / size) ** 2))
    assert a[0, 0] * a[1, 1] == pytest.approx(b[0, 0] * b[1, 1] / size, rel=tolerance)


@pytest.mark.parametrize("reml", [False, True])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("value", [1.0, 7.0, 100.0])
def test_a_constant_covariate_changes_nothing(frame, solver, reml, value):
    """The covariance of (1, constant) is not identified: the optimum is that of the intercept alone."""
    given = frame.assign(one=value)
    alone = bigmm.lmm("y ~ 1 + (1 | g) + (1 | h)", given, solver=solver, reml=reml)
    model = bigmm.lmm("y ~ 1 + (1 + one | g) + (1 | h)", given, solver=solver, reml=reml)
    assert model.converged and model.is_singular and not alone.is_singular
    assert model.objective == pytest.approx(alone.objective, abs=1e-6)
    np.testing.assert_allclose(model.theta, [alone.theta[0], 0.0, 0.0, alone.theta[1]], rtol=1e-5)
    assert "'one' of 'g' depends on those before it" in model.optimizer_result.advice
    assert "'one' of 'g' depends on those before it" in str(model.summary())


@pytest.mark.parametrize("solver", SOLVERS)
def test_columns_that_depend_on_others(frame, solver):
    given = frame.assign(twice=2.0 * frame.x - 1.0)
    few = bigmm.lmm("y ~ x + (1 + x | g) + (1 | h)", given, solver=solver)
    many = bigmm.lmm("y ~ x + (1 + x + twice | g) + (1 | h)", given, solver=solver)
    error = 4.0 * (few.monte_carlo_error or {"objective": 0.0})["objective"]
    assert many.converged and many.is_singular
    assert many.objective == pytest.approx(few.objective, abs=1e-5 + error)


def test_levels_that_stay_with_the_workers_are_searched_in_the_same_coordinates(frame, monkeypatch):
    """What the driver has not is asked of the shards."""
    here = bigmm.lmm("y ~ x + (1 + x | g)", frame, reml=False)
    monkeypatch.setattr(placement, "SHARE", 10**9)
    there = bigmm.lmm("y ~ x + (1 + x | g)", frame.assign(x=1e5 + frame.x), reml=False)
    assert there.fitted.solver_reason.startswith("levels stay with the workers")
    assert there.converged
    assert there.objective == pytest.approx(here.objective, abs=1e-6)


def test_independent_slopes_far_from_zero_are_named_when_the_search_fails(frame, monkeypatch):
    """Independent intercepts and slopes do depend on the origin: the advice says where it is."""
    from bigmm.optimize import newton, score

    monkeypatch.setattr(newton, "MAX_STEPS", 1)
    monkeypatch.setattr(score, "MAX_STEPS", 1)
    moved = frame.assign(x=1e4 + frame.x)
    model = bigmm.lmm("y ~ x + (1 | g) + (0 + x | g) + (1 | h)", moved, solver="iterative")
    assert not model.converged
    assert "'x' is 1e+04 times as large as it varies: centre it" in model.optimizer_result.advice
