"""Schema drift: the matrix of what widens and what is refused."""

from __future__ import annotations

import itertools

import pyarrow as pa
import pytest

from bigmm.errors import DataError, UsageError
from bigmm.source import open_source
from bigmm.source.schema import TEXT, common_type, logical_type, unify

WIDENS = [
    (pa.int8(), pa.int64(), pa.int64()),
    (pa.int32(), pa.int64(), pa.int64()),
    (pa.uint8(), pa.int8(), pa.int16()),
    (pa.uint32(), pa.int8(), pa.int64()),
    (pa.uint64(), pa.int64(), pa.decimal128(20, 0)),
    (pa.uint8(), pa.uint32(), pa.uint32()),
    (pa.float32(), pa.float64(), pa.float64()),
    (pa.int32(), pa.float64(), pa.float64()),
    (pa.int64(), pa.float32(), pa.float64()),
    (pa.timestamp("s"), pa.timestamp("us"), pa.timestamp("us")),
    (pa.timestamp("ns", "UTC"), pa.timestamp("ms", "UTC"), pa.timestamp("ns", "UTC")),
    (pa.string(), pa.large_string(), TEXT),
    (pa.string(), pa.dictionary(pa.int8(), pa.string()), TEXT),
    (pa.null(), pa.string(), TEXT),
    (pa.null(), pa.float64(), pa.float64()),
    (pa.null(), pa.bool_(), pa.bool_()),
]
REFUSED = [
    (pa.string(), pa.int64()),
    (pa.string(), pa.float64()),
    (pa.bool_(), pa.int64()),
    (pa.bool_(), pa.string()),
    (pa.bool_(), pa.float64()),
    (pa.date32(), pa.timestamp("us")),
    (pa.date32(), pa.string()),
    (pa.timestamp("us"), pa.timestamp("us", "UTC")),
    (pa.timestamp("us"), pa.int64()),
    (pa.decimal128(10, 2), pa.float64()),
    (pa.decimal128(10, 2), pa.decimal128(12, 2)),
    (pa.list_(pa.int64()), pa.int64()),
]


@pytest.mark.parametrize(("a", "b", "wider"), WIDENS)
def test_what_widens_does_so_in_either_order(a, b, wider):
    for one, two in ((a, b), (b, a)):
        assert common_type(logical_type(one), logical_type(two)) == wider


@pytest.mark.parametrize(("a", "b"), REFUSED)
def test_the_rest_is_refused_naming_both_files_and_types(a, b):
    for one, two in ((a, b), (b, a)):
        files = [("lake/1.parquet", pa.schema([("v", one)])), ("lake/2.parquet", pa.schema([("v", two)]))]
        with pytest.raises(DataError) as caught:
            unify(files).check(["v"])
        for part in ("column 'v' changes type", f"{one} in lake/1.parquet", f"{two} in lake/2.parquet"):
            assert part in str(caught.value)


VALUES = {
    pa.int32(): [1, 2],
    pa.int64(): [3, 4],
    pa.float32(): [0.5, None],
    pa.float64(): [1.5, 2.5],
    pa.null(): [None, None],
    pa.string(): ["a", "b"],
    pa.large_string(): ["b", None],
    pa.dictionary(pa.int8(), pa.string()): ["c", "a"],
    pa.bool_(): [True, False],
}
NUMBERS = [pa.int32(), pa.int64(), pa.float32(), pa.float64(), pa.null()]
TEXTS = [pa.null(), pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())]


@pytest.mark.parametrize("kinds", [*itertools.permutations(NUMBERS, 3), *itertools.permutations(TEXTS, 3)], ids=str)
def test_real_files_of_drifting_types_read_as_one_schema(write, tmp_path, read_all, kinds):
    for number, kind in enumerate(kinds):
        write(f"{number}.parquet", {"v": pa.array(VALUES[kind], kind)})
    source = open_source(tmp_path)
    assert {source.read(part, ["v"]).schema for part in source.partitions} == {source.schema}
    assert read_all(source, ["v"])["v"] == [value for kind in kinds for value in VALUES[kind]]


def test_a_column_that_changes_type_in_the_seventh_file(write, tmp_path):
    for number in range(10):
        write(f"{number}.parquet", {"x": ["text"] if number == 6 else [1.0], "y": [2.0]})
    source = open_source(tmp_path)
    assert source.head(["y"], 1).num_rows == 1, "an unused column may drift"
    with pytest.raises(
        DataError, match=r"'x' changes type between files: double in .*0\.parquet but string in .*6\.par"
    ):
        source.read(source.partitions[0], ["x"])


def test_a_column_missing_in_a_file_is_refused_when_read(write, tmp_path):
    write("a.parquet", {"x": [1.0], "y": [1.0]})
    write("b.parquet", {"X": [1.0], "y": [1.0]})
    source = open_source(tmp_path)
    assert source.read(source.partitions[1], ["y"]).num_rows == 1
    with pytest.raises(DataError, match=r"column 'x' is missing in .*b\.parquet; did you mean 'X'\?"):
        source.read(source.partitions[0], ["x"])
    with pytest.raises(DataError, match=r"column 'X' is missing in .*a\.parquet; did you mean 'x'\?"):
        source.head(["X"], 1)


def test_a_column_that_is_nowhere(write):
    path = write("a.parquet", {"reaction": [1.0], "days": [1]})
    source = open_source(path)
    with pytest.raises(UsageError, match=r"no column 'Reaction' in the data; did you mean 'reaction'\?"):
        source.read(source.partitions[0], ["Reaction"])
    with pytest.raises(UsageError, match="no column 'zzz' in the data; the columns are 'reaction', 'days'"):
        source.read(source.partitions[0], ["zzz"])


def test_large_integers_do_not_become_wrong_doubles(write, tmp_path):
    write("a.parquet", {"x": [1.5]})
    write("b.parquet", {"x": [2**53 + 1]})
    source = open_source(tmp_path)
    with pytest.raises(DataError, match=r"column 'x' of .*b\.parquet.* does not fit type double"):
        source.read(source.partitions[1], ["x"])


def test_duplicated_column_names(tmp_path, write):
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["x", "x"])
    path = write("twice.parquet", twice)
    for data in (path, twice, twice.to_pandas()):
        source = open_source(data)
        with pytest.raises(DataError, match="duplicated column name 'x' in .*; rename one of them"):
            source.head(["x"], 1)


def test_files_without_rows_do_not_decide_the_schema(write, tmp_path, read_all):
    write("a.parquet", {"x": pa.array([], pa.string())})
    write("b.parquet", {"x": [1.0, 2.0]})
    assert read_all(open_source(tmp_path), ["x"]) == {"x": [1.0, 2.0]}
