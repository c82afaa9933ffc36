"""InstEval with departments, Parquet file to estimates: python -m benchmarks.bench_insteval [--rows 73421]

Fits y ~ service + (1 | s) + (1 | d) + (1 | dept) by maximum likelihood to 73,421 ratings (2,972 students, 1,128
lecturers, 14 departments). bigmm is timed from the file to the estimates, warm (kernels compiled, file in the page
cache); lme4 in the same run is timed for lmer() alone, its data already in memory. Claim: at least 8 times faster.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks.machine import announce, at_least, at_most
from benchmarks.peers import Missing, PeerFit, Task, gpboost, lme4, mixedlm, ours
from bigmm import datasets

CLAIM, AIM = 8.0, 20.0
FORMULA = "y ~ service + (1 | s) + (1 | d) + (1 | dept)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=73_421, help="use the first rows only")
    parser.add_argument("--repeats", type=int, default=7, help="of bigmm; lme4 is run twice, the others once")
    options = parser.parse_args()
    announce("InstEval with dept, file to estimates", "statsmodels", "gpboost")
    with tempfile.TemporaryDirectory(prefix="bigmm-bench-") as folder:
        path = Path(folder) / "insteval.parquet"
        datasets.insteval().head(options.rows).to_parquet(path)
        factors = ("service", "s", "d", "dept")
        compare(Task("InstEval", path, FORMULA, "y", ("service",), factors, factors[1:]), options.repeats)


def compare(task: Task, repeats: int) -> None:
    """Print every program's time and log-likelihood, and the verdicts; bigmm and lme4 take turns, the best counts."""
    fits: dict[str, PeerFit] = {}
    for peer, runs in ((ours, repeats), (lme4, 1), (ours, repeats), (lme4, 1), (gpboost, 1), (mixedlm, 1)):
        try:
            fit = peer.fit(task, repeats=runs)
        except Missing as why:
            print(f"skipped {why}")
            continue
        fits[peer.__name__] = min(fits.get(peer.__name__, fit), fit, key=lambda fit: fit.seconds)
    mine = fits[ours.__name__]
    for fit in fits.values():
        sds = ", ".join(f"{name} {value:.5f}" for name, value in fit.sds.items())
        times = f"{fit.seconds:7.3f} s = {fit.seconds / mine.seconds:5.1f} times ours ({fit.timed})"
        print(f"{fit.program:18} {times}, -2 log L {-2 * fit.llf:.4f}; sd {sds} {fit.note}")
    if lme4.__name__ in fits:
        theirs = fits[lme4.__name__]
        at_least("lme4's time over ours", theirs.seconds / mine.seconds, CLAIM, AIM)
        at_most("lme4's log-likelihood less ours", theirs.llf - mine.llf, 1e-4)


if __name__ == "__main__":
    main()
