"""NLopt's local algorithms by name (Johnson, The NLopt nonlinear-optimization package)."""

from __future__ import annotations

from contextlib import suppress

import numpy as np

from bigmm.errors import UsageError
from bigmm.optimize.outcome import Problem

ALGORITHMS = {
    "bobyqa": "LN_BOBYQA",
    "newuoa": "LN_NEWUOA_BOUND",
    "cobyla": "LN_COBYLA",
    "nelder_mead": "LN_NELDERMEAD",
    "subplex": "LN_SBPLX",
    "praxis": "LN_PRAXIS",
    "lbfgs": "LD_LBFGS",
    "mma": "LD_MMA",
    "ccsa": "LD_CCSAQ",
    "slsqp": "LD_SLSQP",
    "truncated_newton": "LD_TNEWTON_PRECOND_RESTART",
    "variable_metric": "LD_VAR2",
}
MAX_EVALUATIONS = 20_000


def algorithm(name: str) -> str:
    """NLopt's name of an algorithm; raises UsageError listing the names."""
    key = name.lower().replace("-", "_").removeprefix("nlopt_")
    full_names = {full.lower(): full for full in ALGORITHMS.values()}
    if key in ALGORITHMS:
        return ALGORITHMS[key]
    if key in full_names:
        return full_names[key]
    raise UsageError(f"unknown optimizer {name!r}: choose 'auto', 'newton' or one of {', '.join(ALGORITHMS)}")


def run(problem: Problem, start: np.ndarray, name: str) -> tuple[np.ndarray, float, int, int]:
    """Minimise; returns (theta, value, evaluations, gradient evaluations)."""
    # "auto" rarely needs NLopt, so its import waits for the first use.
    import nlopt

    full = algorithm(name)
    if len(start) == 1 and full == "LN_NEWUOA_BOUND":
        full = "LN_BOBYQA"  # NEWUOA needs two variables; BOBYQA is its successor
    evaluate = problem.evaluate
    count = [0, 0]
    lowest, best = np.inf, start

    def objective(theta: np.ndarray, gradient: np.ndarray) -> float:
        nonlocal lowest, best
        theta = theta.copy()  # NLopt reuses the buffer
        if gradient.size and evaluate is not None:
            model = evaluate(theta)
            gradient[:] = model.gradient
            value = model.value
            count[1] += 1
        else:
            value = problem.value(theta)
        count[0] += 1
        if value < lowest:
            lowest, best = value, theta
        # NLopt's models do arithmetic with values, which infinity and NaN would spoil.
        return value if np.isfinite(value) else 1e300

    optimizer = nlopt.opt(getattr(nlopt, full), len(start))
    optimizer.set_min_objective(objective)
    optimizer.set_lower_bounds(problem.lower)
    optimizer.set_initial_step(np.maximum(0.25 * np.abs(start), 0.05))
    optimizer.set_xtol_rel(1e-10)
    optimizer.set_xtol_abs(1e-10)
    # Far tighter than the certificate of `minimize`.
    optimizer.set_ftol_abs(1e-10)
    optimizer.set_maxeval(MAX_EVALUATIONS)
    # on a failure the best point seen is kept; the certificate decides what it is worth
    with suppress(nlopt.RoundoffLimited, RuntimeError):
        optimizer.optimize(np.maximum(start, problem.lower))
    return best, float(lowest), count[0], count[1]
