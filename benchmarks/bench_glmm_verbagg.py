"""Verbal aggression, joint Laplace fit: python -m benchmarks.bench_glmm_verbagg [--repeats 7]

r2 ~ Anger + Gender + btype + situ + (1 | id) + (1 | item), 7,584 answers of 316 persons to 24 items, logit link,
crossed random intercepts. bigmm is timed from the Parquet file to the estimates with standard errors, warm; glmer in
the same run with its defaults, its data already in memory. Claim: at least 10 times faster. (MixedModels.jl publishes
2.8 s.)
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.machine import announce, at_least, at_most
from benchmarks.peers import Missing, Task
from benchmarks.peers import glmm as peers

CLAIM, PUBLISHED = 10.0, 2.8
PATH = Path(__file__).parent.parent / "tests" / "reference" / "data" / "verbagg.parquet"
FORMULA = "r2 ~ Anger + Gender + btype + situ + (1 | id) + (1 | item)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="of bigmm, before and after the others; the best counts")
    options = parser.parse_args()
    announce("VerbAgg, joint Laplace fit of crossed random intercepts")
    fixed = ("Anger", "Gender", "btype", "situ")
    task = Task("VerbAgg", PATH, FORMULA, "r2", fixed, ("r2", "id", "item", *fixed[1:]), ("id", "item"))
    peers.ours(task)  # compiles
    fits = [peers.ours(task, options.repeats)]
    for program in ("glmer", "glmmTMB"):
        try:
            fits.append(peers.in_r(task, program))
        except Missing as why:
            print(f"skipped {why}")
    fits[0] = min(fits[0], peers.ours(task, options.repeats), key=lambda fit: fit.seconds)
    peers.show(fits)
    print(f"MixedModels.jl: {PUBLISHED} s published (another machine)")
    for theirs in fits[1:2]:
        at_least(f"{theirs.program}'s time over ours", theirs.seconds / fits[0].seconds, CLAIM)
        at_most(f"{theirs.program}'s log-likelihood less ours", theirs.llf - fits[0].llf, 1e-4)


if __name__ == "__main__":
    main()
