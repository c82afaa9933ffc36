"""The same fits in bigmm, lme4, statsmodels and gpboost: python -m benchmarks.bench_peers [--rows 200000]

Sleepstudy (slope), penicillin (crossed) and a simulated slope model with --rows rows, all by maximum likelihood.
Log-likelihoods and estimates are printed side by side. Claim: no peer finds a higher log-likelihood (beyond 1e-4).
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.machine import announce, at_most
from benchmarks.peers import Missing, PeerFit, Task, gpboost, lme4, mixedlm, ours
from bigmm import datasets


def tasks(folder: Path, rows: int) -> list[Task]:
    """The models, with their data written to Parquet."""
    sleep, penicillin = folder / "sleepstudy.parquet", folder / "penicillin.parquet"
    datasets.sleepstudy().to_parquet(sleep)
    datasets.penicillin().to_parquet(penicillin)
    simulated = folder / "simulated.parquet"
    simulate(simulated, rows)
    slope = "Reaction ~ Days + (1 + Days | Subject)"
    crossed = "diameter ~ 1 + (1 | plate) + (1 | sample)"
    both = ("plate", "sample")
    return [
        Task("sleepstudy", sleep, slope, "Reaction", ("Days",), ("Subject",), slope=("Subject", "Days")),
        Task("penicillin", penicillin, crossed, "diameter", (), both, both),
        Task(f"{rows:,} rows", simulated, "y ~ x + (1 + x | g)", "y", ("x",), ("g",), slope=("g", "x")),
    ]


def simulate(path: Path, rows: int) -> None:
    """y = 1 + 0.5 x + b0[g] + b1[g] x + e with sd 0.8, 0.4 and 1; 20 rows a level."""
    rng = np.random.default_rng(20)
    levels = max(rows // 20, 2)
    g, x = rng.integers(0, levels, rows), rng.normal(size=rows)
    b = rng.normal(size=(2, levels)) * [[0.8], [0.4]]
    y = 1.0 + 0.5 * x + b[0, g] + b[1, g] * x + rng.normal(size=rows)
    pq.write_table(pa.table({"y": y, "x": x, "g": g.astype(np.int32)}), path)


def compare(task: Task, repeats: int) -> None:
    """Fit one task everywhere and print the table."""
    print(f"-- {task.name}: {task.formula}")
    fits: list[PeerFit] = []
    for peer in (ours, lme4, mixedlm, gpboost):
        try:
            fits.append(peer.fit(task, repeats=repeats))
        except Missing as why:
            print(f"skipped {why}")
    for fit in fits:
        print(f"{fit.program:20} {fit.seconds:8.3f} s ({fit.timed}), log-likelihood {fit.llf:.6f} {fit.note}")
        print(f"{'':20} fixed {_numbers(fit.fixed)}; sd {', '.join(f'{k} {v:.6g}' for k, v in fit.sds.items())}")
    best = max((fit.llf for fit in fits[1:]), default=np.nan)
    if len(fits) > 1:
        at_most("best peer's log-likelihood less ours", best - fits[0].llf, 1e-4)


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.6g}" for value in values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=int(os.environ.get("BIGMM_BENCH_ROWS", 200_000)))
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    announce("the same fits in other programs", "statsmodels", "gpboost")
    with tempfile.TemporaryDirectory(prefix="bigmm-bench-") as folder:
        for task in tasks(Path(folder), options.rows):
            compare(task, options.repeats)


if __name__ == "__main__":
    main()
