"""The recipe of a linear mixed model: learn the design, sum the rows, minimise, report."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from bigmm.accumulate import (
    MORE_PASSES,
    N_PARTS,
    Assembled,
    CrossProducts,
    Shift,
    add_up_part,
    assemble,
    first_shift,
    fold_in_parts,
    fold_lane,
    merge,
    next_shift,
    whole,
)
from bigmm.arguments import strict, true_or_false
from bigmm.design import DesignSpec
from bigmm.design.completion import complete_design, row_counts
from bigmm.design.encoding.first_rows import first_rows
from bigmm.errors import DataError, UsageError
from bigmm.execute import Executor, cut_lanes
from bigmm.execute.clock import Clock, peak_rss_bytes
from bigmm.execute.memory import give_back
from bigmm.fit.inputs import InputOptions, Inputs, open_inputs
from bigmm.fit.options import Settings, settings, start_values
from bigmm.objective import ModelCovariance, covariances_for
from bigmm.objective.factorization import Solver
from bigmm.objective.identification import check_identified
from bigmm.planning.limits import check_fewest_pairs, check_pass_memory, checked_solver
from bigmm.planning.memory import accumulator_bytes, has_many_pairs
from bigmm.planning.placement import LevelPlacement, level_placement
from bigmm.results import FittedLmm, LmmResults
from bigmm.results.doubts import warned
from bigmm.search.linear import solve_model
from bigmm.search.options import SearchOptions, checked_seed, checked_tolerance
from bigmm.search.residual import with_residual_advice
from bigmm.shards.level_sums import ShardedModel, level_model, sum_by_level
from bigmm.source import Source
from bigmm.version import __version__


@strict
@warned
def lmm(
    formula: str,
    data: Any,
    *,
    reml: bool = True,
    weights: Any = None,
    offset: Any = None,
    client: Any = None,
    solver: str = "auto",
    optimizer: str = "auto",
    theta0: Any = None,
    seed: int = 0,
    mc_tol: tuple[float, float] = (0.01, 0.05),
    contrasts: dict[str, str] | None = None,
    categories: dict[str, list] | None = None,
    filter: Any = None,
    drop_missing: bool = True,
    store: Any = None,
    progress: Any = None,
    memory_limit: Any = None,
    n_workers: int | None = None,
    partition_bytes: int = 64 << 20,
) -> LmmResults:
    """Fit a linear mixed model by REML (or maximum likelihood) to a table of any size.

    Parameters
    ----------
    formula : str
        The model in lme4's language, for example ``"y ~ 1 + x + (1 + x | g) + (1 | h)"``.
    data : path, table or Dask DataFrame
        A path, list of paths, glob, folder (hive partitions too) or URL of Parquet, a pyarrow Table or Dataset, a
        pandas or polars DataFrame, or a Dask DataFrame. Rows are streamed, and never held as a whole.
    reml : bool
        The REML criterion, or maximum likelihood.
    weights : str or array (n,), optional
        Prior weights w > 0: Var(e_i) = sigma^2 / w_i. The name of a column, or one value for each row of a table in
        memory.
    offset : str or array (n,), optional
        A term of the linear predictor with coefficient 1.
    client : distributed.Client, optional
        The cluster. Without it the current client, or else threads of this process.
    solver : {"auto", "exact", "iterative"}
        Blocked Cholesky factors, or conjugate gradients and probes for crossed factors too large for a dense block
        (docs/iterative.md). "auto" chooses by size, and the result says why.
    optimizer : str
        "auto", "newton", or an algorithm of NLopt such as "bobyqa" (docs/optimizers.md).
    theta0 : array (n_theta,), optional
        Where the search starts, in lme4's order of theta.
    seed : int
        Fixes the probes of the iterative solver.
    mc_tol : tuple of two floats
        What the Monte Carlo error of the iterative solver is brought below: a share of each theta's standard error, and
        the standard error of the objective.
    contrasts : dict of str to str, optional
        Coding of factors, for example ``{"f": "Sum"}``.
    categories : dict of str to list, optional
        Order of the levels of factors.
    filter : str, list of tuples or pyarrow expression, optional
        Which rows are used, for example ``"x > 3 and g == 'a'"`` (docs/filters.md).
    drop_missing : bool
        Drop rows with missing values, and count them in the result. Otherwise such a row is an error.
    store : optional
        Not available in this version.
    progress : bool or callable, optional
        True for a bar, or a function that takes `bigmm.execute.Progress` events.
    memory_limit : str or int, optional
        "4GiB" or bytes. What does not fit is refused before it is computed. Levels of one factor or of nested factors
        stay with the workers where they would take more than half of the limit, or more than 1 GiB; `plan` says so.
    n_workers : int, optional
        Threads of this process.
    partition_bytes : int
        Bytes of a partition in memory.

    Returns
    -------
    LmmResults

    Raises
    ------
    FormulaError, UsageError
        If the formula cannot be read, or an argument has no meaning.
    DataError, ReadError
        If the data cannot be used, with file, row group and column; or cannot be read.
    MemoryLimitError, TemporaryError
        If the fit does not fit the limit, or the cluster does not answer.

    References
    ----------
    Bates, D., Maechler, M., Bolker, B. and Walker, S. (2015). Fitting linear mixed-effects models using lme4. J. Stat.
    Softw. 67(1).

    Examples
    --------
    >>> m = bigmm.lmm("Reaction ~ Days + (Days | Subject)", bigmm.datasets.sleepstudy())
    >>> m.params.round(2).to_dict()
    {'Intercept': 251.41, 'Days': 10.47}
    """
    if store is not None:
        raise UsageError("store= is not available in this version; use save() to keep a fitted model")
    # Arguments that cannot be right are refused before the data are opened.
    how, reml = settings(solver, optimizer, memory_limit, progress), true_or_false("reml", reml)
    mc_tol, seed, theta0 = checked_tolerance(mc_tol), checked_seed(seed), start_values(theta0)
    clock = Clock()
    rows_options = InputOptions(
        formula,
        data,
        weights=weights,
        offset=offset,
        client=client,
        n_workers=n_workers,
        filter=filter,
        partition_bytes=partition_bytes,
        contrasts=contrasts,
        categories=categories,
        drop_missing=drop_missing,
    )
    inputs = open_inputs(rows_options, how, clock)
    ready, spec = summed(inputs, how, clock)
    return fit_assembled(
        ready,
        spec,
        reml=reml,
        how=how,
        clock=clock,
        theta0=theta0,
        seed=seed,
        mc_tol=mc_tol,
        source=inputs.source,
        weights=inputs.weights,
        offset=inputs.offset,
    )


def summed(inputs: Inputs, how: Settings, clock: Clock) -> tuple[Ready, DesignSpec]:
    """The blocks and the design of the rows that count. One pass over the rows, and another where rows were dropped and
    the design without them is another one."""
    source, workers, spec, passes = inputs.source, inputs.workers, inputs.spec, inputs.spec.passes
    while True:
        with clock("accumulate"):
            placement = level_placement(source, spec, workers, how)
            level_sums = None
            if placement is not None:
                level_sums = sum_by_level(source, spec, placement.chain, placement.head, workers, how)
        cross = accumulate(source, spec, workers, how, clock) if level_sums is None else level_sums.products
        with clock("learn"):
            complete, more = complete_design(
                spec, source, workers, row_counts(spec, cross.n, cross.dropped, cross.counts), how.progress
            )
        passes += 1 + more
        # Identity: the same object comes back where nothing changes.
        if complete is spec:
            break
        spec = complete
        del level_sums, cross  # their memory is the next pass's
    if placement is None or level_sums is None:
        ready = assembled_here(cross, spec, workers, how, clock)
        del cross
        give_back()  # the sums of which the blocks were made
    else:
        with clock("accumulate"):
            ready = assembled_there(level_model(level_sums, how), spec, placement)
    return replace(ready, passes=passes), spec


def accumulate(source: Source, spec: DesignSpec, workers: Executor, how: Settings, clock: Clock) -> CrossProducts:
    """One pass over the rows; another where they turn out to be unlike the first ones, by which columns are shifted."""
    with clock("accumulate"):
        # The checks go from cheap to dear: sizes, the first rows, then perhaps the grouping columns.
        check_pass_memory(source, spec, workers.n_workers, how.memory_limit)
        head = first_rows(source, spec)
        check_fewest_pairs(source, spec, workers, how, head)
        shift = first_shift(spec.layout, head)
        cross = one_pass(source, spec, shift, workers, how)
        # Bounded, because no shift suits columns that wander from file to file.
        for _ in range(MORE_PASSES):
            better = next_shift(spec.layout, head, cross)
            if better is None:
                break
            cross = one_pass(source, spec, better, workers, how)
        return cross


def one_pass(source: Source, spec: DesignSpec, shift: Shift, workers: Executor, how: Settings) -> CrossProducts:
    """The sums of all rows about one shift."""
    rows = sum(p.rows for p in source.partitions)
    # Lanes are a function of the data alone, so the sums have the same bits on any number of workers.
    lanes = cut_lanes(source.partitions, accumulator_bytes=accumulator_bytes(spec.layout, rows))
    fold, label = partial(fold_lane, source, spec, shift), "accumulate"
    if has_many_pairs(spec.layout) and not workers.shares_memory:  # in one memory the parts would only be copied
        cut = partial(fold_in_parts, fold)
        return whole(workers.shuffle_once(cut, lanes, add_up_part, N_PARTS, label=label, progress=how.progress))
    return workers.map_reduce(fold, lanes, merge, label=label, rows_total=rows, progress=how.progress)


@dataclass(frozen=True, slots=True)
class Ready:
    """All that a fit needs of the rows.

    Attributes
    ----------
    assembled, covariances : the blocks, and the covariance of the random effects.
    solver, why : name of the solver, and the reason for it.
    rows_read, dropped : counts of rows, dropped ones by reason.
    linear_solver : the solver of levels that stay with the workers; None where the blocks are on the driver.
    passes : number of passes over the rows.
    """

    assembled: Assembled
    covariances: ModelCovariance
    solver: str
    why: str
    rows_read: int
    dropped: dict[str, int]
    linear_solver: Solver | None = None
    passes: int = 0


def assembled_here(cross: CrossProducts, spec: DesignSpec, workers: Executor, how: Settings, clock: Clock) -> Ready:
    """From the sums to the blocks on the driver."""
    with clock("assemble"):
        assembled = assemble(cross, spec.layout)
        covariances = covariances_for(spec.layout, assembled.term_order)
        # Before the solver: a model that cannot be estimated is refused as such, not for its memory.
        check_identified(assembled.gram, covariances)
        chosen, why = checked_solver(assembled.gram, spec.layout, how)
    return Ready(assembled, covariances, chosen, why, cross.rows_read, cross.dropped)


def assembled_there(model: ShardedModel, spec: DesignSpec, placement: LevelPlacement) -> Ready:
    """The blocks of levels that stay with the workers."""
    covariances, facts = covariances_for(spec.layout, placement.chain), model.facts
    return Ready(model.assembled, covariances, "exact", placement.why, facts.rows_read, facts.dropped, model.solver)


def fit_assembled(
    ready: Ready,
    spec: DesignSpec,
    *,
    reml: bool,
    how: Settings,
    clock: Clock,
    theta0: Any,
    seed: int,
    mc_tol: tuple[float, float],
    source: Source,
    weights: str | None,
    offset: str | None,
) -> LmmResults:
    """From the blocks to the fitted model: no row is read again."""
    gram = ready.assembled.gram
    with clock("optimize"):
        options = SearchOptions(theta0, how.optimizer, ready.solver, seed, mc_tol)
        # From here on no row is read: blocks alone decide.
        solved = solve_model(gram, ready.covariances, reml, options, ready.linear_solver)
        criterion, outcome = solved.criterion, solved.outcome
    # r2 = 0 leaves the criterion without a value at every theta, so the search cannot be at fault.
    if not np.isfinite(outcome.value):
        raise DataError(
            f"the fixed and random effects of {spec.settings.formula!r} reproduce the response exactly, so there is no "
            "residual variance to estimate; use fewer effects, or check that no covariate is the response itself"
        )
    with clock("estimate"):
        estimates = criterion.estimates(outcome.theta)
        outcome = with_residual_advice(outcome, float(estimates.sigma), gram)
    return LmmResults(
        FittedLmm(
            formula=spec.settings.formula,
            reml=reml,
            spec=spec,
            assembled=ready.assembled,
            criterion=criterion,
            theta=outcome.theta,
            estimates=estimates,
            outcome=outcome,
            is_singular=bool(outcome.at_boundary.any()),
            nobs=gram.n,
            rows_read=ready.rows_read,
            dropped=tuple(ready.dropped.items()),
            passes=ready.passes,
            seconds=dict(clock.seconds),
            peak_rss_bytes=peak_rss_bytes(),
            solver=ready.solver,
            solver_reason=ready.why,
            monte_carlo_error=None if solved.error is None else solved.error.as_record(),
            data_description=source.description,
            fingerprints=tuple(p.fingerprint for p in source.partitions),
            inventory=source.inventory,
            weights=weights,
            offset=offset,
            bigmm_version=__version__,
            source=source,
        )
    )
