"""Levels are found over all partitions, ordered like R factors, and matched again by any spelling of their type."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bigmm
from bigmm.design import learn
from bigmm.design.levels.numbering import Combinations, JoinedLabels, Levels, sorted_distinct
from bigmm.errors import DataError
from bigmm.execute import executor
from bigmm.source import open_source
from tests.design.frames import frame, learned, table

DAY = dt.date(2020, 1, 30)
KINDS = {
    "text by code point": (pa.array(["b", "B", "\u00e9", "a", "10", "9"]), ["10", "9", "B", "a", "b", "\u00e9"]),
    "large text": (pa.array(["b", "a"], pa.large_string()), ["a", "b"]),
    "view": (pa.array(["b", "a"], pa.string_view()), ["a", "b"]),
    "dictionary": (pa.array(["b", "c", "a"]).dictionary_encode(), ["a", "b", "c"]),
    "dictionary of numbers": (pa.array([10, 9, 10]).dictionary_encode(), [9, 10]),
    "integers": (pa.array([10, 9, -3, 1 << 60, -(1 << 62)]), [-(1 << 62), -3, 9, 10, 1 << 60]),
    "small integers": (pa.array([3, 1, 2], pa.int8()), [1, 2, 3]),
    "unsigned": (pa.array([3, 1, 2], pa.uint32()), [1, 2, 3]),
    "booleans": (pa.array([True, False]), [False, True]),
    "floats": (pa.array([1.5, -0.5, 10.0]), [-0.5, 1.5, 10.0]),
    "dates": (pa.array([DAY + dt.timedelta(3), DAY]), ["2020-01-30", "2020-02-02"]),
    "timestamps": (
        pa.array([dt.datetime(2021, 1, 1), dt.datetime(2020, 1, 1)], pa.timestamp("s")),
        ["2020-01-01 00:00:00", "2021-01-01 00:00:00"],
    ),
    "timestamps of a finer unit": (
        pa.array([dt.datetime(2021, 1, 1, 12), dt.datetime(2020, 1, 1)], pa.timestamp("us")),
        ["2020-01-01 00:00:00", "2021-01-01 12:00:00"],
    ),
    "decimals": (pa.array([Decimal("10.50"), Decimal("9.25")]), ["9.25", "10.50"]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_type_of_level(kind):
    values, labels = KINDS[kind]
    n = 12 * len(values)
    column = pa.array([value.as_py() for value in values] * 12, values.type)
    data = pa.table({"y": np.arange(n, dtype=float), "g": column})
    spec = learned("y ~ 1 + (1 | g)", data, partition_bytes=200)
    grouping = spec.layout.groupings[0]
    assert grouping.labels.tolist() == labels
    refs = spec.encode(data, "here").refs[0]
    assert refs.dtype == np.int32
    assert set(refs.tolist()) == set(range(len(labels)))
    # equal values have equal numbers, and numbers rise with the order of the labels
    expected = [labels.index(_shown(value)) for value in column.to_pylist()]
    assert refs.tolist() == expected


def _shown(value):
    return str(value) if isinstance(value, dt.date | dt.datetime | Decimal) else value


def test_declared_categories_keep_their_order_and_lose_the_unused():
    data = frame()
    data["f"] = pd.Categorical(data["f"], categories=["mid", "never", "lo", "hi"])
    spec = learned("y ~ f + (1 | g)", data, categories={"g": [f"g{i}" for i in (6, 9, 5, 4, 3, 2, 1, 0)]})
    assert spec.layout.fixed_names == ("Intercept", "f[T.lo]", "f[T.hi]")
    assert spec.layout.groupings[0].labels.tolist() == ["g6", "g5", "g4", "g3", "g2", "g1", "g0"]


def test_categories_of_another_type_match_by_label():
    data = frame()
    spec = learned("y ~ k + (1 | g)", data, categories={"k": ["31", "1", "11", "21"]})
    assert spec.layout.fixed_names == ("Intercept", "k[T.1]", "k[T.11]", "k[T.21]")
    texts = data.assign(k=data["k"].astype(str))
    spec = learned("y ~ k + (1 | g)", texts, categories={"k": [31, 1, 11, 21]})
    assert spec.layout.fixed_names == ("Intercept", "k[T.1]", "k[T.11]", "k[T.21]")


def test_a_value_outside_the_declared_categories_names_file_column_and_value(tmp_path):
    for number, values in enumerate((["a", "b"], ["b", "c"])):
        pq.write_table(pa.table({"y": [1.0, 2.0], "g": values}), tmp_path / f"part-{number}.parquet")
    source = open_source(tmp_path)
    with pytest.raises(DataError, match=r"part-1\.parquet.*'g' holds 'c', not one of its declared categories"):
        learn("y ~ 1 + (1 | g)", source, executor(n_workers=1), categories={"g": ["a", "b"]})


def test_only_combinations_that_occur_are_levels_first_variable_slowest():
    data = pa.table(
        {
            "y": np.arange(8.0),
            "a": ["B", "B", "A", "A", "B", "A", "A", None],
            "b": [2, 10, 2, 2, 10, 7, 2, 7],
        }
    )
    spec = learned("y ~ 1 + (1 | a:b) + (1 | b:a)", data, partition_bytes=64)
    first, second = spec.layout.groupings
    assert (first.name, first.variables) == ("a:b", ("a", "b"))
    assert first.labels.tolist() == ["A:2", "A:7", "B:2", "B:10"]
    assert second.labels.tolist() == ["2:A", "2:B", "7:A", "10:B"]
    chunk = spec.encode(data, "here")
    assert chunk.refs[0].tolist() == [2, 3, 0, 0, 3, 1, 0]
    assert chunk.dropped == (("a", 1),)


def test_nested_groupings_have_lme4_names_labels_and_order():
    data = pa.table({"y": np.arange(6.0), "batch": list("AAABBB"), "cask": list("abcabc")})
    spec = learned("y ~ 1 + (1 | batch/cask)", data)
    assert [term.group for term in spec.layout.terms] == ["cask:batch", "batch"]
    assert spec.layout.groupings[0].labels.tolist() == ["a:A", "a:B", "b:A", "b:B", "c:A", "c:B"]
    assert spec.encode(data, "here").refs[0].tolist() == [0, 2, 4, 1, 3, 5]


def test_nulls_and_nan_are_rows_to_drop_never_levels():
    data = pa.table(
        {"y": np.arange(6.0), "g": ["a", None, "b", "a", "b", None], "h": [1.0, 2.0, np.nan, 1.0, 2.0, 1.0]}
    )
    spec = learned("y ~ 1 + (1 | g) + (1 | h)", data, partition_bytes=40)
    labels = {grouping.name: grouping.labels.tolist() for grouping in spec.layout.groupings}
    assert labels == {"g": ["a", "b"], "h": [1.0, 2.0]}
    assert spec.encode(data, "here").dropped == (("g", 2), ("h", 1))


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array(["a"] * 4), r"grouping factor 'g' has one level \(a\); a random effect needs at least two"),
        (pa.array([None] * 4, pa.string()), "column 'g' has no values"),
        (pa.array([None] * 4), "column 'g' has no values"),
        (pa.array([[1], [2]] * 2), "column 'g' has type list.*, which cannot be a factor"),
        (
            pa.array([[1], [2]] * 2, pa.large_list(pa.int64())),
            "column 'g' has type large_list.*, which cannot be a factor",
        ),
        (pa.array([{"a": 1}, {"a": 2}] * 2), "column 'g' has type struct.*, which cannot be a factor"),
    ],
)
def test_columns_that_cannot_group(column, message):
    with pytest.raises(DataError, match=message):
        learned("y ~ 1 + (1 | g)", pa.table({"y": [1.0, 2.0, 3.0, 4.0], "g": column}))


def test_a_fixed_factor_with_one_level():
    with pytest.raises(DataError, match=r"factor 'f' has one level \(a\); leave it out"):
        learned("y ~ f + (1 | g)", frame().assign(f="a"))


def test_a_response_that_is_text():
    with pytest.raises(DataError, match=r"the response 'f' holds text; a linear mixed model needs a number"):
        learned("f ~ x + (1 | g)", frame())


def test_terms_are_ordered_as_lme4_orders_them():
    data = frame(84)
    data["h7"] = data["g"].str.replace("g", "h")
    groups = lambda formula: [(t.group, t.names) for t in learned(formula, data).layout.terms]  # noqa: E731
    one = ("Intercept",)
    assert groups("y ~ (1 | f) + (1 | g)") == [("g", one), ("f", one)]
    # already decreasing: as written
    assert groups("y ~ (1 | g) + (0 + x | g) + (1 | f)") == [("g", one), ("g.1", ("x",)), ("f", one)]
    # otherwise lme4's rev(order(nl)) turns ties round
    assert groups("y ~ (1 | f) + (1 | g) + (0 + x | g)") == [("g", ("x",)), ("g.1", one), ("f", one)]
    assert groups("y ~ (x || g) + (1 | h7)") == [("g", one), ("g.1", ("x",)), ("h7", one)]


def test_columns_of_x_and_z_are_stored_once():
    spec = learned("y ~ x + f + (x + f | g) + (0 + x:z || h)", frame())
    layout = spec.layout
    assert layout.columns == ("1", "x", "f[T.lo]", "f[T.mid]", "x:z")
    terms = {term.group: dict(zip(term.names, (layout.columns[c] for c in term.covariates))) for term in layout.terms}
    assert terms["g"] == {"Intercept": "1", "x": "x", "f[T.lo]": "f[T.lo]", "f[T.mid]": "f[T.mid]"}
    assert terms["h"] == {"x:z": "x:z"}


def test_full_coding_without_intercept_in_a_random_term():
    spec = learned("y ~ 1 + (0 + f | g) + (f || h)", frame())
    names = [(term.group, term.names) for term in spec.layout.terms]
    full = ("f[hi]", "f[lo]", "f[mid]")
    assert names == [("g", full), ("h", ("Intercept",)), ("h.1", full)]


def test_levels_that_only_incomplete_rows_had_can_be_left_out():
    data = pa.table(
        {
            "y": [1.0, None, 3.0, 4.0, None, 6.0],
            "a": ["A", "B", "A", "C", "B", "C"],
            "b": ["p", "p", "q", "p", "q", "q"],
        }
    )
    spec = learned("y ~ 1 + (1 | a/b)", data)
    chunk = spec.encode(data, "here")
    rows = {
        variables: np.bincount(refs, minlength=grouping.n_levels) > 0
        for grouping, variables, refs in zip(spec.layout.groupings, spec.plan.groupings, chunk.refs, strict=True)
    }
    fewer = spec.with_levels(rows, spec.states)
    labels = {grouping.name: grouping.labels.tolist() for grouping in fewer.layout.groupings}
    assert labels == {"b:a": ["p:A", "p:C", "q:A", "q:C"], "a": ["A", "C"]}
    assert [refs.tolist() for refs in fewer.encode(data, "here").refs] == [[0, 2, 1, 3], [0, 0, 1, 1]]
    # the coding of a factor of the fixed effects goes with its levels
    both = learned("y ~ a + (1 | a)", data)
    fewer = both.with_levels({("a",): np.array([True, False, True])}, both.states)
    assert fewer.layout.groupings[0].n_levels == 2 and fewer.layout.fixed_names == ("Intercept", "a[T.C]")


class Recording:
    """A source that notes the columns it is asked for."""

    def __init__(self, source):
        self.source, self.asked = source, set()

    def __getattr__(self, name):
        return getattr(self.source, name)

    def read(self, partition, columns):
        self.asked |= set(columns)
        return self.source.read(partition, columns)


@pytest.mark.parametrize(
    ("formula", "needed"),
    [
        ("log(y) ~ x + z + offset(w) + (1 | g)", {"g"}),
        ("y ~ f * x + (z | g) + (1 | h)", {"f", "g", "h"}),
        ("y ~ scale(x) + z + C(k) + (1 | g/h)", {"x", "k", "g", "h"}),
    ],
)
def test_the_pass_over_levels_reads_only_what_it_needs(formula, needed):
    source = Recording(open_source(frame(), partition_bytes=500))
    learn(formula, source, executor(n_workers=1), weights="w")
    assert source.asked == needed


def test_the_design_does_not_depend_on_partitions_or_threads():
    data = frame(200)
    formula = "y ~ poly(x, 3) + bs(z, df=5) + scale(log(w)) + f + (x | g/h) + (1 | k)"
    source = open_source(data, partition_bytes=500)
    specs = [learn(formula, source, executor(n_workers=n)) for n in (1, 3)]
    assert specs[0].states == specs[1].states
    whole = learned(formula, data, partition_bytes=1 << 30)
    chunks = [spec.encode(table(data), "here") for spec in (*specs, whole)]
    np.testing.assert_array_equal(chunks[0].columns, chunks[1].columns)
    np.testing.assert_allclose(chunks[0].columns, chunks[2].columns, rtol=1e-10, atol=1e-12)
    for left, right in zip(chunks[0].refs, chunks[2].refs, strict=True):
        np.testing.assert_array_equal(left, right)


def test_a_million_levels_quickly():
    n = 1_000_000
    keys = np.random.default_rng(0).permutation(n) * 7919
    data = pa.table({"y": np.zeros(n), "g": keys, "s": pa.array(keys).cast(pa.string())})
    spec = learned("y ~ 1 + (1 | g) + (1 | s)", data, partition_bytes=1 << 22)
    chunk = spec.encode(data.slice(0, 1000), "here")
    by_name = {grouping.name: number for number, grouping in enumerate(spec.layout.groupings)}
    for name in ("g", "s"):
        grouping = spec.layout.groupings[by_name[name]]
        assert grouping.n_levels == n
        found = grouping.labels[chunk.refs[by_name[name]]]
        assert found.astype(str).tolist() == data[name][:1000].cast(pa.string()).to_pylist()


@given(st.lists(st.integers(-5, 5), max_size=40))
def test_different_integers_in_order(keys):
    assert sorted_distinct(np.array(keys, np.int64)).tolist() == sorted(set(keys))


def test_labels_of_very_many_combinations_are_made_when_asked_for(monkeypatch):
    members = [Levels("a", pa.array(["x", "y"])), Levels("b", pa.array([10, 20, 30]))]
    combinations = Combinations(members, np.array([[0, 1], [1, 0], [1, 2]], np.int32))
    eager = combinations.labels
    assert eager.tolist() == ["x:20", "y:10", "y:30"]
    monkeypatch.setattr("bigmm.design.levels.numbering.MANY", 2)
    lazy = combinations.labels
    assert isinstance(lazy, JoinedLabels)
    assert len(lazy) == 3
    assert lazy[1] == "y:10"
    assert lazy[np.array([2, 0])].tolist() == ["y:30", "x:20"]
    assert lazy[np.array([], int)].tolist() == []
    assert np.asarray(lazy).tolist() == eager.tolist()


def test_a_factor_in_two_widths_is_refused(tmp_path):
    """0.1 in single precision is another number than 0.1: two levels, or a column that is no factor, never silently."""
    rng = np.random.default_rng(1)
    x = rng.integers(1, 8, 200) / 10
    frame = pd.DataFrame({"y": rng.normal(size=200), "x": x, "half": 5 * x // 1, "g": np.arange(200) % 9})
    for number, kind in enumerate(["float32", "float64"]):
        part = frame.iloc[number * 100 : number * 100 + 100]
        part.astype({"x": kind, "half": kind}).to_parquet(tmp_path / f"{number}.parquet")
    for formula in ("y ~ 1 + (1 | x)", "y ~ C(x) + (1 | g)", "y ~ 1 + (1 | g:x)"):
        with pytest.raises(DataError, match=r"'x' holds 0\.\d and, .* float in .*0\.parquet, double in .*1\.par"):
            bigmm.lmm(formula, tmp_path)
    assert bigmm.lmm("y ~ x + (1 | g)", tmp_path).nobs == 200
    assert bigmm.lmm("y ~ 1 + (1 | half)", tmp_path).n_groups == bigmm.lmm("y ~ 1 + (1 | half)", frame).n_groups
