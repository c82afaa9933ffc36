"""Row groups larger than a partition are read in parts; footers that claim what is not there are refused."""

from __future__ import annotations

import os
import pickle
import random
import subprocess
import sys
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bigmm.errors import DataError, MemoryLimitError
from bigmm.source import open_source
from bigmm.source.rows import BATCH_ROWS, FileReader

ROWS = 5 * BATCH_ROWS + 17


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    """One row group of 327,697 rows between two small ones: x counts them, g is text, c and the key k are constant."""
    path = tmp_path_factory.mktemp("big") / "k=7" / "big.parquet"
    path.parent.mkdir()
    x = np.arange(float(ROWS + 20))
    g = [f"g{i % 1000}" for i in range(len(x))]
    table = pa.table({"x": x, "g": g, "c": np.ones(len(x)), "n": [None if i % 7 == 0 else i for i in range(len(x))]})
    with pq.ParquetWriter(path, table.schema, write_page_checksum=True) as writer:
        for start, rows in ((0, 10), (10, ROWS), (10 + ROWS, 10)):
            writer.write_table(table.slice(start, rows), row_group_size=ROWS)
    return path


def test_a_large_row_group_is_cut_by_rows(big):
    source = open_source(big, partition_bytes=1)
    marks = [part.fingerprint for part in source.partitions]
    assert [(mark.row_groups, mark.start) for mark in marks] == [((0,), 0)] + [
        ((1,), i * BATCH_ROWS) for i in range(6)
    ] + [((2,), 0)]
    assert [part.rows for part in source.partitions] == [10, *[BATCH_ROWS] * 5, 17, 10]
    assert source.rows_total == ROWS + 20
    assert source.partitions[2].where.endswith(f"row group 1, rows {BATCH_ROWS:,}-{2 * BATCH_ROWS - 1:,}")
    assert len(open_source(big).partitions) == 1


def plain(tables):
    """All rows as one chunk, text as such."""
    table = pa.concat_tables(tables)
    text = [pa.string() if pa.types.is_dictionary(kind) else kind for kind in table.schema.types]
    return table.cast(pa.schema(zip(table.column_names, text, strict=True))).combine_chunks()


@pytest.mark.parametrize("columns", [["x"], ["k", "g"], ["k"], ["x", "g", "c", "n", "k"]])
@pytest.mark.parametrize("given", [None, "x > 70000 and g != 'g1'"])
def test_parts_in_any_order_are_the_rows_of_the_file(big, columns, given):
    """Whole, in order, backwards, at random, and by two threads at a time."""
    whole = open_source(big, filter=given)
    expected = plain(whole.read(part, columns) for part in whole.partitions)
    source = open_source(big, filter=given, partition_bytes=1)
    count = len(source.partitions)
    mixed = random.Random(1).sample(range(count), count)
    for order in (list(range(count)), list(reversed(range(count))), mixed):
        tables = {i: source.read(source.partitions[i], columns) for i in order}
        assert plain(tables[i] for i in range(count)).equals(expected)
    tables = {}

    def work(own):
        for i in own:
            tables[i] = pickle.loads(pickle.dumps(source)).read(source.partitions[i], columns)

    threads = [threading.Thread(target=work, args=(range(first, count, 2),)) for first in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert plain(tables[i] for i in range(count)).equals(expected)


def test_two_readers_in_turns_decode_no_row_twice_and_let_the_file_go(big, monkeypatch):
    """The look for levels reads the factors of each part, and then all its columns."""
    batches, rows = FileReader.batches, []

    def counted(reader, *arguments):
        for table in batches(reader, *arguments):
            rows.append(table.num_rows)
            yield table

    monkeypatch.setattr(FileReader, "batches", counted)
    source = open_source(big, partition_bytes=1)
    for part in source.partitions[1:-1]:
        for columns in (["g"], ["x", "g"]):
            assert source.read(part, columns).num_rows == part.rows
    assert sum(rows) == 2 * ROWS
    assert str(big) not in [
        os.readlink(entry.path) for entry in os.scandir("/proc/self/fd") if os.path.islink(entry.path)
    ]


def test_the_head_of_parts(big):
    source = open_source(big, partition_bytes=1, filter="x >= 140000")
    assert source.head(["x", "k"], 3).to_pydict() == {"x": [140000.0, 140001.0, 140002.0], "k": [7, 7, 7]}


def test_the_size_of_a_partition_is_what_its_rows_take_in_memory(tmp_path):
    """Constants take no room in the file, and 8 bytes each in memory."""
    pq.write_table(pa.table({"a": np.ones(10**6), "b": np.zeros(10**6, np.int8)}), tmp_path / "a.parquet")
    (part,) = open_source(tmp_path, partition_bytes=10**9).partitions
    assert (tmp_path / "a.parquet").stat().st_size < 20_000
    assert part.nbytes == 16 * 10**6
    with pytest.raises(MemoryLimitError, match=r"row group 0 is 16,000,000 bytes uncompressed.*partition_bytes="):
        open_source(tmp_path, memory_limit=10**6)
    assert open_source(tmp_path, memory_limit=3 * 10**6, partition_bytes=2 * 10**6).rows_total == 10**6


def test_a_part_of_a_damaged_row_group_is_named(tmp_path):
    x = np.random.default_rng(0).normal(size=3 * BATCH_ROWS)
    path = tmp_path / "flip.parquet"
    pq.write_table(pa.table({"x": x}), path, compression="none", use_dictionary=False, write_page_checksum=True)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    source = open_source(path, partition_bytes=1)
    with pytest.raises(DataError, match=r"flip\.parquet, row group 0, rows .*CRC"):
        for part in source.partitions:
            source.read(part, ["x"])


def zigzag(n):
    n, out = n << 1, b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def claim(path, rows, instead):
    """Write another number of rows wherever the footer says how many there are."""
    raw = path.read_bytes()
    size = int.from_bytes(raw[-8:-4], "little")
    footer = raw[-8 - size : -8].replace(zigzag(rows), zigzag(instead))
    path.write_bytes(raw[: -8 - size] + footer + len(footer).to_bytes(4, "little") + b"PAR1")


@pytest.mark.parametrize("instead", [2**31 - 1, 2**40, 10**6])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_a_footer_that_claims_rows_its_pages_do_not_hold(tmp_path, instead, version):
    """Refused when the lake is opened, before a column is made of so many rows."""
    (tmp_path / "g=1").mkdir()
    path = tmp_path / "g=1" / "a.parquet"
    columns = {"y": np.arange(7001.0) % 8, "x": np.ones(7001)}
    pq.write_table(pa.table(columns), path, compression="zstd", data_page_version=version)
    claim(path, 7001, instead)
    with pytest.raises(DataError, match=r"a\.parquet is damaged: row group 0 claims .* rows, but its pages hold 7,001"):
        open_source(tmp_path)


def test_constants_that_are_really_there_are_no_bomb(tmp_path):
    """Three million equal values take some hundred bytes; their pages say so too."""
    table = pa.table({"x": pa.array([1.5] * 3_000_000), "s": pa.array(["same"] * 3_000_000), "n": pa.nulls(3_000_000)})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=3_000_000, compression="zstd")
    assert (tmp_path / "a.parquet").stat().st_size < 40_000
    assert open_source(tmp_path).rows_total == 3_000_000


def test_a_small_false_claim_is_found_when_the_rows_are_read(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"y": np.random.default_rng(1).normal(size=7001)}), path)
    claim(path, 7001, 7003)
    source = open_source(path)
    with pytest.raises(DataError, match=r"damaged or unreadable Parquet in .*a\.parquet"):
        source.read(source.partitions[0], ["y"])


def test_flipped_bits_in_text_without_checksums_are_no_bug(tmp_path):
    """An index outside of its dictionary, and text that is not UTF-8, name the file; the rest goes unnoticed."""
    rng = np.random.default_rng(5)
    table = pa.table({"g": [f"\u00e9{i}" for i in rng.integers(0, 20, 2000)], "x": rng.normal(size=2000)})
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, row_group_size=500, compression="none")
    raw = path.read_bytes()
    footer = int.from_bytes(raw[-8:-4], "little") + 8
    refused = 0
    for place in rng.integers(4, len(raw) - footer, 200):
        flipped = bytearray(raw)
        flipped[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        try:
            source = open_source(path)
            for part in source.partitions:
                source.read(part, ["g", "x"]).to_pydict()
        except DataError as error:
            refused += 1
            assert "a.parquet" in str(error)
    assert refused > 2


PEAK = """
import sys
import bigmm
print(bigmm.lmm("y ~ 1 + (1 | g)", sys.argv[1], n_workers=2, partition_bytes=8 << 20).nobs)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_rows_cost_no_memory_even_in_one_row_group(tmp_path):
    """Peak memory of a fit of one row group, by its rows: 2 and 8 million (32 and 128 MB of two columns)."""
    peaks = []
    for rows in (2_000_000, 8_000_000):
        path = tmp_path / f"{rows}.parquet"
        table = pa.table({"y": np.tile(np.arange(8.0), rows // 8), "g": np.repeat(np.arange(20), rows // 20)})
        pq.write_table(table, path, row_group_size=rows)
        done = subprocess.run([sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=True)
        nobs, peak = map(int, done.stdout.split())
        assert nobs == rows
        peaks.append(peak >> 10)
    assert peaks[1] - peaks[0] < 40, peaks
