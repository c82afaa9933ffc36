"""Classes in schools: python -m benchmarks.bench_glmm_nested [--rows 1000000] [--timeout 1200]

y ~ x1 + ... + x5 + (1 | school) + (1 | class), Bernoulli, 1 M rows in random order, 200 schools, 20,000 classes whose
numbers are unique over schools, Laplace. bigmm finds the nesting by itself and evaluates in one task per shard; it is
run as well with the engine for crossed factors, which looks at the rows once for each step of PIRLS. Timed from the
Parquet file to the estimates with standard errors, warm; glmmTMB for the fit alone, its data in memory. Claims: at most
half the looks at the rows, not slower, and at least 10 times faster than glmmTMB, with the same log-likelihood.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import bigmm
from benchmarks.bench_glmm_million import asked
from benchmarks.machine import announce, at_least, at_most, timed
from benchmarks.peers import PeerFit, Task
from benchmarks.peers import glmm as peers

NAMES = ("x1", "x2", "x3", "x4", "x5")
GLMMTMB, LOOKS, EQUAL = 10.0, 0.5, 0.01


def write(path: Path, rows: int, schools: int, classes: int) -> None:
    """beta = (-1, .5, -.5, .25, 0, .1), sd 1 of schools and 0.7 of classes."""
    rng = np.random.default_rng(3)
    x, group = rng.normal(size=(5, rows)), rng.integers(0, classes, rows)
    school = group * schools // classes
    effects = 0.7 * rng.normal(size=classes)[group] + rng.normal(size=schools)[school]
    eta = -1.0 + np.array([0.5, -0.5, 0.25, 0.0, 0.1]) @ x + effects
    y = (rng.random(rows) < 1.0 / (1.0 + np.exp(-eta))).astype(np.int32)
    columns = dict(zip(NAMES, x, strict=True)) | {"class": group.astype(np.int32), "school": school.astype(np.int32)}
    pq.write_table(pa.table(columns | {"y": y}), path, row_group_size=250_000)


def ours(task: Task, repeats: int, nested: bool = True) -> tuple[PeerFit, float, int]:
    """(The best fit, its CPU seconds, its looks at the rows), with the engine for nested or for crossed factors."""

    def fit():
        return bigmm.glmm(task.formula, task.path, family="bernoulli")

    def without(*_):
        return None

    name = "bigmm.planning.placement.tree_chain"
    if nested:
        runs = [timed(fit) for _ in range(repeats)]
    else:
        with patch(name, without):
            runs = [timed(fit) for _ in range(repeats)]
    seconds, cpu, model = min(runs, key=lambda run: run[0])
    sds = dict(zip(model.varcorr["group"], model.varcorr["sdcor"].astype(float), strict=True))
    looks, engine = model.fitted.passes, "nested" if nested else "crossed"
    note = f"{looks} looks at the rows, {cpu:.2f} s CPU" + ("" if model.converged else ", not certified")
    program = f"bigmm, {engine}"
    found = PeerFit(program, seconds, "file to estimates", model.llf, tuple(np.asarray(model.params)), sds, note)
    return found, cpu, looks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--schools", type=int, default=200)
    parser.add_argument("--classes", type=int, default=20_000)
    parser.add_argument("--timeout", type=float, default=1200.0, help="seconds that glmmTMB may take, 0: left out")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    announce(
        f"Bernoulli, {options.rows:,} rows, 5 covariates, {options.classes:,} classes in {options.schools} schools"
    )
    with tempfile.TemporaryDirectory(prefix="bigmm-bench-") as folder:
        path = Path(folder) / "rows.parquet"
        write(path, options.rows, options.schools, options.classes)
        random = "(1 | school) + (1 | class)"
        formula, groups = f"y ~ {' + '.join(NAMES)} + {random}", ("school", "class")
        compare(Task("nested Bernoulli", path, formula, "y", NAMES, groups, groups), options.timeout, options.repeats)


def compare(task: Task, timeout: float, repeats: int) -> None:
    """Run everybody; print times, log-likelihoods and verdicts."""
    ours(task, 1), ours(task, 1, nested=False)  # compiles
    (crossed, crossed_cpu, crossed_looks), (mine, cpu, looks) = ours(task, repeats, nested=False), ours(task, repeats)
    theirs = asked(lambda: peers.in_r(task, "glmmTMB", timeout=timeout)) if timeout else None
    peers.show([mine, crossed, *([theirs] if theirs else [])])
    at_most("looks at the rows, of the engine for crossed factors", looks / crossed_looks, LOOKS)
    at_least("time of the engine for crossed factors over ours", crossed.seconds / mine.seconds, 1.0)
    print(f"CPU time of the engine for crossed factors over ours: {crossed_cpu / cpu:.2f}")
    at_most("difference of the two log-likelihoods", abs(crossed.llf - mine.llf), 1e-5)
    if theirs is None:
        print(f"NOT MEASURED: glmmTMB's time over ours (claimed at least {GLMMTMB:g})")
    elif np.isinf(theirs.seconds):
        print(f"glmmTMB was stopped after {timeout:g} s")
        at_least("glmmTMB's time over ours, at least", timeout / mine.seconds, GLMMTMB)
    else:
        at_least("glmmTMB's time over ours", theirs.seconds / mine.seconds, GLMMTMB)
        at_most("glmmTMB's log-likelihood less ours", theirs.llf - mine.llf, EQUAL)


if __name__ == "__main__":
    main()
