"""Encoding a partition: values, dropped rows, and the errors that name the spot."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigmm.errors import DataError, FormulaError
from tests.design.frames import frame, learned, model_matrix, table

WHERE = "lake/part-3.parquet, row groups 0-1"


def small(**columns) -> pa.Table:
    base = {"y": [1.0, 2.0, 3.0, 4.0], "x": [0.5, 1.5, 2.5, 3.5], "g": ["a", "b", "a", "b"], "w": [1.0, 2.0, 1.0, 2.0]}
    return pa.table({**base, **columns})


def test_columns_are_one_contiguous_block_and_the_response_is_not_copied():
    data = table(frame())
    spec = learned("y ~ x * z + (x | g)", data)
    chunk = spec.encode(data, WHERE)
    assert chunk.columns.shape == (3, 60)
    assert chunk.columns.flags.c_contiguous and chunk.columns.dtype == np.float64
    source = data["y"].chunk(0).to_numpy()
    assert np.shares_memory(chunk.y, source)
    by_name = dict(zip(spec.layout.columns[1:], chunk.columns))
    np.testing.assert_array_equal(by_name["x"], data["x"].to_numpy())
    np.testing.assert_array_equal(by_name["x:z"], data["x"].to_numpy() * data["z"].to_numpy())
    assert (chunk.rows, chunk.rows_read, chunk.dropped, chunk.w, chunk.offset) == (60, 60, (), None, None)


def test_pieces_of_a_table_are_the_whole():
    data = table(frame().assign(g=lambda d: d["g"].astype("category")))
    pieces = pa.concat_tables([data.slice(0, 7), data.slice(7, 0), data.slice(7, 30), data.slice(37)])
    spec = learned("log(w) ~ x + f + b + count + (z | g) + (1 | k)", data)
    left, right = spec.encode(data, WHERE), spec.encode(pieces, WHERE)
    np.testing.assert_array_equal(left.columns, right.columns)
    np.testing.assert_array_equal(left.y, right.y)
    for a, b in zip(left.refs, right.refs, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "column",
    [pa.array([1, 2, 3, 4], pa.int16()), pa.array([Decimal("1.00"), Decimal("2.00"), Decimal("3.00"), Decimal("4.00")]),
     pa.array([1, 2, 3, 4], pa.float32()), pa.array([1, 2, 3, 4], pa.uint64())],
)  # fmt: skip
def test_numbers_of_any_type(column):
    data = small(x=column)
    spec = learned("y ~ x + I(x / 2) + (1 | g)", data)
    x = model_matrix(spec, data)
    np.testing.assert_array_equal(x[:, 1], [1, 2, 3, 4])
    np.testing.assert_array_equal(x[:, 2], [0.5, 1, 1.5, 2])


def test_a_row_is_dropped_once_and_counted_under_the_first_column_that_lacks_a_value():
    data = small(
        y=[None, 2.0, np.nan, 4.0, 5.0, 6.0],
        x=[None, 1.0, 2.0, np.nan, 1.0, 2.0],
        g=["a", "b", "a", "b", None, "b"],
        w=[1.0, 1.0, 1.0, 1.0, 1.0, 0.0],
    )
    spec = learned("y ~ x + (1 | g)", data, weights="w")
    chunk = spec.encode(data, WHERE)
    assert chunk.dropped == (("y", 2), ("x", 1), ("g", 1), ("(zero weight)", 1))
    assert (chunk.rows, chunk.rows_read) == (1, 6)
    assert (chunk.y.tolist(), chunk.columns.tolist(), chunk.w.tolist()) == ([2.0], [[1.0]], [1.0])


def test_integers_with_nulls_and_booleans_with_nulls():
    data = small(x=[1, None, 3, 4], b=[True, False, None, False])
    chunk = learned("y ~ x + b + (1 | g)", data).encode(data, WHERE)
    assert chunk.dropped == (("x", 1), ("b", 1))
    assert sorted(map(tuple, chunk.columns.tolist())) == [(1.0, 0.0), (1.0, 4.0)]


def test_a_value_that_an_expression_cannot_take_is_missing():
    data = small(x=[-1.0, 1.0, np.e, np.e])
    chunk = learned("y ~ log(x) + (1 | g)", data).encode(data, WHERE)
    assert chunk.dropped == (("log(x)", 1),)
    np.testing.assert_allclose(chunk.columns[0], [0, 1, 1])
    chunk = learned("sqrt(x) ~ 1 + (1 | g)", data).encode(data, WHERE)
    assert chunk.dropped == (("sqrt(x)", 1),)


def test_a_comparison_keeps_missing_values_missing():
    data = small(x=[None, 1.0, 2.0, 3.0])
    chunk = learned("y ~ I(x > 1.5) + (1 | g)", data).encode(data, WHERE)
    assert chunk.columns.tolist() == [[0.0, 1.0, 1.0]]


BAD = [
    ("y ~ x + (1 | g)", {"x": [0.0, np.inf, 1.0, 2.0]}, {}, "column 'x' holds inf in row 2; mend the row"),
    ("y ~ x + (1 | g)", {"y": [0.0, 1.0, -np.inf, 2.0]}, {}, "column 'y' holds -inf in row 3"),
    ("y ~ x + (1 | g)", {"x": [None, 1.0, -np.inf, np.nan]}, {}, "column 'x' holds -inf in row 3"),
    ("y ~ log(x) + (1 | g)", {"x": [None, 1.0, 0.0, 1.0]}, {}, r"log\(x\) is infinite in row 3"),
    ("log(y) ~ x + (1 | g)", {"y": [0.0, 1.0, 2.0, 3.0]}, {}, r"log\(y\) is infinite in row 1"),
    ("y ~ x + (1 | g)", {"w": [1.0, -2.0, 0.0, 1.0]}, {"weights": "w"}, "weight 'w' is -2.0 in row 2; weights must"),
    ("y ~ x + (1 | g)", {"x": [1.0, None, 2.0, 3.0]}, {"drop_missing": False}, "column 'x' has no value in row 2"),
    ("y ~ sqrt(x) + (1 | g)", {"x": [1.0, -2.0, 2.0, 3.0]}, {"drop_missing": False}, "has no value in row 2"),
]


@pytest.mark.parametrize(("formula", "columns", "options", "message"), BAD)
def test_bad_values_name_file_column_value_and_row(formula, columns, options, message):
    data = small(**columns)
    spec = learned(formula, data, **options)
    with pytest.raises(DataError, match=message) as caught:
        spec.encode(data, WHERE)
    assert str(caught.value).startswith(WHERE + ": ")


def test_a_level_not_seen_when_levels_were_learned():
    spec = learned("y ~ f + (1 | g)", small(f=["p", "q", "p", "q"]))
    with pytest.raises(DataError, match="column 'g' holds 'new' in row 3, a level not seen when levels were learned"):
        spec.encode(small(f=["p", "q", "p", "q"], g=["a", "b", "new", "a"]), WHERE)
    with pytest.raises(DataError, match="column 'f' holds 'r' in row 1"):
        spec.encode(small(f=["r", "q", "p", "q"]), WHERE)
    nested = learned("y ~ 1 + (1 | g:f)", small(f=["p", "q", "p", "q"]))
    with pytest.raises(DataError, match="'g:f' is 'a:q' in row 2, a combination not seen"):
        nested.encode(small(f=["p", "q", "p", "q"], g=["a", "a", "b", "a"]), WHERE)


def test_huge_values_are_not_taken_for_infinite():
    data = small(x=[1.7e308, 1.7e308, -1.0, 1.0])
    assert learned("y ~ x + (1 | g)", data).encode(data, WHERE).rows == 4


missing = st.sampled_from([None, np.nan, 0.5, 1.5, 2.5])


@settings(max_examples=40, deadline=None, derandomize=True)
@given(rows=st.lists(st.tuples(missing, missing, st.sampled_from(["a", "b", None]), st.sampled_from([0, 1, 2, None]))))
def test_dropped_rows_equal_those_of_pandas(rows):
    rows = [*rows, (1.0, 2.0, "a", 1), (2.0, 1.0, "b", 1)]
    y, x, g, w = zip(*rows, strict=True)
    types = (pa.float64(), pa.float64(), pa.string(), pa.int32())
    data = pa.table([pa.array(column, kind) for column, kind in zip((y, x, g, w), types)], names=list("yxgw"))
    chunk = learned("y ~ x + (1 | g)", data, weights="w").encode(data, WHERE)
    left = pd.DataFrame({"y": y, "x": x, "g": g, "w": w}).astype({"y": float, "x": float, "w": float})
    expected = {}
    for name in "yxgw":
        kept = left.dropna(subset=[name])
        expected[name] = len(left) - len(kept)
        left = kept
    expected["(zero weight)"] = int((left["w"] == 0).sum())
    left = left[left["w"] != 0]
    assert dict(chunk.dropped) == {name: count for name, count in expected.items() if count}
    assert chunk.rows + sum(dict(chunk.dropped).values()) == chunk.rows_read == len(rows)
    np.testing.assert_array_equal(chunk.y, left["y"])
    np.testing.assert_array_equal(chunk.columns[0], left["x"])
    assert chunk.refs[0].tolist() == [("a", "b").index(name) for name in left["g"]]


def test_vectors_are_read_only_whatever_they_came_from():
    data = table(frame())
    spec = learned("y ~ x + offset(z) + (1 | g)", data, weights="w")
    for version in (data, pa.concat_tables([data.slice(0, 9), data.slice(9)])):
        chunk = spec.encode(version, WHERE)
        assert not any(vector.flags.writeable for vector in (chunk.y, chunk.w, chunk.offset))


def test_zero_rows_and_everything_dropped():
    data = small(x=pa.array([None] * 4, pa.float64()))
    spec = learned("y ~ x + (1 | g)", data)
    chunk = spec.encode(data, WHERE)
    assert (chunk.rows, chunk.dropped) == (0, (("x", 4),))
    assert spec.encode(data.slice(0, 0), WHERE).rows == 0


def test_binomial_responses():
    data = small(r=["N", "Y", "Y", "N"], a=[1.0, 2.0, 0.0, 0.0], n=[4.0, 4.0, 2.0, 0.0])
    levels = learned("r ~ x + (1 | g)", data, binomial=True).encode(data, WHERE)
    assert (levels.y.tolist(), levels.w) == ([0.0, 1.0, 1.0, 0.0], None)
    counts = learned("cbind(a, n - a) ~ x + (1 | g)", data, binomial=True, weights="w").encode(data, WHERE)
    assert (counts.y.tolist(), counts.w.tolist()) == ([0.25, 0.5, 0.0], [4.0, 8.0, 2.0])
    assert counts.dropped == (("(zero weight)", 1),)
    kept = data.slice(0, 3)
    ratio = learned("a / n ~ x + (1 | g)", kept, binomial=True).encode(kept, WHERE)
    assert (ratio.y.tolist(), ratio.w.tolist()) == ([0.25, 0.5, 0.0], [4.0, 4.0, 2.0])
    plain = learned("a / n ~ x + (1 | g)", kept).encode(kept, WHERE)
    assert plain.w is None


def test_a_boolean_response_is_a_number():
    data = small(y=[True, False, True, True])
    assert learned("y ~ x + (1 | g)", data).encode(data, WHERE).y.tolist() == [1.0, 0.0, 1.0, 1.0]


def test_numbers_cannot_be_text_and_dates_want_to_be_factors():
    with pytest.raises(FormulaError, match=r"column 'g' holds text; numbers are needed here"):
        learned("y ~ exp(g) + (1 | w)", small())
    dates = pa.array([0, 1, 0, 1], pa.date32())
    with pytest.raises(FormulaError, match=r"column 'd' holds date32.*; write C\(d\) to use it as a factor"):
        learned("y ~ d + (1 | g)", small(d=dates))
    spec = learned("y ~ C(d) + (1 | g)", small(d=dates))
    assert spec.layout.fixed_names == ("Intercept", "C(d)[T.1970-01-02]")


def test_names_that_need_quotes():
    data = small(**{"my x": [1.0, 2.0, 3.0, 4.0], "Sepal.Length": [1.0, 4.0, 9.0, 16.0], "my g": ["u", "v", "u", "v"]})
    spec = learned("y ~ `my x` + sqrt(Sepal.Length) + log(`my x`) + (1 | `my g`)", data)
    assert spec.layout.fixed_names == ("Intercept", "my x", "sqrt(Sepal.Length)", "log(my x)")
    assert spec.layout.groupings[0].name == "my g"
    np.testing.assert_allclose(model_matrix(spec, data)[:, 2], [1, 2, 3, 4])
