"""The recipe of a generalized linear mixed model: learn the design, hold the rows in shards, minimise, report."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import Any

import numpy as np

from bigmm.accumulate import Assembled, assemble, merge, shift_vector
from bigmm.accumulate.fold import Accumulator
from bigmm.design import DesignSpec, learn
from bigmm.design.layout import DesignChunk, joint_terms
from bigmm.errors import DataError, UsageError
from bigmm.execute import Held, executor, hold
from bigmm.families import Family, check_response
from bigmm.families import family as family_named
from bigmm.fit.checks import check_memory
from bigmm.fit.clock import Clock, peak_rss_bytes
from bigmm.fit.columns import with_vectors
from bigmm.fit.search import Search
from bigmm.fit.settings import Settings, settings
from bigmm.fit.solve import quiet_driver
from bigmm.laplace import shards
from bigmm.laplace.shards import Shard
from bigmm.laplace.start import glm_start
from bigmm.objective import Templates, templates_for
from bigmm.results import FittedGlmm, GlmmResults
from bigmm.source import Source, open_source
from bigmm.version import __version__

SINGULAR = 1e-4


@dataclass(frozen=True, slots=True)
class HeldModel:
    """The rows in shards, and what is known of the model before the search.

    edges (S + 1,): first level of each shard; leading: the grouping that cuts them; constant: -2 sum of the
    log-likelihood's constants; places: per term of the Gram, (q,) global level -> kept level (-1: no rows).
    """

    held: Held
    edges: np.ndarray
    leading: int
    spec: DesignSpec
    family: Family
    assembled: Assembled
    templates: Templates
    constant: float
    rows_read: int
    dropped: tuple[tuple[str, int], ...]
    places: tuple[np.ndarray, ...]

    @property
    def fixed_columns(self) -> np.ndarray:
        """(rank,) columns of X that are kept."""
        layout, gram = self.spec.layout, self.assembled.gram
        return np.array(layout.fixed_columns, np.int64)[gram.active[gram.fixed_order]]


def read_and_split(
    source: Source, spec: DesignSpec, family: Family, edges: np.ndarray, leading: int, partition
) -> tuple:
    """One partition: encode, check the response, cut by shard. Returns (pieces, rows read, dropped)."""
    chunk = spec.encode(source.read(partition, spec.used_columns), partition.where)
    fault = check_response(family, chunk.y, chunk.w)
    if fault is not None:
        row, message = fault
        raise DataError(f"{partition.where}: response '{spec.layout.response}', row {row}: {message}")
    return shards.split(chunk, edges, leading)


def _join(leading: int, edges: np.ndarray, number: int, pieces: list[DesignChunk]) -> Shard:
    first = int(edges[number])
    return shards.join(pieces, first, int(edges[number + 1]) - first, leading)


def hold_rows(source: Source, spec: DesignSpec, family: Family, workers: Any, how: Settings, single: bool) -> tuple:
    """The one shuffle: (held shards, edges, leading grouping)."""
    layout = spec.layout
    leading = joint_terms(layout)[0].grouping
    n_levels = layout.groupings[leading].n_levels
    rows = sum(p.rows for p in source.partitions) or 10**9
    each = shards.row_bytes(
        len(layout.columns), len(layout.groupings), spec.settings.weights is not None, spec.settings.offset is not None
    )
    count = shards.shard_count(rows, each, n_levels)
    if not single:
        count = min(count, shards.MINIMUM_SHARDS)
    edges = shards.bounds(n_levels, count)
    split = partial(read_and_split, source, spec, family, edges, leading)
    settle = shards.spilled if rows * each > how.memory_limit // 2 else None
    held = hold(
        workers, split, source.partitions, partial(_join, leading, edges), count, settle=settle, progress=how.progress
    )
    return held, edges, leading


def _cross_products(shard: Shard, layout: Any, shift: np.ndarray) -> Any:
    accumulator = Accumulator(layout, shift)
    accumulator.add(shards.as_chunk(shard))
    return accumulator.freeze()


def _constant(shard: Shard, family: Family) -> float:
    from bigmm.families import rows as columnwise

    w = shard.w if len(shard.w) else np.ones(shard.rows)
    return float(columnwise.constant(family, shard.y, w).sum())


def held_model(
    source: Source, spec: DesignSpec, family: Family, workers: Any, how: Settings, single: bool
) -> HeldModel:
    """Hold the rows, and learn from them which levels and columns there are."""
    layout = spec.layout
    held, edges, leading = hold_rows(source, spec, family, workers, how, single)
    head = spec.encode(source.head(spec.used_columns, 65_536), "the first rows")
    # with one factor the pattern is in the shards already: only X is summed
    summed = replace(layout, terms=()) if single else layout
    products = held.map(_cross_products, summed, shift_vector(layout, head))
    assembled = assemble(reduce(merge, products), summed)
    sizes = held.map(_sizes)
    if single:
        counts = np.concatenate([size[0] for size in sizes])
        places: tuple[np.ndarray, ...] = (np.arange(len(counts)),)
        templates = templates_for(layout, (0,))
    else:
        places = tuple(
            _places(layout.groupings[joint_terms(layout)[j].grouping].n_levels, kept)
            for j, kept in zip(assembled.term_order, assembled.kept, strict=True)
        )
        templates = templates_for(layout, assembled.term_order)
        check_memory(assembled.gram, how.memory_limit)
    constant = -2.0 * sum(held.map(_constant, family))
    dropped: dict[str, int] = {}
    for _, _, pairs in sizes:
        for name, rows in pairs:
            dropped[name] = dropped.get(name, 0) + rows
    rows_read = sum(size[1] for size in sizes)
    return HeldModel(
        held, edges, leading, spec, family, assembled, templates, constant, rows_read, tuple(dropped.items()), places
    )


def _sizes(shard: Shard) -> tuple[np.ndarray, int, tuple]:
    return np.diff(shard.indptr), shard.rows_read, shard.dropped


def _places(n_levels: int, kept: np.ndarray) -> np.ndarray:
    place = np.full(n_levels, -1, np.int64)
    place[kept] = np.arange(len(kept))
    return place


UNBOUNDED_LINKS = ("logit", "probit", "cloglog", "cauchit", "log")


def theta_start(model: HeldModel, eta: float) -> np.ndarray:
    """Template diagonals that give each covariate's effect about half a unit of the linear predictor; less where the link
    has a domain to stay in (eta: mean size of the linear predictor)."""
    fraction = 0.5 if model.family.link in UNBOUNDED_LINKS else 0.2 * max(eta, 1e-6)
    layout, templates = model.spec.layout, model.templates
    theta = np.where(templates.lower == 0, fraction, 0.0)
    squares = _mean_squares(model)
    at = 0
    for term, template in zip(layout.terms, templates.terms, strict=True):
        for row, column in template.entries():
            if row == column:
                theta[at] = fraction / np.sqrt(max(squares[term.covariates[row]], 1e-300))
            at += 1
    return theta


def _mean_squares(model: HeldModel) -> np.ndarray:
    totals = sum(model.held.map(_column_squares))
    return np.concatenate([[1.0], totals[:-1] / totals[-1]])


def _column_squares(shard: Shard) -> np.ndarray:
    return np.append((shard.columns**2).sum(axis=1) if shard.rows else np.zeros(len(shard.columns)), float(shard.rows))


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
    contrasts: dict[str, str] | None = None,
    categories: dict[str, list] | None = None,
    filter: Any = None,
    drop_missing: bool = True,
    store: Any = None,
    progress: Any = None,
    memory_limit: Any = None,
    n_workers: int | None = None,
    partition_bytes: int = 64 << 20,
) -> GlmmResults:
    """Fit a generalized linear mixed model by maximum likelihood (Laplace or adaptive Gauss-Hermite quadrature).

    Parameters beside those of `lmm`
    --------------------------------
    family: "bernoulli", "binomial" (proportion with weights = trials, ``cbind(success, failure)`` or ``successes / trials``),
        "poisson", "negative_binomial", "gamma", "inverse_gaussian", "gaussian".
    link: "logit", "probit", "cloglog", "cauchit", "log", "identity", "inverse", "sqrt"; the family's default when None.
    nagq: 0 (coefficients from PIRLS, fast), 1 (Laplace, joint in beta and theta), k (adaptive quadrature with k points for
        one grouping factor with a scalar effect).
    laplace: weights in log|M|: "expected" (lme4) or "observed"; None takes expected for families without dispersion and
        observed for the others (the full likelihood, as glmmTMB).
    se: standard errors from the "hessian" of the maximised objective, or "rx": from the working model given theta.

    Raises what `lmm` raises; a response outside the family's range is a DataError naming file, row group and value.
    """
    if store is not None:
        raise UsageError("store= is not available in this version; use save() to keep a fitted model")
    how = settings(solver, optimizer, memory_limit, progress)
    chosen = family_named(family, link)
    observed = _which_weights(chosen, laplace)
    if not isinstance(nagq, (int, np.integer)) or nagq < 0:
        raise UsageError(f"nagq must be 0 (fast), 1 (Laplace) or a number of quadrature points, got {nagq!r}")
    if se not in ("hessian", "rx"):
        raise UsageError(f"se must be 'hessian' or 'rx', got {se!r}")
    clock = Clock()
    with clock("open"):
        data, weights, offset = with_vectors(data, weights, offset)
        source = open_source(data, filter=filter, partition_bytes=partition_bytes, memory_limit=how.memory_limit)
        workers = executor(client, n_workers)
    with clock("learn"):
        spec = learn(
            formula,
            source,
            workers,
            weights=weights,
            offset=offset,
            contrasts=contrasts,
            categories=categories,
            drop_missing=drop_missing,
            progress=how.progress,
            binomial=chosen.name in ("binomial", "bernoulli"),
        )
        single = _check_terms(spec, int(nagq))
    with clock("shard"):
        model = held_model(source, spec, chosen, workers, how, single)
    with clock("start"):
        start = glm_start(model.held.map, chosen, model.fixed_columns, model.assembled.gram.n)
    with clock("optimize"), quiet_driver(model.assembled.gram):
        search = Search(model, start, int(nagq), observed, theta0, how.optimizer)
        outcome = search.run()
    with clock("estimate"), quiet_driver(model.assembled.gram):
        fitted = search.finish(outcome, se)
    return GlmmResults(
        FittedGlmm(
            formula=spec.settings.formula,
            reml=False,
            spec=spec,
            assembled=fitted.assembled,
            criterion=fitted.working,
            theta=fitted.theta,
            estimates=fitted.estimates,
            outcome=outcome,
            is_singular=bool(np.any(np.abs(fitted.theta[model.templates.lower == 0]) < SINGULAR)),
            nobs=model.assembled.gram.n,
            rows_read=model.rows_read,
            dropped=model.dropped,
            passes=2 + start.passes + search.passes,
            seconds=dict(clock.seconds),
            peak_rss_bytes=peak_rss_bytes(),
            solver=how.solver,
            data_description=source.description,
            fingerprints=tuple(p.fingerprint for p in source.partitions),
            weights=weights,
            offset=offset,
            bigmm_version=__version__,
            source=source,
            family=chosen,
            phi=fitted.phi,
            nagq=int(nagq),
            laplace="observed" if observed else "expected",
            se_method=fitted.se_method,
            penalized=fitted.penalized,
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
            f"fixed factor {grouping.name!r} has {grouping.n_levels} levels: a generalized model keeps its columns dense; "
            f"use (1 | {grouping.name}) or fewer levels"
        )
    if nagq > 1 and (len(joined) > 1 or len(joined[0].covariates) > 1):
        terms = ", ".join(f"({' + '.join(t.names)} | {t.group})" for t in layout.terms)
        raise UsageError(
            f"nagq={nagq} needs exactly one scalar random effect such as (1 | g), but the formula has {terms}: use nagq=1 "
            "(Laplace) for several terms or random slopes"
        )
    return len(joined) == 1 and nagq >= 1
