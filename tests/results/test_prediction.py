"""predict and augment in memory: kinds of new data, new and nested levels, missing values, errors."""

from __future__ import annotations

import pickle

import dask.dataframe as dd
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import bigmm
from bigmm.datasets import pastes
from bigmm.errors import BigmmError, DataError, UsageError
from bigmm.results.predictor import predictor, variance
from bigmm.results.rows import Predict


@pytest.fixture(scope="module")
def nested():
    return bigmm.lmm("strength ~ 1 + (1 | batch / cask)", pastes(), progress=False)


KINDS = {
    "pandas": lambda frame: frame,
    "indexed pandas": lambda frame: frame.set_index(np.arange(len(frame)) * 3 + 7),
    "pyarrow": lambda frame: pa.Table.from_pandas(frame, preserve_index=False),
    "polars": pl.from_pandas,
    "dict": lambda frame: frame.to_dict("list"),
    "records": lambda frame: frame.to_dict("records"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_new_data(crossed, rows, kind):
    some = rows.iloc[:9]
    np.testing.assert_allclose(crossed.predict(KINDS[kind](some)), crossed.predict(rows)[:9], rtol=1e-12)


def test_response_and_weights_are_not_needed(crossed, rows):
    bare = rows[["x", "g", "h", "off"]]
    np.testing.assert_array_equal(crossed.predict(bare), crossed.predict(rows))


def test_groups_are_not_needed_for_the_population(crossed, rows):
    expected = crossed.params["Intercept"] + crossed.params["x"] * rows["x"] + rows["off"]
    np.testing.assert_allclose(crossed.predict(rows[["x", "off"]], random=False), expected, rtol=1e-12)


def test_dask_frames_stay_lazy(crossed, rows):
    frame = dd.from_pandas(rows.set_index(np.arange(240) * 2), npartitions=3)
    lazy = crossed.predict(frame)
    assert isinstance(lazy, dd.Series)
    computed = lazy.compute(scheduler="synchronous")
    np.testing.assert_allclose(computed, crossed.predict(rows), rtol=1e-12)
    assert list(computed.index) == list(np.arange(240) * 2)
    both = crossed.predict(frame, se=True).compute(scheduler="synchronous")
    np.testing.assert_allclose(both["se"], crossed.predict(rows, se=True)["se"], rtol=1e-10)


def test_new_levels(crossed):
    new = pd.DataFrame({"x": [1.0, 1.0], "g": ["g01", "NEW"], "h": ["h1", "h1"], "off": 0.0})
    known, unknown = crossed.predict(new)
    population = crossed.predict(new, random=False)[0]
    modes = crossed.ranef()
    assert unknown == pytest.approx(population + modes["h"].loc["h1", "Intercept"])
    assert known == pytest.approx(unknown + modes["g"].loc["g01"].sum())
    missing = crossed.predict(new, new_levels="missing")
    assert missing[0] == known and np.isnan(missing[1])
    with pytest.raises(BigmmError, match="NEW"):
        crossed.predict(new, new_levels="raise")
    for absent in (None, np.nan):
        nameless = new.assign(g=["g01", absent])
        assert crossed.predict(nameless)[1] == pytest.approx(unknown), "as a level that was never seen"
        assert np.isnan(crossed.predict(nameless, new_levels="missing")[1])
        with pytest.raises(DataError, match=r"pandas DataFrame.*: 'g' is missing in row 2, .*new_levels='population'"):
            crossed.predict(nameless, new_levels="raise")
    assert crossed.predict(new, random=False, new_levels="raise")[1] == pytest.approx(population)


def test_unseen_cask_of_a_known_batch_uses_the_batch(nested):
    new = pd.DataFrame({"batch": ["A", "NEW"], "cask": ["z", "a"]})
    mode = nested.ranef()["batch"].loc["A", "Intercept"]
    np.testing.assert_allclose(nested.predict(new), nested.params["Intercept"] + np.array([mode, 0.0]), rtol=1e-10)


def test_missing_values_give_nan_and_keep_their_row(crossed, rows):
    some = rows.iloc[:4].copy()
    some.loc[1, "x"] = np.nan
    out = crossed.predict(some, se=True)
    assert np.isnan(out["prediction"]).tolist() == [False, True, False, False]
    assert np.isnan(out["se"]).tolist() == [False, True, False, False]
    np.testing.assert_allclose(out["prediction"].dropna(), crossed.predict(rows)[[0, 2, 3]], rtol=1e-12)


@pytest.mark.parametrize("kind", ["pandas", "pyarrow", "polars", "dict"])
def test_no_rows(crossed, rows, kind):
    nothing = KINDS[kind](rows.iloc[:0])
    assert crossed.predict(nothing).shape == (0,)
    assert list(crossed.predict(nothing, se=True).columns) == ["prediction", "se"]
    assert crossed.simulate(nothing, nsim=2).shape == (0, 2)
    assert list(crossed.augment(nothing, keep=["x"]).columns[:2]) == ["x", ".fitted"]


def test_tasks_travel_light(crossed, rows):
    """Without standard errors the Gram stays at home; with them it goes along, and the numbers are the same."""
    table = pa.Table.from_pandas(rows, preserve_index=False)
    light = Predict(predictor(crossed.fitted), "population", None)
    heavy = Predict(predictor(crossed.fitted), "population", variance(crossed.fitted))
    assert len(pickle.dumps(light)) < len(pickle.dumps(heavy)) - crossed.fitted.criterion.gram.terms[0].dense.nbytes
    for task in (light, heavy):
        here, there = task(table, 0), pickle.loads(pickle.dumps(task))(table, 0)
        assert list(here) == list(there)
        for name in here:
            np.testing.assert_allclose(there[name], here[name], rtol=1e-12)


def test_augment_keeps_columns_and_index(crossed, rows):
    some = rows.iloc[10:14]
    table = crossed.augment(some)
    assert list(table.index) == [10, 11, 12, 13] and list(table.columns[:6]) == list(rows.columns)
    added = [".fitted", ".resid", ".hat", ".cooksd", ".fixed", ".offset"]
    assert list(table.columns[6:]) == added
    assert list(crossed.augment(some, keep=["g"]).columns) == ["g", *added]


def test_wrong_arguments(crossed, rows):
    with pytest.raises(UsageError, match="new_levels='zero': choose one of population, raise, missing"):
        crossed.predict(rows, new_levels="zero")
    with pytest.raises(UsageError, match="type='mean': choose one of response, link"):
        crossed.predict(rows, type="mean")
    with pytest.raises(UsageError, match="keep names columns that the data do not have: nope"):
        crossed.augment(rows, keep=["nope"])
    with pytest.raises(UsageError, match=r"the data already have a column '\.fitted'"):
        crossed.augment(rows.assign(**{".fitted": 0.0}))


def test_a_missing_covariate_is_named(crossed, rows):
    with pytest.raises(BigmmError, match="x"):
        crossed.predict(rows.drop(columns="x"))
