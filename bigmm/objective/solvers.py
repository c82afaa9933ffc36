"""The solvers by the names that users give them: a new one is a line in each table.

`plan` chooses among the names by size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bigmm.blocks.gram import Gram
from bigmm.objective.cholesky import CholeskySolver
from bigmm.objective.factorization import Solver, WorkingSolver
from bigmm.objective.krylov import KrylovSolver, working_accuracy

FIRST_PROBES, FIRST_DEFLATION = 8, 24
"""Random vectors that a search begins with."""


def _linear_krylov(gram: Gram, seed: int) -> KrylovSolver:
    return KrylovSolver(gram, FIRST_PROBES, FIRST_DEFLATION, seed)


def _working_krylov(pattern: Gram, seed: int) -> KrylovSolver:
    return KrylovSolver(pattern, FIRST_PROBES, FIRST_DEFLATION, seed, accuracy=working_accuracy(pattern))


LINEAR_SOLVERS: dict[str, Callable[[Gram, int], Solver]] = {
    "exact": lambda gram, seed: CholeskySolver(gram),
    "iterative": _linear_krylov,
}
WORKING_SOLVERS: dict[str, Callable[[Gram, int], WorkingSolver]] = {
    "exact": lambda pattern, seed: CholeskySolver(pattern),
    "iterative": _working_krylov,
}


def recorded_solver(gram: Gram, record: Mapping[str, Any] | None) -> Solver:
    """The solver that a fit ended with; record: probes, deflation and seed of one with probes, None of an exact one."""
    if record is None:
        return CholeskySolver(gram)
    return KrylovSolver(gram, record["probes"], record["deflation"], record["seed"])
