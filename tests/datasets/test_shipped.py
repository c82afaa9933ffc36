"""The shipped data sets are the reference's, value by value, with the levels in lme4's order."""

from __future__ import annotations

import json

import pandas as pd
import pyarrow.parquet as pq
import pytest

from bigmm import datasets

NAMES = ("cake", "dyestuff", "insteval", "pastes", "penicillin", "sleepstudy")


@pytest.mark.parametrize("name", NAMES)
def test_equal_to_the_reference(name, project):
    described = json.loads((project / "tests/reference/reference.json").read_text())["datasets"][name]
    frame = getattr(datasets, name)()
    expected = pd.read_parquet(project / "tests/reference" / described["file"])
    pd.testing.assert_frame_equal(frame, expected)
    assert len(frame) == described["nrow"]
    for column in described["columns"]:
        if column["type"] == "category":
            assert list(frame[column["name"]].cat.categories) == column["levels"]


@pytest.mark.parametrize("name", NAMES)
def test_files_carry_page_checksums(name, project, tmp_path):
    original = (project / f"bigmm/datasets/data/{name}.parquet").read_bytes()
    column = pq.ParquetFile(project / f"bigmm/datasets/data/{name}.parquet").metadata.row_group(0).column(0)
    begin = column.dictionary_page_offset if column.has_dictionary_page else column.data_page_offset
    damaged = bytearray(original)
    damaged[begin + column.total_compressed_size - 1] ^= 1
    path = tmp_path / "damaged.parquet"
    path.write_bytes(damaged)
    with pytest.raises(OSError):
        pq.read_table(path, page_checksum_verification=True)
