"""Prediction out of core: a Parquet directory that appears whole or not at all."""

from __future__ import annotations

import os
import resource

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from bigmm.errors import BigmmError, DataError, OutputError, UsageError


def leftovers(folder) -> list[str]:
    return sorted(os.listdir(folder))


def test_lake_to_lake(crossed, rows, lake, tmp_path):
    out = crossed.predict(str(lake), se=True, out=tmp_path / "predictions")
    assert out == tmp_path / "predictions"
    table = pq.read_table(out).to_pandas()
    assert list(table.columns) == [*rows.columns, "id", "prediction", "se"]
    np.testing.assert_array_equal(table["id"], np.arange(240))
    expected = crossed.predict(rows, se=True)
    np.testing.assert_array_equal(table["prediction"], expected["prediction"])
    np.testing.assert_allclose(table["se"], expected["se"], rtol=1e-12)
    assert leftovers(out) == [".bigmm", "part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]
    assert leftovers(tmp_path) == ["predictions"]


def test_lake_to_memory(crossed, rows, lake):
    np.testing.assert_array_equal(crossed.predict(lake), crossed.predict(rows))
    np.testing.assert_array_equal(crossed.predict(f"{lake}/*.parquet"), crossed.predict(rows))


def test_keep_chooses_columns(crossed, lake, tmp_path):
    out = crossed.augment(lake, out=tmp_path / "out", keep=["id"])
    added = [".fitted", ".resid", ".hat", ".cooksd", ".fixed", ".offset"]
    assert pq.read_schema(out / "part-00000.parquet").names == ["id", *added]


def test_page_checksums_are_written(crossed, lake, tmp_path):
    """A flipped bit in a part is noticed by a reader that verifies."""
    part = crossed.predict(lake, out=tmp_path / "out") / "part-00000.parquet"
    content = bytearray(part.read_bytes())
    content[60] ^= 1
    part.write_bytes(content)
    with pytest.raises(OSError):
        pq.ParquetFile(part, page_checksum_verification=True).read()


def test_existing_directory_is_kept_unless_overwritten(crossed, lake, tmp_path):
    out = tmp_path / "out"
    crossed.predict(lake, out=out)
    with pytest.raises(OutputError, match="exists and is not empty"):
        crossed.predict(lake, out=out, se=True)
    assert "se" not in pq.read_schema(out / "part-00000.parquet").names
    crossed.predict(lake, out=out, se=True, overwrite=True)
    assert "se" in pq.read_schema(out / "part-00000.parquet").names
    assert leftovers(tmp_path) == ["out"]


def test_bad_rows_leave_nothing_behind(crossed, rows, tmp_path):
    folder = tmp_path / "lake"
    folder.mkdir()
    rows.to_parquet(folder / "a.parquet", index=False)
    rows.assign(g="NEW").to_parquet(folder / "b.parquet", index=False)
    with pytest.raises(BigmmError, match="NEW"):
        crossed.predict(folder, out=tmp_path / "out", new_levels="raise")
    (folder / "b.parquet").write_bytes((folder / "b.parquet").read_bytes()[:-20])
    with pytest.raises(DataError, match=r"b\.parquet"):
        crossed.predict(folder, out=tmp_path / "out")
    assert leftovers(tmp_path) == ["lake"]


def test_disk_full(crossed, rows, tmp_path):
    """A limit on the size of files stands in for a full disk: the write fails half-way, nothing is left behind."""
    big = pd.concat([rows] * 40).assign(noise=lambda f: np.random.default_rng(0).normal(size=len(f)))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(OutputError, match="cannot write .*larger than the limit") as caught:
            crossed.predict(big, out=tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.exit_code == 73
    assert leftovers(tmp_path) == []


def test_unwritable_places(crossed, lake, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write .*not a directory"):
        crossed.predict(lake, out=tmp_path / "file" / "out")
    with pytest.raises(UsageError, match="cannot write to s3://bucket/out: name a local directory"):
        crossed.predict(lake, out="s3://bucket/out")
    with pytest.raises(OutputError, match="cannot write"):
        crossed.predict(lake, out="/proc/out")
