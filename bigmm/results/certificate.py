"""The exact objective at the optimum that the iterative solver found: one tiled Cholesky factorization, on the workers
of a cluster where no single machine has room for it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy import stats

from bigmm.blocks.analysis import analyse
from bigmm.blocks.exact.factor import NotPositiveDefiniteError
from bigmm.blocks.tiles import cholesky as tiles
from bigmm.display import progress_callback
from bigmm.errors import DataError, MemoryLimitError, UsageError
from bigmm.execute import Executor, executor
from bigmm.execute.memory import memory_bytes
from bigmm.execute.spill import check_disk
from bigmm.execute.tasks import Task
from bigmm.results.fitted import FittedModel

NORMAL_ERRORS = 4.0
"""An estimate may be off by so many Monte Carlo errors, if these are exact and not estimated from few probes."""
TINY = 1e-8
"""Relative difference that counts as none: the tolerance of conjugate gradients."""
MOST_ROWS = 128
"""Tiles in a row, at most: their cube over six are tasks."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """The objective at theta twice: exact, and as the fit has it.

    Attributes
    ----------
    criterion : str
        "REML" or "maximum likelihood".
    difference : float
        objective_fit - objective_exact.
    monte_carlo_error : float
        Standard error that the fit states, 0 for the exact solver.
    probes : int
        Number of probes behind that error.
    z : float
        difference / monte_carlo_error.
    allowed : float
        The most that abs(z) may be (`allowed_errors`).
    within : bool
        abs(z) is at most `allowed`, or the difference is below 1e-8 of the objective.
    columns : int
        Columns of the matrix that was factored.
    tile, n_tiles : int
        Rows of a tile, and number of tiles of the lower triangle.
    bytes, flops
        The most bytes at one time, and the operations, as predicted.
    where : str
        The workers or threads.
    """

    formula: str
    criterion: str
    solver: str
    objective_exact: float
    objective_fit: float
    difference: float
    monte_carlo_error: float
    probes: int
    z: float
    allowed: float
    within: bool
    columns: int
    tile: int
    n_tiles: int
    bytes: int
    flops: float
    seconds: float
    where: str

    def as_record(self) -> dict[str, Any]:
        """Plain values, for JSON; an infinite z is None."""
        return asdict(self) | {"z": self.z if math.isfinite(self.z) else None}

    def summary(self) -> str:
        """A few lines of text."""
        exact = self.solver == "exact"
        error = f"{self.monte_carlo_error:.2g}"
        off = "" if exact else f" = {self.z:.2f} times the stated Monte Carlo error of {error}"
        lines = [
            f"Certificate of {self.formula} by {self.criterion}",
            f"  objective of the fit   {self.objective_fit:.6f}",
            f"  exact objective        {self.objective_exact:.6f}",
            f"  difference             {self.difference:.6f}{off}",
            f"  {'WITHIN' if self.within else 'NOT WITHIN'} {self.allowed:.2g} standard errors ({self._why()})",
        ]
        if exact:
            lines[-1] = "  the fit is the exact solver's: its objective was evaluated again, there is no error to check"
        else:
            lines.append(
                f"  {self.columns:,} columns in {self.n_tiles:,} tiles of {self.tile:,}: {_gib(self.bytes)} at once, "
                f"{self.flops:.2g} flops, {self.seconds:.1f} s on {self.where}"
            )
        return "\n".join(lines)

    def _why(self) -> str:
        return f"as rare as {NORMAL_ERRORS:.0f} normal ones: Student's t, {self.probes} probes"

    def __str__(self) -> str:
        return self.summary()


def allowed_errors(probes: int) -> float:
    """As improbable for Student's t with probes - 1 degrees of freedom as `NORMAL_ERRORS` are for a normal variable:
    the stated error is estimated from so many probes itself. 4.0 without end, 4.3 for 64, 5.5 for 16, 8.5 for 8."""
    if probes < 2:
        return NORMAL_ERRORS
    # Upper tails throughout: cdf values so close to one would lose their digits.
    return float(stats.t.isf(stats.norm.sf(NORMAL_ERRORS), probes - 1))


@dataclass(frozen=True, slots=True)
class Cost:
    """Predicted cost: `bytes` at one time with all tiles in memory, and the `least` with tiles in a temporary file."""

    bytes: int
    least: int
    tile_bytes: int
    flops: float


def certify(
    fitted: FittedModel,
    client: Any = None,
    n_workers: int | None = None,
    memory_limit: Any = None,
    tile: int | None = None,
    progress: Any = None,
) -> Certificate:
    """The exact objective at the fit's theta; raises MemoryLimitError before it starts when it does not fit."""
    start, report = time.perf_counter(), progress_callback(progress)
    limit = None if memory_limit is None else memory_bytes(memory_limit)
    workers = executor(client, n_workers)
    # Nothing is estimated here, so the check is that the same theta gives the same number again.
    if fitted.criterion.solver.is_exact:
        return _again(fitted, start)
    reduced = _reduced(fitted)
    tiling = tiles.Tiling(reduced.size, _tile(reduced.size, tile))
    cost = predicted_cost(reduced, tiling, workers)
    memory = _room(cost, limit, workers, tile_given=tile is not None)
    graph = cholesky_tasks(reduced, tiling)
    ahead = (workers.n_workers + 1) * (tiling.n + 3)  # so many chains of updates can be under way
    try:
        results = workers.run_graph(graph, label="certify", ahead=ahead, memory=memory, progress=report)
    except NotPositiveDefiniteError as error:
        raise DataError(
            f"the exact Schur complement at theta = {fitted.theta} is not positive definite ({error}): the effects "
            "reproduce the response almost exactly, or covariates are of very different size; scale the covariates"
        ) from error
    # Pivots come back in the order of columns, so log|L| sums them in one order on any number of workers.
    diagonal = np.concatenate([results["pivots", j] for j in range(tiling.n)])
    exact = fitted.criterion.value_of(tiles.read_pivots(reduced, diagonal))
    return _certificate(fitted, exact, reduced.size, tiling, cost, start, repr(workers))


def _again(fitted: FittedModel, start: float) -> Certificate:
    """The exact solver's own objective, evaluated once more."""
    criterion = fitted.criterion
    exact = criterion.value_of(criterion.solver.factor(criterion.covariances.working(criterion.gram, fitted.theta)))
    none = Cost(0, 0, 0, 0.0)
    return _certificate(fitted, exact, 0, tiles.Tiling(0, 1), none, start, "this process")


def _certificate(
    fitted: FittedModel,
    exact: float,
    columns: int,
    tiling: tiles.Tiling,
    cost: Cost,
    start: float,
    where: str,
) -> Certificate:
    objective, exact = float(fitted.estimates.objective), float(exact)
    stated = fitted.monte_carlo_error or {}
    error, probes = float(stated.get("objective", 0.0)), int(stated.get("probes", 0))
    allowed = allowed_errors(probes)
    difference = objective - exact
    tiny = abs(difference) <= TINY * max(abs(exact), 1.0)
    # A stated error of zero allows no difference beyond rounding.
    z = difference / error if error else 0.0 if tiny else math.copysign(math.inf, difference)
    return Certificate(
        fitted.formula,
        fitted.method,
        fitted.solver,
        exact,
        objective,
        difference,
        error,
        probes,
        z,
        allowed,
        tiny or abs(z) <= allowed,
        columns,
        tiling.tile if columns else 0,
        tiling.n_tiles,
        cost.bytes,
        cost.flops,
        time.perf_counter() - start,
        where,
    )


def _reduced(fitted: FittedModel) -> tiles.Reduced:
    """Eliminated in the exact solver's order, which leaves the fewest columns; the iterative one may have another."""
    criterion = fitted.criterion
    lams = criterion.covariances.working(criterion.gram, fitted.theta)
    # The dense tail would be formed whole; here it is what the tiles cut.
    return tiles.reduce(analyse(criterion.gram, dense_tail=False), lams)


def _tile(size: int, rows: int | None) -> int:
    if rows is None:
        return tiles.default_tile(size)
    # True is an int in Python, and tile=True is a mistake.
    if isinstance(rows, bool) or not isinstance(rows, int) or rows < 1:
        raise UsageError(f"tile must be a positive number of rows, got {rows!r}")
    if rows * MOST_ROWS < size:
        raise UsageError(
            f"tile={rows} cuts {size:,} columns into more than {MOST_ROWS} tiles a side, which are too many tasks: "
            f"use at least {-(-size // MOST_ROWS)}, or leave it out for {tiles.default_tile(size)}"
        )
    return min(rows, size)


def predicted_cost(reduced: tiles.Reduced, tiling: tiles.Tiling, workers: Executor) -> Cost:
    """Bytes and flops of the factorization, computed before it starts."""
    threads, processes = workers.n_workers, workers.capacity().processes
    tile_bytes = 8 * tiling.tile**2
    reduced_bytes = reduced.panel_bytes + reduced.nbytes
    # beside what has to be there, every worker has copies of the row of tiles that all others are multiplied by
    copies = tiling.n if processes > 1 else 0
    at_once = tiles.most_tiles(tiling.n) + 2 * threads + processes * copies
    # An update reads two tiles and writes a third.
    least = min(tiles.most_tiles(tiling.n), 3 * threads + 2) + 2 * threads
    # n^3 / 3 flops of a Cholesky factorization of order n.
    flops = reduced.size**3 / 3 + reduced.assembly_flops
    return Cost(reduced_bytes + tile_bytes * at_once, reduced_bytes + tile_bytes * least, tile_bytes, flops)


def _room(cost: Cost, limit: int | None, workers: Executor, tile_given: bool) -> int | None:
    """Bytes of tiles to keep in memory, None for all; MemoryLimitError when there is no way."""
    # Tiles stay in the memory of workers in other processes: no file is open to all of them.
    if not workers.shares_memory:
        available = min([x for x in (limit, workers.capacity().bytes) if x is not None], default=None)
        if available is not None and cost.bytes > available:
            raise MemoryLimitError(
                f"the exact factorization needs about {_gib(cost.bytes)} ({cost.flops:.2g} flops) but {workers} offers "
                f"{_gib(available)} (Dask's memory target): add workers, give them more memory, raise memory_limit, or "
                "use n_workers= for threads of this process with tiles in a temporary file"
            )
        return None
    limit = memory_bytes(limit)
    if cost.bytes <= limit:
        return None
    if cost.least > limit:
        smaller = "a smaller tile" if tile_given else "tile= for smaller tiles"
        raise MemoryLimitError(
            f"the exact factorization needs about {_gib(cost.bytes)} ({cost.flops:.2g} flops), and {_gib(cost.least)} "
            f"even with its tiles in a temporary file, but the limit is {_gib(limit)}: raise memory_limit, use fewer "
            f"threads (n_workers=1), {smaller}, or a cluster (client=)"
        )
    # A disk that is too small would end the run late.
    check_disk(cost.bytes, "the tiles")
    return limit - (cost.least - 3 * workers.n_workers * cost.tile_bytes)


def _gib(n: float) -> str:
    return f"{n / 2**30:.2f} GiB"


def cholesky_tasks(reduced: tiles.Reduced, tiling: tiles.Tiling) -> list[Task]:
    """The schedule as tasks; tiles of one row have their home on one worker, so that only the row they are multiplied
    by travels."""
    work: dict[str, Callable[..., Any]] = {
        "assemble": tiles.assemble,
        "update": tiles.update,
        "factor": tiles.factor,
        "solve": tiles.solve,
        "pivots": tiles.pivots,
    }
    tasks = []
    for name, needs in tiles.schedule(tiling.n):
        kind, row = name[0], name[1]
        # A panel is data and no computation. The task only gives it a home on a worker.
        if kind == "panel":
            tasks.append(Task(name, _as_it_is, needs, partial(reduced.panel, *tiling.span(row)), row))
        else:
            tasks.append(Task(name, work[kind], needs, None, row, kind == "pivots"))
    return tasks


def _as_it_is(value: Any) -> Any:
    return value
