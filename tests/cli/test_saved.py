"""`bigmm summary`, `ranef` and `predict` on what `bigmm fit --out` wrote."""

from __future__ import annotations

import io
import json

import numpy as np
import pandas as pd
import pytest

import bigmm as package
from bigmm.cli.app import run
from bigmm.datasets import sleepstudy, write_lake
from tests.cli.cases import SLEEP


@pytest.fixture(scope="module")
def saved(tmp_path_factory, sleep_lake):
    out = tmp_path_factory.mktemp("saved") / "results"
    assert run(["fit", SLEEP, str(sleep_lake), "--quiet", "--out", str(out)]) == 0
    return out


def test_summary_is_that_of_the_fit(bigmm, saved, tmp_path):
    assert bigmm("summary", saved).out == (saved / "summary.txt").read_text()
    assert bigmm("summary", saved / "model").out == (saved / "summary.txt").read_text()
    fitted = json.loads((saved / "fit.json").read_text())
    again = json.loads(bigmm("summary", saved, "--json", "-").out)
    assert {key: fitted[key] for key in ("objective", "theta", "fixef", "se")} == {
        key: again[key] for key in ("objective", "theta", "fixef", "se")
    }
    ended = bigmm("summary", saved, "--quiet", "--json", tmp_path / "again.json")
    assert ended.out == f"{tmp_path / 'again.json'}\n"


def test_ranef_as_csv(bigmm, saved):
    table = pd.read_csv(io.StringIO(bigmm("ranef", saved, "--condvar").out))
    assert list(table.columns) == ["level", "Intercept", "Days", "Intercept_sd", "Days_sd"]
    modes = package.load(saved / "model").ranef()["Subject"]
    np.testing.assert_array_equal(table["Days"], modes["Days"])


def test_a_reader_that_has_seen_enough(start, saved, tmp_path):
    """`bigmm ranef | head -1` ends quietly."""
    frame = pd.DataFrame({"y": np.sin(np.arange(60_000.0)), "g": np.repeat(np.arange(20_000), 3)})
    write_lake(frame, tmp_path / "lake")
    assert run(["fit", "y ~ 1 + (1 | g)", str(tmp_path / "lake"), "--quiet", "--out", str(tmp_path / "out")]) in (0, 3)
    child = start("ranef", tmp_path / "out")
    assert child.stdout.readline() == "level,Intercept\n"
    child.stdout.close()
    assert child.wait(60) == 0
    assert child.stderr.read() == ""


def test_ranef_to_parquet(bigmm, saved, tmp_path):
    ended = bigmm("ranef", saved, "--group", "Subject", "--out", tmp_path / "modes.parquet")
    assert (ended.code, ended.last) == (0, str(tmp_path / "modes.parquet"))
    assert len(pd.read_parquet(tmp_path / "modes.parquet")) == 18


def test_ranef_of_a_group_that_is_not_there(bigmm, saved):
    ended = bigmm("ranef", saved, "--group", "nosuch")
    assert ended.code == 2
    assert "no grouping factor 'nosuch'; the model has 'Subject'" in ended.err


def test_predictions_out_of_core(bigmm, saved, sleep_lake, tmp_path):
    ended = bigmm("predict", saved, sleep_lake, "--out", tmp_path / "predicted", "--se")
    assert (ended.code, ended.last) == (0, str(tmp_path / "predicted"))
    table = pd.read_parquet(tmp_path / "predicted").reset_index(drop=True)
    model = package.load(saved / "model")
    frame = sleepstudy()
    np.testing.assert_allclose(table["prediction"], model.predict(frame), rtol=1e-12)
    np.testing.assert_array_equal(table["Reaction"], frame["Reaction"])
    assert (table["se"] > 0).all()


def test_population_predictions_and_new_levels(bigmm, saved, tmp_path):
    new = pd.DataFrame({"Reaction": [0.0, 0.0], "Days": [0.0, 9.0], "Subject": ["308", "999"]})
    write_lake(new, tmp_path / "new")
    assert bigmm("predict", saved, tmp_path / "new", "--population", "--out", tmp_path / "a").code == 0
    np.testing.assert_allclose(pd.read_parquet(tmp_path / "a")["prediction"], [251.4051, 345.6107], atol=1e-3)
    assert bigmm("predict", saved, tmp_path / "new", "--new-levels", "missing", "--out", tmp_path / "b").code == 0
    assert list(pd.read_parquet(tmp_path / "b")["prediction"].isna()) == [False, True]
    ended = bigmm("predict", saved, tmp_path / "new", "--new-levels", "raise", "--out", tmp_path / "c")
    assert ended.code == 65
    assert "999" in ended.err
    write_lake(new.assign(Subject=["308", None]), tmp_path / "new", overwrite=True)
    ended = bigmm("predict", saved, tmp_path / "new", "--new-levels", "raise", "--out", tmp_path / "c")
    assert ended.code == 65
    assert "new/part-00000.parquet, row group 0: 'Subject' is missing in row 2, so the row has no level" in ended.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "new"]


def test_predictions_with_some_random_effects(bigmm, saved, sleep_lake, tmp_path):
    model, frame = package.load(saved / "model"), sleepstudy()
    for number, (options, random) in enumerate(
        [
            (("--random", "(1 | Subject)"), ["(1 | Subject)"]),
            (("--random", "(0 + Days | Subject)", "--random", "(1 | Subject)"), True),
            (("--random", "Subject"), True),
            (("--random",), True),
            (("--population",), False),
            ((), True),
        ]
    ):
        out = tmp_path / str(number)
        ended = bigmm("predict", saved, sleep_lake, "--out", out, *options)
        assert ended.code == 0, ended.err
        found = pd.read_parquet(out)["prediction"]
        np.testing.assert_allclose(found, model.predict(frame, random=random), rtol=1e-12)
    for options, message in (
        (("--random", "subject"), "did you mean 'Subject'?"),
        (("--random", "Subject", "--population"), "--random and --population exclude each other"),
    ):
        ended = bigmm("predict", saved, sleep_lake, "--out", tmp_path / "none", *options)
        assert ended.code == 2 and message in ended.err
    assert not (tmp_path / "none").exists()
