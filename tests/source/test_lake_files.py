"""Which files are data: by their bytes, whatever the place is called by; what is left out, and what is refused."""

from __future__ import annotations

import os
import shutil

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from bigmm.errors import DataError, UsageError
from bigmm.source import open_source
from bigmm.source.locations import locate

PARTS = ["a.parquet", "B.PARQUET", "000000_0", "c.parquet.gz", "notes.txt"]


@pytest.fixture
def parts(tmp_path, table):
    """1000 rows in five files of 200, with all the names that Parquet files go by."""
    folder = tmp_path / "lake"
    folder.mkdir()
    for number, name in enumerate(PARTS):
        pq.write_table(table.slice(200 * number, 200), folder / name)
    return folder


def rows(*places):
    return open_source(list(places)).rows_total


def test_bytes_decide_not_suffixes(parts):
    assert rows(parts) == rows(f"{parts}/*") == rows(f"{parts}/**") == rows(parts.as_uri()) == 1000
    assert rows(*(parts / name for name in PARTS)) == 1000
    assert open_source(parts).inventory.n_files == 5


HIDDEN = (".a.parquet", "_b.parquet", "_temporary/0/c.parquet", ".spark-staging/d.parquet", "x/_tmp/e.parquet")
SIDE = ("a.parquet.crc", "a.parquet.md5", "a.parquet.sha256", "f.parquet.tmp", "g.parquet._COPYING_", "h_$folder$")
ASIDE = ("_SUCCESS", "_metadata", "_common_metadata", "SHA256SUMS", "README.md", "a.parquet~")


@pytest.mark.parametrize("name", [*HIDDEN, *SIDE, *ASIDE])
@pytest.mark.parametrize("below", ["", "/*", "/**/*", "/**"])
def test_hidden_and_side_files_count_for_nothing_by_any_way(parts, table, name, below):
    """A whole copy of the rows stands under each name, so that taking it would show."""
    path = parts / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    assert rows(f"{parts}{below}") == 1000


def test_what_is_left_out_is_counted_and_named(parts, table):
    for name in ("_temporary/0/c.parquet", ".a.parquet", "a.parquet.md5", "_SUCCESS"):
        (parts / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, parts / name)
    inventory = open_source(parts).inventory
    left = sorted(os.path.relpath(name, parts) for name in inventory.left_out)
    assert left == [".a.parquet", "_SUCCESS", "_temporary", "a.parquet.md5"]
    assert inventory.as_record()["left_out"] == 4
    assert "read 5 files with 1,000 rows; 4 left out" in inventory.sentences()[0]


def test_partition_folders_with_an_underscore_hold_data(tmp_path, write, read_all):
    for value in (1, 2):
        write(f"lake/_x={value}/a.parquet", {"y": [float(value)]})
    for place in (tmp_path / "lake", f"{tmp_path}/lake/*/*.parquet", f"{tmp_path}/lake/**/*.parquet"):
        assert read_all(open_source(place), ["_x", "y"]) == {"_x": [1, 2], "y": [1.0, 2.0]}


def test_a_file_that_the_user_names_is_taken_whatever_its_name(parts, table):
    for name in ("_x.parquet", ".x", "x.tmp", "x.parquet.crc"):
        pq.write_table(table, parts / name)
        assert rows(parts / name) == 1000
    (parts / "_staging").mkdir()
    pq.write_table(table, parts / "_staging" / "y.parquet")
    assert rows(parts / "_staging") == rows(f"{parts}/_staging/*.parquet") == rows(f"{parts}/_*/y.parquet") == 1000
    assert rows(f"{parts}/*.tmp") == 1000, "a pattern that names the suffix means it"


def test_a_star_matches_no_leading_dot_as_in_a_shell(parts, table):
    pq.write_table(table, parts / ".part.parquet")
    with pytest.raises(DataError, match="no file matches"):
        locate([f"{parts}/?part.parquet"])
    assert rows(f"{parts}/.*.parquet") == 1000


@pytest.mark.parametrize("below", ["", "/*", "/**/*.parquet"])
def test_a_link_to_nothing_is_an_error_that_names_it(parts, below):
    (parts / "lost.parquet").symlink_to("/nonexistent/part.parquet")
    with pytest.raises(DataError, match=r"cannot read .*lost\.parquet: it is a link to nothing"):
        locate([f"{parts}{below}"])
    with pytest.raises(DataError, match=r"cannot read .*lost\.parquet: it is a link to nothing"):
        locate([parts / "lost.parquet"])


def test_a_folder_that_is_gone_is_an_error_too(parts):
    (parts / "year=2020").symlink_to("/nonexistent")
    with pytest.raises(DataError, match=r"year=2020: it is a link to nothing"):
        locate([parts])


def test_broken_names_that_a_glob_does_not_mean_are_no_matter(parts):
    (parts / "lost.csv").symlink_to("/nonexistent")
    (parts / ".#lock").symlink_to("user@host:1")
    assert rows(f"{parts}/*.parquet") == 200


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_text("x,y\n1,2\n"), r"odd is not a readable Parquet file: it is text"),
        (lambda path: path.write_bytes(b""), r"odd is empty \(0 bytes\)"),
        (lambda path: path.write_bytes(b"PAR1" + bytes(50) + b"PARE"), "it is encrypted Parquet"),
        (lambda path: path.write_bytes(bytes(100) + b"\xff\xff\xff\x7fPAR1"), r"odd is not a readable Parquet file"),
        (os.mkfifo, r"cannot read .*odd: it is a pipe, a socket or a device"),
        (lambda path: path.symlink_to(path.parent), r"cannot read .*odd: it is a link to a folder above it"),
        (lambda path: path.symlink_to(path), r"cannot read .*odd: "),
    ],
)
def test_what_is_no_parquet_in_between_is_an_error_that_names_it(parts, make, message):
    make(parts / "odd")
    with pytest.raises(DataError, match=message):
        open_source(parts)


def test_two_names_of_one_file_do_not_count_twice(parts):
    (parts / "again.parquet").symlink_to(parts / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet and .*again\.parquet are two names \(links\) of one file"):
        open_source(parts)
    (parts / "again.parquet").unlink()
    os.link(parts / "a.parquet", parts / "again.parquet")
    with pytest.raises(DataError, match="two names"):
        open_source(f"{parts}/*.parquet")


def test_links_of_a_lake_are_followed(parts, tmp_path):
    (tmp_path / "by-link").symlink_to(parts)
    (tmp_path / "view").mkdir()
    for name in PARTS:
        (tmp_path / "view" / name).symlink_to(parts / name)
    assert rows(tmp_path / "by-link") == rows(tmp_path / "view") == rows(f"{tmp_path}/by-*/*") == 1000


FORMATS = [
    ("_delta_log/0.json", "Delta Lake", "deltalake.DeltaTable"),
    (".hoodie/hoodie.properties", "Hudi", "Apache Hudi"),
    ("metadata/v1.metadata.json", "Iceberg", "pyiceberg"),
    ("metadata/snap-1.avro", "Iceberg", "pyiceberg"),
]


@pytest.mark.parametrize(("marker", "name", "reader"), FORMATS)
@pytest.mark.parametrize("inside", ["data", "data/aB", "data/00/01", "data/x=1", "data/x=1/cD"])
def test_tables_of_other_formats_are_refused_from_anywhere(tmp_path, table, marker, name, reader, inside):
    """Root, a folder in the table, one file, globs, and a parent that holds the table beside another lake."""
    root = tmp_path / "tables" / "one"
    (root / inside).mkdir(parents=True)
    (root / marker).parent.mkdir()
    (root / marker).write_text("{}")
    pq.write_table(table, root / inside / "a.parquet")
    (tmp_path / "tables" / "plain").mkdir()
    pq.write_table(table, tmp_path / "tables" / "plain" / "b.parquet")
    (tmp_path / "link.parquet").symlink_to(root / inside / "a.parquet")
    places = (
        root,
        root / inside,
        root / inside / "a.parquet",
        f"{root}/**/*.parquet",
        f"{tmp_path}/tables/*/{inside}/*.parquet",
        tmp_path / "tables",
        f"{tmp_path}/*/**/*.parquet",
        tmp_path / "link.parquet",
    )
    for place in places:
        with pytest.raises(DataError, match=rf"one is an? {name} table .*{reader}"):
            locate([place])
    assert rows(tmp_path / "tables" / "plain") == 1000


def test_tables_are_refused_in_object_stores_too(table):
    memory = fsspec.filesystem("memory")
    memory.pipe("/tables/one/_delta_log/0.json", b"{}")
    with memory.open("/tables/one/aB/a.parquet", "wb") as stream:
        pq.write_table(table, stream)
    for place in ("memory://tables/one", "memory://tables", "memory://tables/one/aB", "memory://tables/*/*/*.parquet"):
        with pytest.raises(DataError, match="one is a Delta Lake table"):
            locate([place])


def test_hidden_files_in_object_stores(table):
    for name in ("a.parquet", "_temporary/0/a.parquet", ".b.parquet", "a.md5"):
        with fsspec.filesystem("memory").open(f"/store/{name}", "wb") as stream:
            pq.write_table(table, stream)
    for place in ("memory://store", "memory://store/*", "memory://store/**/*.parquet"):
        assert rows(place) == 1000
    assert open_source("memory://store").inventory.as_record()["left_out"] == 3


def test_a_file_rewritten_with_the_same_size_and_time_is_found(write):
    """The time of change (ctime) cannot be set, so the test writes until the clock of the file system has moved on."""
    x = np.random.default_rng(1).normal(size=400)
    path = write("t.parquet", {"x": x}, compression="none", use_dictionary=False)
    source, before = open_source(path), path.stat()
    x[[10, 11]] = x[[11, 10]]
    while path.stat().st_ctime_ns == before.st_ctime_ns:
        write("t.parquet", {"x": x}, compression="none", use_dictionary=False)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    with pytest.raises(DataError, match=r"t\.parquet changed during the fit"):
        source.read(source.partitions[0], ["x"])


def test_a_file_replaced_by_another_of_the_same_size_and_time_is_found(write, tmp_path):
    path = write("lake/t.parquet", {"x": [1.0, 2.0]})
    source, before = open_source(path), path.stat()
    other = write("other.parquet", {"x": [2.0, 1.0]})
    while other.stat().st_ctime_ns <= before.st_ctime_ns:
        os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.replace(other, path)
    with pytest.raises(DataError, match=r"t\.parquet changed during the fit"):
        source.read(source.partitions[0], ["x"])


def test_an_object_with_another_footer_is_found(table):
    """The memory file system has no time of writing that would tell: the digest of the footer does."""
    memory = fsspec.filesystem("memory")
    with memory.open("/changing/a.parquet", "wb") as stream:
        pq.write_table(table, stream)
    source = open_source("memory://changing")
    with memory.open("/changing/a.parquet", "wb") as stream:
        pq.write_table(table.slice(0, 500), stream)
    with pytest.raises(DataError, match="changed during the fit"):
        source.read(source.partitions[0], ["x"])


def test_row_groups_without_page_checksums_are_counted(write, tmp_path, table):
    write("lake/a.parquet", table)
    write("lake/b.parquet", table, write_page_checksum=False)
    write("lake/c.parquet", table, write_page_checksum=False, compression="zstd", data_page_version="2.0")
    inventory = open_source(tmp_path / "lake").inventory
    assert (inventory.row_groups, inventory.checked, inventory.without_checksums) == (30, 30, 20)
    assert inventory.sentences()[1] == "20 of 30 row groups have no page checksums: damage would go unnoticed"
    assert len(open_source(tmp_path / "lake" / "a.parquet").inventory.sentences()) == 1


def test_of_objects_a_sample_is_looked_at_for_checksums_and_said_to_be_one(table):
    for number in range(40):
        with fsspec.filesystem("memory").open(f"/many/{number}.parquet", "wb") as stream:
            pq.write_table(table, stream, row_group_size=500)
    inventory = open_source("memory://many").inventory
    assert (inventory.row_groups, inventory.checked, inventory.without_checksums) == (80, 8, 8)
    assert "8 of 8 row groups that were looked at (80 in all) have no page checksums" in inventory.sentences()[1]


def test_a_dataset_counts_its_files(lake):
    shutil.rmtree(lake / "year=2021")
    inventory = open_source(ds.dataset(lake, partitioning="hive")).inventory
    assert (inventory.n_files, inventory.rows, inventory.left_out) == (2, 2000, ())


def test_rows_that_the_filter_skips_unread_are_said(lake):
    inventory = open_source(lake, filter="year == 2021").inventory
    assert (inventory.rows, inventory.rows_skipped) == (4000, 2000)
    assert pa.types.is_integer(open_source(lake).schema.field("year").type)


def test_names_that_are_not_utf_8(parts):
    odd = os.fsencode(parts) + b"/\xff.parquet"
    with open(odd, "wb") as stream:
        stream.write((parts / "a.parquet").read_bytes())
    for place in (parts, os.fsdecode(odd)):
        with pytest.raises(DataError, match=r"cannot read .*\.parquet: its name is not UTF-8"):
            locate([place])
    assert rows(f"{parts}/*_0") == 200


def test_a_working_directory_that_is_gone(parts, tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(DataError, match="the working directory was deleted"):
        locate(["lake"])
    assert rows(parts) == 1000


def test_an_empty_path_is_not_the_working_directory():
    for data in ("", [""]):
        with pytest.raises(UsageError, match="a path is empty"):
            open_source(data)
