"""GPBoost's GPModel with the exact Cholesky solver, from file to estimates."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd

from benchmarks.peers.task import Missing, PeerFit, Task


def fit(task: Task, repeats: int = 1) -> PeerFit:
    """Raises `Missing` when gpboost is not there. A random slope is independent of the intercept: another model."""
    try:
        import gpboost
    except ImportError:
        raise Missing("gpboost: not installed") from None
    seconds = np.inf
    for _ in range(repeats):
        start = time.perf_counter()
        frame = pd.read_parquet(task.path)
        y, x = frame[task.response].to_numpy(float), _fixed(task, frame)
        model = gpboost.GPModel(**_arguments(task, frame), likelihood="gaussian", matrix_inversion_method="cholesky")
        model.fit(y=y, X=x, params={"trace": False})
        seconds = min(seconds, time.perf_counter() - start)
    fixed = tuple(np.asarray(model.get_coef()).ravel()[: x.shape[1]])
    variances = np.asarray(model.get_cov_pars()).ravel()
    names = (
        [f"{name} 1" for name in task.intercepts]
        if task.slope is None
        else [f"{task.slope[0]} 1", " ".join(task.slope)]
    )
    sds = dict(zip(names, np.sqrt(variances[1:]).tolist(), strict=True)) | {"Residual": float(np.sqrt(variances[0]))}
    note = "no correlation of intercept and slope" if task.slope else ""
    llf = -float(model.get_current_neg_log_likelihood())
    return PeerFit(f"gpboost {gpboost.__version__}", seconds, "file to estimates", llf, fixed, sds, note)


def _fixed(task: Task, frame: pd.DataFrame) -> np.ndarray:
    """(n, p): constant, then covariates; factors without their first level."""
    parts: list[np.ndarray] = [np.ones(len(frame))]
    for name in task.fixed:
        factor = name in task.factors
        parts.append(pd.get_dummies(frame[name], drop_first=True).to_numpy(float) if factor else frame[name].to_numpy())
    return np.column_stack(parts)


def _arguments(task: Task, frame: pd.DataFrame) -> dict:
    names = list(task.intercepts) if task.slope is None else [task.slope[0]]
    groups = np.column_stack([pd.factorize(frame[name])[0] for name in names])
    if task.slope is None:
        return {"group_data": groups}
    slope = frame[[task.slope[1]]].to_numpy(float)
    return {"group_data": groups, "group_rand_coef_data": slope, "ind_effect_group_rand_coef": [1]}
