"""`GLMMClassifier` and `GLMMRegressor` inside scikit-learn and dask-ml."""

from __future__ import annotations

import pickle
import subprocess
import sys
from functools import partial

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from dask_ml.model_selection import GridSearchCV as DaskGridSearchCV
from dask_ml.wrappers import ParallelPostFit
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.metrics import accuracy_score, d2_tweedie_score
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import bigmm
from bigmm import DataError, UsageError
from bigmm.sklearn import GLMMClassifier, GLMMRegressor
from tests.test_sklearn import NOT_FOR_FORMULAS, SHAPE

CLASSES, COUNTS = "hit ~ x + (1 | g)", "y ~ x + (1 | g)"


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(2)
    n = 400
    level, x = rng.integers(0, 12, n), rng.normal(size=n)
    eta = 0.3 + 0.9 * x + 0.5 * rng.normal(size=12)[level]
    hit = np.where(rng.random(n) < 1 / (1 + np.exp(-eta)), "yes", "no")
    w = rng.integers(1, 4, n).astype(float)
    return pd.DataFrame(
        {"x": x, "g": [f"g{i:02d}" for i in level], "w": w, "hit": hit, "y": rng.poisson(np.exp(eta)) * 1.0}
    )


@pytest.fixture(scope="module")
def features(frame) -> pd.DataFrame:
    return frame[["x", "g"]]


@pytest.fixture(scope="module")
def direct(frame):
    return bigmm.glmm(CLASSES, frame, family="bernoulli", se="rx", n_workers=1)


@pytest.fixture(scope="module")
def classifier(frame, features) -> GLMMClassifier:
    return GLMMClassifier(CLASSES).fit(features, frame["hit"])


@pytest.fixture(scope="module")
def regressor(frame, features) -> GLMMRegressor:
    return GLMMRegressor(COUNTS).fit(features, frame["y"])


def test_the_classifier_is_the_fit_of_glmm(classifier, direct, frame, features):
    p = direct.predict(frame)
    assert is_classifier(classifier) and classifier.classes_.tolist() == ["no", "yes"]
    assert classifier.result_.objective == pytest.approx(direct.objective, abs=1e-9)
    np.testing.assert_allclose(classifier.predict_proba(features), np.column_stack([1 - p, p]), rtol=1e-9)
    np.testing.assert_allclose(classifier.decision_function(features), direct.predict(frame, type="link"), atol=1e-9)
    assert classifier.predict(features).tolist() == np.where(p > 0.5, "yes", "no").tolist()
    assert classifier.score(features, frame["hit"]) == accuracy_score(frame["hit"], classifier.predict(features))
    assert classifier.feature_names_in_.tolist() == ["x", "g"] and classifier.result_.fitted.source is None


LABELS = {
    "numbers": lambda hit: np.where(hit == "yes", 7, 3),
    "booleans": lambda hit: (hit == "yes").to_numpy(),
    "floats": lambda hit: np.where(hit == "yes", 1.0, 0.0),
    "categories": lambda hit: pd.Categorical(hit),
    "list": lambda hit: hit.tolist(),
    "arrow": lambda hit: pa.array(hit),
}


@pytest.mark.parametrize("kind", LABELS)
def test_classes_of_any_type(kind, classifier, frame, features):
    y = LABELS[kind](frame["hit"])
    model = GLMMClassifier(CLASSES).fit(features, y)
    assert model.result_.objective == classifier.result_.objective
    assert (model.predict(features) == model.classes_[1]).tolist() == (classifier.predict(features) == "yes").tolist()
    assert model.predict(features).dtype == model.classes_.dtype
    assert model.score(features, y) == classifier.score(features, frame["hit"])


def test_the_response_may_be_a_column_of_x(classifier, frame):
    model = GLMMClassifier(CLASSES).fit(frame)
    assert model.result_.objective == classifier.result_.objective
    assert model.classes_.tolist() == ["no", "yes"]
    assert model.score(frame) == classifier.score(frame, frame["hit"])


@pytest.mark.parametrize("kind", [pl.from_pandas, pa.Table.from_pandas])
def test_every_kind_of_table(kind, classifier, regressor, frame, features):
    table = kind(features)
    again = GLMMClassifier(CLASSES).fit(table, frame["hit"])
    np.testing.assert_allclose(again.predict_proba(table), classifier.predict_proba(features), rtol=1e-7)
    counts = GLMMRegressor(COUNTS).fit(table, frame["y"])
    np.testing.assert_allclose(counts.predict(table), regressor.predict(features), rtol=1e-7)


def test_dask_frames_stay_lazy(classifier, frame, features):
    lazy, y = dd.from_pandas(features, npartitions=3), dd.from_pandas(frame["hit"], npartitions=3)
    model = GLMMClassifier(CLASSES).fit(lazy, y)
    assert model.classes_.tolist() == ["no", "yes"]
    probabilities, labels = model.predict_proba(lazy), model.predict(lazy)
    assert isinstance(probabilities, da.Array) and isinstance(labels, da.Array)
    np.testing.assert_allclose(probabilities.compute(), classifier.predict_proba(features), rtol=1e-6)
    assert labels.compute().tolist() == classifier.predict(features).tolist()
    assert model.score(lazy, y) == classifier.score(features, frame["hit"])


def test_the_regressor_is_the_fit_of_glmm(regressor, frame, features):
    expected = bigmm.glmm(COUNTS, frame, family="poisson", se="rx", n_workers=1)
    assert is_regressor(regressor)
    np.testing.assert_allclose(regressor.predict(features), expected.predict(frame), rtol=1e-9)
    score = d2_tweedie_score(frame["y"], expected.predict(frame), power=1)
    assert regressor.score(features, frame["y"]) == pytest.approx(score) and 0.2 < score < 1.0
    assert GLMMRegressor(COUNTS).fit(frame).score(frame) == pytest.approx(score)


@pytest.mark.parametrize(
    ("family", "link", "power"),
    [("negative_binomial", None, None), ("gamma", "log", 2), ("inverse_gaussian", "log", 3)],
)
def test_families(family, link, power, frame, features):
    y = frame["y"] if power is None else frame["y"] + 0.5
    model = GLMMRegressor(COUNTS, family=family, link=link).fit(features, y)
    assert model.result_.family.name == family
    if power is not None:
        assert model.score(features, y) == pytest.approx(d2_tweedie_score(y, model.predict(features), power=power))
    assert model.score(features, y) < 1.0


def test_parameters_reach_the_fit_and_the_prediction(frame, features):
    y = frame["hit"]
    model = GLMMClassifier(CLASSES, link="probit", nagq=7, se="hessian", random=False).fit(features, y)
    assert (model.result_.link, model.result_.nagq, model.result_.se_method) == ("probit", 7, "hessian")
    beta = model.result_.params
    np.testing.assert_allclose(model.decision_function(features), beta["Intercept"] + beta["x"] * features["x"])
    weighted = GLMMClassifier(CLASSES).fit(features, y, sample_weight=frame["w"])
    column = GLMMClassifier(CLASSES, weights="w").fit(frame[["x", "g", "w"]], y)
    assert weighted.result_.objective == column.result_.objective
    unseen = features.assign(g="new")
    assert np.isnan(model.set_params(random=True, new_levels="missing").predict_proba(unseen)).all()
    with pytest.raises(DataError, match="a level not in the fit"):
        model.set_params(new_levels="raise").predict_proba(unseen)


def test_clone_and_pickle(classifier, regressor, features):
    for model in (classifier, regressor):
        fresh = clone(model)
        assert fresh.get_params() == model.get_params() and not hasattr(fresh, "result_")
        again = pickle.loads(pickle.dumps(model))
        assert again.predict(features).tolist() == model.predict(features).tolist()


def test_missing_values(classifier, frame, features):
    holes = features.assign(x=features["x"].where(np.arange(len(frame)) % 10 > 0))
    model = GLMMClassifier(CLASSES).fit(holes, frame["hit"])
    assert np.isnan(model.predict_proba(holes)[:, 0]).tolist() == holes["x"].isna().tolist()
    with pytest.raises(
        UsageError, match="row 0 has a missing value or level, so its class cannot be predicted: drop it"
    ):
        model.predict(holes)
    assert 0.5 < model.score(holes, frame["hit"]) < 1.0
    lacking = frame["hit"].where(np.arange(len(frame)) > 5)
    assert GLMMClassifier(CLASSES).fit(features, lacking).result_.nobs == len(frame) - 6
    assert classifier.predict_proba(features.iloc[:0]).shape == (0, 2)
    assert classifier.predict(features.iloc[:0]).shape == (0,)


def test_pipelines_and_searches(frame, features):
    scale = ColumnTransformer(
        [("s", StandardScaler(), ["x"])], remainder="passthrough", verbose_feature_names_out=False
    )
    model = make_pipeline(scale.set_output(transform="pandas"), GLMMClassifier(CLASSES))
    assert 0.6 < cross_val_score(model, features, frame["hit"], cv=2).mean() < 1.0
    grid = {"formula": ["hit ~ 1 + (1 | g)", CLASSES], "nagq": [0, 1]}
    search = GridSearchCV(GLMMClassifier(), grid, cv=2, scoring="neg_log_loss").fit(features, frame["hit"])
    assert search.best_params_["formula"] == CLASSES
    assert search.predict_proba(features).shape == (400, 2)
    p = cross_val_predict(GLMMClassifier(CLASSES), features, frame["hit"], cv=2, method="predict_proba")
    assert np.isfinite(p).all()


def test_cross_validation_over_groups(frame, features):
    grid = {"family": ["poisson", "negative_binomial"]}
    search = GridSearchCV(GLMMRegressor(COUNTS), grid, cv=GroupKFold(2))
    search.fit(features, frame["y"], groups=frame["g"])
    assert 0.0 < search.best_score_ < 1.0


def test_dask_ml(classifier, regressor, frame, features):
    lazy = dd.from_pandas(features, npartitions=4)
    model = ParallelPostFit(GLMMClassifier(CLASSES)).fit(features, frame["hit"])
    np.testing.assert_allclose(model.predict_proba(lazy).compute(), classifier.predict_proba(features), rtol=1e-9)
    assert model.predict(lazy).compute().tolist() == classifier.predict(features).tolist()
    counts = ParallelPostFit(GLMMRegressor(COUNTS)).fit(features, frame["y"])
    np.testing.assert_allclose(counts.predict(lazy).compute(), regressor.predict(features), rtol=1e-9)
    search = DaskGridSearchCV(GLMMClassifier(CLASSES), {"nagq": [0, 1]}, cv=2, scheduler="sync")
    assert 0.6 < search.fit(features, frame["hit"]).best_score_ < 1.0


NOT_FOR_GENERALIZED = NOT_FOR_FORMULAS | {
    "check_classifier_data_not_an_array": SHAPE,
    "check_classifiers_classes": "its classes can be told apart without error: the likelihood has no maximum",
}


@pytest.mark.parametrize("kind", [GLMMClassifier, partial(GLMMRegressor, family="gamma", link="log")])
def test_scikit_learns_own_checks(kind):
    """Those that a grouping column with one level, or one row a level, spoils are left out."""
    results = check_estimator(
        kind("y ~ x0 + (1 | x1)"), expected_failed_checks=NOT_FOR_GENERALIZED, on_fail=None, on_skip=None
    )
    failed = {result["check_name"]: str(result["exception"]) for result in results if result["status"] == "failed"}
    assert not failed
    assert sum(result["status"] == "passed" for result in results) >= 25


def test_what_is_wrong_is_said(frame, features, classifier):
    with pytest.raises(UsageError, match=r"GLMMClassifier needs a formula, for example GLMMClassifier\('y ~ x"):
        GLMMClassifier().fit(features, frame["hit"])
    with pytest.raises(UsageError, match="GLMMRegressor needs a formula"):
        GLMMRegressor().fit(features, frame["y"])
    with pytest.raises(
        UsageError, match=r"Only binary classification is supported\..* y has 1 class \('yes'\): leave rows out"
    ):
        GLMMClassifier(CLASSES).fit(features, ["yes"] * len(frame))
    three = np.resize(["a", "b", "c"], len(frame))
    with pytest.raises(UsageError, match=r"y has 3 classes \('a', 'b', 'c'\)"):
        GLMMClassifier(CLASSES).fit(features, three)
    with pytest.raises(UsageError, match=r"y has 1 class \('no'\)"):
        GLMMClassifier(CLASSES).fit(features, frame["hit"], sample_weight=1.0 * (frame["hit"] == "no"))
    with pytest.raises(UsageError, match=r"fit\(\) needs y, or a plain column of X as response of the formula"):
        GLMMClassifier(CLASSES).fit(features)
    with pytest.raises(UsageError, match=r"score\(\) needs y, or a plain column of X as response of the formula"):
        classifier.score(features)
    with pytest.raises(UsageError, match=r"y must have one value per row: shape \(10,\) for 400 rows"):
        GLMMClassifier(CLASSES).fit(features, frame["hit"][:10])
    with pytest.raises(UsageError, match=r"give either weights='w' \(a column\) or sample_weight, not both"):
        GLMMRegressor(COUNTS, weights="w").fit(frame, sample_weight=frame["w"])
    with pytest.raises(NotFittedError):
        GLMMClassifier(CLASSES).predict(features)
    with pytest.raises(NotFittedError):
        GLMMRegressor(COUNTS).score(features, frame["y"])
    with pytest.raises(UsageError, match="X lacks the columns x that the formula"):
        classifier.predict_proba(frame[["g"]])
    with pytest.raises(DataError, match="a poisson response is a count"):
        GLMMRegressor(COUNTS).fit(features, frame["y"] + 0.5)
    with pytest.raises(UsageError, match="needs responses that are not all equal"):
        GLMMRegressor(COUNTS).fit(frame).score(features, np.ones(len(frame)))


def test_without_scikit_learn():
    code = "import sys; sys.modules['sklearn'] = None; import bigmm.sklearn"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ImportError: bigmm.sklearn needs scikit-learn: pip install 'bigmm[ml]'" in done.stderr
