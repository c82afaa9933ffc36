"""Bernoulli models with random intercepts by bigmm, lme4, glmmTMB and GPBoost."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.csv
import pyarrow.parquet as pq

import bigmm
from benchmarks.machine import timed
from benchmarks.peers.task import Missing, PeerFit, Task

_SCRIPT = Path(__file__).with_name("glmm.R")


def ours(task: Task, repeats: int = 1, **options) -> PeerFit:
    """From file to estimates; the best of the repeats. Options of `bigmm.glmm`."""

    def fit():
        return bigmm.glmm(task.formula, task.path, family="bernoulli", **options)

    seconds, _, model = min((timed(fit) for _ in range(repeats)), key=lambda run: run[0])
    sds = dict(zip(model.varcorr["group"], model.varcorr["sdcor"].astype(float), strict=True))
    note = f"{model.fitted.passes} passes" + ("" if model.converged else ", not certified")
    return PeerFit(
        f"bigmm {bigmm.__version__}",
        seconds,
        "file to estimates",
        model.llf,
        tuple(np.asarray(model.params)),
        sds,
        note,
    )


def in_r(task: Task, program: str, nagq: int = 1, timeout: float | None = None) -> PeerFit:
    """``program``: "glmer" or "glmmTMB", data in memory before. Raises `Missing`; a time-out (seconds) gives infinite
    time."""
    if shutil.which("Rscript") is None:
        raise Missing(f"{program}: Rscript is not installed")
    with tempfile.TemporaryDirectory(prefix="bigmm-bench-") as folder:
        data = Path(folder) / "data.csv"
        pyarrow.csv.write_csv(pq.read_table(task.path), data)
        command = ["Rscript", str(_SCRIPT), str(data), task.formula, ",".join(task.factors), program, str(nagq)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)
        except subprocess.TimeoutExpired:
            return PeerFit(program, float("inf"), f"stopped after {timeout:g} s", float("nan"), ())
    found = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    if "missing" in found:
        raise Missing(f"{program}: the R package is not installed")
    if done.returncode or "llf" not in found:
        raise Missing(f"{program}: failed on {task.name}: {done.stderr.strip()[-300:]}")
    fixed = tuple(map(float, found["fixed"].split(",")))
    sds = dict(zip(task.intercepts, map(float, found["sds"].split(",")), strict=False))
    return PeerFit(
        f"{program} {found['version']}", float(found["seconds"]), "the fit only", float(found["llf"]), fixed, sds
    )


def gpboost(task: Task, tolerance: float | None = None) -> PeerFit:
    """GPModel with a logit link, from file to estimates; tolerance: its relative change of the log-likelihood."""
    try:
        import gpboost
    except ImportError:
        raise Missing("gpboost: not installed") from None

    def fit():
        frame = pd.read_parquet(task.path)
        groups = np.column_stack([pd.factorize(frame[name])[0] for name in task.intercepts])
        x = np.column_stack([np.ones(len(frame)), frame[list(task.fixed)].to_numpy(float)])
        model = gpboost.GPModel(group_data=groups, likelihood="bernoulli_logit")
        settings = {"trace": False} | ({} if tolerance is None else {"delta_rel_conv": tolerance})
        model.fit(y=frame[task.response].to_numpy(float), X=x, params=settings)
        return model

    seconds, _, model = timed(fit)
    sds = dict(zip(task.intercepts, np.sqrt(np.asarray(model.get_cov_pars()).ravel()).tolist(), strict=False))
    note = "its defaults" if tolerance is None else f"delta_rel_conv {tolerance:g}"
    return PeerFit(
        f"gpboost {gpboost.__version__}",
        seconds,
        "file to estimates",
        -float(model.get_current_neg_log_likelihood()),
        tuple(np.asarray(model.get_coef()).ravel()[: len(task.fixed) + 1]),
        sds,
        note,
    )


def show(fits: list[PeerFit]) -> None:
    """One line a program; times as multiples of the first."""
    for fit in fits:
        times = f"{fit.seconds:9.3f} s = {fit.seconds / fits[0].seconds:7.1f} times ours ({fit.timed})"
        beta = ", ".join(f"{b:.5f}" for b in fit.fixed)
        sds = ", ".join(f"{name} {sd:.5f}" for name, sd in fit.sds.items())
        print(f"{fit.program:18} {times}, log L {fit.llf:.4f}; beta {beta}; sd {sds} {fit.note}", flush=True)
