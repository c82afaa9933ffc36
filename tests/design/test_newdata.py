"""Rows to predict for: all are kept, new levels are -1, levels match across types."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from bigmm.errors import DataError, UsageError
from tests.design.frames import dense, frame, learned, table

FORMULA = "log(w) ~ x + f + scale(z) + offset(count) + (x | g) + (1 | k)"


def test_new_rows_of_the_fit_are_encoded_as_in_the_fit():
    data = frame()
    spec = learned(FORMULA, data, weights="w")
    old, new = spec.encode(table(data), "here"), spec.encode_new(table(data))
    for name in ("columns", "y", "w", "offset"):
        np.testing.assert_array_equal(getattr(new, name), getattr(old, name))
    for left, right in zip(new.refs, old.refs, strict=True):
        np.testing.assert_array_equal(left, right)


def test_missing_values_and_new_levels():
    spec = learned(FORMULA, frame())
    new = pa.table(
        {
            "x": [1.0, None, 3.0, np.nan],
            "f": ["lo", "mid", None, "hi"],
            "z": [0.0, 0.0, 0.0, None],
            "count": [1, 2, None, 4],
            "g": ["g0", "new", "g1", None],
            "k": [1, 11, 999, 21],
        }
    )
    chunk = spec.encode_new(new)
    by_name = dict(zip(spec.layout.columns[1:], chunk.columns))
    np.testing.assert_array_equal(by_name["x"], [1, np.nan, 3, np.nan])
    np.testing.assert_array_equal(by_name["f[T.lo]"], [1, 0, np.nan, 0])
    np.testing.assert_array_equal(np.isnan(by_name["scale(z)"]), [False, False, False, True])
    np.testing.assert_array_equal(chunk.offset, [1, 2, np.nan, 4])
    refs = {grouping.name: ref.tolist() for grouping, ref in zip(spec.layout.groupings, chunk.refs)}
    assert refs == {"g": [0, -1, 1, -1], "k": [0, 1, -1, 2]}
    assert np.isnan(chunk.y).all() and chunk.rows == chunk.rows_read == 4
    with pytest.raises(DataError, match="'g' is 'new' in row 2, a level not in the fit; new_levels='population'"):
        spec.encode_new(new, "raise")
    with pytest.raises(UsageError, match="new_levels='zero'; it can be population, raise, missing"):
        spec.encode_new(new, "zero")


def test_columns_that_are_not_wanted_may_be_absent():
    spec = learned(FORMULA, frame())
    fixed = pa.table({"x": [1.0], "f": ["lo"], "z": [0.5], "count": [2]})
    chunk = spec.encode_new(fixed, need=("fixed",))
    assert [ref.tolist() for ref in chunk.refs] == [[-1], [-1]]
    assert np.isfinite(chunk.columns).all()
    random = pa.table({"x": [1.0], "g": ["g3"], "k": [1]})
    chunk = spec.encode_new(random, need=("random",))
    by_name = dict(zip(spec.layout.columns[1:], chunk.columns))
    assert by_name["x"].tolist() == [1.0] and np.isnan(by_name["f[T.lo]"]).all() and chunk.offset is None
    with pytest.raises(DataError, match="new data: column 'g' is missing; the model needs it"):
        spec.encode_new(fixed)
    with pytest.raises(DataError, match="column 'f' is missing"):
        spec.encode_new(random)


def test_an_unseen_level_of_a_fixed_factor():
    spec = learned(FORMULA, frame())
    new = table(frame().head(3).assign(f=["lo", "odd", "hi"]))
    with pytest.raises(DataError, match="new data: column 'f' holds 'odd' in row 2, a level not seen"):
        spec.encode_new(new)


def test_text_where_numbers_are_needed():
    spec = learned(FORMULA, frame())
    with pytest.raises(DataError, match="new data: column 'x' holds text, numbers are needed"):
        spec.encode_new(table(frame().assign(x="1")))


SPELLINGS = [
    pa.array([308, 309]),
    pa.array([308, 309], pa.int16()),
    pa.array([308.0, 309.0]),
    pa.array(["308", "309"]),
    pa.array(["308", "309"], pa.large_string()),
    pa.array(["308", "309"], pa.string_view()),
    pa.array(["308", "309"]).dictionary_encode(),
    pa.array([308, 309]).dictionary_encode(),
]


@pytest.mark.parametrize("learnt", SPELLINGS)
@pytest.mark.parametrize("asked", SPELLINGS)
def test_levels_match_whatever_their_type(learnt, asked):
    values = [value.as_py() for value in learnt]
    data = pa.table({"y": np.arange(6.0), "g": pa.array(values * 3, learnt.type)})
    spec = learned("y ~ 1 + (1 | g)", data)
    assert spec.encode_new(pa.table({"g": asked})).refs[0].tolist() == [0, 1]


def test_missing_levels_in_every_container():
    spec = learned("y ~ 1 + (1 | g)", frame())
    for values in (
        pa.array(["g1", None, "?"]),
        pa.array(["g1", None, "?"], pa.string_view()),
        pa.array(["g1", None, "?"]).dictionary_encode(),
        pa.Array.from_pandas(pd.Categorical(["g1", None, "?"])),
    ):
        assert spec.encode_new(pa.table({"g": values})).refs[0].tolist() == [1, -1, -1]


def test_factors_with_many_levels():
    data = frame(900)
    data["many"] = np.arange(900) % 300
    spec = learned("y ~ C(many) + x + (1 | g)", data, partition_bytes=1 << 15)
    chunk = spec.encode_new(table(data))
    np.testing.assert_array_equal(dense(spec, chunk), dense(spec, spec.encode(table(data), "here")))
    with pytest.raises(DataError, match="column 'many' holds 300 in row 1"):
        spec.encode_new(table(data.head(1).assign(many=300)))
