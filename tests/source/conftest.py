"""Real Parquet files for the tests of `bigmm.source`."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest


@pytest.fixture
def table():
    """1000 rows: x = 0..999, g of seven strings, n int32, w with nulls and NaN."""
    n = 1000
    return pa.table(
        {
            "x": pa.array([float(i) for i in range(n)]),
            "g": pa.array([f"g{i % 7}" for i in range(n)]),
            "n": pa.array(range(n), pa.int32()),
            "w": pa.array([None if i % 10 == 0 else float("nan") if i % 10 == 1 else 1.0 for i in range(n)]),
        }
    )


@pytest.fixture
def lake(tmp_path, table):
    """year=2020|2021 / site=a|b / part.parquet, 1000 rows each in row groups of 300, with page checksums."""
    for year in (2020, 2021):
        for site in "ab":
            folder = tmp_path / "lake" / f"year={year}" / f"site={site}"
            folder.mkdir(parents=True)
            pq.write_table(table, folder / "part.parquet", row_group_size=300, write_page_checksum=True)
    return tmp_path / "lake"


@pytest.fixture
def write(tmp_path):
    """write("name.parquet", {"x": [...]}) -> path, row groups of 100 rows, page checksums."""

    def write_columns(name, columns, **options):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        options = {"row_group_size": 100, "write_page_checksum": True} | options
        pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), path, **options)
        return path

    return write_columns


def read_all(source, columns):
    """All rows of a source as a dict of lists."""
    return pa.concat_tables([source.read(part, columns) for part in source.partitions]).to_pydict()


@pytest.fixture(name="read_all")
def read_all_fixture():
    return read_all
