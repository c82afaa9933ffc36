"""The demo and the plan: real ratings, from nothing to results."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from bigmm.datasets import insteval, write_lake


def test_demo_from_nothing_to_results(bigmm, tmp_path, project):
    ended = bigmm("demo", "--out", tmp_path / "demo")
    assert ended.code == 0
    assert "73,421 ratings in" in ended.out
    assert ended.last == str(tmp_path / "demo" / "results" / "fit.json")
    record = json.loads((tmp_path / "demo" / "results" / "fit.json").read_text())
    assert record["nobs"] == 73421
    assert record["n_groups"] == {"s": 2972, "d": 1128, "dept": 14}
    reference = json.loads((project / "tests/reference/reference.json").read_text())["cases"]
    lme4 = next(case["expected"] for case in reference if case["id"] == "insteval_dept_reml")
    assert record["objective"] == pytest.approx(lme4["objective"], abs=1e-2)
    assert len(pd.read_parquet(tmp_path / "demo/results/ranef/dept.parquet")) == 14
    again = bigmm("demo", "--out", tmp_path / "demo")
    assert again.code == 73
    assert "lake exists and is not empty" in again.err
    assert bigmm("demo", "--out", tmp_path / "demo", "--overwrite", "--quiet").code == 0


def test_plan_tells_levels_and_bytes_without_fitting(bigmm, tmp_path):
    write_lake(insteval(), tmp_path / "lake", partition_by="dept")
    ended = bigmm("plan", "y ~ service + (1|s) + (1|d) + (1|dept)", tmp_path / "lake")
    assert ended.code == 0
    for word in ("2,972", "1,128", "73,421"):
        assert word in ended.out
    ended = bigmm("plan", "y ~ service + (1|s)", tmp_path / "lake", "--json", tmp_path / "plan.json", "--quiet")
    assert ended.out == f"{tmp_path / 'plan.json'}\n"
    assert json.loads((tmp_path / "plan.json").read_text())


def test_a_plan_that_does_not_fit_is_refused(bigmm, tmp_path):
    write_lake(insteval(), tmp_path / "lake")
    ended = bigmm("fit", "y ~ service + (1|s) + (1|d)", tmp_path / "lake", "--memory-limit", "1MiB")
    assert ended.code == 2
    assert "memory" in ended.err
