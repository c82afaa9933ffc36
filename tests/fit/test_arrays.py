"""`lmm_from_arrays` against lme4's numbers, a dense oracle and `lmm`, for every kind of array."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import zarr

import bigmm
from bigmm import DataError, MemoryLimitError, UsageError, lmm_from_arrays
from tests.results.oracle import Dense

REFERENCE = Path(__file__).parent.parent / "reference"
CASES = {case["id"]: case for case in json.loads((REFERENCE / "reference.json").read_text())["cases"]}


def sleep_matrices() -> tuple[np.ndarray, np.ndarray, sp.csr_array]:
    """y, X = [1 Days], Z with intercept and slope of each subject side by side."""
    frame = pd.read_parquet(REFERENCE / "data" / "sleepstudy.parquet")
    g, n = pd.Categorical(frame["Subject"]).codes.astype(int), len(frame)
    x = np.column_stack([np.ones(n), frame["Days"]])
    return frame["Reaction"].to_numpy(), x, slopes(g, x)


def slopes(g: np.ndarray, x: np.ndarray) -> sp.csr_array:
    """(n, levels * k): row i has x[i] in the k columns of level g[i]."""
    n, k = x.shape
    columns = k * g[:, None] + np.arange(k)
    return sp.csr_array((x.ravel(), (np.repeat(np.arange(n), k), columns.ravel())), shape=(n, k * (g.max() + 1)))


def blockwise(levels: int):
    """Lambda = I (x) template of an intercept and a slope, in lme4's order of theta."""
    return lambda theta: sp.kron(sp.eye_array(levels), np.array([[theta[0], 0.0], [theta[1], theta[2]]]))


SLEEP_LOWER = [0.0, -np.inf, 0.0]


@pytest.fixture(scope="module")
def sleep():
    y, x, z = sleep_matrices()
    return lmm_from_arrays(y, x, z, blockwise(18), [1, 0, 1], SLEEP_LOWER, x_names=["Intercept", "Days"])


def ar1(q: int):
    """Relative factor of an AR(1) process over q times: theta[0] its scale, tanh(theta[1]) its correlation."""

    def lambda_fn(theta):
        rho = np.tanh(theta[1])
        lag = np.subtract.outer(np.arange(q), np.arange(q))
        return sp.csr_array(theta[0] * np.linalg.cholesky(rho ** np.abs(lag)))

    return lambda_fn


def ar1_rows(seed: int = 3, n: int = 400, q: int = 30):
    rng = np.random.default_rng(seed)
    time, x = rng.integers(0, q, n), rng.normal(3.0, 1.0, n)
    b = 1.3 * ar1(q)(np.array([1.0, 0.9])) @ rng.normal(size=q)
    y = 1e4 + 0.5 * x + b[time] + rng.normal(size=n)
    return y, np.column_stack([np.ones(n), x]), slopes(time, np.ones((n, 1))), rng.uniform(0.5, 2.0, n)


def oracle(y, x, z, model, w=None, reml=True) -> Dense:
    full = z.toarray() if sp.issparse(z) else z
    return Dense(y, x, full, model.lam.toarray(), np.ones(len(y)) if w is None else w, reml)


# ------------------------------------------------------------------------------------------------ the right answers


@pytest.mark.parametrize("reml", [True, False])
def test_sleepstudy_agrees_with_lme4(reml):
    y, x, z = sleep_matrices()
    model = lmm_from_arrays(y, x, z, blockwise(18), [1, 0, 1], SLEEP_LOWER, reml=reml)
    expected = CASES["sleepstudy_reml" if reml else "sleepstudy_ml"]["expected"]
    assert model.objective == pytest.approx(expected["objective"], abs=1e-6)
    assert model.theta == pytest.approx(expected["theta"], abs=1e-4)
    assert model.beta == pytest.approx(list(expected["fixef"].values()), rel=1e-6)
    assert model.bse.to_numpy() == pytest.approx(list(expected["se"].values()), rel=1e-4)
    assert model.sigma == pytest.approx(expected["sigma"], rel=1e-5)
    assert (model.aic, model.npar, model.converged) == (
        pytest.approx(expected["AIC"], abs=1e-6),
        expected["npar"],
        True,
    )


def test_sleepstudy_is_lmm(sleep):
    frame = pd.read_parquet(REFERENCE / "data" / "sleepstudy.parquet")
    same = bigmm.lmm("Reaction ~ Days + (Days | Subject)", frame, n_workers=1)
    assert sleep.objective == pytest.approx(same.objective, abs=1e-8)
    pd.testing.assert_series_equal(sleep.params, same.params, rtol=1e-8)
    pd.testing.assert_frame_equal(sleep.cov_params(), same.cov_params(), rtol=1e-5)
    pd.testing.assert_frame_equal(sleep.glance(), same.glance(), rtol=1e-6)
    pd.testing.assert_frame_equal(sleep.conf_int(), same.conf_int(), rtol=1e-6)
    pd.testing.assert_series_equal(sleep.effective_df, same.effective_df, rtol=1e-5)
    modes = same.ranef(condvar=True)["Subject"]
    assert sleep.b == pytest.approx(modes[["Intercept", "Days"]].to_numpy().ravel(), rel=1e-4, abs=1e-4)
    assert sleep.conditional_sd() == pytest.approx(modes[["Intercept_sd", "Days_sd"]].to_numpy().ravel(), rel=1e-5)
    assert sleep.fittedvalues == pytest.approx(same.fittedvalues, abs=1e-4)


@pytest.mark.parametrize("reml", [True, False])
def test_the_five_row_model_without_lambda_fn(reml):
    frame = pd.read_parquet(REFERENCE / "data" / "five_obs.parquet")
    x = pd.DataFrame({"Intercept": 1.0, "x1": frame["x1"]})
    z = pd.get_dummies(frame["subject"]).to_numpy(float)
    model = lmm_from_arrays(frame["y"], x, z, reml=reml)
    expected = CASES["five_obs_reml" if reml else "five_obs_ml"]["expected"]
    assert model.objective == pytest.approx(expected["objective"], abs=1e-8)
    assert model.theta == pytest.approx(expected["theta"], abs=1e-5)
    assert list(model.params.index) == ["Intercept", "x1"]
    assert model.fittedvalues == pytest.approx(expected["fitted_sample"], abs=1e-5)
    resid = expected["resid_sample"]["response"]
    assert model.resid == pytest.approx(resid, abs=1e-5)
    assert np.trace(np.add(*oracle(frame["y"].to_numpy(), x.to_numpy(), z, model).hat)) == pytest.approx(
        model.effective_df["total"], rel=1e-8
    )


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("q", [7, 300])
def test_a_random_sparse_lambda_is_the_dense_oracle(reml, q):
    """q = 7 is factored densely, q = 300 by SuperLU; weights, offset and a big mean of the response."""
    rng = np.random.default_rng(q)
    n = 500
    # a lower-triangular pattern of short chains, as pedigrees and nested terms give
    below = sp.csr_array(
        (rng.normal(size=q // 2), (np.arange(1, 2 * (q // 2), 2), np.arange(0, 2 * (q // 2), 2))), (q, q)
    )

    def lambda_fn(theta):
        return theta[0] * sp.eye_array(q) + theta[1] * below

    z = slopes(rng.integers(0, q, n), np.ones((n, 1)))
    z = z if z.shape[1] == q else sp.csr_array((z.data, z.indices, z.indptr), (n, q))
    x = np.column_stack([np.ones(n), rng.normal(50.0, 1.0, n)])
    w, offset = rng.uniform(0.5, 2.0, n), rng.normal(size=n)
    y = 1e5 + x @ [1.0, 0.2] + z @ (lambda_fn([1.0, 0.6]) @ rng.normal(size=q)) + offset + rng.normal(size=n)
    model = lmm_from_arrays(y, x, z, lambda_fn, [1.0, 0.1], [0.0, -np.inf], w, offset, reml, n_workers=1)
    # the oracle shifts nothing, so it is given a response and a covariate of mean about zero
    dense = oracle(y - offset - 1e5, np.column_stack([x[:, 0], x[:, 1] - 50.0]), z, model, w, reml)
    back = np.array([[1.0, -50.0], [0.0, 1.0]])
    assert model.fitted.solver == ("dense" if q == 7 else "sparse")
    assert model.converged
    assert model.objective == pytest.approx(dense.objective, rel=1e-9)
    assert model.beta == pytest.approx(back @ dense.beta + [1e5, 0.0], rel=1e-12)
    assert model.vcov().to_numpy() == pytest.approx(back @ dense.vcov @ back.T, rel=1e-6)
    assert model.sigma == pytest.approx(dense.sigma, rel=1e-8)
    assert model.b == pytest.approx(dense.b, abs=1e-6)
    assert model.conditional_sd() == pytest.approx(np.sqrt(np.diag(dense.conditional_covariance)), rel=1e-6)
    assert model.effective_df["total"] == pytest.approx(np.trace(np.add(*dense.hat)), rel=1e-6)


def test_ar1_is_a_minimum_of_the_oracle():
    y, x, z, w = ar1_rows()
    lambda_fn = ar1(z.shape[1])
    model = lmm_from_arrays(y, x, z, lambda_fn, [1.0, 0.0], [0.0, -np.inf], w)

    def objective(theta):
        return Dense(y, x, z.toarray(), lambda_fn(theta).toarray(), w, True).objective

    assert model.converged
    assert model.objective == pytest.approx(objective(model.theta), rel=1e-9)
    assert 0.3 < np.tanh(model.theta[1]) < 0.999
    for move in ([0.03, 0.0], [-0.03, 0.0], [0.0, 0.03], [0.0, -0.03]):
        assert objective(model.theta + move) > model.objective


def test_a_variance_of_zero_is_found_and_certified():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"g": np.repeat(np.arange(20), 10), "y": rng.normal(size=200)})
    frame["y"] -= frame.groupby("g")["y"].transform("mean")
    model = lmm_from_arrays(frame["y"], np.ones((200, 1)), slopes(frame["g"].to_numpy(), np.ones((200, 1))))
    assert (model.theta[0], model.converged, model.is_singular) == (0.0, True, True)
    assert model.optimizer_result.at_boundary.tolist() == [True]


def test_dependent_columns_are_dropped_as_in_lmm():
    frame = pd.read_parquet(REFERENCE / "data" / "sim_rank_deficient.parquet")
    x = np.column_stack([np.ones(len(frame)), frame["x"] + 1e3, frame["x_dup"] + 1e3, frame["h"] == "yes"])
    z = pd.get_dummies(frame["g"]).to_numpy(float)
    model = lmm_from_arrays(frame["y"], x, z)
    less = lmm_from_arrays(frame["y"], x[:, [0, 1, 3]], z)
    assert np.isnan(model.params["x3"]) and np.isnan(model.cov_params().loc["x3"]).all()
    assert model.beta[[0, 1, 3]] == pytest.approx(less.beta, rel=1e-6)
    assert model.bse.dropna().to_numpy() == pytest.approx(less.bse.to_numpy(), rel=1e-6)
    assert model.fittedvalues == pytest.approx(less.fittedvalues, abs=1e-6)
    assert "columns dropped because they depend on earlier ones: x3" in str(model.summary())


@pytest.mark.parametrize("last", [True, False])
def test_a_dropped_constant_column_does_not_change_the_fit(last):
    """One-hot columns make the constant; the shift by the constant column must be undone through them."""
    rng = np.random.default_rng(4)
    f, g = rng.integers(0, 3, 120), rng.integers(0, 8, 120)
    hot, covariate = np.eye(3)[f], rng.normal(200.0, 1.0, 120)
    y = 1e6 + hot @ [1.0, 2.0, 3.0] + 0.3 * covariate + rng.normal(size=8)[g] + rng.normal(size=120)
    z = slopes(g, np.ones((120, 1)))
    columns = [hot, covariate[:, None], np.ones((120, 1))] if last else [hot, np.ones((120, 1)), covariate[:, None]]
    model = lmm_from_arrays(y, np.hstack(columns), z)
    less = lmm_from_arrays(y, np.hstack([hot, covariate[:, None]]), z)
    assert np.isnan(model.beta).sum() == 1 and np.isnan(model.beta[4 if last else 3])
    assert model.params.dropna().to_numpy() == pytest.approx(less.beta, rel=1e-6)
    assert model.bse.dropna().to_numpy() == pytest.approx(less.bse.to_numpy(), rel=1e-6)
    dense = oracle(y - 1e6, np.hstack([hot, covariate[:, None]]), z, model)
    assert less.objective == pytest.approx(dense.objective, rel=1e-9)


# ------------------------------------------------------------------------------------------------ kinds of arrays


def as_dask(y, x, z, rows):
    chunks = [z[i : i + rows] for i in range(0, len(y), rows)]
    cuts = tuple(chunk.shape[0] for chunk in chunks)
    # columns of X are cut too: they are joined
    numbers = da.from_array(np.arange(len(y)), chunks=rows)
    sparse = numbers.map_blocks(lambda i: z[i], dtype=float, new_axis=1, chunks=(cuts, (z.shape[1],)))
    return da.from_array(y, chunks=rows), da.from_array(x, chunks=(rows, 1)), sparse


def as_zarr(y, x, z, rows):
    def write(values):
        array = zarr.create_array({}, shape=values.shape, chunks=(rows, *values.shape[1:]), dtype=values.dtype)
        array[...] = values
        return array

    return write(y), write(x), write(z.toarray())


def facts(model) -> tuple:
    return (
        model.objective,
        model.theta.tobytes(),
        model.beta.tobytes(),
        model.b.tobytes(),
        model.bse.to_numpy().tobytes(),
    )


@pytest.mark.parametrize("threads", [1, 2])
def test_numpy_and_dask_have_the_same_bits(threads):
    y, x, z, _ = ar1_rows()
    args = (ar1(30), [1.0, 0.1], [0.0, -np.inf])
    held = lmm_from_arrays(y, x, z, *args, chunk_rows=70, n_workers=1)
    lazy = lmm_from_arrays(*as_dask(y, x, z, 70), *args, n_workers=threads, chunk_rows=70)
    assert facts(held) == facts(lazy)
    assert lazy.fittedvalues.tobytes() == held.fittedvalues.tobytes()


def test_zarr_has_the_bits_of_dense_numpy_and_the_numbers_of_sparse():
    y, x, z, _ = ar1_rows()
    args = (ar1(30), [1.0, 0.1], [0.0, -np.inf])
    dense = lmm_from_arrays(y, x, z.toarray(), *args, chunk_rows=70)
    stored = lmm_from_arrays(*as_zarr(y, x, z, 70), *args, partition_bytes=1)
    sparse = lmm_from_arrays(y, x, z, *args)
    assert len(stored.fitted.rows) == 6
    assert facts(stored) == facts(dense)
    assert stored.objective == pytest.approx(sparse.objective, abs=1e-9)
    assert stored.beta == pytest.approx(sparse.beta, rel=1e-6)


def test_small_chunks_are_joined_to_partitions():
    y, x, z, _ = ar1_rows()
    model = lmm_from_arrays(*as_zarr(y, x, z, 10))
    assert [part.rows for part in model.fitted.rows] == [400]
    assert len(lmm_from_arrays(*as_zarr(y, x, z, 10), partition_bytes=40_000).fitted.rows) > 1


def test_a_dask_frame_brings_its_names():
    import dask.dataframe as dd

    y, x, z, _ = ar1_rows()
    frame = dd.from_pandas(pd.DataFrame(x, columns=["one", "x"]).assign(y=y), npartitions=3)
    model = lmm_from_arrays(frame["y"], frame[["one", "x"]], z)
    assert list(model.params.index) == ["one", "x"]
    assert model.beta == pytest.approx(lmm_from_arrays(y, x, z).beta, rel=1e-9)


def test_formats_of_sparse_z_agree():
    y, x, z, _ = ar1_rows()
    first = facts(lmm_from_arrays(y, x, z))
    assert all(facts(lmm_from_arrays(y, x, kind(z))) == first for kind in (sp.coo_matrix, sp.csc_array))


def test_new_rows_are_predicted(sleep):
    _, x, z = sleep_matrices()
    both = sleep.predict(da.from_array(x[:50], chunks=(20, 2)), z[:50], np.ones(50))
    assert both == pytest.approx(sleep.fittedvalues[:50] + 1.0)
    assert sleep.predict(x[:3], random=False) == pytest.approx(x[:3] @ sleep.beta)


def test_a_pickled_fit_keeps_everything_but_the_rows(sleep):
    again = pickle.loads(pickle.dumps(sleep))
    assert facts(again) == facts(sleep)
    assert again.effective_df["total"] == pytest.approx(sleep.effective_df["total"])
    assert str(again.summary()) == str(sleep.summary())
    with pytest.raises(UsageError, match="no longer knows its rows; pass X and Z"):
        again.predict()


def test_the_summary_names_what_matters(sleep):
    text = str(sleep.summary())
    for part in (
        "fit by REML",
        "180 rows, 2 columns of X, 36 columns of Z",
        "1743.6",
        "theta[2]",
        "251.405",
        "solver dense",
    ):
        assert part in text
    assert "<table>" in sleep._repr_html_() and "180 rows, 36 random effects" in repr(sleep)


# ------------------------------------------------------------------------------------------------ messages


GOOD = {"y": np.arange(6.0) ** 2, "X": np.ones((6, 1)), "Z": np.eye(3)[[0, 0, 1, 1, 2, 2]]}


def with_value(name, place, value):
    array = GOOD[name].copy() if name in GOOD else np.ones(6)
    array[place] = value
    return {name: array}


WRONG = {
    "short X": ({"X": np.ones((5, 1))}, UsageError, r"X has 5 rows but y has 6"),
    "flat X": ({"X": np.ones(6)}, UsageError, r"X must have shape \(n, columns\), got \(6,\)"),
    "wide y": ({"y": np.ones((6, 1))}, UsageError, r"y must have shape \(n,\), got \(6, 1\)"),
    "no Z": ({"Z": None}, UsageError, "Z is missing"),
    "empty Z": ({"Z": np.ones((6, 0))}, UsageError, "Z has no columns"),
    "no rows": ({"y": np.ones(0), "X": np.ones((0, 1)), "Z": np.ones((0, 1))}, DataError, "y has no rows"),
    "text X": ({"X": np.array([["a"]] * 6)}, UsageError, "X has type <U1: numbers are needed"),
    "unknown": ({"y": "lake.parquet"}, UsageError, "y is a builtins.str: give a NumPy, Dask or zarr array"),
    "no theta0": ({"lambda_fn": blockwise(1)}, UsageError, "lambda_fn needs theta0"),
    "two theta0": ({"theta0": [1, 1]}, UsageError, r"there is one theta \(Lambda = theta I\), but theta0 has 2"),
    "infinite theta0": ({"theta0": np.inf}, UsageError, "theta0 must be a vector of finite numbers"),
    "bounds": ({"lower": [0, 0]}, UsageError, r"one bound per element of theta0 \(1\)"),
    "below": ({"theta0": -1.0}, UsageError, "lies below its lower bound"),
    "not a function": ({"lambda_fn": 3, "theta0": 1}, UsageError, "lambda_fn must be a function of theta, got a int"),
    "shape": (
        {"lambda_fn": lambda t: np.eye(2), "theta0": 1},
        UsageError,
        r"returned shape \(2, 2\), but Z has 3 columns",
    ),
    "nothing": (
        {"lambda_fn": lambda t: None, "theta0": 1},
        UsageError,
        r"lambda_fn\(theta=\[1.\]\) did not return a matrix",
    ),
    "nan": (
        {"lambda_fn": lambda t: np.nan * np.eye(3), "theta0": 1},
        UsageError,
        "not finite: keep theta in its domain",
    ),
    "full": (
        {"lambda_fn": lambda t: np.eye(3) + 7 * np.eye(3, k=2), "theta0": 1},
        UsageError,
        r"not lower-triangular: element \(0, 2\) is 7",
    ),
    "names": ({"x_names": ["a", "b"]}, UsageError, "x_names has 2 names but X has 1 columns"),
    "gradient": ({"optimizer": "lbfgs"}, UsageError, "optimizer 'lbfgs' needs the gradient"),
    "newton": ({"optimizer": "newton"}, UsageError, "optimizer 'newton' needs the gradient"),
    "unknown optimizer": ({"optimizer": "adam"}, UsageError, "unknown optimizer 'adam'"),
    "chunks": ({"chunk_rows": 0}, UsageError, "chunk_rows must be at least 1"),
    "memory": ({"memory_limit": 500}, MemoryLimitError, "the pass over the rows needs about"),
    "nan y": (with_value("y", 4, np.nan), DataError, r"y is nan in row 4 \(counted from 0\)"),
    "inf X": (with_value("X", (5, 0), np.inf), DataError, "X is inf in row 5, column 0"),
    "inf Z": (with_value("Z", (3, 2), -np.inf), DataError, "Z is -inf in row 3, column 2"),
    "inf sparse Z": (
        {"Z": sp.csr_array(with_value("Z", (3, 2), -np.inf)["Z"])},
        DataError,
        "Z is -inf in row 3, column 2",
    ),
    "nan offset": (with_value("offset", 2, np.nan), DataError, "offset is nan in row 2"),
    "zero weight": (with_value("weights", 2, 0.0), DataError, "weights must be positive, but row 2 has 0"),
    "negative weight": (with_value("weights", 2, -1.5), DataError, "weights must be positive, but row 2 has -1.5"),
    "constant y": ({"y": np.full(6, 3.5)}, DataError, "the response .less any offset. is constant in all 6 rows"),
    "perfect fit": (
        {"y": np.arange(6.0), "X": np.arange(12.0).reshape(6, 2) ** [1, 2]},
        DataError,
        "reproduce the response exactly",
    ),
    "many columns": ({"X": np.eye(6)}, DataError, "X has 6 independent columns but only 6 rows"),
    "Dask of unknown length": (
        {"y": da.from_array(np.arange(6.0), chunks=3)[da.from_array(np.ones(6, bool), chunks=3)]},
        UsageError,
        r"y is a Dask array of unknown length: call y.compute_chunk_sizes\(\)",
    ),
}


@pytest.mark.cluster
def test_a_cluster_and_persisted_arrays_give_the_same_bits():
    from distributed import Client, LocalCluster

    y, x, z, _ = ar1_rows()
    args = (ar1(30), [1.0, 0.1], [0.0, -np.inf])
    held = lmm_from_arrays(y, x, z, *args, chunk_rows=70, n_workers=2)
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        lazy = as_dask(y, x, z, 70)
        kept = [array.persist() for array in lazy]
        for arrays in ((y, x, z), lazy, kept):
            assert facts(lmm_from_arrays(*arrays, *args, chunk_rows=70, client=client)) == facts(held)
        predicted = held.predict(*kept[1:], client=client)
    assert predicted.tobytes() == held.fittedvalues.tobytes()


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("chunk_rows", [None, 2])
def test_what_is_wrong_is_said(case, chunk_rows):
    change, error, message = WRONG[case]
    with pytest.raises(error, match=message):
        lmm_from_arrays(**(GOOD | {"chunk_rows": chunk_rows} | change))


def test_a_factor_beyond_the_memory_limit_is_refused():
    y, x, z, _ = ar1_rows(n=900, q=400)
    with pytest.raises(MemoryLimitError, match="Cholesky factor of 400 random effects needs about"):
        lmm_from_arrays(y, x, z, ar1(400), [1.0, 0.1], memory_limit="1MB", n_workers=1)


def test_random_effects_are_all_or_none(sleep):
    with pytest.raises(UsageError, match=r"columns of Z have no names, so no term can be chosen: it is True or False"):
        sleep.predict(random=["g"])
    with pytest.raises(UsageError, match="random must be True or False, got 'no'"):
        sleep.predict(random="no")


def test_saving_and_predicting_say_what_to_do(sleep, tmp_path):
    with pytest.raises(UsageError, match="cannot be saved: lambda_fn is code"):
        sleep.save(tmp_path / "fit")
    with pytest.raises(UsageError, match="needs Z beside X, or random=False"):
        sleep.predict(np.ones((3, 2)))
    with pytest.raises(UsageError, match=r"Z has shape \(3, 2\), but this fit and X with 3 rows need \(3, 36\)"):
        sleep.predict(np.ones((3, 2)), np.ones((3, 2)))


def test_a_search_that_cannot_be_certified_says_so():
    """A Lambda that is noisy has no gradient: its differences certify nothing."""
    y, x, z, _ = ar1_rows()

    def noisy(theta):
        jitter = np.random.default_rng(abs(hash(float(theta[0])))).uniform(0.9, 1.1)
        return theta[0] * jitter * sp.eye_array(30)

    model = lmm_from_arrays(y, x, z, noisy, [1.0], [0.0])
    assert not model.converged
    assert "by finite differences the criterion could still fall by about" in model.optimizer_result.advice
    assert model.optimizer_result.advice in str(model.summary())


def test_the_example_of_the_manual_runs(project, capsys):
    (code,) = re.findall(r"^```python\n(.*?)^```", (project / "docs" / "arrays.md").read_text(), flags=re.S | re.M)
    exec(compile(code, "docs/arrays.md", "exec"), {})  # noqa: S102 (our own manual)
    assert "Linear mixed model fit by REML" in capsys.readouterr().out
