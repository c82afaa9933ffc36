"""Peak memory does not grow with the rows: python -m benchmarks.bench_memory [--rows 100000000] [--dir SCRATCH]

Writes a lake of --rows rows (44 bytes each: a response, four covariates, 200,000 levels) and one of a tenth of them,
fits y ~ x1 + x2 + x3 + x4 + (1 + x1 | g) to each in a fresh process with two threads, and reads that process's peak
resident memory. Claims: at most 1.5 GB, and ten times the rows cost at most 1.1 times the peak. The lakes are removed
afterwards. The peak is VmHWM: memory of the process's own (anonymous) and mapped libraries; the page cache, which holds
the files for everybody and is given up when needed, is not part of it. Kernels are compiled before, in another process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.machine import announce, at_most

CLAIM_BYTES, CLAIM_GROWTH = 1.5e9, 1.1
FORMULA = "y ~ x1 + x2 + x3 + x4 + (1 + x1 | g)"
FILE_ROWS, GROUP_ROWS = 2_000_000, 500_000


def write_lake(folder: Path, rows: int, levels: int) -> int:
    """Bytes written: files of 2 million rows, row groups of half a million, snappy."""
    folder.mkdir(parents=True)
    effects = np.random.default_rng(0).normal(size=(2, levels)) * [[0.5], [0.3]]
    for part, start in enumerate(range(0, rows, FILE_ROWS)):
        n = min(FILE_ROWS, rows - start)
        rng = np.random.default_rng(part + 1)
        x, g = rng.normal(size=(4, n)), rng.integers(0, levels, n)
        y = 1.0 + x.sum(axis=0) + effects[0, g] + effects[1, g] * x[0] + rng.normal(size=n)
        columns = {"y": y, **{f"x{i + 1}": x[i] for i in range(4)}, "g": g.astype(np.int32)}
        pq.write_table(pa.table(columns), folder / f"part-{part:04d}.parquet", row_group_size=GROUP_ROWS)
    return sum(file.stat().st_size for file in folder.iterdir())


def measure(folder: Path, workers: int) -> dict:
    """Fit in a fresh process; what it reports about itself."""
    command = [sys.executable, "-m", "benchmarks.bench_memory", "--fit", str(folder), "--workers", str(workers)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def fit(folder: str, workers: int) -> None:
    """Run in the fresh process: fit and print peak and resident bytes as JSON."""
    import bigmm

    bigmm.lmm  # noqa: B018  loads everything that a fit needs, before the clock starts
    before = memory("VmRSS")
    start = time.perf_counter()
    model = bigmm.lmm(FORMULA, folder, n_workers=workers)
    report: dict = {"seconds": time.perf_counter() - start, "before": before, "peak": memory("VmHWM")}
    report |= {"anonymous": memory("RssAnon"), "mapped": memory("RssFile"), "rows": model.nobs}
    report |= {"phases": model.fitted.seconds, "theta": model.theta.tolist()}
    print(json.dumps(report))


def memory(field: str) -> int:
    """Bytes of a field of /proc/self/status (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def report(found: dict, size: int) -> None:
    passes = found["phases"]["learn"] + found["phases"]["accumulate"]
    print(
        f"{found['rows']:,} rows, {size / 1e9:.2f} GB of Parquet: {found['seconds']:.1f} s "
        f"({found['rows'] / found['seconds'] / 1e6:.1f} million rows/s, passes {passes:.1f} s); peak "
        f"{found['peak'] / 1e6:.0f} MB ({found['before'] / 1e6:.0f} MB before the fit), at the end "
        f"{found['anonymous'] / 1e6:.0f} MB anonymous and {found['mapped'] / 1e6:.0f} MB mapped files",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=int(os.environ.get("BIGMM_BENCH_ROWS", 100_000_000)))
    parser.add_argument("--levels", type=int, default=200_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--dir", help="where the lakes are written for a while (default: a temporary directory)")
    parser.add_argument("--fit", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fit:
        fit(options.fit, options.workers)
        return
    announce(f"peak memory of a fit, {options.workers} threads")
    peaks = []
    with tempfile.TemporaryDirectory(prefix="bigmm-bench-", dir=options.dir) as folder:
        write_lake(Path(folder) / "warm", 10 * options.levels, options.levels)
        measure(Path(folder) / "warm", options.workers)
        for rows in (options.rows // 10, options.rows):
            lake = Path(folder) / f"lake-{rows}"
            size = write_lake(lake, rows, options.levels)
            found = measure(lake, options.workers)
            report(found, size)
            peaks.append(found["peak"])
    at_most("the peak", peaks[1] / 1e9, CLAIM_BYTES / 1e9, unit=" GB")
    at_most("the peak with ten times the rows, over the peak", peaks[1] / peaks[0], CLAIM_GROWTH)


if __name__ == "__main__":
    main()
