"""bigmm through the same door, from file to estimates."""

from __future__ import annotations

import numpy as np

import bigmm
from benchmarks.machine import timed
from benchmarks.peers.task import PeerFit, Task


def fit(task: Task, repeats: int = 1, **options) -> PeerFit:
    """Warm when ``repeats`` > 1: the best counts."""
    runs = [timed(lambda: bigmm.lmm(task.formula, task.path, reml=False, **options)) for _ in range(repeats)]
    seconds, _, model = min(runs, key=lambda run: run[0])
    table = model.varcorr[model.varcorr["name2"].isna()].fillna("")
    names = (table["group"] + " " + table["name1"].str.replace("Intercept", "1")).str.strip()
    sds = dict(zip(names, table["sdcor"].tolist(), strict=True))
    note = "" if model.converged else "not certified"
    fixed = tuple(np.asarray(model.params).tolist())
    return PeerFit(f"bigmm {bigmm.__version__}", seconds, "file to estimates", model.llf, fixed, sds, note)
