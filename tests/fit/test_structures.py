"""Terms with a structure in whole fits: every solver, every engine, boundaries, and what is asked of a fit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import bigmm
from bigmm.errors import FormulaError, UsageError
from bigmm.planning import placement, sharding

LEVELS, COLUMNS, ROWS = 48, 4, 900
CORRELATIONS = {"cs": np.full((COLUMNS, COLUMNS), 0.5) + 0.5 * np.eye(COLUMNS)}
CORRELATIONS["ar1"] = 0.6 ** np.abs(np.subtract.outer(np.arange(COLUMNS), np.arange(COLUMNS)))
STRUCTURES = tuple(CORRELATIONS)


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    """Effects of factor f by level of g, which nests in s; h is crossed."""
    rng = np.random.default_rng(11)
    g, h, f = (rng.integers(0, size, ROWS) for size in (LEVELS, 9, COLUMNS))
    x, frame = rng.normal(size=ROWS), {}
    for name, correlation in CORRELATIONS.items():
        b = rng.normal(size=(LEVELS, COLUMNS)) @ np.linalg.cholesky(correlation).T
        eta = 0.4 * x + b[g, f] + 0.6 * rng.normal(size=9)[h] + 0.7 * rng.normal(size=12)[g // 4]
        frame |= {f"y_{name}": 1.0 + eta + rng.normal(size=ROWS), f"n_{name}": rng.poisson(np.exp(0.2 + 0.6 * eta))}
    return pd.DataFrame(frame | {"x": x, "g": g, "h": h, "s": g // 4, "f": np.array(list("abcd"))[f]})


def dense_objective(model, data: pd.DataFrame, name: str, reml: bool) -> float:
    """-2 log L of y ~ x + name(0 + f | g) + (1 | h) from the matrix V itself, at the estimated standard deviations and
    correlations."""
    table = model.varcorr.set_index(["group", "name1", "name2"]).sdcor
    sd = np.array([table[("g", f"f[{f}]", None)] for f in "abcd"])
    correlation = np.eye(COLUMNS)
    for (i, a), (j, b) in ((p, q) for p in enumerate("abcd") for q in enumerate("abcd") if p[0] < q[0]):
        correlation[i, j] = correlation[j, i] = table[("g", f"f[{a}]", f"f[{b}]")]
    column = data.f.map("abcd".index).to_numpy()
    g, h = data.g.to_numpy(), data.h.to_numpy()
    v = (g[:, None] == g) * (correlation * np.outer(sd, sd))[np.ix_(column, column)]
    v = v + table[("h", "Intercept", None)] ** 2 * (h[:, None] == h) + model.sigma**2 * np.eye(len(data))
    x, y = np.column_stack([np.ones(len(data)), data.x]), data[f"y_{name}"].to_numpy()
    inverse = np.linalg.inv(v)
    xvx = x.T @ inverse @ x
    rest = y - x @ np.linalg.solve(xvx, x.T @ inverse @ y)
    out = np.linalg.slogdet(v)[1] + rest @ inverse @ rest + (len(y) - 2 * reml) * np.log(2.0 * np.pi)
    return out + (np.linalg.slogdet(xvx)[1] if reml else 0.0)


@pytest.mark.parametrize("reml", [False, True])
@pytest.mark.parametrize("name", STRUCTURES)
def test_the_objective_is_the_likelihood_of_the_matrix_itself(name, reml, data):
    model = bigmm.lmm(f"y_{name} ~ x + {name}(0 + f | g) + (1 | h)", data, reml=reml)
    assert model.converged and not model.is_singular
    assert model.objective == pytest.approx(dense_objective(model, data, name, reml), rel=1e-9)


@pytest.mark.parametrize("name", STRUCTURES)
def test_the_iterative_solver_agrees(name, data):
    formula = f"y_{name} ~ x + {name}(0 + f | g) + (1 | h)"
    exact, iterative = (bigmm.lmm(formula, data, solver=solver) for solver in ("exact", "iterative"))
    error = iterative.fitted.monte_carlo_error
    assert iterative.fitted.solver == "iterative" and iterative.converged
    assert np.all(np.abs(iterative.theta - exact.theta) <= 1e-6 + 6.0 * np.array(error["theta"]))
    assert iterative.objective == pytest.approx(exact.objective, abs=1e-4 + 6.0 * error["objective"])


@pytest.fixture
def lake(data, tmp_path, monkeypatch):
    """The data in files, so cut that levels stay with the workers."""
    monkeypatch.setattr(sharding, "SMALL_ROWS", 100)
    monkeypatch.setattr(placement, "SHARE", 10**9)
    for number, part in enumerate(np.array_split(np.arange(ROWS), 5)):
        pq.write_table(pa.Table.from_pandas(data.iloc[part]), tmp_path / f"{number}.parquet")
    return tmp_path


@pytest.mark.parametrize("name", STRUCTURES)
def test_levels_in_shards_give_the_same_fit(name, data, lake):
    formula = f"y_{name} ~ x + {name}(0 + f | g) + (1 | s)"
    here, there = bigmm.lmm(formula, data), bigmm.lmm(formula, lake, n_workers=2)
    assert there.fitted.solver_reason.startswith("levels stay with the workers")
    np.testing.assert_allclose(there.theta, here.theta, rtol=1e-5)
    assert there.objective == pytest.approx(here.objective, abs=1e-7)
    pd.testing.assert_frame_equal(there.ranef()["g"], here.ranef()["g"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("more", ["", " + (1 | s)", " + (1 | h)"])
@pytest.mark.parametrize("name", STRUCTURES)
def test_every_engine_ends_where_it_began_elsewhere(name, more, data):
    formula = f"n_{name} ~ x + {name}(0 + f | g){more}"
    model = bigmm.glmm(formula, data, family="poisson")
    table = model.varcorr
    start = [*table[table.group.eq("g") & table.name2.isna()].sdcor[: COLUMNS if name == "cs" else 1], 0.2]
    start += [0.5] if more else []
    again = bigmm.glmm(formula, data, family="poisson", theta0=start)
    assert model.converged and again.converged
    assert again.objective == pytest.approx(model.objective, abs=1e-6)
    np.testing.assert_allclose(again.theta, model.theta, rtol=1e-3)


def test_an_iterative_generalized_fit(data):
    formula = "n_cs ~ x + cs(0 + f | g) + (1 | h)"
    exact, iterative = (bigmm.glmm(formula, data, family="poisson", solver=s, se="rx") for s in ("exact", "iterative"))
    assert iterative.converged
    error = np.array(iterative.fitted.monte_carlo_error["theta"])
    assert np.all(np.abs(iterative.theta - exact.theta) <= 1e-4 + 6.0 * error)


def test_a_saved_fit_has_its_structure(data, tmp_path):
    model = bigmm.lmm("y_ar1 ~ x + ar1(0 + f | g) + (1 | h)", data)
    model.save(tmp_path / "fit")
    again = bigmm.load(tmp_path / "fit")
    pd.testing.assert_frame_equal(again.varcorr, model.varcorr)
    assert str(again.summary()) == str(model.summary())
    np.testing.assert_array_equal(again.predict(data), model.predict(data))
    assert again.npar == model.npar == 2 + 2 + 1 + 1


def test_what_is_asked_of_a_fit(data):
    model = bigmm.lmm("y_cs ~ x + cs(0 + f | g) + (1 | h)", data, reml=False)
    assert bigmm.plan("y_cs ~ x + cs(0 + f | g) + (1 | h)", data).theta == 6 == len(model.theta)
    modes = model.ranef(condvar=True)["g"]
    assert list(modes) == [*(f"f[{f}]" for f in "abcd"), *(f"f[{f}]_sd" for f in "abcd")]
    all_of_g = model.predict(data, random=["cs(0 + f | g)"])
    np.testing.assert_allclose(all_of_g, model.predict(data, random=["g"]))
    wide = bigmm.lmm("y_cs ~ x + us(0 + f | g) + (1 | h)", data, reml=False)
    table = model.anova(wide)
    assert table["npar"].tolist() == [9, 14] and table["Chisq"].iloc[1] > 0.0
    text = str(model.summary())
    assert text.count("(cs)") == 1
    assert len(model.tidy("ran_pars")) == 4 + 6 + 1 + 1
    first, second = model.simulate(seed=1), model.simulate(seed=1)
    np.testing.assert_array_equal(first, second)


def test_one_variance_is_shown_once(data):
    text = str(bigmm.lmm("y_ar1 ~ x + ar1(0 + f | g)", data).summary())
    assert "f[a] to f[d]" in text and "(ar1)" in text


def test_diag_is_the_model_of_two_bars(data):
    one, two = (bigmm.lmm(f"y_cs ~ x + {term}", data) for term in ("diag(1 + x | g)", "(1 + x || g)"))
    np.testing.assert_allclose(one.theta, two.theta, rtol=1e-6)
    assert one.objective == pytest.approx(two.objective, abs=1e-9)
    assert one.varcorr.name2.isna().all()
    us = bigmm.lmm("y_cs ~ x + us(1 + x | g)", data)
    assert us.objective == bigmm.lmm("y_cs ~ x + (1 + x | g)", data).objective


def test_one_column_is_a_variance(data):
    expected = bigmm.lmm("y_cs ~ x + (1 | g)", data)
    for name in ("cs", "ar1", "diag", "us"):
        assert bigmm.lmm(f"y_cs ~ x + {name}(1 | g)", data).objective == expected.objective


@pytest.mark.parametrize("name", STRUCTURES)
def test_a_correlation_of_one_is_singular_and_a_random_intercept(name):
    rng = np.random.default_rng(3)
    g, f = rng.integers(0, 40, 800), rng.integers(0, 3, 800)
    data = pd.DataFrame({"y": rng.normal(size=40)[g] + rng.normal(size=800), "g": g, "f": np.array(list("abc"))[f]})
    model = bigmm.lmm(f"y ~ 1 + {name}(0 + f | g)", data)
    assert model.converged
    if model.varcorr.sdcor.iloc[-2] > 1.0 - 1e-4:
        assert model.is_singular
    if name == "ar1" and model.is_singular:
        assert model.objective == pytest.approx(bigmm.lmm("y ~ 1 + (1 | g)", data).objective, abs=1e-4)


def test_a_variance_of_zero_is_singular():
    rng = np.random.default_rng(4)
    g, f = rng.integers(0, 40, 800), rng.integers(0, 3, 800)
    b = rng.normal(size=40)[g] * (f > 0)
    data = pd.DataFrame({"y": b + rng.normal(size=800), "g": g, "f": np.array(list("abc"))[f]})
    model = bigmm.lmm("y ~ 1 + cs(0 + f | g)", data)
    assert model.converged and model.is_singular == (np.min(model.theta[:3]) < 1e-4 or model.theta[3] > 1.0 - 1e-4)


def test_one_row_for_each_effect_leaves_a_residual():
    """Autoregression with a residual, where an unstructured covariance could not be told apart from it."""
    rng, q, k = np.random.default_rng(5), 80, 12
    b = rng.normal(size=(q, k)) @ np.linalg.cholesky(0.7 ** np.abs(np.subtract.outer(range(k), range(k)))).T
    x, times = rng.normal(size=q * k), [f"t{i:02}" for i in range(k)]
    data = pd.DataFrame({"g": np.repeat(np.arange(q), k), "t": times * q, "x": x})
    data["y"] = 0.5 * x + b.ravel() + 0.7 * rng.normal(size=q * k)
    model = bigmm.lmm("y ~ x + ar1(0 + t | g)", data)
    far = bigmm.lmm("y ~ x + ar1(0 + t | g)", data, theta0=[1.0, 0.5])
    assert model.converged and model.objective == pytest.approx(far.objective, abs=1e-6)
    with pytest.raises(bigmm.errors.DataError, match="cannot be told apart"):
        bigmm.lmm("y ~ x + (0 + t | g)", data)


@pytest.mark.parametrize(
    ("term", "message"),
    [
        ("toep(0 + f | g)", r"there is no covariance structure .toep.; .* us\(\), diag\(\), cs\(\), ar1\(\)"),
        ("cs(0 + f || g)", r"'\|\|' makes independent terms, so it cannot be inside cs\(\)"),
    ],
)  # fmt: skip
def test_what_is_not_a_structure(term, message, data):
    with pytest.raises(FormulaError, match=message):
        bigmm.lmm(f"y_cs ~ x + {term} + (1 | h)", data)


@pytest.mark.parametrize("theta0", [[1.0, 1.5], [-1.0, 0.2]])
def test_a_start_out_of_bounds_is_refused(theta0, data):
    with pytest.raises(UsageError, match="theta0"):
        bigmm.lmm("y_ar1 ~ x + ar1(0 + f | g)", data, theta0=theta0)


def test_two_columns_with_compound_symmetry_have_any_covariance(data):
    """The same model as without a structure, so the same objective, estimates and degrees of freedom."""
    two = data[data.f < "c"]
    cs, us = (bigmm.lmm(f"y_cs ~ x + {term}", two) for term in ("cs(0 + f | g)", "(0 + f | g)"))
    assert cs.objective == pytest.approx(us.objective, abs=1e-8)
    pd.testing.assert_frame_equal(cs.varcorr, us.varcorr, rtol=1e-5)
    for ddf in ("satterthwaite", "kenward-roger"):
        pd.testing.assert_frame_equal(cs.tidy(ddf=ddf), us.tidy(ddf=ddf), rtol=1e-4)
