"""The fit of a generalized model depends on neither origin nor unit of a covariate.

With x' = a + s x the model is the same. The objective and the verdicts on convergence and on zero variances are equal,
the slope and its error are divided by s. The right values are those of the model with x itself.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bigmm

FORMULAS = {
    "one factor": "y ~ x + (x | g)",
    "many levels": "y ~ x + (x | m)",
    "nested": "y ~ x + (x | g) + (1 | g:k)",
    "crossed": "y ~ x + (x | g) + (1 | h)",
    "independent": "y ~ x + (x || g)",
    "no intercept": "y ~ x + (1 | h) + (0 + x | g)",
}
MOVED = [(0.0, 1e6), (0.0, 1e-6), (100.0, 1.0), (3e-4, 1e-5), (1e4, 1.0), (1e4, 1e-3), (1e6, 1.0)]


def rows(n=1500, seed=3):
    rng = np.random.default_rng(seed)
    g, h, k, m, x = (*(rng.integers(0, q, n) for q in (40, 9, 3, 600)), rng.normal(size=n))
    b = rng.normal(size=(40, 2)) @ np.array([[0.8, 0.0], [0.3, 0.5]]).T
    eta = 0.2 + 0.5 * x + b[g, 0] + b[g, 1] * x + 0.3 * rng.normal(size=9)[h] + 0.4 * rng.normal(size=120)[3 * g + k]
    y = (rng.random(n) < 1.0 / (1.0 + np.exp(-eta))).astype(int)
    return pd.DataFrame({"y": y, "x": x, "g": g, "h": h, "k": k, "m": m, "n": rng.poisson(np.exp(0.4 * eta))})


@pytest.fixture(scope="module")
def frame():
    return rows()


@pytest.fixture(scope="module")
def plain(frame):
    return {name: bigmm.glmm(formula, frame, family="bernoulli") for name, formula in FORMULAS.items()}


def moved(frame, origin, unit):
    return frame.assign(x=origin + unit * frame["x"])


def same_model(name, origin):
    """Without a random intercept, or with one that is independent of the slope, the origin is part of the model."""
    return origin == 0.0 or name not in ("independent", "no intercept")


@pytest.mark.parametrize(
    ("name", "origin", "unit"),
    [(name, *to) for name in FORMULAS for to in MOVED if same_model(name, to[0])],
)
def test_the_fit_is_that_of_the_covariate_itself(frame, plain, name, origin, unit):
    here = plain[name]
    there = bigmm.glmm(FORMULAS[name], moved(frame, origin, unit), family="bernoulli")
    assert there.objective == pytest.approx(here.objective, abs=1e-5)
    assert (there.converged, there.is_singular) == (here.converged, here.is_singular)
    assert there.params["x"] * unit == pytest.approx(here.params["x"], abs=1e-3 * here.bse["x"])
    assert there.bse["x"] * unit == pytest.approx(here.bse["x"], rel=1e-3)
    evaluations = here.optimizer_result.evaluations
    assert there.optimizer_result.evaluations <= 2 * evaluations + 10
    group = "m" if name == "many levels" else "g"
    slope = [m.ranef()[group]["x"].to_numpy() for m in (here, there)]
    assert slope[1] * unit == pytest.approx(slope[0], abs=2e-3 * np.abs(slope[0]).max())


@pytest.mark.parametrize(
    ("formula", "nagq"),
    [
        ("y ~ x + I(2 * x) + (1 | g)", 9),
        ("y ~ 0 + f + x + (x | g)", 1),
        ("y ~ f * x + (x | g) + (1 | h)", 0),
        ("y ~ x + z + (1 + z | g) + (x | h)", 1),
    ],
)
def test_columns_of_x_and_predictions_far_from_zero(frame, formula, nagq, tmp_path):
    """Dropped columns, products, no intercept; what is saved is opened again; predictions come from the user's rows."""
    frame = frame.assign(f=np.array(list("abc"))[frame["k"]], z=np.cos(np.arange(len(frame))))
    far = moved(frame, 1e6, 1.0)
    here, there = (bigmm.glmm(formula, data, family="bernoulli", nagq=nagq, compress=False) for data in (frame, far))
    assert there.objective == pytest.approx(here.objective, abs=1e-5)
    ours, theirs = (m.params[[name for name in m.params.index if "x" in name]] for m in (here, there))
    np.testing.assert_allclose(theirs, ours, atol=1e-5)
    seen = [bigmm.load(there.save(tmp_path / "far")).predict(far, se=True), here.predict(frame, se=True)]
    np.testing.assert_allclose(*(p.to_numpy(float)[:, 0] for p in seen), atol=1e-5)
    np.testing.assert_allclose(*(p.to_numpy(float)[:, 1] for p in seen), rtol=2e-3)


def test_a_saved_fit_very_far_from_zero_is_opened(frame, tmp_path):
    m = bigmm.glmm(FORMULAS["crossed"], moved(frame, 1e10, 1.0), family="bernoulli")
    assert bigmm.load(m.save(tmp_path / "far")).objective == m.objective


@pytest.mark.parametrize("formula", ["y ~ x + (x || g)", "y ~ x + (0 + x | g)"])
def test_an_origin_that_is_part_of_the_model(frame, formula):
    """At 1e4 + x the effects of independent terms are next to a constant per level, of variance s0^2 + 1e8 s1^2."""
    far = moved(frame, 1e4, 1.0)
    level, m = (bigmm.glmm(f, far, family="bernoulli") for f in ("y ~ x + (1 | g)", formula))
    assert m.converged
    assert m.objective == pytest.approx(level.objective, abs=0.05)
    size = np.linalg.norm(m.theta * [1.0, 1e4][-len(m.theta) :])
    assert size == pytest.approx(level.theta[0], rel=1e-3)


def test_rows_unlike_the_first_ones(frame):
    """Rows that weigh nothing do not tell the origin of those that count: all are held again, about the right one."""
    none = frame.assign(x=0.0, w=1e-20)
    data = pd.concat([none, none, moved(frame, 1e6, 1.0).assign(w=1.0)], ignore_index=True)
    here, once = (
        bigmm.glmm("n ~ x + (x | g)", d, family="poisson", link="sqrt", weights="w")
        for d in (frame.assign(w=1.0), data)
    )
    assert once.objective == pytest.approx(here.objective, abs=1e-5)
    assert once.bse["x"] == pytest.approx(here.bse["x"], rel=1e-3)


@pytest.mark.parametrize("family", ["poisson", "negative_binomial"])
def test_counts_with_a_dispersion(frame, family):
    here, there = (
        bigmm.glmm("n ~ x + (x | g)", moved(frame, *to), family=family) for to in ((0.0, 1.0), (300.0, 20.0))
    )
    assert there.objective == pytest.approx(here.objective, abs=1e-5)
    assert there.bse["x"] * 20.0 == pytest.approx(here.bse["x"], rel=1e-3)


def test_the_iterative_solver_and_its_errors(frame):
    here, there = (
        bigmm.glmm(FORMULAS["crossed"], moved(frame, *to), family="bernoulli", solver="iterative", se="rx")
        for to in ((0.0, 1.0), (100.0, 10.0))
    )
    assert here.converged and there.converged
    assert there.objective == pytest.approx(here.objective, abs=4.0 * here.monte_carlo_error["objective"] + 1e-3)
    errors = [np.array(m.monte_carlo_error["theta_statistical"]) for m in (here, there)]
    assert np.all(np.isfinite(errors))


def test_a_variance_that_runs_away_is_one_on_the_rows():
    """Levels that answer alike: the deviation of the effect on the rows grows without limit, at any origin of x."""
    rng = np.random.default_rng(1)
    g, x = np.repeat(np.arange(30), 40), rng.normal(size=1200)
    data = pd.DataFrame({"y": (g % 2).astype(int), "g": g, "x": x + 50.0})
    m = bigmm.glmm("y ~ x + (x | g)", data, family="bernoulli", se="rx")
    assert not m.converged
    assert "runs away" in m.optimizer_result.advice
