"""The behaviours of dask-ml that bigmm's users rely on, pinned: when a release breaks one, only this file fails.

dask-ml is an extra that bigmm itself never imports.
"""

from __future__ import annotations

import subprocess
import sys

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from dask_ml.model_selection import GridSearchCV
from dask_ml.preprocessing import Categorizer, StandardScaler
from dask_ml.wrappers import ParallelPostFit
from sklearn.pipeline import make_pipeline

import bigmm
from bigmm.sklearn import LMMRegressor

FORMULA = "y ~ x + (1 | g)"


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    level = rng.integers(0, 10, 240)
    x = rng.normal(size=240)
    y = 3.0 + x + 2.0 * rng.normal(size=10)[level] + rng.normal(size=240)
    return pd.DataFrame({"x": x, "g": [f"g{i}" for i in level], "y": y})


@pytest.fixture(scope="module")
def lazy(frame) -> dd.DataFrame:
    return dd.from_pandas(frame, npartitions=4)


@pytest.fixture(scope="module")
def predicted(frame) -> np.ndarray:
    return bigmm.lmm(FORMULA, frame, n_workers=1).predict(frame)


def test_parallel_post_fit_predicts_partition_by_partition(frame, lazy, predicted):
    model = ParallelPostFit(LMMRegressor(FORMULA)).fit(frame[["x", "g"]], frame["y"])
    out = model.predict(lazy[["x", "g"]])
    assert isinstance(out, da.Array) and out.dtype == np.float64 and out.numblocks == (4,)
    assert out.compute() == pytest.approx(predicted)
    assert model.predict(frame[["x", "g"]]) == pytest.approx(predicted)


def test_parallel_post_fit_with_strict_levels_needs_a_meta(frame, lazy, predicted):
    """dask-ml tries the model on made-up rows to learn what comes out; with new_levels="raise" say it instead."""
    strict = LMMRegressor(FORMULA, new_levels="raise")
    model = ParallelPostFit(strict, predict_meta=np.empty(0)).fit(frame[["x", "g"]], frame["y"])
    assert model.predict(lazy[["x", "g"]]).compute() == pytest.approx(predicted)


def test_parallel_post_fit_scores(frame, lazy):
    model = ParallelPostFit(LMMRegressor(FORMULA)).fit(frame[["x", "g"]], frame["y"])
    assert model.score(lazy[["x", "g"]], lazy["y"]) == pytest.approx(model.score(frame[["x", "g"]], frame["y"]))


def test_a_pipeline_after_the_categorizer(lazy, predicted):
    """Declared categories are the levels of the fit."""
    model = make_pipeline(Categorizer(), LMMRegressor(FORMULA)).fit(lazy[["x", "g"]], lazy["y"])
    assert model.predict(lazy[["x", "g"]]).compute() == pytest.approx(predicted, rel=1e-6)


def test_a_pipeline_after_dask_mls_scaler(frame, lazy):
    scaler = StandardScaler(columns=["x"]) if "columns" in StandardScaler().get_params() else StandardScaler()
    scaled = scaler.fit_transform(lazy[["x"]]).assign(g=lazy["g"], y=lazy["y"])
    model = LMMRegressor(FORMULA).fit(scaled)
    direct = bigmm.lmm(FORMULA, frame.assign(x=(frame["x"] - frame["x"].mean()) / frame["x"].std(ddof=0)))
    assert model.result_.beta == pytest.approx(direct.beta, rel=1e-5)


@pytest.mark.parametrize("scheduler", ["sync", "threads"])
def test_a_grid_search_over_formulas_and_criteria(frame, scheduler):
    grid = {"formula": ["y ~ 1 + (1 | g)", FORMULA], "reml": [True, False]}
    with dask.config.set(scheduler=scheduler):
        search = GridSearchCV(LMMRegressor(), grid, cv=3).fit(frame[["x", "g"]], frame["y"])
        assert search.best_params_["formula"] == FORMULA
        assert len(search.cv_results_["mean_test_score"]) == 4
        assert search.predict(frame[["x", "g"]]).shape == (240,)


def test_a_grid_search_inside_a_pipeline(frame):
    pipeline = make_pipeline(Categorizer(), LMMRegressor(FORMULA))
    search = GridSearchCV(pipeline, {"lmmregressor__reml": [True, False]}, cv=2).fit(frame[["x", "g"]], frame["y"])
    assert 0.0 < search.best_score_ < 1.0


def test_bigmm_never_imports_dask_ml():
    code = "import sys, bigmm.sklearn, bigmm.fit; sys.exit(any(name.startswith('dask_ml') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_bigmm_does_not_import_scikit_learn_by_itself():
    code = "import sys, bigmm.fit, bigmm.cli; sys.exit(any(name.split('.')[0] == 'sklearn' for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
