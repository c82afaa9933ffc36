"""Small frames and shorthands that the tests of design share."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa

from bigmm.design import DesignSpec, learn
from bigmm.execute import executor
from bigmm.source import open_source


def frame(n: int = 60, seed: int = 0) -> pd.DataFrame:
    """y, x, z, w, count; f (3 levels), h (2), k (int, 4), g (7 groups), b (bool): every level occurs."""
    rng = np.random.default_rng(seed)
    data = pd.DataFrame({name: rng.normal(size=n) for name in ("y", "x", "z")})
    data["w"] = rng.uniform(0.5, 2, n)
    data["count"] = rng.integers(1, 9, n)
    data["f"] = np.array(["lo", "mid", "hi"])[np.arange(n) % 3]
    data["h"] = np.array(["no", "yes"])[rng.permutation(n) % 2]
    data["k"] = rng.permutation(n) % 4 * 10 + 1
    data["g"] = [f"g{i}" for i in rng.permutation(n) % 7]
    data["b"] = rng.permutation(n) % 2 == 0
    return data


def table(data: pd.DataFrame | dict) -> pa.Table:
    return pa.table(data) if isinstance(data, dict) else pa.Table.from_pandas(data, preserve_index=False)


def learned(formula: str, data: pd.DataFrame | pa.Table, partition_bytes: int = 600, **options) -> DesignSpec:
    """A spec learned over many small partitions."""
    source = open_source(data, partition_bytes=partition_bytes)
    return learn(formula, source, executor(n_workers=1), **options)


def model_matrix(spec: DesignSpec, data: pd.DataFrame | pa.Table) -> np.ndarray:
    """(n, p) the dense X of a layout, fixed factors expanded."""
    chunk = spec.encode(data if isinstance(data, pa.Table) else table(data), "here")
    return dense(spec, chunk)


def dense(spec: DesignSpec, chunk) -> np.ndarray:
    every = np.vstack([np.ones(chunk.rows), chunk.columns])
    x = np.full((chunk.rows, len(spec.layout.fixed_names)), np.nan)
    for position, column in enumerate(spec.layout.fixed_columns):
        if column >= 0:
            x[:, position] = every[column]
    for factor in spec.layout.fixed_factors:
        x[:, factor.positions] = every[factor.covariate][:, None] * factor.contrast[chunk.refs[factor.grouping]]
    return x
