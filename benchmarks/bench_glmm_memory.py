"""A Bernoulli model beyond memory on two cores: python -m benchmarks.bench_glmm_memory [--rows 50000000] [--sorted]

Writes a lake of --rows rows (five covariates, --levels levels) and one of a tenth of them, fits
y ~ x1 + ... + x5 + (1 | g) to each in a fresh process, and samples that process's anonymous memory (RssAnon; pages of
mapped files are the page cache's and can be dropped at any time). Claims: the peak stays below the limit, and ten times
the rows cost at most 1.1 times the peak when both are too large to be held: the tenth is fitted with a tenth of the
limit too, besides the fit that the limit lets stay in memory. Passes over the rows, seconds and peak per phase are
printed. Needs about 110 bytes of disk per row below --dir; temporary files of the fit go there too, and are gone at its
end. Kernels are compiled before.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from itertools import accumulate
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.machine import announce, at_most

FORMULA = "y ~ x1 + x2 + x3 + x4 + x5 + (1 | g)"
CLAIM_GROWTH = 1.1
ROWS_A_FILE, GROUP_ROWS = 1 << 20, 1 << 18
BETA, SD = np.array([-0.4, 0.5, -0.3, 0.2, 0.1, 0.4]), 0.8


def write_lake(folder: Path, rows: int, levels: int, in_order: bool) -> int:
    """Bytes written: files of about a million rows; levels at random in each, or in order over all files."""
    folder.mkdir(parents=True)
    u = np.random.default_rng(0).normal(scale=SD, size=levels)
    for part, first in enumerate(range(0, rows, ROWS_A_FILE)):
        n = min(ROWS_A_FILE, rows - first)
        rng = np.random.default_rng(part + 1)
        g = np.arange(first, first + n) * levels // rows if in_order else rng.integers(0, levels, n)
        x = rng.normal(size=(5, n))
        y = rng.random(n) < 1.0 / (1.0 + np.exp(-(BETA[0] + BETA[1:] @ x + u[g])))
        columns = {"y": y.astype(float), "g": g.astype(np.int32)} | {f"x{i + 1}": x[i] for i in range(5)}
        pq.write_table(pa.table(columns), folder / f"part-{part:04d}.parquet", row_group_size=GROUP_ROWS)
    return sum(file.stat().st_size for file in folder.iterdir())


class AnonymousMemory:
    """Samples (seconds, bytes) of this process's anonymous memory in a thread (Linux)."""

    def __init__(self, every: float = 0.01):
        self.samples: list[tuple[float, int]] = []
        self._every, self._stop = every, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        start = time.perf_counter()
        while not self._stop.wait(self._every):
            self.samples.append((time.perf_counter() - start, anonymous_bytes()))

    def __enter__(self) -> AnonymousMemory:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def peak(self, first: float = 0.0, last: float = np.inf) -> int:
        """Largest sample between two moments."""
        return max((size for when, size in self.samples if first <= when <= last), default=0)


def anonymous_bytes() -> int:
    """Anonymous memory of this process now."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


def fit(folder: str, workers: int, limit: str, nagq: int) -> None:
    """Run in the fresh process: fit and print what was seen as JSON."""
    import bigmm

    bigmm.glmm  # noqa: B018  loads everything that a fit needs, before the clock starts
    before, start = anonymous_bytes(), time.perf_counter()
    with AnonymousMemory() as memory:
        model = bigmm.glmm(FORMULA, folder, family="bernoulli", nagq=nagq, n_workers=workers, memory_limit=limit)
    report: dict = {"seconds": time.perf_counter() - start, "before": before, "peak": memory.peak()}
    spent = model.fitted.seconds
    ends = list(accumulate(spent.values()))
    report["phases"] = {
        phase: (seconds, memory.peak(end - seconds, end))
        for (phase, seconds), end in zip(spent.items(), ends, strict=True)
    }
    report |= {"rows": model.nobs, "passes": model.fitted.passes, "objective": model.objective}
    report |= {
        "theta": model.theta.tolist(),
        "beta": np.asarray(model.beta).tolist(),
        "converged": bool(model.converged),
    }
    print(json.dumps(report))


def measure(folder: Path, given: argparse.Namespace, limit: int) -> dict:
    """Fit in a fresh process; what it reports about itself."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.bench_glmm_memory",
        "--fit",
        str(folder),
        "--workers",
        str(given.workers),
    ]
    command += ["--memory-limit", str(limit), "--nagq", str(given.nagq)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | {"TMPDIR": given.dir}
    )
    return json.loads(done.stdout.splitlines()[-1])


def show(found: dict, size: int) -> None:
    print(
        f"{found['rows']:,} rows, {size / 1e9:.2f} GB of Parquet, limit {found['limit'] / 2**20:.0f} MiB: "
        f"{found['seconds']:.1f} s, {found['passes']} passes; peak anonymous {found['peak'] / 2**20:.0f} MiB "
        f"({found['before'] / 2**20:.0f} MiB before the fit)"
    )
    phases = (f"{name} {spent:.1f} s {peak / 2**20:.0f} MiB" for name, (spent, peak) in found["phases"].items())
    print(f"  {', '.join(phases)}")
    print(
        f"  -2 log L {found['objective']:.3f}, sd {found['theta'][0]:.5f} (true {SD}), beta "
        f"{np.round(found['beta'], 4).tolist()} (true {BETA.tolist()}), converged: {found['converged']}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000_000)
    parser.add_argument("--levels", type=int, default=1_000_000)
    parser.add_argument("--memory-limit", default="2GiB")
    parser.add_argument("--nagq", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--sorted", action="store_true", help="files in the order of levels")
    parser.add_argument("--dir", default=tempfile.gettempdir(), help="where lakes and temporary files go")
    parser.add_argument("--fit", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.fit:
        fit(given.fit, given.workers, given.memory_limit, given.nagq)
        return
    from bigmm.fit.options import memory_bytes

    limit = memory_bytes(given.memory_limit)
    announce(f"{FORMULA}, bernoulli, nagq {given.nagq}, memory_limit {given.memory_limit}, {given.workers} threads")
    peaks = {}
    with tempfile.TemporaryDirectory(dir=given.dir, prefix="bigmm-bench-") as scratch:
        warm = Path(scratch) / "warm"
        write_lake(warm, 60_000, 1000, False)
        measure(warm, given, limit)
        for rows, limits in ((given.rows // 10, (limit, limit // 10)), (given.rows, (limit,))):
            lake = Path(scratch) / str(rows)
            size = write_lake(lake, rows, given.levels, given.sorted)
            for each in limits:
                found = measure(lake, given, each) | {"limit": each}
                show(found, size)
                peaks[rows] = found["peak"]
    small, large = peaks[given.rows // 10], peaks[given.rows]
    at_most("peak anonymous memory", large / 2**20, limit / 2**20, unit=" MiB")
    at_most("peak of ten times the rows, both out of core, relative", large / small, CLAIM_GROWTH)


if __name__ == "__main__":
    main()
