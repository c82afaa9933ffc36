"""Two large crossed factors: a lake of the shape of MovieLens 25M, Parquet to summary with the iterative solver.

    python -m benchmarks.bench_movielens [--rows N] [--dir DIR] [--reml]

Claim: at most 60 s and 3 GiB on two cores for 25 million rows, 162,541 users and 59,047 movies, theta within 1 % of its
standard error of the same fit with 8 times the probes. Published for that shape: MixedModels.jl 9,294 s and 28 GiB
on 48 cores (Bates, Alday and Kokandakar 2025, arXiv:2505.11674).
The fit runs in a fresh process, whose peak memory counts.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import movielens
from benchmarks.machine import announce, at_most

FIT = """
import json, resource, sys, time
import bigmm
from bigmm import solver
small = bigmm.datasets.insteval().head(5000)  # kernels compiled or loaded before the clock starts
bigmm.lmm("y ~ 1 + service + (1 | s) + (1 | d)", small, solver="iterative")
solver.FIRST_PROBES *= int(sys.argv[3])  # the check starts with more probes, of another seed
begun = time.perf_counter()
m = bigmm.lmm("rating ~ 1 + x + (1 | user) + (1 | movie)", sys.argv[1], reml=sys.argv[2] == "reml", solver="iterative",
              seed=int(sys.argv[3]) - 1)
text = str(m.summary())
print(json.dumps({
    "seconds": time.perf_counter() - begun, "phases": dict(m.fitted.seconds), "objective": m.objective,
    "theta": list(m.theta), "error": m.monte_carlo_error, "levels": m.n_groups, "rows": m.nobs,
    "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, "converged": m.converged}))
"""


def fit(lake: Path, criterion: str, more: int = 1) -> dict:
    """One fit in a process of its own, with ``more`` times the usual probes."""
    command = [sys.executable, "-c", FIT, str(lake), criterion, str(more)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Generate, fit, compare with a fit of many more probes, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=movielens.RATINGS)
    parser.add_argument("--dir", type=Path, default=None)
    parser.add_argument("--reml", action="store_true")
    parser.add_argument("--skip-check", action="store_true", help="leave out the second fit with many more probes")
    args = parser.parse_args()
    announce("two large crossed factors, Parquet to summary")
    with tempfile.TemporaryDirectory(dir=args.dir) as scratch:
        lake = Path(scratch) / "ratings"
        rows = movielens.write(lake, args.rows)
        found = fit(lake, "reml" if args.reml else "ml")
        print(
            f"{rows:,} rows, levels {found['levels']}, {'REML' if args.reml else 'ML'}: {found['seconds']:.1f} s, "
            f"peak {found['peak'] / 2**30:.2f} GiB, converged {found['converged']}"
        )
        print("  " + ", ".join(f"{name} {spent:.1f} s" for name, spent in found["phases"].items()))
        print(f"  theta {found['theta']}, Monte Carlo error {found['error']}")
        at_most("Parquet to summary", found["seconds"], 60, unit=" s")
        at_most("peak memory", found["peak"] / 2**30, 3, unit=" GiB")
        if not args.skip_check:
            more = fit(lake, "reml" if args.reml else "ml", 8)
            off = max(
                abs(a - b) / s
                for a, b, s in zip(found["theta"], more["theta"], more["error"]["theta_statistical"], strict=True)
            )
            print(f"  with {more['error']['probes']} probes: theta {more['theta']}, {more['seconds']:.1f} s")
            at_most("distance of theta in standard errors", off, 0.01)


if __name__ == "__main__":
    main()
