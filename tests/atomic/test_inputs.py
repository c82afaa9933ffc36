"""An output never is, holds or lies in what is read, however the two are written."""

from __future__ import annotations

import os
import subprocess

import fsspec
import pandas as pd
import pyarrow.dataset as ds
import pytest
from pyarrow import fs

from bigmm.atomic import check_apart, local_inputs
from bigmm.datasets import write_lake
from bigmm.errors import UsageError
from bigmm.source import open_source


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working directory with lake/a/part-00000.parquet, link -> lake, lake/out -> ../elsewhere."""
    write_lake(pd.DataFrame({"a": ["1", "2"], "x": [1.0, 2.0]}), tmp_path / "lake", partition_by="a")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to("lake")
    (tmp_path / "lake" / "out").symlink_to("../elsewhere")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("data", ["lake", "./lake/", "link", "~/lake", "URL", "lake/../lake", "lake/*/*.parquet"])
@pytest.mark.parametrize("out", ["lake", "link", ".", "~/lake", "URL", "lake/a=1", "link/a=1/part-00000.parquet"])
def test_one_place_written_in_many_ways(place, data, out):
    data, out = ((place / "lake").as_uri() if word == "URL" else word for word in (data, out))
    with pytest.raises(UsageError, match=r"would replace them|would read it|leads"):
        check_apart(out, local_inputs(data))
    with pytest.raises(UsageError):
        check_apart(out, local_inputs(["s3://bucket/x", data]))


@pytest.mark.parametrize(
    ("out", "data"),
    [
        ("results", "lake"),
        ("lake-2", "lake"),
        ("lake/results", "lake/*.parquet"),
        ("lake/results", "lake/a=1/part-00000.parquet"),
        ("results", "s3://bucket/results"),
    ],
)
def test_places_that_are_apart(place, out, data):
    check_apart(out, local_inputs(data))


@pytest.mark.parametrize(
    ("out", "data"),
    [
        ("lake/results", "lake/**/*.parquet"),
        ("lake/results", "lake/*/*.parquet"),
        ("lake/new.parquet", "lake/*.parquet"),
        ("elsewhere", "lake"),
        ("elsewhere/results", "lake"),
    ],
)
def test_what_the_next_run_would_read(place, out, data):
    with pytest.raises(UsageError):
        check_apart(out, local_inputs(data))


def test_datasets_sources_and_dask_frames_have_files(place):
    import dask.dataframe as dd

    (place / "lake" / "out").unlink()
    frame = dd.read_parquet("lake").assign(z=1)
    for data in (ds.dataset("lake", partitioning="hive"), open_source("lake"), frame, [place / "lake"]):
        with pytest.raises(UsageError):
            check_apart("lake", local_inputs(data))
        check_apart("results", local_inputs(data))
    assert local_inputs(pd.DataFrame({"x": [1.0]})) == []


def test_datasets_of_other_kinds_have_files_too(place):
    (place / "lake" / "out").unlink()
    below = fs.SubTreeFileSystem(str(place), fs.LocalFileSystem())
    directory = fsspec.filesystem("dir", path=str(place), fs=fsspec.filesystem("file"))
    union = ds.dataset([ds.dataset("lake", partitioning="hive"), ds.dataset("lake", partitioning="hive")])
    kinds = [ds.dataset("lake", filesystem=system, partitioning="hive") for system in (None, below, directory)]
    for data in (*kinds, open_source(kinds[0]), open_source(kinds[1]), union):
        for out in ("lake", "lake/predictions"):
            with pytest.raises(UsageError):
                check_apart(out, local_inputs(data))
        check_apart("results", local_inputs(data))


def test_a_dataset_of_some_files_is_no_directory(place):
    (place / "lake" / "more.parquet").touch()
    files = sorted(str(path) for path in (place / "lake").rglob("*.parquet") if path.stat().st_size)
    assert len(files) > 1
    check_apart("lake/predictions", local_inputs(ds.dataset(files)))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_directory_mounted_a_second_time(place):
    (place / "volume").mkdir()
    mounts = [("lake", "volume"), ("lake/a=1", "elsewhere")]
    (place / "lake" / "out").unlink()
    done = [subprocess.run(["mount", "--bind", *pair], capture_output=True).returncode for pair in mounts]
    try:
        if any(done):
            pytest.skip("this machine does not let us mount")
        for out in ("volume", "volume/results", "elsewhere/results"):
            with pytest.raises(UsageError):
                check_apart(out, ["lake"])
        with pytest.raises(UsageError):
            check_apart("lake", ["volume"])
    finally:
        for (_, target), code in zip(mounts, done, strict=True):
            if not code:
                subprocess.run(["umount", target], check=True)
