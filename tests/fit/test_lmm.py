"""The recipe end to end on real Parquet: how rows are cut, ordered, weighted or labelled changes nothing it should
not."""

import numpy as np
import pandas as pd
import pytest

import bigmm
from tests.fit.conftest import FORMULA, crossed_rows, write
from tests.results.oracle import Dense, indicator, relative_factor


def numbers(model) -> np.ndarray:
    """Everything a fit estimates, as one vector."""
    return np.concatenate(
        [
            [model.objective, model.sigma],
            model.theta,
            model.params.to_numpy(),
            model.bse.to_numpy(),
            *(frame.to_numpy().ravel() for frame in model.ranef(condvar=True).values()),
        ]
    )


def assert_same_fit(model, other, tolerance=1e-10):
    np.testing.assert_allclose(numbers(model), numbers(other), rtol=tolerance, atol=tolerance)


@pytest.fixture(scope="module")
def whole(frame, tmp_path_factory):
    path = write(frame, tmp_path_factory.mktemp("whole") / "rows.parquet")
    return bigmm.lmm(FORMULA, path, weights="w", offset="off", n_workers=1)


def test_what_is_counted(whole, frame):
    assert whole.converged
    assert whole.nobs == len(frame)
    assert whole.n_groups == {"g": 15, "h": 6}
    assert whole.fitted.passes == 2
    assert set(whole.fitted.seconds) >= {"open", "learn", "accumulate", "assemble", "optimize", "estimate"}


@pytest.mark.parametrize("partition_bytes", [1, 5_000, 1 << 26])
def test_partitions_change_only_rounding(whole, lake, partition_bytes):
    assert_same_fit(bigmm.lmm(FORMULA, lake, weights="w", offset="off", partition_bytes=partition_bytes), whole)


def test_one_row_per_row_group(whole, frame, tmp_path):
    path = write(frame, tmp_path / "rows.parquet", row_group_size=1)
    assert_same_fit(bigmm.lmm(FORMULA, path, weights="w", offset="off", partition_bytes=1), whole)


def test_files_named_one_by_one(whole, lake):
    assert_same_fit(bigmm.lmm(FORMULA, sorted(lake.glob("*.parquet")), weights="w", offset="off"), whole)


@pytest.mark.parametrize("reml", [False, True])
def test_same_bits_on_any_number_of_threads(lake, reml):
    fits = [
        numbers(bigmm.lmm(FORMULA, lake, reml=reml, weights="w", offset="off", n_workers=n, partition_bytes=1))
        for n in (1, 2, 4)
    ]
    assert fits[0].tobytes() == fits[1].tobytes() == fits[2].tobytes()


@pytest.mark.parametrize("reml", [False, True])
def test_a_whole_weight_is_a_repeated_row(frame, tmp_path, reml):
    """theta, beta and conditional modes agree; the residual degrees of freedom do not (n counts rows)."""
    repeated = frame.loc[frame.index.repeat(frame["k"])]
    light = bigmm.lmm(FORMULA, write(frame, tmp_path / "w.parquet"), weights="k", reml=reml)
    heavy = bigmm.lmm(FORMULA, write(repeated, tmp_path / "r.parquet"), reml=reml)
    theta = np.array([0.8, -0.2, 0.5, 0.6])
    a, b = (m.fitted.criterion.estimates(theta) for m in (light, heavy))
    np.testing.assert_allclose(a.beta, b.beta, rtol=1e-10)
    for u, v in zip(a.b, b.b, strict=True):
        np.testing.assert_allclose(u, v, rtol=1e-9, atol=1e-11)
    assert a.pwrss - (b.pwrss - 0.0) == pytest.approx(0.0, abs=1e-9 * b.pwrss)
    np.testing.assert_allclose([a.logdet_z, a.logdet_x], [b.logdet_z, b.logdet_x], rtol=1e-11)
    assert (light.nobs, heavy.nobs) == (len(frame), frame["k"].sum())


def test_shuffled_rows(whole, frame, tmp_path):
    shuffled = frame.sample(frac=1.0, random_state=0)
    assert_same_fit(bigmm.lmm(FORMULA, write(shuffled, tmp_path / "s.parquet"), weights="w", offset="off"), whole)


def test_relabelled_levels(whole, frame, tmp_path):
    names = {label: f"z{99 - i}" for i, label in enumerate(sorted(frame["g"].unique()))}
    path = write(frame.assign(g=frame["g"].map(names)), tmp_path / "n.parquet")
    other = bigmm.lmm(FORMULA, path, weights="w", offset="off")
    np.testing.assert_allclose(numbers(other)[:8], numbers(whole)[:8], rtol=1e-10)
    pd.testing.assert_frame_equal(
        other.ranef()["g"], whole.ranef()["g"].rename(index=names).sort_index(), rtol=1e-9, check_names=False
    )


def test_integer_levels(whole, frame, tmp_path):
    path = write(frame.assign(g=frame["g"].str[1:].astype("int64")), tmp_path / "i.parquet")
    assert_same_fit(bigmm.lmm(FORMULA, path, weights="w", offset="off"), whole)


def test_a_response_far_from_zero_loses_nothing(frame, tmp_path):
    """Shifting y and x by large round numbers changes the intercept alone."""
    quarters = frame.assign(y=np.round(frame["y"] * 64) / 64, x=np.round(frame["x"] * 64) / 64)
    near = bigmm.lmm(FORMULA, write(quarters, tmp_path / "near.parquet"))
    far = bigmm.lmm(FORMULA, write(quarters.assign(y=quarters["y"] + 2.0**33), tmp_path / "far.parquet"))
    np.testing.assert_allclose(far.theta, near.theta, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose([far.sigma, far.objective], [near.sigma, near.objective], rtol=1e-11)
    assert far.params["x"] == pytest.approx(near.params["x"], rel=1e-8)
    assert far.params["Intercept"] - 2.0**33 == pytest.approx(near.params["Intercept"], abs=2e-6)


@pytest.mark.parametrize("reml", [False, True])
@pytest.mark.parametrize("weights", [None, "w"])
@pytest.mark.parametrize("offset", [None, "off"])
def test_dense_oracle(frame, lake, reml, weights, offset):
    model = bigmm.lmm(FORMULA, lake, reml=reml, weights=weights, offset=offset)
    x = np.column_stack([np.ones(len(frame)), frame["x"]])
    g, h = (pd.Categorical(frame[name]).codes for name in "gh")
    z = np.hstack([indicator(g, x, 15), indicator(h, x[:, :1], 6)])
    y = frame["y"].to_numpy() - (frame["off"].to_numpy() if offset else 0.0)
    w = frame["w"].to_numpy() if weights else np.ones(len(frame))

    def dense(theta):
        lambdas = list(model.fitted.criterion.covariances.lambdas(theta))
        return Dense(y, x, z, relative_factor(lambdas, [15, 6]), w, reml)

    for theta in (model.theta, np.array([1.0, 0.3, 0.2, 0.0]), np.zeros(4)):
        assert model.fitted.criterion.value(theta) == pytest.approx(dense(theta).objective, rel=1e-10)
    oracle = dense(model.theta)
    np.testing.assert_allclose(model.params, oracle.beta, rtol=1e-9)
    np.testing.assert_allclose(model.cov_params(), oracle.vcov, rtol=1e-9)
    assert model.sigma == pytest.approx(oracle.sigma, rel=1e-10)
    modes = np.concatenate([model.ranef()[name].to_numpy().ravel() for name in "gh"])
    np.testing.assert_allclose(modes, oracle.b, rtol=1e-8, atol=1e-10)
    for i in range(4):  # no neighbour is better
        for step in (-1e-3, 1e-3):
            assert dense(model.theta + step * np.eye(4)[i]).objective > model.objective


@pytest.mark.parametrize("optimizer", ["newton", "bobyqa", "cobyla", "lbfgs"])
def test_optimizers_agree(whole, lake, optimizer):
    model = bigmm.lmm(FORMULA, lake, weights="w", offset="off", optimizer=optimizer)
    assert model.converged
    assert model.objective == pytest.approx(whole.objective, abs=1e-5)


def test_theta0_is_where_it_starts(whole, lake):
    model = bigmm.lmm(FORMULA, lake, weights="w", offset="off", theta0=whole.theta, optimizer="newton")
    assert model.objective == pytest.approx(whole.objective, abs=1e-9)


def test_many_levels_of_a_fixed_factor_equal_a_small_dense_model(tmp_path):
    """The same factor kept as level numbers (many levels) and as columns (few levels) by one oracle."""
    rng = np.random.default_rng(0)
    n, q = 3_000, 260
    rows = crossed_rows(n, seed=9).assign(
        f=[f"f{i:03d}" for i in np.concatenate([np.arange(q), rng.integers(0, q, n - q)])]
    )
    model = bigmm.lmm("y ~ x + f + (1 | g)", write(rows, tmp_path / "f.parquet"), weights="w")
    assert model.fitted.spec.layout.fixed_factors, "the factor should be kept as level numbers"
    f = pd.Categorical(rows["f"]).codes
    x = np.column_stack([np.ones(n), rows["x"], np.eye(q)[f][:, 1:]])
    names = ["Intercept", "x", *(f"f[T.f{i:03d}]" for i in range(1, q))]
    z = indicator(pd.Categorical(rows["g"]).codes, np.ones((n, 1)), 15)
    # V^-1 by Woodbury, on sums over rows: the oracle's n x n algebra would take seconds
    w = rows["w"].to_numpy()
    lam = model.theta[0]
    m = np.eye(15) + lam**2 * z.T @ (w[:, None] * z)
    xy = np.column_stack([x, rows["y"]])
    zxy = lam * z.T @ (w[:, None] * xy)
    gram = xy.T @ (w[:, None] * xy) - zxy.T @ np.linalg.solve(m, zxy)
    beta = np.linalg.solve(gram[:-1, :-1], gram[:-1, -1])
    r2 = gram[-1, -1] - gram[:-1, -1] @ beta
    dof = n - len(beta)
    logdet = np.linalg.slogdet(m)[1] + np.linalg.slogdet(gram[:-1, :-1])[1] - np.log(w).sum()
    assert model.objective == pytest.approx(logdet + dof * (1 + np.log(2 * np.pi * r2 / dof)), rel=1e-10)
    np.testing.assert_allclose(model.params[names], beta, rtol=1e-7, atol=1e-9)
    variances = r2 / dof * np.diagonal(np.linalg.inv(gram[:-1, :-1]))
    np.testing.assert_allclose(model.bse[names], np.sqrt(variances), rtol=1e-8)


@pytest.mark.slow
def test_thousands_of_levels_of_a_fixed_factor_in_bounded_memory(tmp_path):
    """200,000 rows x 3,000 columns would be 4.8 GB; X'X of level numbers is 72 MB."""
    rng = np.random.default_rng(1)
    n, q = 200_000, 3_000
    f, g = rng.integers(0, q, n), rng.integers(0, 40, n)
    effect = rng.normal(size=q)
    y = effect[f] + rng.normal(size=40)[g] + rng.normal(size=n)
    rows = pd.DataFrame({"y": y, "f": [f"f{i:04d}" for i in f], "g": g})
    model = bigmm.lmm("y ~ 0 + f + (1 | g)", write(rows, tmp_path / "f.parquet", 50_000), memory_limit="2GiB")
    assert model.converged
    assert model.fitted.peak_rss_bytes < 3 << 30
    assert np.corrcoef(model.params, effect)[0, 1] > 0.95
    # within g, each level's coefficient is its mean less the modes: the normal equations hold
    modes = model.ranef()["g"].to_numpy()[g, 0]
    means = pd.Series(y - modes).groupby(f).mean()
    np.testing.assert_allclose(model.params.to_numpy(), means, rtol=1e-8, atol=1e-9)


def test_dependent_columns_are_dropped_and_named(frame, tmp_path):
    rows = frame.assign(x2=3.0 - 2.0 * frame["x"], x3=np.sin(frame["x"]))
    path = write(rows, tmp_path / "d.parquet")
    model = bigmm.lmm("y ~ x + x2 + x3 + (1 | g)", path)
    without = bigmm.lmm("y ~ x + x3 + (1 | g)", path)
    assert np.isnan(model.params["x2"])
    assert np.isnan(model.bse["x2"])
    np.testing.assert_allclose(model.params.drop("x2"), without.params, rtol=1e-9)
    np.testing.assert_allclose([model.objective, model.sigma], [without.objective, without.sigma], rtol=1e-10)
    assert tuple(model.fitted.assembled.dropped_columns) == ("x2",)
