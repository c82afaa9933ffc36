"""A written lake holds every row once, in hive directories, and appears whole or not at all."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from bigmm.datasets import penicillin, sleepstudy, write_lake
from bigmm.errors import OutputError, UsageError


def test_every_row_once_and_in_order(tmp_path):
    frame = sleepstudy()
    paths = write_lake(frame, tmp_path / "lake", partition_by="Subject", rows_per_file=4, row_group_rows=3)
    assert len(paths) == 18 * 3
    assert paths[0] == tmp_path / "lake" / "Subject=308" / "part-00000.parquet"
    assert pq.ParquetFile(paths[0]).metadata.num_row_groups == 2
    back = ds.dataset(tmp_path / "lake", partitioning="hive").to_table().to_pandas()
    back = back.assign(Subject=back["Subject"].astype(str)).sort_values(["Subject", "Days"], ignore_index=True)
    expected = frame.assign(Subject=frame["Subject"].astype(str)).sort_values(["Subject", "Days"], ignore_index=True)
    pd.testing.assert_frame_equal(back[list(frame.columns)], expected, check_dtype=False)
    first = pq.read_table(paths[0])
    assert first.column_names == ["Reaction", "Days"]
    assert first["Days"].to_pylist() == [0, 1, 2, 3]


def test_flat_files_and_two_keys(tmp_path):
    frame = penicillin()
    assert len(write_lake(frame, tmp_path / "flat", rows_per_file=100)) == 2
    paths = write_lake(frame, tmp_path / "two", partition_by=("plate", "sample"))
    assert len(paths) == 144
    assert paths[0].relative_to(tmp_path).as_posix() == "two/plate=a/sample=A/part-00000.parquet"


def test_awkward_values_become_safe_names(tmp_path):
    frame = pd.DataFrame({"key": ["a/b", "c=d", None], "x": np.arange(3.0)})
    names = {path.parent.name for path in write_lake(frame, tmp_path / "lake", partition_by="key")}
    assert names == {"key=a%2Fb", "key=c%3Dd", "key=__HIVE_DEFAULT_PARTITION__"}
    back = ds.dataset(tmp_path / "lake", partitioning="hive").to_table().to_pydict()
    assert dict(zip(back["key"], back["x"])) == {"a/b": 0.0, "c=d": 1.0, None: 2.0}


def test_a_lake_is_not_overwritten_by_chance(tmp_path):
    write_lake(sleepstudy(), tmp_path / "lake")
    with pytest.raises(OutputError, match="lake exists and is not empty: choose another place or say overwrite"):
        write_lake(penicillin(), tmp_path / "lake")
    paths = write_lake(penicillin(), tmp_path / "lake", overwrite=True)
    assert pq.read_table(paths[0]).column_names == ["diameter", "plate", "sample"]
    assert [path.name for path in tmp_path.iterdir()] == ["lake"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"partition_by": "nosuch"},
            "partition_by names 'nosuch', which is not among the columns: Reaction, Days, Subject",
        ),
        ({"partition_by": ("Reaction", "Days", "Subject")}, "partition_by names every column"),
        ({"rows_per_file": 0}, "rows_per_file must be at least 1, not 0"),
    ],
)
def test_calls_that_cannot_be_meant(options, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        write_lake(sleepstudy(), tmp_path / "lake", **options)
    assert list(tmp_path.iterdir()) == []
