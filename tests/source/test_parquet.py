"""Partitions, reading, and damaged files."""

from __future__ import annotations

import gzip
import os
import pickle
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bigmm.errors import DataError, MemoryLimitError, UsageError
from bigmm.source import open_source


def test_partitions_are_runs_of_row_groups(lake):
    whole = open_source(lake)
    assert [part.fingerprint.row_groups for part in whole.partitions] == [(0, 1, 2, 3)] * 4
    small = open_source(lake, partition_bytes=1)
    assert [part.fingerprint.row_groups for part in small.partitions] == [(i,) for i in range(4)] * 4
    middle = open_source(lake, partition_bytes=2 * small.partitions[0].nbytes + 10)
    assert [part.fingerprint.row_groups for part in middle.partitions] == [(0, 1), (2, 3)] * 4
    for source in (whole, small, middle):
        assert [part.index for part in source.partitions] == list(range(len(source.partitions)))
        assert source.rows_total == sum(part.rows for part in source.partitions) == 4000
        assert sum(part.nbytes for part in source.partitions) == sum(part.nbytes for part in whole.partitions)


def test_a_fingerprint_says_what_was_read(write, table):
    path = write("t.parquet", table)
    mark = open_source(path).partitions[0].fingerprint
    assert (mark.path, mark.size) == (str(path), path.stat().st_size)
    assert mark.stamp == f"{path.stat().st_mtime_ns}/{path.stat().st_ctime_ns}"
    assert (mark.row_groups, mark.rows) == (tuple(range(10)), 1000)


def test_every_partitioning_reads_the_same_rows_in_order(lake, table, read_all):
    columns = ["g", "x", "n", "year", "site"]
    seen = [read_all(open_source(lake, partition_bytes=size), columns) for size in (1, 5000, 10**9)]
    assert seen[0] == seen[1] == seen[2]
    assert seen[0]["x"] == table["x"].to_pylist() * 4
    assert seen[0]["year"] == [2020] * 2000 + [2021] * 2000
    assert seen[0]["site"] == (["a"] * 1000 + ["b"] * 1000) * 2


def test_schema_has_hive_keys_and_text_as_dictionary(lake):
    source = open_source(lake)
    text = pa.dictionary(pa.int32(), pa.string())
    assert source.schema.field("year").type == pa.int64()
    assert source.schema.field("site").type == source.schema.field("g").type == text
    read = source.read(source.partitions[0], ["site", "g", "year"])
    assert read.schema == pa.schema([source.schema.field(name) for name in ("site", "g", "year")])


def test_only_hive_keys_or_the_same_column_twice(lake):
    source = open_source(lake)
    assert source.read(source.partitions[0], ["year"]).num_rows == 1000
    assert source.head(["site"], 3).to_pydict() == {"site": ["a"] * 3}


def test_hive_values_unquoted_null_and_text(write, tmp_path, read_all):
    write("k=a%20b/1.parquet", {"x": [1]})
    write("k=__HIVE_DEFAULT_PARTITION__/2.parquet", {"x": [2]})
    write("k=7/3.parquet", {"x": [3]})
    found = read_all(open_source(tmp_path), ["k", "x"])
    assert dict(zip(found["x"], found["k"], strict=True)) == {1: "a b", 2: None, 3: "7"}


def test_a_column_in_the_file_wins_over_a_key_of_its_name(write, tmp_path, read_all):
    write("k=1/1.parquet", {"k": [10, 11]})
    assert read_all(open_source(tmp_path), ["k"]) == {"k": [10, 11]}


def test_head_is_the_first_rows_after_the_filter(lake):
    assert open_source(lake).head(["x"], 5).to_pydict() == {"x": [0.0, 1.0, 2.0, 3.0, 4.0]}
    assert open_source(lake).head(["x"], 400).num_rows == 400, "crosses row groups"
    assert open_source(lake, partition_bytes=1).head(["x"], 400).num_rows == 300, "stays in one partition"
    kept = open_source(lake, filter="n % 1 == 0" if False else "n > 500", partition_bytes=1).head(["n"], 3)
    assert kept.to_pydict() == {"n": [501, 502, 503]}


def test_a_source_pickles_small_and_reads_elsewhere(lake):
    source = open_source(lake, filter="year == 2021", partition_bytes=1)
    content = pickle.dumps(source)
    assert len(content) < 5000
    elsewhere = pickle.loads(content)
    assert elsewhere.partitions == ()
    part = pickle.loads(pickle.dumps(source.partitions[3]))
    assert part == source.partitions[3]
    assert elsewhere.read(part, ["x", "site"]).equals(source.read(part, ["x", "site"]))


def test_a_row_group_above_the_memory_limit(write, table):
    path = write("big.parquet", table, row_group_size=500)
    with pytest.raises(
        MemoryLimitError, match=r"big\.parquet, row groups 0-1 is .* bytes uncompressed at a time, more than memory_l"
    ):
        open_source(path, memory_limit=1000)
    assert open_source(path, memory_limit=10**6).rows_total == 1000


def test_no_rows_at_all(write, tmp_path):
    write("a.parquet", {"x": pa.array([], pa.float64())})
    write("b.parquet", {"x": pa.array([], pa.float64())})
    with pytest.raises(DataError, match=r"no rows at all in .*\(2 files with zero rows\)"):
        open_source(tmp_path)


def test_partition_bytes_must_be_positive(lake):
    with pytest.raises(UsageError, match="partition_bytes must be positive, got 0"):
        open_source(lake, partition_bytes=0)


DAMAGE = [
    (lambda raw: b"", r"is empty \(0 bytes\): not a Parquet file"),
    (lambda raw: raw[: len(raw) // 2], "its end is missing: the file is truncated"),
    (lambda raw: raw[:-1], "its end is missing: the file is truncated"),
    (lambda raw: raw[:4], "the file is truncated"),
    (lambda raw: b"x,y,g\n1,2,a\n" * 20, r"text that begins with 'x,y,g'\. bigmm reads Parquet only"),
    (lambda raw: random.Random(1).randbytes(500), "is not a readable Parquet file"),
    (gzip.compress, "it is gzip-compressed"),
    (lambda raw: raw[:-8] + b"\xff\xff\xff\x7f" + raw[-4:], "is not a readable Parquet file|damaged"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGE, ids=range(len(DAMAGE)))
def test_damaged_files_are_named_at_planning(write, tmp_path, table, damage, message):
    write("lake/a.parquet", table)
    bad = write("lake/b.parquet", table)
    bad.write_bytes(damage(bad.read_bytes()))
    with pytest.raises(DataError, match=message) as caught:
        open_source(tmp_path / "lake")
    assert "b.parquet" in str(caught.value)


def test_one_flipped_bit_is_found_by_its_checksum_and_its_row_group_named(write):
    x = np.random.default_rng(0).normal(size=400)
    path = write("flip.parquet", {"x": x}, compression="none", use_dictionary=False)
    chunk = pq.read_metadata(path).row_group(2).column(0)
    raw = bytearray(path.read_bytes())
    place = chunk.data_page_offset + chunk.total_compressed_size - 9
    raw[place] ^= 0x10
    path.write_bytes(raw)
    source = open_source(path)
    with pytest.raises(DataError, match=r"flip\.parquet, row group 2: .*CRC checksum verification failed"):
        source.read(source.partitions[0], ["x"])


def test_every_flip_in_the_pages_is_found(write):
    x = np.random.default_rng(0).normal(size=100)
    path = write("flip.parquet", {"x": x}, compression="snappy")
    chunk = pq.read_metadata(path).row_group(0).column(0)
    good = path.read_bytes()
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    for step in range(0, chunk.total_compressed_size, 37):
        raw = bytearray(good)
        raw[start + step] ^= 1
        path.write_bytes(raw)
        source = open_source(path)
        try:
            read = source.read(source.partitions[0], ["x"])["x"].to_numpy()
        except DataError as error:
            assert "flip.parquet" in str(error)
        else:
            assert np.array_equal(read, x), step


def test_a_file_that_changes_during_the_fit(write, table):
    path = write("t.parquet", table)
    source = open_source(path)
    write("t.parquet", table)
    os.utime(path, ns=(1, 1))
    with pytest.raises(DataError, match=r"t\.parquet changed during the fit"):
        source.read(source.partitions[0], ["x"])
    path.write_bytes(b"something else")
    with pytest.raises(DataError, match=r"t\.parquet changed during the fit \(it had \d+ bytes, now 14"):
        source.read(source.partitions[0], ["x"])
    path.unlink()
    with pytest.raises(DataError, match=r"t\.parquet changed during the fit: it is gone"):
        source.read(source.partitions[0], ["x"])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_permission_denied(write, table):
    path = write("secret.parquet", table)
    path.chmod(0)
    with pytest.raises(DataError, match=r"no permission to read .*secret\.parquet"):
        open_source(path)


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd", "gzip", "lz4", "brotli"])
@pytest.mark.parametrize("version", ["1.0", "2.6"])
def test_every_kind_of_parquet(write, table, read_all, compression, version):
    path = write("t.parquet", table, compression=compression, version=version, data_page_version=version[0] + ".0")
    found = read_all(open_source(path), ["x", "g", "n"])
    assert found == table.select(["x", "g", "n"]).to_pydict()


def test_types_survive(write, read_all):
    import datetime
    import decimal

    columns = {
        "d": pa.array([datetime.date(2020, 2, 29), None]),
        "t": pa.array([datetime.datetime(2020, 1, 1, 12), None], pa.timestamp("ms", "UTC")),
        "m": pa.array([decimal.Decimal("1.50"), None]),
        "b": pa.array([True, None]),
        "u": pa.array([2**63, None], pa.uint64()),
        "f": pa.array([0.5, None], pa.float32()),
        "v": pa.array(["x", None], pa.string_view()),
    }
    path = write("types.parquet", columns)
    expected = {name: column.to_pylist() for name, column in columns.items()}
    assert read_all(open_source(path), list(columns)) == expected
