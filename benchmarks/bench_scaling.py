"""Time and memory against rows: python -m benchmarks.bench_scaling [--rows 1000000 10000000 25000095] [--dir DIR]
                                                                    [--lakes DIR [DIR ...]]

rating ~ 1 + x + (1 | user) + (1 | movie) on lakes of the shape of MovieLens, users in proportion to rows (162,541 for
25 million), Parquet to summary in a fresh process by the iterative solver. Claim: both are linear in rows: a lake of c
times the rows takes at most 1.25 c times as long, and holds at most 1.25 c times as much beside what an empty process
holds. The search may need an evaluation more on one lake than on another, so time per evaluation is compared too.
--lakes takes lakes that are there already, smallest first. 100 million rows (`make bench-large`) take 11 GiB and
a quarter of an hour to generate.
"""

from __future__ import annotations

import argparse
import tempfile
from itertools import pairwise
from pathlib import Path

from benchmarks import movielens
from benchmarks.bench_movielens import FIT, run
from benchmarks.machine import announce, at_most

FORMULA = "rating ~ 1 + x + (1 | user) + (1 | movie)"
ROWS = (1_000_000, 10_000_000, movielens.RATINGS)
SLACK = 1.25
BARE = 0.3 * 2**30
"""Bytes of a process that has imported the packages and compiled the kernels."""


def generated(rows: int, scratch: Path | None) -> dict:
    """The fit to a lake of so many rows, which is gone afterwards."""
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        lake = Path(directory) / "ratings"
        movielens.write_apart(lake, rows)
        return fitted(lake)


def fitted(lake: Path) -> dict:
    """The fit, and a line about it."""
    one = run(FIT, lake, FORMULA, "ml", 0, 1)
    print(
        f"{one['rows']:>12,} rows, {one['levels']}: {one['seconds']:7.1f} s = "
        f"{1e6 * one['seconds'] / one['rows']:.2f} s a million ({one['cpu']:.1f} s of CPU), "
        f"peak {one['peak'] / 2**30:.2f} GiB, Monte Carlo error {one['error']['objective']:.3f} "
        f"with {one['error']['probes']} probes, {one['evaluations']} evaluations",
        flush=True,
    )
    print("  " + ", ".join(f"{name} {spent:.1f} s" for name, spent in one["phases"].items()), flush=True)
    return one


def main() -> None:
    """Fit each size, print the curve and the ratios of neighbours."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    parser.add_argument("--dir", type=Path, default=None)
    parser.add_argument("--lakes", type=Path, nargs="+", default=())
    args = parser.parse_args()
    announce("two large crossed factors, time and memory against rows")
    found = [fitted(lake) for lake in args.lakes] or [generated(rows, args.dir) for rows in args.rows]
    for small, large in pairwise(found):
        factor = large["rows"] / small["rows"]
        name = f"{small['rows']:,} -> {large['rows']:,} rows"
        at_most(f"time for {name}, over {factor:.1f} times", large["seconds"] / small["seconds"] / factor, SLACK)
        each = [one["phases"]["optimize"] / one["evaluations"] for one in (small, large)]
        at_most(f"time per evaluation for {name}, over {factor:.1f} times", each[1] / each[0] / factor, SLACK)
        memory = (large["peak"] - BARE) / max(small["peak"] - BARE, 1.0)
        at_most(f"memory for {name}, over {factor:.1f} times", memory / factor, SLACK)


if __name__ == "__main__":
    main()
