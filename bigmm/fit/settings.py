"""What users may say about how a fit runs: checked once, as one frozen value."""

from __future__ import annotations

from typing import Any

import numpy as np

from bigmm.display import progress_callback
from bigmm.errors import UsageError
from bigmm.execute.memory import memory_bytes
from bigmm.objective.solvers import LINEAR_SOLVERS
from bigmm.planning.settings import Settings


def start_values(theta0: Any) -> np.ndarray | None:
    """theta0 as numbers, None without; raises UsageError."""
    if theta0 is None:
        return None
    try:
        return np.asarray(theta0, dtype=float)
    except (TypeError, ValueError) as error:
        raise UsageError(f"theta0 must be numbers, one per element of theta, got {theta0!r}") from error


def settings(solver: str, optimizer: str, memory_limit: Any, progress: Any) -> Settings:
    """Check the options that say how a fit runs; raises UsageError."""
    from bigmm.optimize import nlopt_methods

    if solver not in ("auto", *LINEAR_SOLVERS):
        names = ["'auto'", *map(repr, LINEAR_SOLVERS)]
        raise UsageError(f"unknown solver {solver!r}: choose {', '.join(names[:-1])} or {names[-1]}")
    if not isinstance(optimizer, str):
        raise UsageError(f"optimizer must be a name such as 'auto', 'newton' or 'bobyqa', got {optimizer!r}")
    if optimizer not in ("auto", "newton"):
        nlopt_methods.algorithm(optimizer)
    return Settings(solver, optimizer, memory_bytes(memory_limit), progress_callback(progress))
