"""A simulated Bernoulli model: python -m benchmarks.bench_glmm_million [--rows 1000000] [--timeout 1200]

y ~ x1 + ... + x5 + (1 | g), 1 M rows, 50 k levels in random order, sd 1, Laplace. bigmm is timed from the Parquet file
to the estimates with standard errors, warm; the R programs for the fit alone, their data in memory. Claims: at least 10
times faster than glmmTMB, 30 times than glmer(nAGQ = 1) (or its time-out is said), and not slower than gpboost at an
equal tolerance of the log-likelihood: gpboost is run with its defaults and with the tolerance that brings it within
0.01 of the best log-likelihood, and both are printed.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.machine import announce, at_least, at_most
from benchmarks.peers import Missing, PeerFit, Task
from benchmarks.peers import glmm as peers

NAMES = ("x1", "x2", "x3", "x4", "x5")
GLMMTMB, GLMER = 10.0, 30.0
EQUAL = 0.01


def write(path: Path, rows: int, levels: int) -> None:
    """Rows in random order of their levels; beta = (-1, .5, -.5, .25, 0, .1), sd 1."""
    rng = np.random.default_rng(3)
    x, g = rng.normal(size=(5, rows)), rng.integers(0, levels, rows)
    eta = -1.0 + np.array([0.5, -0.5, 0.25, 0.0, 0.1]) @ x + rng.normal(size=levels)[g]
    y = (rng.random(rows) < 1.0 / (1.0 + np.exp(-eta))).astype(np.int32)
    columns = dict(zip(NAMES, x, strict=True)) | {"g": g.astype(np.int32), "y": y}
    pq.write_table(pa.table(columns), path, row_group_size=250_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--levels", type=int, default=0, help="0: one for 20 rows")
    parser.add_argument("--timeout", type=float, default=1200.0, help="seconds that a program of R may take")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    levels = options.levels or options.rows // 20
    announce(f"Bernoulli, {options.rows:,} rows, 5 covariates, {levels:,} levels", "gpboost")
    with tempfile.TemporaryDirectory(prefix="bigmm-bench-") as folder:
        path = Path(folder) / "rows.parquet"
        write(path, options.rows, levels)
        task = Task("Bernoulli", path, f"y ~ {' + '.join(NAMES)} + (1 | g)", "y", NAMES, ("g",), ("g",))
        compare(task, options.timeout, options.repeats)


def compare(task: Task, timeout: float, repeats: int) -> None:
    """Run everybody; print times, log-likelihoods and verdicts."""
    peers.ours(task)  # compiles
    mine = peers.ours(task, repeats)
    theirs = {
        "gpboost": asked(lambda: peers.gpboost(task)),
        "gpboost, equal": asked(lambda: equal_gpboost(task, mine.llf)),
        "glmmTMB": asked(lambda: peers.in_r(task, "glmmTMB", timeout=timeout)),
        "glmer": asked(lambda: peers.in_r(task, "glmer", timeout=timeout)),
    }
    mine = min(mine, peers.ours(task, repeats), key=lambda fit: fit.seconds)
    peers.show([mine, *(fit for fit in theirs.values() if fit is not None)])
    for name, claim in (("glmmTMB", GLMMTMB), ("glmer", GLMER), ("gpboost, equal", 1.0)):
        fit = theirs[name]
        if fit is None:
            print(f"NOT MEASURED: {name}'s time over ours (claimed at least {claim:g})")
        elif np.isinf(fit.seconds):
            print(f"{name} was stopped after {timeout:g} s")
            at_least(f"{name}'s time over ours, at least", timeout / mine.seconds, claim)
        else:
            at_least(f"{name}'s time over ours", fit.seconds / mine.seconds, claim)
            at_most(f"{name}'s log-likelihood less ours", fit.llf - mine.llf, EQUAL)


def asked(program: Callable[[], PeerFit]) -> PeerFit | None:
    """None, and why, where a program is missing."""
    try:
        return program()
    except Missing as why:
        print(f"skipped {why}")
        return None


def equal_gpboost(task: Task, llf: float) -> PeerFit:
    """gpboost with the loosest tolerance that comes within `EQUAL` of the log-likelihood; the tightest when none
    does."""
    for tolerance in (1e-6, 1e-8, 1e-10):
        fit = peers.gpboost(task, tolerance)
        if llf - fit.llf <= EQUAL:
            break
    return fit


if __name__ == "__main__":
    main()
