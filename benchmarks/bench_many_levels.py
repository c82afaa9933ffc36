"""Tens of millions of levels on two cores: python -m benchmarks.bench_many_levels [--rows 100000000]

Two designs, each as a lake in order of its levels and as one in no order at all, each fitted in a fresh process with a
memory limit: a random intercept, y ~ x + (1 | g), over --levels levels; and pupils in classes in schools with several
measures a pupil, over --pupils pupils (25 in a class, 20 classes in a school), written as (1 | school) + (1 | class) +
(1 | pupil) and as (1 | school/class/pupil). Printed: seconds and peak memory by phase, of the whole process, anonymous
(pages of mapped files are the page cache's) and all. Claims: converged, every standard deviation within 1 % and four
standard errors of the truth, anonymous memory within the limit. Needs about 25 bytes of disk per row below --dir;
temporary files of the fit go there too. --levels-here lets the driver hold the levels instead, for comparison.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from itertools import accumulate
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.bench_glmm_memory import AnonymousMemory, anonymous_bytes
from benchmarks.machine import announce, at_most

FILE_ROWS, GROUP_ROWS = 1 << 22, 1 << 19
IDS = 1_000_003, 3
"""First id and the distance between ids, as keys of a database with gaps."""
CLASS_PUPILS, SCHOOL_CLASSES = 25, 20
BETA = (1.0, 0.5)
FORMULAS = {
    "intercept": "y ~ x + (1 | g)",
    "nested": "y ~ x + (1 | school) + (1 | class) + (1 | pupil)",
    "slash": "y ~ x + (1 | school/class/pupil)",
}
LAKES = {"intercept": "intercept", "nested": "nested", "slash": "nested"}
SD = {"intercept": {"g": 0.6}, "nested": {"pupil": 0.7, "class": 0.4, "school": 0.3}}


def level_numbers(first: int, n: int, rows: int, levels: int, in_order: bool, rng: np.random.Generator) -> np.ndarray:
    """(n,) levels of the rows first .. first + n: in order, about rows / levels each, or drawn at random."""
    if not in_order:
        return rng.integers(0, levels, n)
    jittered = np.arange(first, first + n) + rng.uniform(-0.5, 0.5, n) * rows / levels
    return np.sort(np.clip(jittered * levels / rows, 0, levels - 1).astype(np.int64))


def write_lake(folder: Path, design: str, rows: int, levels: int, in_order: bool) -> int:
    """Bytes written; file after file, so that memory does not grow with the rows."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    effects = {name: rng.standard_normal(count) * SD[design][name] for name, count in sizes(design, levels).items()}
    for part, first in enumerate(range(0, rows, FILE_ROWS)):
        rng = np.random.default_rng(part + 1)
        n = min(FILE_ROWS, rows - first)
        x = rng.standard_normal(n)
        y = BETA[0] + BETA[1] * x + rng.standard_normal(n)
        number = level_numbers(first, n, rows, levels, in_order, rng)
        columns = {"x": x}
        for name, divisor in divisors(design).items():
            level = number // divisor
            y += effects[name][level]
            columns[name] = IDS[0] + IDS[1] * level
        pq.write_table(
            pa.table({"y": y} | columns),
            folder / f"part-{part:04d}.parquet",
            row_group_size=GROUP_ROWS,
            use_dictionary=False,
            column_encoding={"y": "PLAIN", "x": "PLAIN"} | dict.fromkeys(divisors(design), "DELTA_BINARY_PACKED"),
        )
    return sum(file.stat().st_size for file in folder.iterdir())


def divisors(design: str) -> dict[str, int]:
    """{factor: finest levels in one of its levels}, finest first."""
    if design == "intercept":
        return {"g": 1}
    return {"pupil": 1, "class": CLASS_PUPILS, "school": CLASS_PUPILS * SCHOOL_CLASSES}


def sizes(design: str, levels: int) -> dict[str, int]:
    """{factor: levels}."""
    return {name: -(-levels // divisor) for name, divisor in divisors(design).items()}


def fit(folder: str, design: str, workers: int, limit: str, levels_here: bool) -> None:
    """Run in the fresh process: fit and print what was seen as JSON."""
    import bigmm
    from bigmm.planning import placement

    if levels_here:
        placement.SHARE, placement.LARGE_BYTES = 1, 1 << 62
    bigmm.lmm  # noqa: B018  loads everything that a fit needs, before the clock starts
    before, start = anonymous_bytes(), time.perf_counter()
    with AnonymousMemory() as memory:
        model = bigmm.lmm(FORMULAS[design], folder, n_workers=workers, memory_limit=limit)
        seconds = time.perf_counter() - start
        sd = {row.group.partition(":")[0]: row.sdcor for row in model.varcorr.itertuples()}
        text = str(model.summary())
    fitted = model.fitted
    ends = list(accumulate(fitted.seconds.values()))
    report = {
        "seconds": seconds,
        "before": before,
        "anonymous": memory.peak(),
        "resident": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "phases": {
            phase: (spent, memory.peak(end - spent, end))
            for (phase, spent), end in zip(fitted.seconds.items(), ends, strict=True)
        },
        "rows": model.nobs,
        "groups": {name.partition(":")[0]: count for name, count in model.n_groups.items()},
        "passes": model.passes,
        "objective": model.objective,
        "evaluations": model.optimizer_result.evaluations,
        "sd": sd,
        "beta": np.asarray(model.beta).tolist(),
        "converged": bool(model.converged),
        "solver": f"{fitted.solver} ({fitted.solver_reason})",
        "summary": text,
    }
    print(json.dumps(report))


def measure(folder: Path, design: str, given: argparse.Namespace) -> dict:
    """Fit in a fresh process; what it reports about itself."""
    command = [sys.executable, "-m", "benchmarks.bench_many_levels", "--fit", str(folder), "--design", design]
    command += ["--workers", str(given.workers), "--memory-limit", given.memory_limit]
    command += ["--levels-here"] if given.levels_here else []
    environment = os.environ | {"TMPDIR": given.dir}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def show(found: dict, design: str, given: argparse.Namespace) -> None:
    """Figures of a fit, and its claims."""
    levels = ", ".join(f"{name} {count:,}" for name, count in found["groups"].items())
    print(
        f"{found['rows']:,} rows; {levels}: {found['seconds']:.1f} s, {found['passes']} passes, "
        f"{found['evaluations']} evaluations, solver {found['solver']}"
    )
    print(
        f"  peak: anonymous {found['anonymous'] / 2**20:.0f} MiB, resident with mapped files "
        f"{found['resident'] / 2**20:.0f} MiB ({found['before'] / 2**20:.0f} MiB before the fit)"
    )
    phases = (f"{name} {spent:.1f} s {peak / 2**20:.0f} MiB" for name, (spent, peak) in found["phases"].items())
    print(f"  {', '.join(phases)}")
    truth = SD[LAKES[design]] | {"Residual": 1.0}
    shown = ", ".join(f"{name} {found['sd'][name]:.5f} (true {sd})" for name, sd in truth.items())
    print(f"  sd {shown}; beta {np.round(found['beta'], 5).tolist()}; objective {found['objective']:.4f}")
    counts = found["groups"] | {"Residual": found["rows"]}
    allowed = {name: 0.01 + 4.0 / np.sqrt(2.0 * count) for name, count in counts.items()}
    off = max(abs(found["sd"][name] / sd - 1.0) / allowed[name] for name, sd in truth.items())
    at_most(f"{design}: distance from the truth, as a share of 1 % and four standard errors,", off, 1.0)
    limit = float(given.memory_limit.removesuffix("GiB"))
    at_most(f"{design}: peak anonymous memory", found["anonymous"] / 2**30, limit, unit=" GiB")
    at_most(f"{design}: fits that are not certified", float(not found["converged"]), 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=int(os.environ.get("BIGMM_BENCH_ROWS", 100_000_000)))
    parser.add_argument("--levels", type=int, help="of the random intercept; a fifth of the rows")
    parser.add_argument("--pupils", type=int, help="a tenth of --rows, with 3.5 measures each")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--memory-limit", default="4GiB")
    parser.add_argument("--design", choices=list(FORMULAS), help="this one only")
    parser.add_argument("--order", choices=("sorted", "shuffled"), help="this one only")
    parser.add_argument("--dir", default=tempfile.gettempdir(), help="for lakes and temporary files")
    parser.add_argument("--keep", action="store_true", help="leave the lakes there, and use those that are")
    parser.add_argument("--levels-here", action="store_true", help="on the driver, whatever memory that takes")
    parser.add_argument("--fit", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.fit:
        fit(given.fit, given.design, given.workers, given.memory_limit, given.levels_here)
        return
    announce(f"many levels, {given.workers} workers, memory limit {given.memory_limit}")
    pupils = given.pupils or given.rows // 10
    shapes = {"intercept": (given.rows, given.levels or given.rows // 5), "nested": (35 * pupils // 10, pupils)}
    with tempfile.TemporaryDirectory(prefix="bigmm-bench-", dir=given.dir) as temporary:
        base = Path(given.dir) if given.keep else Path(temporary)
        for design in [given.design] if given.design else list(FORMULAS):
            rows, levels = shapes[LAKES[design]]
            for order in [given.order] if given.order else ["sorted", "shuffled"]:
                folder = base / f"many-levels-{LAKES[design]}-{order}-{rows}-{levels}"
                if not folder.exists():
                    start = time.perf_counter()
                    size = write_lake(folder, LAKES[design], rows, levels, order == "sorted")
                    print(f"wrote {rows:,} rows, {size / 1e9:.2f} GB, in {time.perf_counter() - start:.0f} s")
                print(f"-- {design}, {order}: {FORMULAS[design]}")
                show(measure(folder, design, given), design, given)


if __name__ == "__main__":
    main()
