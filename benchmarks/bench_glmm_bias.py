"""How far the approximations are off: python -m benchmarks.bench_glmm_bias [--groups 200000]

Random-intercept logit model, beta0 = -1, sd 1, groups of 5 (a simulation with so many groups that its own error is
small): estimates by nagq = 0 (fast), 1 (Laplace), 3, 5, 9. The limits for infinitely many groups are -.894/.926, -.992/.937,
-.993/.980, -1.000/.998 and -1.000/1.000. Claim: every estimate within four Monte Carlo standard errors (taken from the fit
with 9 points) and .002 of its limit, the precision of those limits and of the sample in common.
"""

from __future__ import annotations

import argparse

import numpy as np
import pyarrow as pa

import bigmm
from benchmarks.machine import announce, timed

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
    parser.add_argument("--size", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    announce(f"Bias of nagq: logit, beta -1, sd 1, {options.groups:,} groups of {options.size}")
    table = simulate(options.groups, options.size, options.seed)
    fits = {k: timed(lambda k=k: bigmm.glmm("y ~ 1 + (1 | g)", table, family="bernoulli", nagq=k)) for k in LIMITS}
    best = fits[9][2]
    # a 95 % interval of sigma in simulations of this design is about 2.3 times as wide as that of beta
    error = float(best.bse.iloc[0])
    print(f"standard error of beta {error:.5f}")
    print("nagq      beta     limit     sigma     limit   seconds  passes")
    for k, (seconds, _, fit) in fits.items():
        beta, sigma = float(fit.params.iloc[0]), float(fit.theta[0])
        near = abs(beta - LIMITS[k][0]) <= 4 * error + 0.002 and abs(sigma - LIMITS[k][1]) <= 10 * error + 0.002
        if options.size != 5:
            verdict = ""
        else:
            verdict = "PASS" if near else "MISSED"
        print(f"{k:4d}  {beta:8.4f}  {LIMITS[k][0]:8.3f}  {sigma:8.4f}  {LIMITS[k][1]:8.3f}  {seconds:8.2f}  {fit.fitted.passes:6d}"
              f"  {verdict}", flush=True)


if __name__ == "__main__":
    main()
