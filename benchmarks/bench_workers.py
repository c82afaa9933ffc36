"""One worker against two: python -m benchmarks.bench_workers [--rows 5000000] [--lake DIR]

Three things are timed with one and with two workers (processors), warm, best of several: the pass (rows to blocks) over
a lake of the shape of MovieLens by threads of one process, the same pass by worker processes of a `distributed` cluster
(both for two crossed factors, whose sums are as many as the rows, and for one factor), and the products with the Schur
complement that is never formed (32 columns in float32 as probes are, 4 in float64 as data are).
Claim: two are at least 1.7 times as fast. Each thread measurement is a process of its own bound to that many
processors.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks import movielens
from benchmarks.machine import announce, at_least, cores
from bigmm.accumulate import assemble
from bigmm.blocks.gram import Gram
from bigmm.blocks.iterative import factor as iterative
from bigmm.blocks.iterative import structure as row_structure
from bigmm.design import learn
from bigmm.execute import Executor, executor
from bigmm.execute.clock import Clock
from bigmm.fit.lmm import accumulate
from bigmm.fit.options import settings
from bigmm.objective.krylov import PRECISION
from bigmm.source import open_source

CLAIM = 1.7
FORMULA = "rating ~ 1 + x + (1 | user) + (1 | movie)"
ONE_FACTOR = "rating ~ 1 + x + (1 | user)"
REPEATS = 5


def best(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Seconds of the fastest run, after one that warms up."""
    work()
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begun)
    return min(seconds)


def the_pass(lake: str, workers: Executor, formula: str = FORMULA) -> Callable[[], Gram]:
    """From the rows to the blocks of A, as a function without arguments."""
    source, how = open_source(lake), settings("auto", "auto", None, None)
    spec = learn(formula, source, workers)
    return lambda: assemble(accumulate(source, spec, workers, how, Clock()), spec.layout).gram


def measure_threads(lake: str, processors: int) -> dict[str, float]:
    """In this process, bound to so many processors."""
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:processors]))
    run = the_pass(lake, executor(n_workers=processors))
    seconds = {"pass, threads": best(run)}
    seconds["pass, threads, one factor"] = best(the_pass(lake, executor(n_workers=processors), ONE_FACTOR))
    gram = run()
    lams = tuple(np.full((1, 1), theta) for theta in (0.5, 0.57))
    analysed = row_structure.analyse_iterative(gram)
    operator = iterative.factorize_iteratively(analysed, lams, PRECISION, with_y=True).operator
    rng = np.random.default_rng(0)
    probes = rng.standard_normal((operator.size, 32)).astype(np.float32)
    data = rng.standard_normal((operator.size, 4))
    seconds["products, 32 columns float32"] = best(lambda: operator.apply(probes))
    seconds["products, 4 columns float64"] = best(lambda: operator.apply(data))
    return seconds


def measure_cluster(lake: str, processes: int) -> dict[str, float]:
    """Seconds of the passes on a cluster of so many worker processes of one thread each."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=processes, threads_per_worker=1, processes=True, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        both = {"pass, processes": FORMULA, "pass, processes, one factor": ONE_FACTOR}
        return {name: best(the_pass(lake, executor(client), formula)) for name, formula in both.items()}


def in_a_process(lake: str, processors: int) -> dict[str, float]:
    """`measure_threads` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.bench_workers", "--lake", lake, "--processors", str(processors)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure with one and two, print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--lake", default=None, help="a lake written before")
    parser.add_argument("--processors", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.processors:
        print(json.dumps(measure_threads(options.lake, options.processors)))
        return
    announce("one worker against two", "distributed")
    if cores() < 2:
        print("NOT MEASURED: there is only one processor")
        return
    with tempfile.TemporaryDirectory(prefix="bigmm-bench-") as folder:
        lake = options.lake
        if lake is None:
            lake = str(Path(folder) / "ratings")
            movielens.write(Path(lake), options.rows)
        one, two = in_a_process(lake, 1), in_a_process(lake, 2)
        one |= measure_cluster(lake, 1)
        two |= measure_cluster(lake, 2)
    for name, seconds in one.items():
        print(f"{name:30} {seconds:7.3f} s with one, {two[name]:7.3f} s with two")
        at_least(f"gain of the {name}", seconds / two[name], CLAIM)


if __name__ == "__main__":
    main()
