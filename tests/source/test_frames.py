"""Tables and frames in memory, and Dask."""

from __future__ import annotations

import pickle
import subprocess
import sys

import dask.dataframe as dd
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from bigmm.errors import DataError, UsageError
from bigmm.source import open_source
from bigmm.source.parquet import ParquetSource


@pytest.fixture
def frame():
    return pd.DataFrame(
        {
            "x": [1.0, np.nan, 3.0, 4.0],
            "g": ["a", "b", None, "a"],
            "c": pd.Categorical(["lo", "hi", "lo", None], ["lo", "mid", "hi"]),
            "k": pd.Categorical([3, 1, 3, 2], [3, 1, 2]),
        }
    )


EXPECTED = {"x": [1.0, None, 3.0, 4.0], "g": ["a", "b", None, "a"], "c": ["lo", "hi", "lo", None], "k": [3, 1, 3, 2]}


def test_pandas(frame, read_all):
    source = open_source(frame)
    assert read_all(source, list(EXPECTED)) == EXPECTED
    assert source.declared_levels == {"c": ("lo", "mid", "hi"), "k": (3, 1, 2)}
    assert source.schema.field("c").type == pa.dictionary(pa.int32(), pa.string())
    assert source.schema.field("k").type == pa.int64()
    assert source.read(source.partitions[0], ["k", "c"]).schema.field("c") == source.schema.field("c")


def test_pandas_column_that_arrow_cannot_hold_is_refused_when_read(frame):
    frame["mixed"] = [1, "one", None, 2.0]
    source = open_source(frame)
    assert source.head(["x"], 4).num_rows == 4
    with pytest.raises(DataError, match="column 'mixed' of the pandas DataFrame cannot be used: "):
        source.read(source.partitions[0], ["mixed"])


def test_polars(read_all):
    frame = pl.DataFrame(
        {
            "x": [1.0, None],
            "g": ["a", "b"],
            "e": pl.Series(["u", "v"], dtype=pl.Enum(["v", "u", "w"])),
            "c": pl.Series(["p", "q"], dtype=pl.Categorical),
        }
    )
    for data in (frame, frame.lazy()):
        source = open_source(data)
        assert read_all(source, ["x", "g", "e", "c"]) == frame.to_dict(as_series=False)
        assert source.declared_levels == {"e": ("v", "u", "w")}
        assert source.read(source.partitions[0], ["g", "e", "c"]).schema == pa.schema(
            [source.schema.field(name) for name in ("g", "e", "c")]
        )


def test_arrow_table_batch_reader_and_ordered_dictionary(read_all):
    ordered = pa.DictionaryArray.from_arrays(pa.array([1, 0, None], pa.int8()), ["lo", "hi"], ordered=True)
    table = pa.table({"o": ordered, "d": pa.array(["a", "b", "a"]).dictionary_encode(), "x": [1, 2, 3]})
    for data in (table, table.to_batches()[0], table.to_reader()):
        source = open_source(data)
        assert source.declared_levels == {"o": ("lo", "hi")}
        assert read_all(source, ["o", "d", "x"]) == {"o": ["hi", "lo", None], "d": ["a", "b", "a"], "x": [1, 2, 3]}


def test_a_table_is_sliced_by_rows(table, read_all):
    source = open_source(table, partition_bytes=table.nbytes // 7)
    assert len(source.partitions) in (7, 8)
    assert source.rows_total == 1000
    assert source.partitions[1].where == f"pyarrow table, rows {source.partitions[0].rows}-" + str(
        source.partitions[0].rows + source.partitions[1].rows - 1
    )
    assert read_all(source, ["x"])["x"] == table["x"].to_pylist()


def test_slices_pickle_alone(table):
    source = open_source(table, partition_bytes=table.nbytes // 50)
    part = source.partitions[7]
    content = pickle.dumps((source, part))
    assert len(content) < table.nbytes / 5
    elsewhere, same = pickle.loads(content)
    assert elsewhere.read(same, ["g", "x"]).equals(source.read(part, ["g", "x"]))


def test_parquet_dataset_takes_the_fast_path_others_are_scanned(lake, table, tmp_path, read_all):
    fast = open_source(ds.dataset(lake, partitioning="hive"))
    assert isinstance(fast, ParquetSource)
    assert fast.rows_total == 4000
    filtered = open_source(ds.dataset(lake, partitioning="hive").filter(ds.field("x") > 990))
    assert read_all(filtered, ["x"])["x"] == [float(x) for x in range(991, 1000)] * 4
    ds.write_dataset(table, tmp_path / "ipc", format="feather")
    assert read_all(open_source(ds.dataset(tmp_path / "ipc", format="feather")), ["n"])["n"] == list(range(1000))
    named = ds.dataset(lake, partitioning=ds.partitioning(pa.schema([("a", pa.string()), ("b", pa.string())])))
    assert read_all(open_source(named), ["a"])["a"][0] == "year=2020"


def test_dask_dataframe(frame, read_all):
    source = open_source(dd.from_pandas(frame, npartitions=2, sort=False), filter="x > 1")
    assert source.rows_total == 0
    assert source.declared_levels == {"c": ("lo", "mid", "hi"), "k": (3, 1, 2)}
    assert read_all(source, ["x", "g", "k"]) == {"x": [3.0, 4.0], "g": [None, "a"], "k": [3, 2]}
    elsewhere, part = pickle.loads(pickle.dumps((source, source.partitions[1])))
    assert elsewhere.read(part, ["x"]).num_rows == source.read(source.partitions[1], ["x"]).num_rows


def test_dask_partition_carries_its_own_graph_only():
    big = dd.from_pandas(pd.DataFrame({"x": np.arange(100_000.0)}), npartitions=20)
    source = open_source(big)
    assert len(pickle.dumps(source.partitions[3])) < 200_000


def test_empty_frames():
    for data in (pd.DataFrame({"x": []}), pa.table({"x": pa.array([], pa.float64())}), pl.DataFrame({"x": []})):
        with pytest.raises(DataError, match="no rows at all in (pandas DataFrame|pyarrow table|polars DataFrame)"):
            open_source(data)


def test_data_of_unknown_kind():
    with pytest.raises(UsageError, match=r"cannot read rows from builtins\.dict: give a path"):
        open_source({"x": [1]})
    with pytest.raises(UsageError, match=r"cannot read rows from numpy\.ndarray"):
        open_source(np.zeros(3))
    with pytest.raises(UsageError, match="a list of data must hold paths, but one is a int"):
        open_source([1, 2])


def test_no_frame_library_is_imported_for_files(write, table):
    path = write("t.parquet", table)
    code = (
        "import sys; from bigmm.source import open_source; import bigmm.execute; "
        f"s = open_source({str(path)!r}); s.read(s.partitions[0], ['x', 'g']); bigmm.execute.executor(); "
        "print(sorted({'polars', 'dask', 'distributed', 'fsspec'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
