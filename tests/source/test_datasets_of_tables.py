"""Datasets and Dask collections over the folder of a Delta Lake or Iceberg table are refused as its path is; what the
table's own reader makes is taken."""

from __future__ import annotations

import json
import os

import dask.dataframe as dd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as fs
import pyarrow.parquet as pq
import pytest

from bigmm.errors import DataError
from bigmm.source import open_source

SCHEMA = pa.schema([("y", pa.float64())])


def write(path, *values):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"y": list(values)}, schema=SCHEMA), path)


@pytest.fixture
def delta(tmp_path):
    """A Delta table of two versions: the second one rewrote `old.parquet` as `new.parquet`, without a row."""
    root = tmp_path / "delta"
    for name, *values in (("live", 1.0, 2.0), ("old", 3.0, 4.0), ("new", 3.0)):
        write(root / f"{name}.parquet", *values)
    (root / "_delta_log").mkdir()
    versions = ([{"add": {"path": "live.parquet"}}, {"add": {"path": "old.parquet"}}],)
    versions += ([{"remove": {"path": "old.parquet"}}, {"add": {"path": "new.parquet"}}],)
    for number, actions in enumerate(versions):
        text = "\n".join(json.dumps(action) for action in actions)
        (root / "_delta_log" / f"{number:020}.json").write_text(text)
    return root


@pytest.fixture
def iceberg(tmp_path):
    write(tmp_path / "iceberg" / "data" / "part.parquet", 1.0)
    (tmp_path / "iceberg" / "metadata").mkdir()
    (tmp_path / "iceberg" / "metadata" / "v1.metadata.json").write_text("{}")
    return tmp_path / "iceberg"


def live(root):
    """The files of the table as its log tells them."""
    files = {}
    for log in sorted((root / "_delta_log").iterdir()):
        for action in map(json.loads, log.read_text().splitlines()):
            (kind, entry), *_ = action.items()
            if kind == "add":
                files[entry["path"]] = None
            else:
                del files[entry["path"]]
    return list(files)


def own_dataset(root, filesystem):
    """As `deltalake.DeltaTable.to_pyarrow_dataset()` makes it: the log's files, on a file system below the root."""
    form = ds.ParquetFileFormat()
    fragments = [form.make_fragment(name, filesystem=filesystem) for name in live(root)]
    return ds.FileSystemDataset(fragments, SCHEMA, form, filesystem)


class Handler(fs.FSSpecHandler):
    """A handler in Python, as deltalake's is."""


def rows(data):
    source = open_source(data)
    tables = [source.read(partition, ["y"]) for partition in source.partitions]
    return sorted(value for table in tables for value in table["y"].to_pylist())


def test_a_dataset_of_the_folder_is_refused(delta):
    for dataset in (ds.dataset(delta), ds.dataset(str(delta)).filter(ds.field("y") > 1)):
        with pytest.raises(DataError, match=r"is a Delta Lake table \(it has _delta_log\).*to_pyarrow_dataset\(\)"):
            open_source(dataset)


def test_a_dataset_of_a_part_of_the_table_is_refused(delta):
    write(delta / "day=1" / "part.parquet", 5.0)
    with pytest.raises(DataError, match="is a Delta Lake table"):
        open_source(ds.dataset(delta / "day=1"))


def test_one_of_several_datasets_is_refused(delta, tmp_path):
    write(tmp_path / "plain" / "part.parquet", 7.0)
    with pytest.raises(DataError, match="is a Delta Lake table"):
        open_source(ds.dataset([ds.dataset(tmp_path / "plain"), ds.dataset(delta)]))


def test_a_dataset_of_a_folder_above_tables_is_refused(delta):
    with pytest.raises(DataError, match="is a Delta Lake table"):
        open_source(ds.dataset(delta.parent, format="parquet"))


def test_a_dataset_of_iceberg_files_is_refused(iceberg):
    with pytest.raises(DataError, match="is an Iceberg table"):
        open_source(ds.dataset(iceberg / "data"))


def test_what_the_tables_own_reader_makes_is_taken(delta):
    assert rows(own_dataset(delta, fs.SubTreeFileSystem(str(delta), fs.LocalFileSystem()))) == [1.0, 2.0, 3.0]


def test_a_file_system_of_python_below_the_root_is_taken(delta):
    fsspec = pytest.importorskip("fsspec")
    below = fsspec.filesystem("dir", path=str(delta), target_protocol="file")
    assert rows(own_dataset(delta, fs.PyFileSystem(Handler(below)))) == [1.0, 2.0, 3.0]


def test_a_list_of_files_that_leaves_dead_ones_out_is_taken(delta):
    dataset = ds.dataset([os.path.join(delta, name) for name in live(delta)])
    assert rows(dataset) == [1.0, 2.0, 3.0]


def test_dask_over_the_folder_is_refused(delta, iceberg):
    for folder in (delta, delta / "*.parquet", delta.parent / "delta" / "live.parquet", iceberg / "data"):
        frame = dd.read_parquet(str(folder)).assign(x=1)
        with pytest.raises(DataError, match="is an? (Delta Lake|Iceberg) table"):
            open_source(frame)


def test_dask_over_a_folder_above_a_table_is_refused(delta):
    with pytest.raises(DataError, match="is a Delta Lake table"):
        open_source(dd.read_parquet([str(path) for path in sorted(delta.glob("*.parquet"))]))


def test_dask_over_plain_files_is_taken(tmp_path):
    write(tmp_path / "plain" / "part.parquet", 7.0)
    assert rows(dd.read_parquet(str(tmp_path / "plain"))) == [7.0]
