"""The recipe of a generalized linear mixed model: learn the design, hold the rows in shards, minimise, report."""

from __future__ import annotations

from typing import Any

from bigmm.arguments import strict
from bigmm.design.completion import check_response, complete_design, row_counts
from bigmm.design.encoding.first_rows import first_rows
from bigmm.errors import UsageError
from bigmm.execute.clock import Clock, peak_rss_bytes
from bigmm.fit.inputs import InputOptions, open_inputs
from bigmm.fit.options import check_terms, glmm_options, settings, start_values
from bigmm.laplace.glmm_data import glmm_data, shard_rows, with_counted_rows
from bigmm.laplace.start import glm_start
from bigmm.objective.montecarlo import TOLERANCE
from bigmm.planning.limits import check_fewest_pairs, checked_solver
from bigmm.planning.placement import shard_chain
from bigmm.planning.sharding import row_sizes, storage
from bigmm.results import FittedGlmm, GlmmResults
from bigmm.results.doubts import warned
from bigmm.search.driver import quiet_driver
from bigmm.search.glmm import GlmmSearch
from bigmm.search.options import SearchOptions, checked_seed, checked_tolerance
from bigmm.search.postfit import postfit
from bigmm.version import __version__

SINGULAR = 1e-4
"""A scale below this is shown as singular, in units of the linear predictor."""


@strict
@warned
def glmm(
    formula: str,
    data: Any,
    *,
    family: Any,
    link: str | None = None,
    nagq: int = 1,
    laplace: str | None = None,
    se: str = "hessian",
    weights: Any = None,
    offset: Any = None,
    client: Any = None,
    solver: str = "auto",
    optimizer: str = "auto",
    theta0: Any = None,
    seed: int = 0,
    mc_tol: tuple[float, float] = TOLERANCE,
    contrasts: dict[str, str] | None = None,
    categories: dict[str, list] | None = None,
    filter: Any = None,
    drop_missing: bool = True,
    store: Any = None,
    progress: Any = None,
    memory_limit: Any = None,
    n_workers: int | None = None,
    partition_bytes: int = 64 << 20,
    compress: str | bool = "auto",
    success: Any = None,
) -> GlmmResults:
    """Fit a generalized linear mixed model by maximum likelihood (Laplace approximation or adaptive quadrature).

    Parameters
    ----------
    formula, data, weights, offset, client, optimizer, theta0, seed, contrasts, categories, filter, drop_missing
        As in `lmm`.
    store, progress, memory_limit, n_workers, partition_bytes
        As in `lmm`.
    solver, mc_tol
        As in `lmm`. Under the iterative solver the log-likelihood and its gradient are estimates.
    family : str
        "bernoulli", "binomial" (a proportion with the trials as weights, ``cbind(success, failure)`` or
        ``successes / trials``), "poisson", "negative_binomial", "gamma", "inverse_gaussian", "gaussian", or another
        family that docs/glmm.md lists.
    link : str, optional
        "logit", "probit", "cloglog", "cauchit", "log", "identity", "inverse" or "sqrt". None means the family's
        default.
    nagq : int
        0: coefficients from penalized least squares (fast, biased). 1: the Laplace approximation, joint in beta and
        theta. k: adaptive Gauss-Hermite quadrature with k points, for one grouping factor with a scalar effect.
    laplace : {"expected", "observed"}, optional
        The weights in log|M|. None means expected (lme4) for families without a dispersion, and observed for the
        others, which gives the full likelihood (glmmTMB).
    se : {"hessian", "rx"}
        Standard errors from the Hessian of the maximised objective, or from the working model given theta.
    compress : {"auto", False}
        Count identical rows once where that at least halves them. That is exact, and possible for bernoulli, binomial
        and poisson responses.
    success : level or list of levels, optional
        Levels of a categorical response that count as 1; the others are 0. Without it a response of text, categories or
        booleans has two levels, of which the second is modelled, and a number is 0 or 1.

    Returns
    -------
    GlmmResults

    Raises
    ------
    FormulaError, UsageError, DataError, ReadError, MemoryLimitError, TemporaryError
        As `lmm`. A response outside the family's range is a DataError with file, row group and value.

    Examples
    --------
    >>> data = bigmm.datasets.insteval().head(2000)
    >>> m = bigmm.glmm("high ~ 1 + (1 | d)", data.assign(high=data.y > 3), family="bernoulli")
    >>> m.converged
    True
    """
    if store is not None:
        raise UsageError("store= is not available in this version; use save() to keep a fitted model")
    how = settings(solver, optimizer, memory_limit, progress)
    # All options are checked before the data are opened, which may take minutes over a network.
    options = glmm_options(family, link, nagq, laplace, success)
    if se not in ("hessian", "rx"):
        raise UsageError(f"se must be 'hessian' or 'rx', got {se!r}")
    if compress not in ("auto", False):
        raise UsageError(f"compress must be 'auto' or False, got {compress!r}")
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
        binomial=options.binomial,
        success=success,
    )
    inputs = open_inputs(rows_options, how, clock)
    source, workers, spec, passes = inputs.source, inputs.workers, inputs.spec, inputs.spec.passes
    # Before the rows are brought into shards, which is the longest pass.
    passes += check_response(spec, source, workers)
    while True:
        check_terms(spec, options.nagq)
        with clock("shard"):
            head = first_rows(source, spec)
            chain = shard_chain(source, spec, workers, head, options.nagq, how.progress)
            stored = storage(spec.layout, row_sizes(source, spec.layout, head), chain, workers, how.memory_limit)
            # Only crossed factors have a block beside their rows that can be too large before anything is read.
            if chain is None:
                check_fewest_pairs(source, spec, workers, how, head, stored.resident)
            rows = shard_rows(source, spec, options.family, workers, how, chain, head)
        with clock("learn"):
            sums = rows.look.products
            counts = row_counts(spec, sums.n, dict(rows.look.dropped), sums.counts)
            complete, more = complete_design(spec, source, workers, counts, how.progress)
        passes += rows.passes + more
        # Identity says that nothing changed: an equal design would be a second pass for nothing.
        if complete is spec:
            break
        spec = complete
        del rows  # their memory is the next pass's
    with clock("shard"):
        model = glmm_data(rows, spec, options.family)
        gram = model.assembled.gram
        solved_by, why = checked_solver(gram, spec.layout, how, stored.resident if chain is None else None)
    with clock("start"):
        start = glm_start(model.shards.map, options.family, model.fixed_columns, model.assembled.gram.n)
        # After the start, which needs the rows as they are. The search needs only how many there are of each kind.
        if compress == "auto":
            model = with_counted_rows(model)
    with clock("optimize"), quiet_driver(model.assembled.gram):
        search_options = SearchOptions(theta0, how.optimizer, solved_by, seed, mc_tol)
        search = GlmmSearch(model, start, options.nagq, options.observed, search_options)
        model = search.model
        outcome = search.run()
    with clock("estimate"), quiet_driver(model.assembled.gram):
        fitted = postfit(search, outcome, se)
    return GlmmResults(
        FittedGlmm(
            formula=spec.settings.formula,
            reml=False,
            spec=spec,
            assembled=fitted.assembled,
            criterion=fitted.working,
            theta=fitted.theta,
            estimates=fitted.estimates,
            outcome=fitted.outcome,
            is_singular=is_singular(search),
            nobs=model.assembled.gram.n,
            rows_read=model.rows_read,
            dropped=model.dropped,
            passes=passes + start.passes + search.passes,
            seconds=dict(clock.seconds),
            peak_rss_bytes=peak_rss_bytes(),
            solver=solved_by,
            solver_reason=why,
            monte_carlo_error=fitted.error,
            data_description=source.description,
            fingerprints=tuple(p.fingerprint for p in source.partitions),
            inventory=source.inventory,
            weights=inputs.weights,
            offset=inputs.offset,
            bigmm_version=__version__,
            source=source,
            family=options.family,
            phi=fitted.phi,
            nagq=options.nagq,
            laplace="observed" if options.observed else "expected",
            working_weights="observed" if fitted.observed else "expected",
            se_method=fitted.se_method,
            penalized=fitted.penalized,
            compressed_rows=model.compressed_rows,
        )
    )


def is_singular(search: GlmmSearch) -> bool:
    """Is some variance zero, or some correlation one? The search's coordinates know no unit of a covariate."""
    coordinates = search.coordinates
    return bool(coordinates.frame.at_boundary(coordinates.eta(search.end), SINGULAR).any())
