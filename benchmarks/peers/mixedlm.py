"""statsmodels MixedLM, from file to estimates."""

from __future__ import annotations

import time
import warnings

import numpy as np
import pandas as pd

from benchmarks.peers.task import Missing, PeerFit, Task

# Crossed factors become one dense group with a column per level.
_MOST_COLUMNS = 300


def fit(task: Task, repeats: int = 1) -> PeerFit:
    """Raises `Missing` when statsmodels is not there, or would need a dense matrix of thousands of columns."""
    try:
        import statsmodels
        import statsmodels.formula.api as smf
    except ImportError:
        raise Missing("statsmodels: not installed") from None
    seconds = np.inf
    for _ in range(repeats):
        start = time.perf_counter()
        frame = pd.read_parquet(task.path)
        model = smf.mixedlm(**_arguments(task, frame))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = model.fit(reml=False)
        seconds = min(seconds, time.perf_counter() - start)
    sigma = float(np.sqrt(result.scale))
    sds = _sds(task, result) | {"Residual": sigma}
    note = "" if result.converged else f"not converged ({len(caught)} warnings)"
    fixed = tuple(result.fe_params)
    return PeerFit(
        f"statsmodels {statsmodels.__version__}", seconds, "file to estimates", float(result.llf), fixed, sds, note
    )


def _arguments(task: Task, frame: pd.DataFrame) -> dict:
    formula = f"{task.response} ~ {' + '.join(task.fixed) or '1'}"
    if task.slope is not None:
        group, covariate = task.slope
        return {"formula": formula, "data": frame, "groups": frame[group], "re_formula": f"1 + {covariate}"}
    if len(task.intercepts) == 1:
        return {"formula": formula, "data": frame, "groups": frame[task.intercepts[0]]}
    columns = sum(frame[name].nunique() for name in task.intercepts)
    if columns > _MOST_COLUMNS:
        raise Missing(
            f"statsmodels: crossed factors with {columns} levels need a dense ({len(frame)}, {columns}) matrix"
        )
    parts = {name: f"0 + C({name})" for name in task.intercepts}
    return {"formula": formula, "data": frame, "groups": np.ones(len(frame)), "vc_formula": parts, "re_formula": "0"}


def _sds(task: Task, result) -> dict[str, float]:
    if task.slope is None and len(task.intercepts) > 1:
        return {f"{name} 1": float(np.sqrt(v)) for name, v in zip(sorted(task.intercepts), result.vcomp, strict=True)}
    group = task.slope[0] if task.slope else task.intercepts[0]
    names = ["1", task.slope[1]] if task.slope else ["1"]
    variances = np.diag(np.asarray(result.cov_re))
    return {f"{group} {name}": float(np.sqrt(v)) for name, v in zip(names, variances, strict=True)}
