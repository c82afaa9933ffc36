"""Lakes through the whole program: what is taken is said, and the container of the same rows changes no answer."""

from __future__ import annotations

import json
import os

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import bigmm as package
from tests.cli.cases import SLEEP

FORMULA = "y ~ x + (1 | g)"


@pytest.fixture(scope="module")
def rows():
    """240 rows of 8 groups."""
    rng = np.random.default_rng(1)
    group, x = np.arange(240) % 8, rng.normal(size=240)
    y = 1 + 0.5 * x + rng.normal(size=8)[group] + rng.normal(size=240)
    return pd.DataFrame({"y": y, "x": x, "g": [f"g{i}" for i in group]})


def test_the_record_says_which_files_were_taken(bigmm, sleep_lake, tmp_path):
    ended = bigmm("fit", SLEEP, sleep_lake, "--quiet", "--json", "-")
    files = json.loads(ended.out)["files"]
    count = len(list(sleep_lake.rglob("*.parquet")))
    assert (files["taken"], files["left_out"], files["rows"], files["rows_left_out_by_filter"]) == (count, 0, 180, 0)
    kept = json.loads(bigmm("fit", SLEEP, sleep_lake, "--filter", "Days > 1", "--json", "-").out)["files"]
    assert (kept["rows"], kept["rows_left_out_by_filter"]) == (180, 36)
    planned = json.loads(bigmm("plan", SLEEP, sleep_lake, "--json", "-").out)["files"]
    assert (planned["taken"], planned["rows"]) == (count, 180)


def test_summary_and_plan_say_what_was_left_out_and_what_has_no_checksums(bigmm, rows, tmp_path):
    lake = tmp_path / "lake"
    (lake / "_temporary").mkdir(parents=True)
    for name in ("a.parquet", "_temporary/b.parquet"):
        pq.write_table(pa.Table.from_pandas(rows), lake / name)
    for command in ("fit", "plan"):
        ended = bigmm(command, FORMULA, lake)
        assert "read 1 file with 240 rows; 1 left out (" in ended.out
        assert "1 of 1 row groups have no page checksums: damage would go unnoticed" in ended.out


def test_the_saved_fit_remembers_its_files(rows, tmp_path):
    pq.write_table(pa.Table.from_pandas(rows), tmp_path / "a.parquet")
    fitted = package.lmm(FORMULA, tmp_path / "a.parquet")
    fitted.save(tmp_path / "model")
    loaded = package.load(tmp_path / "model")
    assert loaded.as_record()["files"] == fitted.as_record()["files"]
    assert package.lmm(FORMULA, rows).as_record()["files"] is None


def test_a_lost_part_ends_with_65_and_its_name(bigmm, rows, tmp_path):
    pq.write_table(pa.Table.from_pandas(rows), tmp_path / "a.parquet")
    os.symlink("/nonexistent/b.parquet", tmp_path / "b.parquet")
    for command in ("fit", "plan"):
        ended = bigmm(command, FORMULA, tmp_path)
        assert ended.code == 65 and "b.parquet: it is a link to nothing" in ended.err


@pytest.mark.parametrize("marker", ["_delta_log/0.json", "metadata/v1.metadata.json", ".hoodie/hoodie.properties"])
def test_a_table_of_another_format_ends_with_65(bigmm, rows, tmp_path, marker):
    for path in (tmp_path / "lakes" / "t" / marker, tmp_path / "lakes" / "t" / "data" / "aB" / "x"):
        path.parent.mkdir(parents=True)
        path.write_text("{}")
    path.unlink()
    pq.write_table(pa.Table.from_pandas(rows), path.parent / "a.parquet")
    for place in (tmp_path / "lakes", tmp_path / "lakes/t", path.parent, path.parent / "a.parquet"):
        ended = bigmm("fit", FORMULA, place)
        assert ended.code == 65 and "Open it with" in ended.err


@pytest.fixture(scope="module")
def long_group(tmp_path_factory):
    """One row group of 300,000 rows: with --partition-bytes 1MiB it is read in parts."""
    rng = np.random.default_rng(3)
    n = 300_000
    group, x = rng.integers(0, 40, n), rng.normal(size=n)
    eta = 0.3 * x + 0.7 * rng.normal(size=40)[group]
    columns = {
        "y": 1 + eta + rng.normal(size=n),
        "b": (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(float),
        "x": x,
        "g": [f"g{i}" for i in group],
    }
    path = tmp_path_factory.mktemp("long") / "k=1" / "a.parquet"
    path.parent.mkdir()
    pq.write_table(pa.table(columns), path, row_group_size=n)
    return path


def test_parts_give_the_same_fit_and_the_same_bits_on_any_number_of_threads(bigmm, long_group):
    """The order of summation changes with the partitions, and nothing else does."""
    whole = json.loads(bigmm("fit", FORMULA, long_group, "--json", "-").out)
    size = ("--partition-bytes", "1MiB")
    parts = [json.loads(bigmm("fit", FORMULA, long_group, *size, "--workers", n, "--json", "-").out) for n in (1, 3)]
    assert parts[0]["objective"] == parts[1]["objective"] and parts[0]["fixef"] == parts[1]["fixef"]
    assert parts[0]["objective"] == pytest.approx(whole["objective"], rel=1e-12)
    assert json.loads(bigmm("plan", FORMULA, long_group, *size, "--json", "-").out)["partitions"] == 5


def test_parts_of_a_generalized_model_and_of_predictions(long_group, tmp_path):
    whole = package.glmm("b ~ x + (1 | g)", long_group, family="bernoulli")
    parts = package.glmm("b ~ x + (1 | g)", long_group, family="bernoulli", partition_bytes=1 << 20)
    assert parts.objective == pytest.approx(whole.objective, rel=1e-10)
    there = parts.predict(long_group)
    frame = pd.read_parquet(long_group)
    assert np.allclose(there, parts.predict(frame), rtol=0, atol=1e-12)


def test_a_memory_limit_that_a_partition_does_not_fit_ends_with_2(bigmm, long_group):
    ended = bigmm("fit", FORMULA, long_group, "--memory-limit", "1MB")
    assert ended.code == 2 and "partition_bytes=" in ended.err


def test_one_answer_from_a_frame_and_the_files_and_tables_it_was_written_to(rows, tmp_path):
    """The reference level of a factor, and which level of a response is modelled, follow the frame's categories."""
    rng = np.random.default_rng(0)
    frame = rows.assign(
        res=pd.Categorical(np.where(rows.y + rng.normal(size=240) > 1, "pass", "fail"), ["pass", "fail"], ordered=True),
        dose=pd.Categorical(np.array(["low", "mid", "high"])[np.arange(240) % 3], ["low", "mid", "high"]),
        step=pd.Categorical(np.arange(240) % 3, [2, 0, 1], ordered=True),
    )
    frame.to_parquet(tmp_path / "a.parquet")
    containers = (frame, tmp_path / "a.parquet", pq.read_table(tmp_path / "a.parquet"))
    slopes = [package.glmm("res ~ x + (1 | g)", data, family="bernoulli").params["x"] for data in containers]
    assert max(slopes) - min(slopes) < 1e-6
    names = [list(package.lmm("y ~ dose + (1 | g)", data).params.index) for data in containers]
    assert names == [["Intercept", "dose[T.mid]", "dose[T.high]"]] * 3
    expected = list(package.lmm("y ~ step + (1 | g)", frame).params.index)
    for data in containers[1:]:
        with pytest.raises(package.DataError, match=r"column 'step'.*categories=\{'step': \[\.\.\.\]\}"):
            package.lmm("y ~ step + (1 | g)", data)
        stated = package.lmm("y ~ step + (1 | g)", data, categories={"step": [2, 0, 1]})
        assert list(stated.params.index) == expected
        assert package.lmm("y ~ x + (1 | step)", data).n_groups == {"step": 3}


def test_keys_with_leading_zeros_are_groups_of_their_own(rows, tmp_path):
    zips = [f"{i:03d}" if i < 4 else str(i - 4) for i in np.arange(240) % 8]
    for value, part in rows.assign(zip=zips).groupby("zip"):
        folder = tmp_path / f"zip={value}"
        folder.mkdir()
        pq.write_table(pa.Table.from_pandas(part[["y", "x"]], preserve_index=False), folder / "a.parquet")
    assert package.lmm("y ~ x + (1 | zip)", tmp_path).n_groups == {"zip": 8}
