"""The demo and the plan: real ratings, from nothing to results."""

from __future__ import annotations

import importlib
import json

import pandas as pd
import pytest

from bigmm.datasets import insteval, write_lake

demo = importlib.import_module("bigmm.cli.demo")


def test_demo_from_nothing_to_results(bigmm, tmp_path, project):
    ended = bigmm("demo", "--out", tmp_path / "demo")
    assert ended.code == 0
    assert "73,421 ratings in" in ended.out
    assert f"    bigmm summary {tmp_path / 'demo' / 'results'}\n" in ended.out
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


def test_the_demo_tells_compilation_apart(bigmm, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "NOTICEABLE", 0.0)
    monkeypatch.setattr(demo, "seconds_to_compile", lambda lake: 13.2)
    assert "kernels compiled, once on this machine: 13 s\n" in bigmm("demo", "--out", tmp_path / "demo").out


def test_the_demo_names_a_command_that_is_there(monkeypatch, tmp_path):
    own, other = tmp_path / "venv" / "bigmm", tmp_path / "other" / "bigmm"
    for path in (own, other):
        path.parent.mkdir()
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
    monkeypatch.setattr("sys.argv", [str(own), "demo"])
    for folder, expected in ((tmp_path, str(own)), (other.parent, str(own)), (own.parent, "bigmm")):
        monkeypatch.setenv("PATH", str(folder))
        assert demo.as_called() == expected
    monkeypatch.setattr("sys.argv", ["/usr/bin/python", "demo"])
    assert demo.as_called() == "bigmm"


def test_a_plan_that_does_not_fit_ends_as_the_fit_would(bigmm, tmp_path):
    write_lake(insteval(), tmp_path / "lake")
    call = ("y ~ service + (1|s) + (1|d)", tmp_path / "lake", "--solver", "iterative", "--memory-limit", "8MB")
    planned, ended = bigmm("plan", *call), bigmm("fit", *call)
    assert planned.code == ended.code == 2
    assert "does NOT fit" in planned.out
    assert "the iterative solver needs" in ended.err and "raise memory_limit" in ended.err
    assert bigmm("plan", *call, "--json", "-").code == 2
    assert bigmm("plan", *call[:-1], "1GiB").code == 0


def test_a_plan_that_does_not_fit_is_refused(bigmm, tmp_path):
    write_lake(insteval(), tmp_path / "lake")
    ended = bigmm("fit", "y ~ service + (1|s) + (1|d)", tmp_path / "lake", "--memory-limit", "1MiB")
    assert ended.code == 2
    assert "memory" in ended.err
