"""The command line on generalized models: fit, plan, and what is done with a saved one."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import bigmm as package
from bigmm.cli.app import run
from bigmm.datasets import write_lake
from tests.cli.test_fit import FIELDS

HERDS = "cbind(incidence, size - incidence) ~ period + (1 | herd)"


@pytest.fixture(scope="module")
def cbpp() -> Path:
    """Contagious bovine pleuropneumonia: 56 herds by period, from lme4."""
    return Path(__file__).parent.parent / "reference" / "data" / "cbpp.parquet"


@pytest.fixture(scope="module")
def saved(cbpp, tmp_path_factory):
    out = tmp_path_factory.mktemp("saved") / "results"
    assert run(["fit", HERDS, str(cbpp), "--family", "binomial", "--nagq", "9", "--quiet", "--out", str(out)]) == 0
    return out


def test_results_on_disk(saved):
    record = json.loads((saved / "fit.json").read_text())
    assert set(FIELDS) <= set(record)
    assert record["objective"] == pytest.approx(183.966743592669, abs=1e-4)
    assert [record[name] for name in ("family", "link", "reml", "nagq")] == ["binomial", "logit", False, 9]
    assert record["dispersion"] == 1.0 and record["passes"] > 2
    assert "nagq = 9" in (saved / "summary.txt").read_text()
    assert list(pd.read_parquet(saved / "varcorr.parquet")["group"]) == ["herd"]
    assert list(pd.read_parquet(saved / "ranef" / "herd.parquet").columns) == ["level", "Intercept"]


def test_every_option_reaches_the_fit(bigmm, cbpp):
    ended = bigmm(
        "fit", "prop ~ period + (1 | herd)", cbpp, "--weights", "size", "--family", "binomial", "--link", "probit",
        "--laplace", "observed", "--se", "rx", "--ml", "--json", "-",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    record = json.loads(ended.out)
    expected = package.glmm(
        "prop ~ period + (1 | herd)",
        cbpp,
        family="binomial",
        link="probit",
        weights="size",
        laplace="observed",
        se="rx",
    )
    assert record["objective"] == expected.objective
    assert (record["laplace"], record["se_method"], record["nagq"]) == ("observed", "rx", 1)


def test_saved_models(bigmm, saved, cbpp, tmp_path):
    assert bigmm("summary", saved).out == (saved / "summary.txt").read_text()
    assert json.loads(bigmm("summary", saved, "--json", "-").out)["family"] == "binomial"
    modes = pd.read_csv(io.StringIO(bigmm("ranef", saved, "--condvar").out))
    assert list(modes.columns) == ["level", "Intercept", "Intercept_sd"] and len(modes) == 15
    model = package.load(saved / "model")
    for scale in ("response", "link"):
        ended = bigmm("predict", saved, cbpp, "--out", tmp_path / scale, "--se", "--type", scale)
        assert (ended.code, ended.last) == (0, str(tmp_path / scale))
        table = pq.read_table(tmp_path / scale).to_pandas()
        expected = model.predict(cbpp, se=True, type=scale)
        np.testing.assert_allclose(table[["prediction", "se"]], expected, rtol=1e-12)
    assert pq.read_table(tmp_path / "response").to_pandas()["prediction"].between(0, 1).all()


def test_plan(bigmm, cbpp):
    ended = bigmm(
        "plan", "prop ~ period + (1 | herd)", cbpp, "--family", "binomial", "--weights", "size", "--nagq", "5"
    )
    assert ended.code == 0, ended.err
    assert "herd" in ended.out


def test_a_response_outside_the_range_is_bad_data(bigmm, cbpp, tmp_path):
    ended = bigmm("fit", "prop ~ 1 + (1 | herd)", cbpp, "--family", "poisson", "--out", tmp_path / "out")
    assert ended.code == 65
    assert "cbpp.parquet" in ended.err and "a poisson response is a count" in ended.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--family", "poisson", "--link", "logit"], "link 'logit' does not go with family 'poisson': use one of log"),
        (["--family", "poisson", "--nagq", "4"], "nagq=4 needs exactly one scalar random effect"),
        (["--family", "gamma", "--laplace", "expected"], "laplace='expected' is no likelihood for gamma"),
    ],
)
def test_what_cannot_be_meant(bigmm, cbpp, options, message):
    ended = bigmm("fit", "size ~ incidence + (incidence | herd)", cbpp, *options)
    assert ended.code == 2
    assert message in ended.err


def test_a_singular_fit_is_written_and_said_so(bigmm, tmp_path):
    """The same four counts in every group: no variance between groups."""
    frame = pd.DataFrame({"y": [0.0, 1.0, 2.0, 3.0] * 12, "g": np.repeat([f"g{i:02d}" for i in range(12)], 4)})
    write_lake(frame, tmp_path / "lake")
    ended = bigmm("fit", "y ~ 1 + (1 | g)", tmp_path / "lake", "--family", "poisson", "--out", tmp_path / "out")
    assert ended.code == 3
    assert "the fit is singular: a variance is estimated as zero" in ended.err
    assert json.loads((tmp_path / "out" / "fit.json").read_text())["is_singular"] is True


def test_a_doubtful_fit_is_said_once_and_not_as_a_python_warning(start, tmp_path):
    """In a process of its own, where no filter of the tests hides a warning."""
    frame = pd.DataFrame({"y": [0.0, 1.0, 2.0, 3.0] * 12, "g": np.repeat([f"g{i:02d}" for i in range(12)], 4)})
    write_lake(frame, tmp_path / "lake")
    for options in (["--family", "poisson"], []):
        child = start("fit", "y ~ 1 + (1 | g)", tmp_path / "lake", "--quiet", "--json", tmp_path / "fit.json", *options)
        _, err = child.communicate(timeout=120)
        assert child.returncode == 3
        assert err.count("the fit is singular") == 1 and "Warning" not in err


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Answers of three kinds, by a logit model."""
    rng = np.random.default_rng(2)
    g, x = rng.integers(0, 15, 500), rng.normal(size=500)
    yes = rng.random(500) < 1.0 / (1.0 + np.exp(-x - rng.normal(size=15)[g]))
    out = np.where(yes, np.where(rng.random(500) < 0.5, "perhaps", "yes"), "no")
    frame = pd.DataFrame({"out": out, "k": yes + 1, "x": x, "g": [f"g{i}" for i in g]})
    folder = tmp_path_factory.mktemp("answers") / "lake"
    write_lake(frame, folder)
    return folder


def test_success_names_the_levels_that_count_as_one(bigmm, answers):
    fit = ("fit", "out ~ x + (1 | g)", answers, "--family", "bernoulli", "--json", "-")
    ended = bigmm(*fit)
    assert ended.code == 2 and "success=['perhaps', 'yes'] is R's rule" in ended.err and "--success" in ended.err
    records = {}
    for levels in (("yes",), ("perhaps", "yes")):
        ended = bigmm(*fit, *(part for level in levels for part in ("--success", level)))
        assert ended.code == 0, ended.err
        records[levels] = json.loads(ended.out)
        assert records[levels]["success"] == list(levels)
    number = bigmm("fit", "k ~ x + (1 | g)", answers, "--family", "bernoulli", "--success", "2", "--json", "-")
    assert json.loads(number.out)["objective"] == pytest.approx(records["perhaps", "yes"]["objective"], rel=1e-12)
    planned = bigmm("plan", "out ~ x + (1 | g)", answers, "--family", "bernoulli", "--success", "yes")
    assert planned.code == 0, planned.err
    for options, message in (
        (("--family", "bernoulli", "--success", "Yes"), "did you mean 'yes'?"),
        (("--family", "poisson", "--success", "yes"), "is for family 'bernoulli' or 'binomial'"),
        (("--success", "yes"), "--success: only for generalized models"),
    ):
        ended = bigmm("fit", "out ~ x + (1 | g)", answers, *options)
        assert ended.code == 2 and message in ended.err
