"""A model does not depend on where its covariates begin to count, nor on their units.

The criterion is compared with the same one from dense matrices at the same theta: V = I + sum Z lambda lambda'Z' of the
raw covariates, and X in a well-conditioned basis of its columns, whose log-determinant against X is known. A covariate
x = origin + u in float64 holds u to 1e-16 of the origin, so u is taken from x by a subtraction that is exact.
"""

import numpy as np
import pandas as pd
import pytest

import bigmm

N, LEVELS = 240, 14
RNG = np.random.default_rng(20)
GROUP = np.append(np.arange(LEVELS), RNG.integers(0, LEVELS, N - LEVELS))
U, V = RNG.normal(size=N), RNG.normal(size=N)
FACTOR = RNG.choice(list("abc"), N)
DUMMIES = (FACTOR[:, None] == np.array(list("abc"))).astype(float)
EFFECTS = RNG.normal(size=(LEVELS, 2))
Y = 1 + DUMMIES @ [0.5, 1.0, -0.5] * U + 0.4 * V + 0.3 * U * V + EFFECTS[GROUP, 0] + 0.6 * EFFECTS[GROUP, 1] * U
Y = Y + RNG.normal(size=N)
ONE = np.ones(N)


def frame(x, z, y=Y):
    return pd.DataFrame({"y": y, "x": x, "z": z, "f": FACTOR, "g": GROUP})


def dense_criterion(z, x, y, theta, reml, logdet=0.0):
    """The criterion; z: per term (n, k) raw covariates; x (n, p): a basis of the columns of X, log|T| of X = x T."""
    cov, at = np.eye(N), 0
    for own in z:
        lam = np.zeros((own.shape[1],) * 2)
        for column in range(len(lam)):
            lam[column:, column] = theta[at : at + len(lam) - column]
            at += len(lam) - column
        effects = np.asarray(own.astype(np.longdouble) @ lam.astype(np.longdouble), float)
        cov += (effects @ effects.T) * (GROUP[:, None] == GROUP)
    try:
        root = np.linalg.cholesky(cov)
    except np.linalg.LinAlgError:  # a variance of many powers of ten, far above the minimum
        return np.inf
    q, r = np.linalg.qr(np.linalg.solve(root, x))
    right = np.linalg.solve(root, y)
    squares, dof = float(np.sum((right - q @ (q.T @ right)) ** 2)), N - (x.shape[1] if reml else 0)
    logs = 2.0 * np.log(np.diag(root)).sum()
    logs += 2.0 * (np.log(np.abs(np.diag(r))).sum() + logdet) if reml else 0.0
    return logs + dof * (1.0 + np.log(2.0 * np.pi * squares / dof))


def models(x, z, s):
    """{formula: (random covariates, basis of X, log-determinant)} for covariates that are both moved by s."""
    u, v, big = x - s, z - s, np.log(s)
    plain = [ONE[:, None]]
    return {
        "x + (0 + x | g)": ([x[:, None]], np.c_[ONE, u], 0.0),
        "1 + (0 + x | g)": ([x[:, None]], ONE[:, None], 0.0),
        "x + (x || g)": ([ONE[:, None], x[:, None]], np.c_[ONE, u], 0.0),
        "x + (x | g)": ([np.c_[ONE, x]], np.c_[ONE, u], 0.0),
        "x + z + (0 + x + z | g)": ([np.c_[x, z]], np.c_[ONE, u, v], 0.0),
        "x * z + (1 | g)": (plain, np.c_[ONE, u, v, u * v], 0.0),
        "x * z + (x * z | g)": ([np.c_[ONE, x, z, x * z]], np.c_[ONE, u, v, u * v], 0.0),
        "f * x + (1 | g)": (plain, np.c_[DUMMIES, DUMMIES * u[:, None]], 0.0),
        "f * x + (0 + x | g)": ([x[:, None]], np.c_[DUMMIES, DUMMIES * u[:, None]], 0.0),
        "f * x * z + (1 | g)": (plain, np.hstack([DUMMIES * c[:, None] for c in (ONE, u, v, u * v)]), 0.0),
        "0 + f + f:x + (1 | g)": (plain, np.c_[DUMMIES, DUMMIES * u[:, None]], 0.0),
        "0 + x + f + (1 | g)": (plain, np.c_[DUMMIES, u], 0.0),
        "f:x + (1 | g)": (plain, np.c_[ONE, DUMMIES[:, :2] * (x / s)[:, None], u], 2 * big),
        "0 + f:x + (1 | g)": (plain, DUMMIES * (x / s)[:, None], 3 * big),
        "0 + x + z + (1 | g)": (plain, np.c_[x / s, v - u], big),
        "0 + x + (0 + x | g)": ([x[:, None]], np.c_[x / s], big),
        "x:z + (1 | g)": (plain, np.c_[ONE, u * (v / s) + u + v], big),
        "x + x:z + (1 | g)": (plain, np.c_[ONE, u, v * (x / s)], big),
    }


@pytest.mark.parametrize(("origin", "reml"), [(1e3, False), (1e5, True), (1e8, True)])
@pytest.mark.parametrize("formula", models(U + 1.0, V + 1.0, 1.0))
def test_origin(formula, origin, reml):
    x, z = U + origin, V + origin
    found = bigmm.lmm(f"y ~ {formula}", frame(x, z), reml=reml)
    own = models(x, z, origin)[formula]
    assert found.converged
    at = found.theta
    expected = dense_criterion(own[0], own[1], Y, at, reml, own[2])
    # float64 holds x to 1e-16 of the origin; the raw product x:z, which some of these models need, to its square
    product = "x:z" in formula
    assert found.objective == pytest.approx(expected, abs=max(1e-7, 1e-15 * origin * (100.0 if product else 10.0)))
    assert found.npar == own[1].shape[1] + len(at) + 1
    for element in range(len(at)):  # no neighbour is better
        for share in (0.97, 1.03):
            other = at * np.where(np.arange(len(at)) == element, share, 1.0)
            assert dense_criterion(own[0], own[1], Y, other, reml, own[2]) > expected - 1e-6


@pytest.mark.parametrize("origin", [1e3, 1e5, 1e8])
@pytest.mark.parametrize(
    ("formula", "moved"),
    [
        ("f * x + (1 | g)", ("x", "f[T.b]:x", "f[T.c]:x")),
        ("x * z + (1 | g)", ("x:z",)),
        ("0 + x + f + (1 | g)", ("x",)),
        ("x + (x | g)", ("x",)),
        ("poly(x, 2) + (1 | g)", ("poly(x, 2)1", "poly(x, 2)2")),
    ],
)
def test_slopes_and_their_errors_stay(formula, moved, origin):
    x, z = U + origin, V + origin
    far = bigmm.lmm(f"y ~ {formula}", frame(x, z))
    near = bigmm.lmm(f"y ~ {formula}", frame(x - origin, z - origin))
    assert far.converged and far.npar == near.npar
    assert far.objective == pytest.approx(near.objective, abs=1e-7)
    assert far.sigma == pytest.approx(near.sigma, rel=1e-7)
    names = list(moved) if set(moved) <= set(far.params.index) else [n for n in far.params.index if "poly" in n]
    np.testing.assert_allclose(far.params[names], near.params[names], rtol=1e-6)
    np.testing.assert_allclose(far.bse[names], near.bse[names], rtol=1e-6)
    if "x * z" in formula:  # (x - s)(z - s) has the slopes of x z, less s times the interaction
        expected = near.params["x"] - origin * near.params["x:z"]
        assert far.params["x"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("unit", [1e-12, 1e-6, 1e6, 1e9, 1e12])
@pytest.mark.parametrize(
    ("formula", "columns"),
    [
        ("x + (x | g)", 1),
        ("x + (x || g)", 1),
        ("x + (1 | g) + (0 + x | g)", 1),
        ("x + (0 + x | g)", 1),
        ("f * x + (x | g)", 3),
    ],
)
def test_unit(formula, columns, unit):
    near = bigmm.lmm(f"y ~ {formula}", frame(U + 1.0, V))
    far = bigmm.lmm(f"y ~ {formula}", frame((U + 1.0) * unit, V))
    assert far.converged and far.npar == near.npar
    assert far.objective == pytest.approx(near.objective + 2 * columns * np.log(unit), abs=1e-6)
    assert far.params["x"] == pytest.approx(near.params["x"] / unit, rel=1e-5)
    assert far.bse["x"] == pytest.approx(near.bse["x"] / unit, rel=1e-5)
    assert far.is_singular == near.is_singular


@pytest.mark.parametrize("unit", [1e-12, 1e-6, 1e6, 1e12])
@pytest.mark.parametrize("formula", ["x + (x | g)", "x + (x || g)", "x + (1 | g)"])
def test_unit_of_response_and_of_weights(formula, unit):
    near = bigmm.lmm(f"y ~ {formula}", frame(U, V), reml=False)
    far = bigmm.lmm(f"y ~ {formula}", frame(U, V, Y * unit), reml=False)
    assert far.converged and far.objective == pytest.approx(near.objective + 2 * N * np.log(unit), abs=1e-6)
    assert far.sigma == pytest.approx(near.sigma * unit, rel=1e-6)
    heavy = bigmm.lmm(f"y ~ {formula}", frame(U, V), reml=False, weights=np.full(N, unit))
    assert heavy.converged and heavy.objective == pytest.approx(near.objective, abs=1e-6)
    np.testing.assert_allclose(heavy.theta, near.theta / np.sqrt(unit), rtol=1e-4, atol=1e-6 / np.sqrt(unit))


def test_epoch_seconds():
    """Ten years of seconds: theta is 1e-9 where it is 0.6 in units of three years."""
    time = 1.42e9 + (U - U.min()) * 6e7
    unit = (time - 1.577e9) / 1e8
    near = bigmm.lmm("y ~ u + (u | g)", frame(U, V).assign(u=unit))
    far = bigmm.lmm("y ~ t + (t | g)", frame(U, V).assign(t=time))
    assert far.converged and far.objective == pytest.approx(near.objective + 2 * np.log(1e8), abs=1e-6)


def test_a_near_copy_is_kept_down_to_a_ten_millionth():
    """lme4's and R's tolerance is 1e-7 of a column's length."""
    kept = bigmm.lmm("y ~ x + z + (1 | g)", frame(U, U + 1e-6 * V))
    other = bigmm.lmm("y ~ x + z + (1 | g)", frame(U, V))
    assert kept.npar == other.npar and kept.objective == pytest.approx(other.objective + 2 * np.log(1e-6), abs=1e-6)
    dropped = bigmm.lmm("y ~ x + z + (1 | g)", frame(U, U + 1e-9 * V))
    assert np.isnan(dropped.params["z"]) and dropped.npar == other.npar - 1
    exact = bigmm.lmm("y ~ x + z + (1 | g)", frame(U + 1e8, 2 * (U + 1e8)))
    assert np.isnan(exact.params["z"])


def test_what_depends_on_earlier_columns_is_still_named():
    """n is a constant of each level of f, far from zero: the last level of f is the column that depends on others."""
    x = 1e6 + DUMMIES @ [1.0, 2.0, 5.0]
    found = bigmm.lmm("y ~ 0 + x + f + (1 | g)", frame(x, V))
    assert np.isnan(found.params["f[c]"]) and np.isfinite(found.params["x"])


def test_a_response_that_a_covariate_nearly_gives():
    y = Y + 1e9 * U
    found, expected = (bigmm.lmm("y ~ x + (1 | g)", frame(U, V, values)) for values in (y, Y))
    assert found.objective == pytest.approx(expected.objective, abs=1e-4)  # y holds noise to 1e-7
    assert found.params["x"] == pytest.approx(1e9 + expected.params["x"], rel=1e-14)
    assert found.bse["x"] == pytest.approx(expected.bse["x"], rel=1e-6)


@pytest.mark.parametrize("mean", [1e6, 1e8, 1e10])
@pytest.mark.parametrize("files", [1, 30])
def test_files_without_a_complete_row(tmp_path, mean, files):
    """Adding a constant to y changes the intercept alone, whatever the first files lack; with many such files the pass
    itself finds that its shift was far off."""
    x = U + mean
    for number in range(files):
        part = frame(x, V)[:8].assign(y=np.nan)
        part.to_parquet(tmp_path / f"{number:03}.parquet")
    frame(x, V, Y + mean).to_parquet(tmp_path / "part-a.parquet")
    frame(x, V)[:20].assign(y=np.nan).to_parquet(tmp_path / "part-b.parquet")
    found = bigmm.lmm("y ~ x + (1 | g)", tmp_path)
    expected = bigmm.lmm("y ~ x + (1 | g)", frame(x - mean, V, (Y + mean) - mean))
    assert found.objective == pytest.approx(expected.objective, abs=1e-6)
    assert found.params["x"] == pytest.approx(expected.params["x"], rel=1e-6)
    assert found.nobs == N


def test_first_rows_unlike_the_others(tmp_path):
    """Sorted data: the first file is near zero, all others a billion away."""
    near, far = frame(U, V)[:100], frame(U + 1e9, V, Y + 1e9)
    near.to_parquet(tmp_path / "0.parquet")
    for number in range(1, 40):
        far.to_parquet(tmp_path / f"{number:02}.parquet")
    found = bigmm.lmm("y ~ x + f:x + (1 | g)", tmp_path, filter="x > 1000")
    expected = bigmm.lmm("y ~ x + f:x + (1 | g)", pd.concat([far] * 39))
    assert found.objective == pytest.approx(expected.objective, abs=1e-5)


def test_effects_count_term_by_term():
    """40 levels and 70 rows: lme4 refuses (x | g), whose 80 effects are of one term, and fits (x || g)."""
    rng = np.random.default_rng(777021)
    group = np.sort(np.append(np.arange(40), rng.integers(0, 40, 30)))
    x = rng.normal(size=70)
    y = x + 2 * rng.normal(size=40)[group] + 2 * rng.normal(size=40)[group] * x + rng.normal(size=70)
    data = pd.DataFrame({"y": y, "x": x, "g": group})
    double = bigmm.lmm("y ~ x + (x || g)", data)
    apart = bigmm.lmm("y ~ x + (1 | g) + (0 + x | g)", data)
    assert double.objective == apart.objective and np.isfinite(double.objective)
    with pytest.raises(bigmm.DataError, match=r"80 random effects \(40 levels x 2\) for 70 rows"):
        bigmm.lmm("y ~ x + (x | g)", data)


@pytest.mark.parametrize("formula", ["x + (0 + x | g)", "f * x + (x | g)", "x + (x || g)"])
def test_levels_that_stay_with_the_workers(formula, monkeypatch):
    monkeypatch.setattr("bigmm.planning.placement.enough_trees", lambda *_: True)
    data = frame(U + 1e6, V)
    here = bigmm.lmm(f"y ~ {formula}", data)
    monkeypatch.setattr("bigmm.planning.placement.LARGE_BYTES", 1)
    there = bigmm.lmm(f"y ~ {formula}", data)
    assert "stay with the workers" in there.fitted.solver_reason
    assert there.objective == pytest.approx(here.objective, abs=1e-8)


def test_a_saved_fit_and_predictions(tmp_path):
    data = frame(U + 1e7, V)
    fitted, near = bigmm.lmm("y ~ f * x + (0 + x | g)", data), None
    fitted.save(tmp_path / "fit")
    near = bigmm.load(tmp_path / "fit")
    assert near.objective == fitted.objective
    residual = Y - np.asarray(fitted.predict(data))
    assert residual.std() < fitted.sigma
    np.testing.assert_allclose(np.asarray(near.predict(data)), np.asarray(fitted.predict(data)), atol=1e-7)


@pytest.mark.parametrize("origin", [1e3, 1e5, 3e6])
@pytest.mark.parametrize("columns", ["factor", "product", "constant last"])
def test_matrices(origin, columns):
    x, d = U + origin, DUMMIES[:, 0]
    u = x - origin
    far, near, slope = {
        "factor": (np.c_[ONE, d, x, d * x], np.c_[ONE, d, u, d * u], 3),
        "product": (np.c_[ONE, V, x, V * x], np.c_[ONE, V, u, V * u], 3),
        "constant last": (np.c_[x, d, 1 - d], np.c_[u, d, 1 - d], 0),
    }[columns]
    z = (GROUP[:, None] == np.arange(LEVELS)).astype(float)
    found, expected = (bigmm.lmm_from_arrays(Y, own, z) for own in (far, near))
    assert found.converged
    assert found.objective == pytest.approx(expected.objective, abs=1e-7)
    assert found.params.iloc[slope] == pytest.approx(expected.params.iloc[slope], rel=1e-6)
    assert found.bse.iloc[slope] == pytest.approx(expected.bse.iloc[slope], rel=1e-6)


@pytest.mark.parametrize("origin", [3e5, 3e6])
@pytest.mark.parametrize("formula", ["b ~ f * x + (1 | g)", "b ~ 0 + f + f:x + (1 | g)", "b ~ 0 + x + f + (1 | g)"])
def test_products_of_a_generalized_model_far_from_zero(formula, origin):
    """The columns span the same space, and R's rule (1e-7 of a column is left) drops none of them."""
    rng = np.random.default_rng(4)
    g, x, f = np.arange(900) % 30, rng.normal(size=900), np.array(list("abc"))[np.arange(900) % 3]
    eta = 0.3 + 0.5 * x * (f != "b") + (0.7 * rng.normal(size=30))[g]
    data = pd.DataFrame({"b": (rng.random(900) < 1 / (1 + np.exp(-eta))) * 1, "x": x, "g": g, "f": f})
    near, far = (bigmm.glmm(formula, data.assign(x=x + s), family="bernoulli", se="rx") for s in (0.0, origin))
    assert far.npar == near.npar and far.converged
    assert far.objective == pytest.approx(near.objective, abs=1e-5)
    np.testing.assert_allclose(far.predict(), near.predict(), atol=1e-5)


def test_a_generalized_model_sorted_by_a_covariate():
    """The first rows, by which columns are shifted, are not like the others: the sums are made again."""
    rng = np.random.default_rng(5)
    t, g = np.sort(rng.uniform(size=900)), np.arange(900) % 30
    f, eta = np.array(list("abc"))[np.arange(900) % 3], 2 * t - 1 + (0.7 * rng.normal(size=30))[g]
    data = pd.DataFrame({"b": (rng.random(900) < 1 / (1 + np.exp(-eta))) * 1, "g": g, "f": f})
    near, far = (
        bigmm.glmm("b ~ f * t + (1 | g)", data.assign(t=t * u + s), family="bernoulli", partition_bytes=2000, se="rx")
        for u, s in ((1.0, 0.0), (1e8, 1.7e12))
    )
    assert far.npar == near.npar
    assert far.objective == pytest.approx(near.objective, abs=1e-5)
