"""Paths, globs, directories and URLs become files."""

from __future__ import annotations

import json
import os

import fsspec
import pyarrow.parquet as pq
import pytest

from bigmm.errors import DataError, UsageError
from bigmm.source import formats, open_source
from bigmm.source.formats import _ancestors
from bigmm.source.locations import locate


def names(location):
    return [info.path.split("/lake/")[1] for info in location.files]


EVERY = [f"year={y}/site={s}/part.parquet" for y in (2020, 2021) for s in "ab"]


@pytest.mark.parametrize(
    ("below", "expected"),
    [
        ("", EVERY),
        ("/", EVERY),
        ("/**/*.parquet", EVERY),
        ("/*/*/*.parquet", EVERY),
        ("/year=202*", EVERY),
        ("/year=2020", EVERY[:2]),
        ("/year=2020/site=?/part.parquet", EVERY[:2]),
        ("/year=2021/site=[b-z]/p*", EVERY[3:]),
        ("/year=2021/site=b/part.parquet", EVERY[3:]),
    ],
)
def test_what_a_path_means(lake, below, expected):
    assert names(locate([str(lake) + below])) == expected


def test_a_list_mixes_kinds_and_is_sorted_by_path(lake):
    places = [str(lake / "year=2021"), lake / "year=2020/site=b/part.parquet", str(lake / "year=2020/site=[a]/*")]
    assert names(locate(places)) == EVERY


def test_a_star_stays_within_one_name(lake):
    with pytest.raises(DataError, match="no file matches .*part"):
        locate([f"{lake}/*/part.parquet"])


def test_relative_and_home_paths(lake, monkeypatch):
    monkeypatch.chdir(lake)
    source = open_source("year=2020")
    assert source.partitions[0].where.startswith("year=2020/site=a/part.parquet, row groups 0-3")
    assert os.path.isabs(source.partitions[0].fingerprint.path)
    monkeypatch.setenv("HOME", str(lake))
    assert names(locate(["~/year=2020"])) == EVERY[:2]


def test_url_of_the_local_filesystem(lake):
    assert names(locate([lake.as_uri()])) == EVERY


def test_markers_and_hidden_files_are_no_data(lake, table):
    for name in ("_SUCCESS", "_metadata", ".tmp.parquet", "_tmp/x.parquet", "year=2020/.hidden/y.parquet", "a.md5"):
        path = lake / name
        path.parent.mkdir(exist_ok=True)
        pq.write_table(table, path)
    assert names(locate([lake])) == EVERY


def test_a_file_whose_name_looks_like_a_pattern(tmp_path, table):
    (tmp_path / "lake").mkdir()
    pq.write_table(table, tmp_path / "lake" / "a[1].parquet")
    assert names(locate([tmp_path / "lake" / "a[1].parquet"])) == ["a[1].parquet"]


def test_fsspec_serves_the_other_protocols(table):
    with fsspec.open("memory://lake/one.parquet", "wb") as stream:
        pq.write_table(table, stream)
    source = open_source("memory://lake")
    assert source.rows_total == 1000
    assert source.read(source.partitions[0], ["x"])["x"][999].as_py() == 999.0
    assert (
        source.partitions[0].where.startswith("memory:///lake/one.parquet") or "lake/one" in source.partitions[0].where
    )


def test_missing_file_empty_directory_and_foreign_directory(tmp_path):
    with pytest.raises(DataError, match=r"no such file or directory: .*nowhere\.parquet"):
        locate([tmp_path / "nowhere.parquet"])
    with pytest.raises(DataError, match=r"no Parquet files in directory .*looked at any depth"):
        locate([tmp_path])
    (tmp_path / "a.csv.md5").write_text("0")
    with pytest.raises(DataError, match=r"it holds 1 other files, such as 'a\.csv\.md5'"):
        locate([tmp_path])


def test_what_cannot_be_meant(lake):
    with pytest.raises(UsageError, match="the list of paths is empty"):
        locate([])
    with pytest.raises(UsageError, match=r"file given twice: .*site=a/part\.parquet"):
        locate([lake, lake / "year=2020/site=a/part.parquet"])
    with pytest.raises(UsageError, match="must lie on one filesystem"):
        fsspec.filesystem("memory").pipe("/mixed/a.parquet", b"PAR1")
        locate([lake, "memory://mixed/a.parquet"])
    with pytest.raises(UsageError, match="cannot open 'nosuch://x/y'"):
        locate(["nosuch://x/y"])


def test_a_delta_table_is_refused_with_the_way_out(lake):
    (lake / "_delta_log").mkdir()
    for place in (lake, lake / "**/*.parquet", lake / "year=2020/site=a/part.parquet"):
        with pytest.raises(DataError, match=r"is a Delta Lake table \(it has _delta_log\).*deltalake\.DeltaTable"):
            locate([place])


def test_an_iceberg_table_is_refused_but_a_folder_named_metadata_is_not(tmp_path, table):
    data, metadata = tmp_path / "t" / "data", tmp_path / "t" / "metadata"
    data.mkdir(parents=True)
    metadata.mkdir()
    pq.write_table(table, data / "a.parquet")
    (metadata / "readme.txt").write_text("about these data")
    assert len(locate([tmp_path / "t"]).files) == 1
    (metadata / "v1.metadata.json").write_text(json.dumps({"format-version": 2}))
    for place in (tmp_path / "t", data):
        with pytest.raises(DataError, match="is an Iceberg table"):
            locate([place])


@pytest.mark.parametrize("start", ["file://", "file://localhost", "FILE://", "local://"])
@pytest.mark.parametrize("end", ["", "/year=2020/**/*.parquet", "/year=2020/site=a/part.parquet"])
def test_a_file_url_is_the_local_path_that_it_means_for_inputs_as_for_outputs(lake, start, end):
    found, expected = locate([f"{start}{lake}{end}"]), locate([f"{lake}{end}"])
    assert found.files == expected.files
    assert (found.remote, found.prefix) == (False, "")


def test_a_file_url_of_another_host_is_refused(lake):
    with pytest.raises(UsageError, match=r"cannot read file://elsewhere/lake: a local path follows"):
        locate(["file://elsewhere/lake"])


@pytest.mark.parametrize(
    ("base", "folders"),
    [
        ("http://host/a/b", ["http://host/a/b", "http://host/a", "http://host"]),
        ("bucket/a", ["bucket/a", "bucket"]),
        ("/a/x=1", ["/a/x=1", "/a", ""]),
    ],
)
def test_folders_above_end_with_the_host(base, folders):
    """Above it "http://_delta_log" would be another host."""
    assert [folder for folder, _ in _ancestors(base)] == folders


def test_a_folder_above_many_files_is_looked_into_once(lake, monkeypatch):
    looks = []
    monkeypatch.setattr(formats, "_markers", lambda filesystem, folder: looks.append(folder) or [])
    locate([*sorted(lake.rglob("*.parquet"))])
    assert len(looks) == len(set(looks))
