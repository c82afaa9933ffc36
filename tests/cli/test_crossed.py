"""The command line on crossed factors: the iterative solver's options, and what `bigmm plan` says of it."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

import bigmm as package
from bigmm.datasets import write_lake

FORMULA = "y ~ x + (1 | user) + (1 | movie)"


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """2,000 ratings, liked or not, of 60 movies by 150 users."""
    rng = np.random.default_rng(2)
    user, movie, x = rng.integers(0, 150, 2000), rng.integers(0, 60, 2000), rng.normal(size=2000)
    eta = 0.3 * x + 0.8 * rng.normal(size=150)[user] + 0.7 * rng.normal(size=60)[movie]
    liked = (rng.random(2000) < 1.0 / (1.0 + np.exp(-eta))).astype(float)
    frame = pd.DataFrame({"y": eta + rng.normal(size=2000), "liked": liked, "x": x, "user": user, "movie": movie})
    folder = tmp_path_factory.mktemp("crossed") / "lake"
    write_lake(frame, folder, rows_per_file=700)
    return folder


def both_ways(kind, formula, lake, **how):
    """A call of the package and the options that are the same on the command line."""
    family = {"family": "bernoulli"} if kind == "glmm" else {}
    model = getattr(package, kind)(formula, str(lake), solver="iterative", **family, **how)
    return model, ["--solver", "iterative", *(["--family", "bernoulli"] if family else [])]


@pytest.mark.parametrize(("kind", "formula"), [("lmm", FORMULA), ("glmm", FORMULA.replace("y", "liked", 1))])
def test_tolerance_and_seed_reach_the_fit(bigmm, lake, kind, formula):
    expected, options = both_ways(kind, formula, lake, mc_tol=(0.5, 0.2), seed=3)
    ended = bigmm("fit", formula, lake, *options, "--mc-tol", "0.5", "0.2", "--seed", "3", "--json", "-")
    assert ended.code == 0, ended.err
    record = json.loads(ended.out)
    error = record["monte_carlo_error"]
    assert record["objective"] == expected.objective
    assert (error["mc_tol"], error["seed"], error["probes"]) == ([0.5, 0.2], 3, expected.monte_carlo_error["probes"])


@pytest.mark.parametrize(("kind", "formula"), [("lmm", FORMULA), ("glmm", FORMULA.replace("y", "liked", 1))])
def test_without_the_options_the_defaults_of_the_package_hold(bigmm, lake, kind, formula):
    expected, options = both_ways(kind, formula, lake)
    record = json.loads(bigmm("fit", formula, lake, *options, "--json", "-").out)
    assert record["objective"] == expected.objective
    assert (record["monte_carlo_error"]["mc_tol"], record["monte_carlo_error"]["seed"]) == ([0.01, 0.05], 0)


def test_plan_names_engine_and_solver(bigmm, lake):
    formula = FORMULA.replace("y", "liked", 1)
    asked = bigmm("plan", formula, lake, "--family", "bernoulli", "--solver", "iterative")
    assert asked.code == 0, asked.err
    assert "Solver: iterative (as asked for)" in asked.out
    assert "PIRLS on blocks" in asked.out and "applied, never formed" in asked.out
    planned = json.loads(bigmm("plan", formula, lake, "--family", "bernoulli", "--json", "-").out)
    assert [planned[name] for name in ("engine", "solver", "solver_reason")] == [
        "crossed", "exact", "the dense block of 60 columns is small",
    ]  # fmt: skip
    short = bigmm("plan", formula, lake, "--family", "bernoulli", "--memory-limit", "200kB")
    assert "Solver: iterative (a dense block of 60 columns needs" in short.out and "does NOT fit" in short.out
    assert bigmm("plan", formula, lake, "--family", "bernoulli", "--nagq", "5").code == 2
