"""Fits shared by the tests of the results, and the dense oracle of the crossed one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import bigmm
from bigmm.datasets import sleepstudy

CROSSED = "y ~ x + (1 + x | g) + (1 | h)"


def crossed_rows(seed: int = 5, n: int = 240) -> pd.DataFrame:
    """Crossed groups g (12 levels, intercept and slope) and h (7 levels), weights and an offset."""
    rng = np.random.default_rng(seed)
    g, h = rng.integers(0, 12, n), rng.integers(0, 7, n)
    x, w, off = rng.normal(1.0, 1.0, n), rng.uniform(0.5, 2.0, n), rng.normal(size=n)
    b = rng.normal(size=(12, 2)) * [1.5, 0.7]
    y = 2.0 + 0.5 * x + b[g, 0] + b[g, 1] * x + rng.normal(size=7)[h] + off + rng.normal(size=n) / np.sqrt(w)
    labels = {"g": [f"g{i:02d}" for i in g], "h": [f"h{i}" for i in h]}
    return pd.DataFrame({"y": y, "x": x, "w": w, "off": off, **labels})


@pytest.fixture(scope="session")
def sleep():
    """Reaction ~ Days + (Days | Subject) by REML, lme4's numbers are known."""
    return bigmm.lmm("Reaction ~ Days + (Days | Subject)", sleepstudy(), progress=False)


@pytest.fixture(scope="session")
def rows() -> pd.DataFrame:
    return crossed_rows()


@pytest.fixture(scope="session")
def crossed(rows):
    return bigmm.lmm(CROSSED, rows, weights="w", offset="off", progress=False)


@pytest.fixture(scope="session")
def dense(crossed, rows):
    """The oracle at the fitted theta."""
    from tests.results.oracle import Dense, indicator, relative_factor

    x = np.column_stack([np.ones(len(rows)), rows["x"]])
    g, h = (pd.Categorical(rows[c]).codes for c in "gh")
    z = np.hstack([indicator(g, x, 12), indicator(h, x[:, :1], 7)])
    lambdas = list(crossed.fitted.lambdas())
    lam = relative_factor(lambdas, [12, 7])
    return Dense((rows["y"] - rows["off"]).to_numpy(), x, z, lam, rows["w"].to_numpy(), True)


@pytest.fixture(scope="session")
def lake(rows, tmp_path_factory) -> Path:
    """The crossed rows as three Parquet files, with an id column the model does not use."""
    folder = tmp_path_factory.mktemp("lake")
    frame = rows.assign(id=np.arange(len(rows)))
    for number, start in enumerate(range(0, len(frame), 100)):
        frame.iloc[start : start + 100].to_parquet(folder / f"part-{number}.parquet", index=False)
    return folder
