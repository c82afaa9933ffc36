"""The recipe for matrices: sum the rows, minimise over a user-written Lambda(theta), report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from bigmm.accumulate.matrices import assemble_matrices, fold_matrices, matrix_shift, merge
from bigmm.arguments import strict, true_or_false
from bigmm.blocks.matrices import MatrixGram
from bigmm.errors import DataError, MemoryLimitError, UsageError
from bigmm.execute import Executor, cut_lanes, executor
from bigmm.execute.clock import Clock
from bigmm.fit.options import Settings, settings
from bigmm.objective.general import GeneralCriterion, factor_kind
from bigmm.objective.lambda_function import checked_lambda, start_and_bounds
from bigmm.optimize import Problem, minimize
from bigmm.optimize.nlopt_methods import algorithm
from bigmm.planning import memory
from bigmm.results.arrays_model import FittedArrays, LmmArraysResults
from bigmm.results.doubts import warned
from bigmm.source.matrices import MatrixPartition, MatrixRows, open_matrix, partition_matrices
from bigmm.version import __version__


@strict
@warned
def lmm_from_arrays(
    y: Any,
    X: Any,
    Z: Any,
    lambda_fn: Callable[[np.ndarray], Any] | None = None,
    theta0: Any = None,
    lower: Any = None,
    weights: Any = None,
    offset: Any = None,
    reml: bool = True,
    *,
    optimizer: str = "auto",
    client: Any = None,
    x_names: Sequence[str] | None = None,
    progress: Any = None,
    memory_limit: Any = None,
    seed: int = 0,
    n_workers: int | None = None,
    partition_bytes: int = 64 << 20,
    chunk_rows: int | None = None,
) -> LmmArraysResults:
    """Fit y = X beta + Z b + e, b ~ N(0, sigma^2 Lambda Lambda'), e ~ N(0, sigma^2 W^-1), with any Lambda(theta).

    Parameters
    ----------
    y : array (n,)
        Response. NumPy, Dask or zarr arrays, or data frames, here and below. Dask and zarr arrays are read once, chunk
        by chunk, and never held as a whole.
    X : array (n, p)
        Model matrix of the fixed effects. Columns that depend on earlier ones are dropped and have NaN coefficients.
    Z : array (n, q)
        Covariates of the random effects: scipy.sparse, a Dask array of sparse or dense chunks, NumPy or zarr.
    lambda_fn : callable, optional
        theta (n_theta,) to the relative covariance factor (q, q), lower triangular, scipy.sparse or dense: AR(1), a
        pedigree, a spline penalty, one theta shared by several terms. None means theta times the identity.
    theta0 : array (n_theta,), optional
        Where the search starts; needed with `lambda_fn`.
    lower : array (n_theta,), optional
        Lower bounds, -inf by default, 0 without `lambda_fn`. Give scales a bound of 0, or their signs are arbitrary.
    weights : array (n,), optional
        Prior weights w > 0: Var(e_i) = sigma^2 / w_i.
    offset : array (n,), optional
        A term of the linear predictor with coefficient 1.
    reml : bool
        The REML criterion, or maximum likelihood.
    optimizer : str
        "auto" (BOBYQA of NLopt, started again until finite differences certify the minimum), or an algorithm of NLopt
        that needs no gradient.
    client : distributed.Client, optional
        The cluster. Without it the current client, or else threads of this process.
    x_names : sequence of str, optional
        Names of the coefficients (p,). By default the columns of a data frame, or x1, x2, ...
    progress : bool or callable, optional
        True for a bar, or a function that takes `bigmm.execute.Progress` events.
    memory_limit : str or int, optional
        "4GiB" or bytes. What does not fit is refused before it is computed.
    seed : int
        Has no effect: nothing is random here.
    n_workers : int, optional
        Threads of this process.
    partition_bytes, chunk_rows : int, optional
        How rows are cut when no array brings chunks. The same cuts give the same bits.

    Returns
    -------
    LmmArraysResults

    Raises
    ------
    UsageError, DataError, MemoryLimitError, TemporaryError
    """
    how, reml = settings("auto", optimizer, memory_limit, progress), true_or_false("reml", reml)
    _check_optimizer(optimizer)
    start, bounds = start_and_bounds(lambda_fn, theta0, lower)
    clock = Clock()
    with clock("open"):
        arrays = _open({"Z": Z, "X": X, "y": y, "weights": weights, "offset": offset})
        names = _names(arrays["X"], x_names)
        # A function that does not fit is refused by its call at the start, before any row is read.
        function = checked_lambda(lambda_fn, arrays["Z"].shape[1])
        function(start)
        rows = partition_matrices(arrays, partition_bytes=partition_bytes, chunk_rows=_chunk_rows(chunk_rows))
    with clock("accumulate"):
        gram = _accumulate(rows, arrays, executor(client, n_workers), how)
    with clock("optimize"):
        # The pattern of Lambda at the start stands for all theta: it decides the kind of factor once.
        kind, factor_bytes = factor_kind(gram, function(start))
        _check_memory(kind, factor_bytes, gram.q, how.memory_limit)
        criterion = GeneralCriterion(gram, function, reml, kind)
        _check_start(criterion, start)
        # No gradient: how Lambda depends on theta is unknown.
        outcome = minimize(Problem(criterion.value, None, bounds, (start,)), how.optimizer)
    with clock("estimate"):
        estimates = criterion.estimates(outcome.theta)
    return LmmArraysResults(
        FittedArrays(
            columns=names,
            reml=reml,
            criterion=criterion,
            theta=outcome.theta,
            lam=function(outcome.theta),
            estimates=estimates,
            outcome=outcome,
            nobs=gram.n,
            seconds=dict(clock.seconds),
            solver=criterion.kind,
            bigmm_version=__version__,
            rows=rows,
        )
    )


def _accumulate(
    rows: tuple[MatrixPartition, ...], arrays: Mapping[str, MatrixRows], workers: Executor, how: Settings
) -> MatrixGram:
    """One pass over the rows."""
    n, q, p = arrays["y"].shape[0], arrays["Z"].shape[1], arrays["X"].shape[1]
    one = memory.matrix_accumulator_bytes(q, p, arrays["Z"].nbytes // 8)
    largest = max(part.nbytes for part in rows)
    nbytes = memory.matrix_pass_bytes(q, p, largest, len(rows), workers.n_workers)
    if nbytes > how.memory_limit:
        sizes = (nbytes / 2**30, largest / 2**20, how.memory_limit / 2**30)
        raise MemoryLimitError(
            f"the pass over the rows needs about {sizes[0]:.1f} GiB with {workers.n_workers} workers and chunks of "
            f"{sizes[1]:.0f} MiB but the limit is {sizes[2]:.1f} GiB: raise memory_limit, use smaller chunks "
            "(chunk_rows=, partition_bytes=) or fewer workers"
        )
    # From the first rows alone, so that all workers sum about one point, whatever their number.
    shift = matrix_shift(rows[0])
    lanes = cut_lanes(rows, accumulator_bytes=one)
    sums = workers.map_reduce(
        partial(fold_matrices, shift), lanes, merge, label="accumulate", rows_total=n, progress=how.progress
    )
    return assemble_matrices(sums, shift)


def _open(arguments: Mapping[str, Any]) -> dict[str, MatrixRows]:
    """The arrays that were given, their shapes checked against each other."""
    arrays = {name: open_matrix(values, name) for name, values in arguments.items() if values is not None}
    for name in ("y", "X", "Z"):
        if name not in arrays:
            raise UsageError(f"{name} is missing: lmm_from_arrays needs y (n,), X (n, p) and Z (n, q)")
    n = arrays["y"].shape[0] if arrays["y"].shape else 0
    for name, array in arrays.items():
        dimensions = 2 if name in ("X", "Z") else 1
        if len(array.shape) != dimensions:
            shape = "(n, columns)" if dimensions == 2 else "(n,)"
            raise UsageError(f"{name} must have shape {shape}, got {array.shape}")
        if array.shape[0] != n:
            raise UsageError(f"{name} has {array.shape[0]} rows but y has {n}")
        if dimensions == 2 and array.shape[1] == 0:
            raise UsageError(f"{name} has no columns")
    if n == 0:
        raise DataError("y has no rows")
    return arrays


def _names(x: MatrixRows, x_names: Sequence[str] | None) -> tuple[str, ...]:
    p = x.shape[1]
    # Labels of a data frame need not be text.
    names = tuple(map(str, x_names)) if x_names is not None else x.names or tuple(f"x{i + 1}" for i in range(p))
    if len(names) != p:
        raise UsageError(f"x_names has {len(names)} names but X has {p} columns")
    return names


def _chunk_rows(chunk_rows: int | None) -> int | None:
    if chunk_rows is not None and chunk_rows < 1:
        raise UsageError(f"chunk_rows must be at least 1, got {chunk_rows}")
    return chunk_rows


def _check_optimizer(optimizer: str) -> None:
    if optimizer != "auto" and (optimizer == "newton" or algorithm(optimizer).startswith("LD_")):
        raise UsageError(
            f"optimizer {optimizer!r} needs the gradient, which a user-written lambda_fn does not give: choose 'auto', "
            "'bobyqa', 'newuoa', 'cobyla', 'nelder_mead', 'subplex' or 'praxis'"
        )


def _check_start(criterion: GeneralCriterion, start: np.ndarray) -> None:
    # A search without derivatives that starts at infinity has nothing to compare with.
    if not np.isfinite(criterion.value(start)):
        raise DataError(
            f"the criterion has no value at theta0 = {start}: X and Z reproduce the response exactly, so there is no "
            "residual variance, or Lambda(theta0) is far too large; drop columns, or start elsewhere"
        )


def _check_memory(kind: str, factor_bytes: int, q: int, limit: int) -> None:
    """Raises MemoryLimitError when a factor of M, M itself and the products that make it do not fit."""
    nbytes = memory.matrix_solver_bytes(factor_bytes)
    if nbytes > limit:
        raise MemoryLimitError(
            f"the {kind} Cholesky factor of {q} random effects needs about {nbytes / 2**30:.1f} GiB "
            f"but the limit is {limit / 2**30:.1f} GiB: raise memory_limit, or use fewer random effects"
        )
