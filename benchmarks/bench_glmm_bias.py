"""How far the approximations are off: python -m benchmarks.bench_glmm_bias [--groups 200000]

Random-intercept logit model, beta0 = -1, sd 1, groups of 5: estimates by nagq = 0 (fast), 1 (Laplace), 3, 5, 9. The
limits for infinitely many groups are -.894/.926, -.992/.937, -.993/.980, -1.000/.998 and -1.000/1.000. All fits see one
sample, so the difference from the fit with 9 points, which has no bias to speak of, is nearly free of sampling error.
Claims: these differences within 0.003 of their limits, and the fit with 9 points within four standard errors of the
truth.
"""

from __future__ import annotations

import argparse

import numpy as np
import pyarrow as pa

import bigmm
from benchmarks.machine import announce, at_most, timed

SIZE = 5
LIMITS = {0: (-0.894, 0.926), 1: (-0.992, 0.937), 3: (-0.993, 0.980), 5: (-1.0, 0.998), 9: (-1.0, 1.0)}


def simulate(groups: int, size: int, seed: int) -> pa.Table:
    """Groups in order, ``size`` rows each."""
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(groups, dtype=np.int32), size)
    eta = -1.0 + rng.normal(size=groups)[g]
    return pa.table({"g": g, "y": (rng.random(len(g)) < 1.0 / (1.0 + np.exp(-eta))).astype(np.float64)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    announce(f"Bias of nagq: logit, beta -1, sd 1, {options.groups:,} groups of {SIZE}")
    table = simulate(options.groups, SIZE, options.seed)
    fits = {k: timed(lambda k=k: bigmm.glmm("y ~ 1 + (1 | g)", table, family="bernoulli", nagq=k)) for k in LIMITS}
    show(
        {
            k: (float(fit.params.iloc[0]), float(fit.theta[0]), seconds, fit.fitted.passes)
            for k, (seconds, _, fit) in fits.items()
        }
    )
    error = float(fits[9][2].bse.iloc[0])
    at_most(
        "beta of 9 points, distance from the truth in standard errors,",
        abs(float(fits[9][2].params.iloc[0]) + 1.0) / error,
        4.0,
    )


def show(found: dict[int, tuple[float, float, float, int]]) -> None:
    """The table of estimates, biases and limits, and whether they agree."""
    print("nagq      beta     sigma   bias of beta (limit)   bias of sigma (limit)   seconds  passes")
    worst = 0.0
    for k, (beta, sigma, seconds, passes) in found.items():
        bias = beta - found[9][0], sigma - found[9][1]
        limit = LIMITS[k][0] - LIMITS[9][0], LIMITS[k][1] - LIMITS[9][1]
        worst = max(worst, abs(bias[0] - limit[0]), abs(bias[1] - limit[1]))
        print(
            f"{k:4d}  {beta:8.4f}  {sigma:8.4f}   {bias[0]:+.4f} ({limit[0]:+.3f})       {bias[1]:+.4f} "
            f"({limit[1]:+.3f})        {seconds:8.2f}  {passes:6d}",
            flush=True,
        )
    at_most("the largest difference of a bias from its limit", worst, 0.003)


if __name__ == "__main__":
    main()
