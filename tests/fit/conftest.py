"""Rows on disk: what the recipes of `fit` are given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

FORMULA = "y ~ x + (1 + x | g) + (1 | h)"


def crossed_rows(n: int = 400, seed: int = 2) -> pd.DataFrame:
    """g (15 levels, intercept and slope) crossed with h (6 levels), weights w, whole numbers k, an offset."""
    rng = np.random.default_rng(seed)
    g, h, x = rng.integers(0, 15, n), rng.integers(0, 6, n), rng.normal(1.0, 1.0, n)
    w, off = rng.uniform(0.5, 2.0, n), rng.normal(size=n)
    b = rng.normal(size=(15, 2)) * [1.2, 0.6]
    y = 2.0 + 0.5 * x + b[g, 0] + b[g, 1] * x + rng.normal(size=6)[h] + off + rng.normal(size=n) / np.sqrt(w)
    labels = {"g": [f"g{i:02d}" for i in g], "h": [f"h{i}" for i in h]}
    return pd.DataFrame({"y": y, "x": x, "w": w, "k": rng.integers(1, 4, n), "off": off, **labels})


def write(frame: pd.DataFrame, path: Path, row_group_size: int = 1 << 20) -> Path:
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), path, row_group_size=row_group_size)
    return path


@pytest.fixture(scope="session")
def frame() -> pd.DataFrame:
    return crossed_rows()


@pytest.fixture(scope="session")
def lake(frame, tmp_path_factory) -> Path:
    """The rows as five files of several row groups."""
    folder = tmp_path_factory.mktemp("lake")
    for number, start in enumerate(range(0, len(frame), 80)):
        write(frame.iloc[start : start + 80], folder / f"part-{number}.parquet", row_group_size=13)
    return folder
