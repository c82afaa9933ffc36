"""`bigmm.sklearn` inside scikit-learn: pipelines, cross-validation, searches, clones, pickles, checks."""

from __future__ import annotations

import pickle
import re
from concurrent.futures import ThreadPoolExecutor

import dask.dataframe as dd
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.exceptions import NotFittedError
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import bigmm
from bigmm import DataError, UsageError
from bigmm.sklearn import LMMRegressor

FORMULA = "y ~ x + (1 | g)"


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    n = 300
    level = rng.integers(0, 12, n)
    x, w = rng.normal(5.0, 2.0, n), rng.uniform(0.5, 2.0, n)
    y = 1.0 + 2.0 * x + rng.normal(size=12)[level] * 2.0 + rng.normal(size=n) / np.sqrt(w)
    return pd.DataFrame({"x": x, "g": [f"g{i:02d}" for i in level], "w": w, "y": y})


@pytest.fixture(scope="module")
def direct(frame):
    return bigmm.lmm(FORMULA, frame, n_workers=1)


def test_it_is_the_fit_of_lmm(frame, direct):
    features = frame[["x", "g", "w"]]
    model = LMMRegressor(FORMULA).fit(features, frame["y"])
    assert model.result_.objective == direct.objective
    assert model.predict(features).tobytes() == np.asarray(direct.predict(frame)).tobytes()
    assert model.score(features, frame["y"]) == r2_score(frame["y"], direct.predict(frame))
    assert (model.n_features_in_, model.feature_names_in_.tolist()) == (3, ["x", "g", "w"])


def test_the_response_may_be_a_column_of_x(frame, direct):
    model = LMMRegressor(FORMULA).fit(frame)
    assert model.result_.objective == direct.objective
    assert model.feature_names_in_.tolist() == ["x", "g", "w"]
    assert model.score(frame) == pytest.approx(r2_score(frame["y"], direct.predict(frame)))


def test_given_y_wins_over_the_column(frame):
    doubled = LMMRegressor(FORMULA).fit(frame, 2.0 * frame["y"])
    assert doubled.result_.beta == pytest.approx(2.0 * LMMRegressor(FORMULA).fit(frame).result_.beta, rel=1e-6)


@pytest.mark.parametrize("kind", [pl.from_pandas, pa.Table.from_pandas, lambda f: dd.from_pandas(f, npartitions=3)])
def test_every_kind_of_table(frame, direct, kind):
    features, y = kind(frame[["x", "g"]]), frame["y"]
    y = dd.from_pandas(y, npartitions=3) if isinstance(features, dd.DataFrame) else y
    model = LMMRegressor(FORMULA).fit(features, y)
    assert model.result_.objective == pytest.approx(direct.objective, abs=1e-9)
    assert np.asarray(model.predict(features)) == pytest.approx(direct.predict(frame))
    assert model.score(features, y) == pytest.approx(r2_score(y, direct.predict(frame)))


def test_a_dask_frame_is_predicted_lazily(frame):
    import dask.array as da

    ddf = dd.from_pandas(frame, npartitions=3)
    assert isinstance(LMMRegressor(FORMULA).fit(ddf).predict(ddf), da.Array)


def test_arrays_have_columns_x0_x1(frame, direct):
    array = np.column_stack([frame["x"], pd.Categorical(frame["g"]).codes])
    model = LMMRegressor("y ~ x0 + (1 | x1)").fit(array, frame["y"].to_numpy())
    assert model.result_.objective == pytest.approx(direct.objective, abs=1e-9)
    assert model.predict(array) == pytest.approx(direct.predict(frame))


def test_sample_weight_is_the_weights_column(frame):
    features = frame[["x", "g"]]
    one = LMMRegressor(FORMULA).fit(features, frame["y"], sample_weight=frame["w"])
    two = LMMRegressor(FORMULA, weights="w").fit(frame[["x", "g", "w"]], frame["y"])
    three = bigmm.lmm(FORMULA, frame, weights="w")
    assert one.result_.objective == two.result_.objective == three.objective
    assert one.predict(features).tobytes() == two.predict(features).tobytes()


def test_parameters_reach_the_fit_and_the_prediction(frame):
    features = frame[["x", "g"]]
    model = LMMRegressor(FORMULA, reml=False, random=False).fit(features, frame["y"])
    assert model.result_.reml is False
    beta = model.result_.params
    assert model.predict(features) == pytest.approx(beta["Intercept"] + beta["x"] * frame["x"].to_numpy())
    unseen = features.assign(g="new")
    model.set_params(random=True)
    assert model.predict(unseen) == pytest.approx(beta["Intercept"] + beta["x"] * frame["x"].to_numpy())
    assert np.isnan(model.set_params(new_levels="missing").predict(unseen)).all()
    with pytest.raises(DataError):
        model.set_params(new_levels="raise").predict(unseen)


def test_clone_and_pickle(frame):
    model = LMMRegressor(FORMULA, categories={"g": sorted(frame["g"].unique())}, reml=False).fit(frame)
    fresh = clone(model)
    assert fresh.get_params() == model.get_params() and not hasattr(fresh, "result_")
    again = pickle.loads(pickle.dumps(model))
    assert again.predict(frame).tobytes() == model.predict(frame).tobytes()
    assert model.result_.fitted.source is None


def test_rows_with_missing_values(frame):
    holes = frame.assign(x=frame["x"].where(np.arange(len(frame)) % 10 > 0))
    model = LMMRegressor(FORMULA).fit(holes[["x", "g"]], holes["y"])
    predicted = model.predict(holes[["x", "g"]])
    assert np.isnan(predicted).tolist() == holes["x"].isna().tolist()
    assert 0.5 < model.score(holes[["x", "g"]], holes["y"]) < 1.0
    assert model.predict(frame.iloc[:0]).shape == (0,)


def test_a_pipeline_after_a_column_transformer(frame, direct):
    scale = ColumnTransformer(
        [("scale", StandardScaler(), ["x"])], remainder="passthrough", verbose_feature_names_out=False
    )
    model = make_pipeline(scale.set_output(transform="pandas"), LMMRegressor(FORMULA)).fit(
        frame[["x", "g"]], frame["y"]
    )
    assert model.predict(frame[["x", "g"]]) == pytest.approx(direct.predict(frame), rel=1e-5)
    assert model.named_steps["lmmregressor"].result_.beta[1] == pytest.approx(
        direct.beta[1] * frame["x"].std(ddof=0), rel=1e-5
    )


def test_a_transformed_target(frame):
    model = TransformedTargetRegressor(LMMRegressor(FORMULA), func=np.arcsinh, inverse_func=np.sinh)
    model.fit(frame[["x", "g"]], frame["y"])
    inside = bigmm.lmm("y ~ x + (1 | g)", frame.assign(y=np.arcsinh(frame["y"])))
    assert model.predict(frame[["x", "g"]]) == pytest.approx(np.sinh(inside.predict(frame)), rel=1e-6)


def test_cross_validation_over_groups_predicts_the_population(frame):
    features = frame[["x", "g"]]
    scores = cross_val_score(LMMRegressor(FORMULA), features, frame["y"], groups=frame["g"], cv=GroupKFold(4))
    within = cross_val_score(LMMRegressor(FORMULA), features, frame["y"], cv=4)
    assert scores.shape == (4,) and 0.5 < scores.mean() < within.mean() < 1.0
    assert np.isfinite(cross_val_predict(LMMRegressor(FORMULA), features, frame["y"], cv=3)).all()


def test_a_grid_search_over_formulas(frame):
    grid = {"formula": ["y ~ 1 + (1 | g)", FORMULA], "reml": [True, False]}
    search = GridSearchCV(LMMRegressor(), grid, cv=3).fit(frame[["x", "g"]], frame["y"])
    assert search.best_params_["formula"] == FORMULA
    assert search.best_estimator_.result_.formula == FORMULA


def test_fits_in_several_threads_have_the_same_bits(frame):
    jobs = [(FORMULA, True), (FORMULA, False), ("y ~ x + (x | g)", True)] * 4

    def fit(job):
        formula, reml = job
        model = LMMRegressor(formula, reml=reml, partition_bytes=2000).fit(frame)
        return model.result_.objective, model.result_.theta.tobytes(), model.predict(frame).tobytes()

    alone = [fit(job) for job in jobs[:3]] * 4
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(fit, jobs)) == alone


#: Checks of scikit-learn that cannot be meant for a model whose formula names columns and groups rows.
DATA = "its data have a grouping column (x1) with one row per level, one level, or levels that explain y entirely"
SHAPE = "its data lack the columns of the formula, or have names other than x0, x1: the message speaks of columns"
NOT_FOR_FORMULAS = {
    "check_dont_overwrite_parameters": DATA,
    "check_dict_unchanged": DATA,
    "check_estimators_pickle": DATA,
    "check_f_contiguous_array_estimator": DATA,
    "check_fit2d_predict1d": DATA,
    "check_methods_sample_order_invariance": DATA,
    "check_methods_subset_invariance": DATA,
    "check_pipeline_consistency": DATA,
    "check_regressors_train": "the formula uses two of its ten columns, so R^2 stays below the bar",
    "check_sample_weight_equivalence_on_dense_data": DATA,
    "check_sample_weights_not_overwritten": DATA,
    "check_sample_weights_pandas_series": SHAPE,
    "check_sample_weights_shape": DATA,
    "check_fit2d_1sample": DATA,
    "check_fit2d_1feature": SHAPE,
    "check_regressor_data_not_an_array": SHAPE,
}


def test_scikit_learns_own_checks():
    results = check_estimator(
        LMMRegressor("y ~ x0 + (1 | x1)"), expected_failed_checks=NOT_FOR_FORMULAS, on_fail=None, on_skip=None
    )
    failed = {result["check_name"]: str(result["exception"]) for result in results if result["status"] == "failed"}
    assert not failed
    assert sum(result["status"] == "passed" for result in results) >= 30


def test_what_is_wrong_is_said(frame):
    features = frame[["x", "g"]]
    with pytest.raises(UsageError, match="LMMRegressor needs a formula, for example"):
        LMMRegressor().fit(features, frame["y"])
    with pytest.raises(UsageError, match="y cannot be given with a response that is transformed in the formula"):
        LMMRegressor("log(y) ~ x + (1 | g)").fit(features, frame["y"])
    with pytest.raises(UsageError, match=r"give either weights='w' \(a column\) or sample_weight, not both"):
        LMMRegressor(FORMULA, weights="w").fit(frame, frame["y"], sample_weight=frame["w"])
    with pytest.raises(UsageError, match=r"y must have one value per row: shape \(10,\) for 300 rows"):
        LMMRegressor(FORMULA).fit(features, frame["y"][:10])
    with pytest.raises(UsageError, match="for a Dask DataFrame X, y must be a Dask Series or Array cut like X"):
        LMMRegressor(FORMULA).fit(dd.from_pandas(features, npartitions=2), frame["y"])
    with pytest.raises(UsageError, match="X is a builtins.str: give a pandas, polars or Dask DataFrame"):
        LMMRegressor(FORMULA).fit("lake.parquet")
    with pytest.raises(UsageError, match="a vector of numbers is needed"):
        LMMRegressor(FORMULA).fit(features, frame["g"])
    with pytest.raises(NotFittedError):
        LMMRegressor(FORMULA).predict(features)
    model = LMMRegressor(FORMULA).fit(features, frame["y"])
    with pytest.raises(UsageError, match=r"X lacks the columns x that the formula 'y ~ x \+ \(1 \| g\)' uses"):
        model.predict(frame[["g"]])
    with pytest.raises(UsageError, match="X has 1 features, but LMMRegressor is expecting 2 features as input"):
        model.predict(np.ones((3, 1)))
    with pytest.raises(UsageError, match=r"score\(\) needs y, or a plain column of X as response"):
        model.score(features)


def test_the_example_of_the_manual_runs(project):
    blocks = re.findall(r"^```python\n(.*?)^```", (project / "docs" / "sklearn.md").read_text(), flags=re.S | re.M)
    names: dict = {}
    exec(compile("".join(blocks), "docs/sklearn.md", "exec"), names)  # noqa: S102 (our own manual)
    assert len(blocks) == 2
    assert names["classifier"].classes_.tolist() == ["late", "on time"]
    assert names["counts"].result_.params["x"] == pytest.approx(1.0, abs=0.1)
    assert names["model"].result_.params["x"] == pytest.approx(2.0, abs=0.2)
