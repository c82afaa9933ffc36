"""Fits shared by the tests of the results, and the dense oracles of the crossed ones."""

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


COUNTS = "y ~ x + (1 + x | g) + (1 | h)"
SHARES = "cbind(yes, no) ~ x + (1 | g)"


def generalized_rows(seed: int = 8, n: int = 400) -> pd.DataFrame:
    """One linear predictor with crossed effects, and responses of several families from it."""
    rng = np.random.default_rng(seed)
    g, h, x = rng.integers(0, 15, n), rng.integers(0, 8, n), rng.normal(size=n)
    off = rng.normal(0.0, 0.3, n)
    b = rng.normal(size=(15, 2)) * [0.7, 0.4]
    eta = 0.4 + 0.5 * x + b[g, 0] + b[g, 1] * x + off
    mu, size = np.exp(eta + 0.4 * rng.normal(size=8)[h]), rng.integers(1, 12, n)
    yes = rng.binomial(size, 1.0 / (1.0 + np.exp(-eta)))
    return pd.DataFrame(
        {
            "y": rng.poisson(mu).astype(float),
            "yes": yes.astype(float),
            "no": (size - yes).astype(float),
            "size": size.astype(float),
            "share": yes / size,
            "hit": np.where(rng.random(n) < 1.0 / (1.0 + np.exp(-eta)), "yes", "no"),
            "positive": rng.gamma(3.0, mu / 3.0),
            "x": x,
            "off": off,
            "g": [f"g{i:02d}" for i in g],
            "h": [f"h{i}" for i in h],
        }
    )


@pytest.fixture(scope="session")
def some() -> pd.DataFrame:
    return generalized_rows()


@pytest.fixture(scope="session")
def poisson(some):
    """Crossed counts with an offset, a slope and a correlation."""
    return bigmm.glmm(COUNTS, some, family="poisson", offset="off", progress=False)


@pytest.fixture(scope="session")
def shares(some):
    """Successes and failures, by quadrature."""
    return bigmm.glmm(SHARES, some, family="binomial", nagq=9, progress=False)


@pytest.fixture(scope="session")
def gamma(some):
    return bigmm.glmm("positive ~ x + (1 | g)", some, family="gamma", link="log", progress=False)


@pytest.fixture(scope="session")
def negative(some):
    return bigmm.glmm("y ~ x + (1 | g)", some, family="negative_binomial", offset="off", progress=False)


@pytest.fixture(scope="session")
def generalized_lake(some, tmp_path_factory) -> Path:
    """The generalized rows as three Parquet files."""
    folder = tmp_path_factory.mktemp("generalized")
    for number, start in enumerate(range(0, len(some), 150)):
        some.iloc[start : start + 150].to_parquet(folder / f"part-{number}.parquet", index=False)
    return folder
