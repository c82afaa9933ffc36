"""What the iterative solver says of its own errors, beside the truth: python -m benchmarks.bench_error_bars

InstEval, where the exact solver knows the truth: likelihood-ratio tests (a fixed effect, a variance, a slope),
conditional standard deviations, leverages. Claims: Chisq of two iterative fits with common probes is within 4 of its
stated errors of the exact one, and for the first two tests that error is at most a fifth of what two seeds give;
estimated standard deviations and leverages are off by between 0.5 and 2 stated errors in root mean square, and by less
than 2 %.

With --data and --formula also a large table: time for the standard deviations of all levels, and some of them exactly.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np
import pandas as pd

import bigmm
from benchmarks.machine import announce, at_most
from bigmm.results import LmmResults

TWO = "y ~ service + (1 | s) + (1 | d)"
PAIRS = {
    "a fixed effect": ("y ~ 1 + (1 | s) + (1 | d)", TWO),
    "a variance": (TWO, TWO + " + (1 | dept)"),
    "a slope": (TWO, "y ~ service + (1 | s) + (1 + service | d)"),
}
SAMPLE = 60


def main() -> None:
    """Tests, then standard deviations and leverages, then the large table if there is one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="a large table, for example one of benchmarks.movielens")
    parser.add_argument("--formula", default="rating ~ 1 + x + (1 | user) + (1 | movie)")
    options = parser.parse_args()
    announce("error bars of the iterative solver")
    frame = bigmm.datasets.insteval()
    for name, pair in PAIRS.items():
        compare_tests(frame, name, pair)
    compare_spreads(frame)
    if options.data:
        large(options.data, options.formula)


def compare_tests(frame: pd.DataFrame, name: str, pair: tuple[str, str]) -> None:
    """Chisq by the exact solver, with common probes, and with two seeds."""

    def fit(formula: str, **how) -> LmmResults:
        return bigmm.lmm(formula, frame, reml=False, **how)

    exact = bigmm.lrt(*(fit(f, solver="exact") for f in pair)).iloc[1]
    first = fit(pair[0], solver="iterative")
    common = bigmm.lrt(first, fit(pair[1], solver="iterative")).iloc[1]
    other = bigmm.lrt(first, fit(pair[1], solver="iterative", seed=1)).iloc[1]
    print(f"{name}: Chisq exactly {exact['Chisq']:.5f}")
    for row in (common, other):
        print(f"  {row['Chisq']:.5f} +- {row['MC error']:.2g} ({row['Probes']})")
    at_most("off by stated errors", abs(common["Chisq"] - exact["Chisq"]) / common["MC error"], 4)
    if name != "a slope":  # its common probes help less: what two covariates add to the tail is not common
        at_most("error beside that of two seeds", common["MC error"] / other["MC error"], 0.2)


def compare_spreads(frame: pd.DataFrame) -> None:
    """Estimated standard deviations and leverages beside exact ones at the same theta."""
    ours = bigmm.lmm(PAIRS["a slope"][1], frame, solver="iterative")
    there = bigmm.lmm(PAIRS["a slope"][1], frame, solver="exact").fitted
    exact = LmmResults(replace(there, theta=ours.theta, estimates=there.criterion.estimates(ours.theta)))
    found, truth = ours.ranef(condvar=True), exact.ranef(condvar=True)
    for group, table in found.items():
        for name in [column.removesuffix("_mcse") for column in table if column.endswith("_mcse")]:
            report(f"{group}, {name}", table[name], table[f"{name}_mcse"], truth[group][name])
    begun = time.perf_counter()
    rows = ours.augment()
    print(f"leverages of {len(rows):,} rows: {time.perf_counter() - begun:.1f} s")
    report("leverages", rows[".hat"], rows[".hat_mcse"], exact.augment()[".hat"])


def report(what: str, value: pd.Series, error: pd.Series, truth: pd.Series) -> None:
    """Root mean square in stated errors, largest relative difference."""
    rms = float(np.sqrt((((value - truth) / error) ** 2).mean()))
    print(f"{what}: off by {rms:.2f} stated errors in root mean square")
    at_most("too small an error", rms, 2.0)
    at_most("too large an error", 1.0 / rms, 2.0)
    at_most("largest relative difference", float((value / truth - 1).abs().max()), 0.02)


def large(data: str, formula: str) -> None:
    """The standard deviations of all levels, and a sample of them exactly."""
    begun = time.perf_counter()
    model = bigmm.lmm(formula, data, solver="iterative")
    print(f"{formula}: {model.n_groups}, {time.perf_counter() - begun:.1f} s")
    begun = time.perf_counter()
    found = model.ranef(condvar=True)
    print(f"standard deviations of {sum(map(len, found.values())):,} levels: {time.perf_counter() - begun:.1f} s")
    for group, table in found.items():
        if "Intercept_sd_mcse" not in table:
            continue
        some = table.sample(SAMPLE, random_state=0)
        begun = time.perf_counter()
        exact = model.ranef(condvar=True, levels={group: list(some.index)})[group]
        print(f"{group}: {SAMPLE} of them exactly {time.perf_counter() - begun:.1f} s")
        report(group, some["Intercept_sd"], some["Intercept_sd_mcse"], exact["Intercept_sd"])


if __name__ == "__main__":
    main()
