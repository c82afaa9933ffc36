"""The recipe of a generalized linear mixed model: learn the design, hold the rows in shards, minimise, report."""

from __future__ import annotations

from typing import Any

import numpy as np

from bigmm.design import DesignSpec
from bigmm.design.layout import joint_terms
from bigmm.errors import UsageError
from bigmm.families import Family
from bigmm.families import family as family_named
from bigmm.fit.clock import Clock, peak_rss_bytes
from bigmm.fit.finish import finish
from bigmm.fit.held_model import held_model, with_counted_rows
from bigmm.fit.opened import opened
from bigmm.fit.search import Search, Wishes
from bigmm.fit.settings import settings
from bigmm.laplace.start import glm_start
from bigmm.objective.montecarlo import TOLERANCE
from bigmm.results import FittedGlmm, GlmmResults
from bigmm.solver import check_memory, choose_solver, quiet_driver
from bigmm.version import __version__

SINGULAR = 1e-4
MOST_POINTS = 100


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
) -> GlmmResults:
    """Fit a generalized linear mixed model by maximum likelihood (Laplace or adaptive Gauss-Hermite quadrature).

    Parameters beside those of `lmm`
    --------------------------------
    family: "bernoulli", "binomial" (proportion with weights = trials, ``cbind(success, failure)`` or ``successes /
        trials``), "poisson", "negative_binomial", "gamma", "inverse_gaussian", "gaussian".
    link: "logit", "probit", "cloglog", "cauchit", "log", "identity", "inverse", "sqrt"; the family's default when None.
    nagq: 0 (coefficients from PIRLS, fast), 1 (Laplace, joint in beta and theta), k (adaptive quadrature with k points
        for one grouping factor with a scalar effect).
    laplace: weights in log|M|: "expected" (lme4) or "observed"; None takes expected for families without dispersion and
        observed for the others (the full likelihood, as glmmTMB).
    compress: "auto" counts identical rows once where that at least halves them (exact; bernoulli, binomial, poisson);
        False never does.
    solver: as for `lmm`: "iterative" is for crossed factors too large for a dense block. Its log-likelihood and
        gradient are estimates, whose Monte Carlo error is brought below ``mc_tol`` and reported.
    se: standard errors from the "hessian" of the maximised objective, or "rx": from the working model given theta.

    Raises what `lmm` raises; a response outside the family's range is a DataError naming file, row group and value.
    """
    if store is not None:
        raise UsageError("store= is not available in this version; use save() to keep a fitted model")
    how = settings(solver, optimizer, memory_limit, progress)
    chosen = family_named(family, link)
    observed = _which_weights(chosen, laplace)
    if not isinstance(nagq, (int, np.integer)) or isinstance(nagq, bool) or not 0 <= nagq <= MOST_POINTS:
        raise UsageError(
            f"nagq must be 0 (fast), 1 (Laplace) or a number of quadrature points up to {MOST_POINTS}, got {nagq!r}"
        )
    if se not in ("hessian", "rx"):
        raise UsageError(f"se must be 'hessian' or 'rx', got {se!r}")
    if compress not in ("auto", False):
        raise UsageError(f"compress must be 'auto' or False, got {compress!r}")
    clock = Clock()
    begun = opened(
        formula,
        data,
        how,
        clock,
        weights=weights,
        offset=offset,
        client=client,
        n_workers=n_workers,
        filter=filter,
        partition_bytes=partition_bytes,
        contrasts=contrasts,
        categories=categories,
        drop_missing=drop_missing,
        binomial=chosen.name in ("binomial", "bernoulli"),
    )
    source, workers, spec = begun.source, begun.workers, begun.spec
    single = _check_terms(spec, int(nagq))
    with clock("shard"):
        model = held_model(source, spec, chosen, workers, how, single, nested=nagq >= 1)
        solved_by, why = choose_solver(model.assembled.gram, how.solver, how.memory_limit)
        if solved_by == "exact":
            check_memory(model.assembled.gram, how.memory_limit)
    with clock("start"):
        start = glm_start(model.held.map, chosen, model.fixed_columns, model.assembled.gram.n)
        if compress == "auto":
            model = with_counted_rows(model)
    with clock("optimize"), quiet_driver(model.assembled.gram):
        wishes = Wishes(theta0, how.optimizer, solved_by, seed, mc_tol)
        search = Search(model, start, int(nagq), observed, wishes)
        model = search.model
        outcome = search.run()
    with clock("estimate"), quiet_driver(model.assembled.gram):
        fitted = finish(search, outcome, se)
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
            is_singular=bool(np.any(np.abs(fitted.theta[model.templates.lower == 0]) < SINGULAR)),
            nobs=model.assembled.gram.n,
            rows_read=model.rows_read,
            dropped=model.dropped,
            passes=2 + start.passes + search.passes,
            seconds=dict(clock.seconds),
            peak_rss_bytes=peak_rss_bytes(),
            solver=solved_by,
            solver_reason=why,
            monte_carlo_error=fitted.error,
            data_description=source.description,
            fingerprints=tuple(p.fingerprint for p in source.partitions),
            weights=begun.weights,
            offset=begun.offset,
            bigmm_version=__version__,
            source=source,
            family=chosen,
            phi=fitted.phi,
            nagq=int(nagq),
            laplace="observed" if observed else "expected",
            se_method=fitted.se_method,
            penalized=fitted.penalized,
            compressed_rows=model.compressed_rows,
        )
    )


def _which_weights(family: Family, laplace: str | None) -> bool:
    if laplace not in (None, "expected", "observed"):
        raise UsageError(f"laplace must be 'expected' or 'observed', got {laplace!r}")
    if laplace == "expected" and family.has_dispersion:
        raise UsageError(
            f"laplace='expected' is no likelihood for {family.name}, whose dispersion is estimated: use 'observed'"
        )
    return family.has_dispersion if laplace is None else laplace == "observed"


def _check_terms(spec: DesignSpec, nagq: int) -> bool:
    """Is there one grouping factor, and one evaluation per shard enough? Raises UsageError for what is not possible."""
    layout = spec.layout
    joined = joint_terms(layout)
    if layout.fixed_factors:
        grouping = layout.groupings[layout.fixed_factors[0].grouping]
        raise UsageError(
            f"fixed factor {grouping.name!r} has {grouping.n_levels} levels: a generalized model keeps its columns "
            f"dense; use (1 | {grouping.name}) or fewer levels"
        )
    if nagq > 1 and (len(joined) > 1 or len(joined[0].covariates) > 1):
        terms = ", ".join(f"({' + '.join(t.names)} | {t.group})" for t in layout.terms)
        raise UsageError(
            f"nagq={nagq} needs exactly one scalar random effect such as (1 | g), but the formula has {terms}: use "
            f"nagq=1 "
            "(Laplace) for several terms or random slopes"
        )
    return len(joined) == 1 and nagq >= 1
