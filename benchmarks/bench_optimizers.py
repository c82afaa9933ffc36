"""How many evaluations each optimizer needs, and where it ends, on models shipped with the project.

    python -m benchmarks.bench_optimizers

The table of docs/optimizers.md is this script's output; counts do not depend on the machine's load.
"""

from __future__ import annotations

import time

import bigmm
from bigmm.datasets import insteval, pastes, penicillin, sleepstudy

MODELS = [
    ("sleepstudy, correlated slope", "Reaction ~ Days + (Days | Subject)", sleepstudy),
    ("sleepstudy, mean misspecified", "Reaction ~ 1 + (Days | Subject)", sleepstudy),
    ("penicillin, two crossed", "diameter ~ 1 + (1 | plate) + (1 | sample)", penicillin),
    ("pastes, nested", "strength ~ 1 + (1 | batch/cask)", pastes),
    ("InstEval, three crossed", "y ~ service + (1 | s) + (1 | d) + (1 | dept)", insteval),
]
OPTIMIZERS = (
    "auto",
    "newton",
    "bobyqa",
    "cobyla",
    "nelder_mead",
    "subplex",
    "lbfgs",
    "mma",
    "slsqp",
    "variable_metric",
)


def main() -> None:
    """Print one line a model and optimizer."""
    for title, formula, load in MODELS:
        frame = load()
        fits = {}
        for name in OPTIMIZERS:
            begun = time.perf_counter()
            fits[name] = bigmm.lmm(formula, frame, reml=False, optimizer=name), time.perf_counter() - begun
        best = min(fit.objective for fit, _ in fits.values())
        print(f"\n{title}: {formula}")
        print(f"{'optimizer':<16} {'values':>7} {'gradients':>9} {'above best':>11} {'certified':>9} {'seconds':>8}")
        for name, (fit, seconds) in fits.items():
            end = fit.optimizer_result
            print(
                f"{name:<16} {end.evaluations:>7} {end.gradient_evaluations:>9} {fit.objective - best:>11.1e} "
                f"{'yes' if end.converged else 'no':>9} {seconds:>8.2f}"
            )


if __name__ == "__main__":
    main()
