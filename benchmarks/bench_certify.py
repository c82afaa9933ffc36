"""The exact objective at an iterative optimum, by tiles: python -m benchmarks.bench_certify [--rows 2000000]

Fits a lake of MovieLens' shape by the iterative solver (2 million rows: movies eliminated, the Schur complement of
13,003 users would be 1.4 GB), then certifies it with one and two threads of this process, with tiles in a temporary
file, and on a cluster of two worker processes, beside one LAPACK dpotrf of a dense matrix of that size. All have to
give the same bits. Claims are about flops a CPU second, which other programs on the machine disturb little: of
LAPACK's on one thread, two threads reach 0.6 and a cluster 0.4, sparse assembly, client and scheduler included.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy.linalg import lapack
from threadpoolctl import threadpool_limits

import bigmm
import bigmm.results.certificate
from benchmarks import movielens
from benchmarks.machine import announce, at_least, at_most, cores, timed

FORMULA = "rating ~ x + (1 | user) + (1 | movie)"
THREADS_CLAIM, CLUSTER_CLAIM = 0.6, 0.4
Run = tuple[float, bigmm.results.certificate.Certificate]
"""CPU seconds of all processes, and what came out."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--lake", type=Path, help="a lake that benchmarks.movielens wrote, instead of a new one")
    options = parser.parse_args()
    announce("Certify an iterative optimum by a tiled Cholesky factorization", "scipy", "distributed")
    with tempfile.TemporaryDirectory(prefix="bigmm-bench-") as folder:
        lake = options.lake or Path(folder) / "ratings"
        if options.lake is None:
            movielens.write(lake, options.rows)
        seconds, _, model = timed(lambda: bigmm.lmm(FORMULA, lake, solver="iterative"))
    error = model.monte_carlo_error["objective"]
    print(f"iterative fit {seconds:.1f} s, objective {model.objective:.4f}, error {error:.4f}")
    certify(model)


def certify(model: bigmm.LmmResults) -> None:
    """Print every way's time and speed, and the verdicts."""
    threads = min(2, cores())
    model.certify(n_workers=1, tile=4096)  # kernels compiled, pages warm
    runs = {"1 thread": on_threads(model, 1), "2 threads": on_threads(model, threads)}
    first = runs["1 thread"][1]
    runs["2 threads, half the memory"] = on_threads(model, threads, first.bytes // 2)
    runs["2 processes"] = on_a_cluster(model)
    print(f"{first.columns:,} columns, {first.n_tiles} tiles of {first.tile}, {first.flops:.3g} flops")
    alone = lapack_speed(first.columns, 1)
    lapack_speed(first.columns, threads)
    for name, (cpu, found) in runs.items():
        gflops, size = found.flops / 1e9, found.bytes / 2**30
        print(
            f"{name:26} {found.seconds:5.1f} s, {gflops / found.seconds:5.1f} Gflop/s; {cpu:5.1f} CPU s, "
            f"{gflops / cpu:4.1f} Gflop a CPU s; {size:.2f} GiB predicted"
        )
    print(str(first))
    for name, claim in (("2 threads", THREADS_CLAIM), ("2 processes", CLUSTER_CLAIM)):
        cpu, found = runs[name]
        at_least(f"{name}' share of dpotrf's flops a CPU second", found.flops / cpu / alone, claim)
    bits = {found.objective_exact for _, found in runs.values()}
    at_most("different objectives among them", len(bits), 1)
    at_most("distance from the iterative objective in stated errors", abs(first.z), first.allowed)


def on_threads(model: bigmm.LmmResults, threads: int, limit: int | None = None) -> Run:
    """In this process."""
    _, cpu, found = timed(lambda: model.certify(n_workers=threads, memory_limit=limit))
    return cpu, found


def on_a_cluster(model: bigmm.LmmResults) -> Run:
    """Two processes of one thread; the scheduler is in this one."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        client.wait_for_workers(2)
        model.certify(client, tile=4096)  # the workers import and compile
        before = cpu_seconds(client)
        _, cpu, found = timed(lambda: model.certify(client))
        return cpu + cpu_seconds(client) - before, found


def cpu_seconds(client) -> float:
    """Of all workers so far."""
    return sum(client.run(time.process_time).values())


def lapack_speed(size: int, threads: int) -> float:
    """Flops a CPU second of one dpotrf."""
    matrix = np.full((size, size), 0.5, order="F")
    np.fill_diagonal(matrix, size)
    with threadpool_limits(threads):
        seconds, cpu, (_, info) = timed(lambda: lapack.dpotrf(matrix, lower=1, overwrite_a=1, clean=0))
    assert info == 0
    gflops = size**3 / 3e9
    print(
        f"dpotrf, {threads} thread{'s' * (threads > 1):10} {seconds:5.1f} s, {gflops / seconds:5.1f} Gflop/s; "
        f"{cpu:5.1f} CPU s, {gflops / cpu:4.1f} Gflop a CPU s"
    )
    return 1e9 * gflops / cpu


if __name__ == "__main__":
    main()
