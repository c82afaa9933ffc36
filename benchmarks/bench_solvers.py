"""InstEval by both solvers: python -m benchmarks.bench_solvers

y ~ 1 + service + (1 | s) + (1 | d), 73,421 rows, 2,972 x 1,128 levels: small enough for the exact solver, so that
what the iterative one says of its own error can be seen. Claims: the objectives differ by no more than 4 of the stated
Monte Carlo errors, and that error is below 0.01 when asked for it (``mc_tol=(0.01, 0.01)``); theta differs by less than
1 % of its standard error.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import bigmm
from benchmarks.machine import announce, at_most

FORMULA = "y ~ 1 + service + (1 | s) + (1 | d)"
TOLERANCE = 0.01


def main() -> None:
    """Fit by both, ML and REML, several seeds; print differences and stated errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    announce("InstEval by the exact and the iterative solver")
    frame = bigmm.datasets.insteval()
    for reml in (False, True):
        name = "REML" if reml else "ML"
        begun = time.perf_counter()
        exact = bigmm.lmm(FORMULA, frame, reml=reml, solver="exact")
        print(f"{name}: exact {exact.objective:.5f}, theta {exact.theta}, {time.perf_counter() - begun:.2f} s")
        for seed in range(options.seeds):
            begun = time.perf_counter()
            fit = bigmm.lmm(FORMULA, frame, reml=reml, solver="iterative", seed=seed, mc_tol=(0.01, TOLERANCE))
            error = fit.monte_carlo_error
            spent = f"{error['probes']} probes, {time.perf_counter() - begun:.2f} s"
            print(f"  seed {seed}: {fit.objective:.5f} +- {error['objective']:.2g}, {spent}")
            distance = np.max(np.abs(fit.theta - exact.theta) / error["theta_statistical"])
            at_most("stated error of the objective", error["objective"], TOLERANCE)
            at_most("difference in stated errors", abs(fit.objective - exact.objective) / error["objective"], 4)
            at_most("theta's distance in standard errors", float(distance), 0.01)


if __name__ == "__main__":
    main()
