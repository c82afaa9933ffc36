"""The forecast of a fit: which engine it will take, and about how many bytes and operations that is.

The choices are made by the functions that the fit calls: `level_placement` and `choose_solver` for linear models,
`shard_chain`, `engine_name` and `choose_solver` for generalized ones.
"""

from __future__ import annotations

from dataclasses import dataclass

from bigmm.design import DesignSpec
from bigmm.design.encoding.first_rows import first_rows
from bigmm.design.layout import Layout
from bigmm.execute import Executor
from bigmm.planning import memory
from bigmm.planning.block_bounds import BlockBounds, block_bounds, bounds_of_order, entries
from bigmm.planning.limits import pass_bytes
from bigmm.planning.memory import VECTORS
from bigmm.planning.placement import LevelPlacement, engine_name, level_placement, shard_chain
from bigmm.planning.settings import Settings
from bigmm.planning.sharding import RowSizes, Storage, level_model_bytes, row_sizes, shuffle_bytes, storage
from bigmm.planning.solver_choice import solver_bytes
from bigmm.source import Source

BLOCKS, LEVELS = "blocks", "levels"
"""Engines of linear models: all blocks on the driver, or levels with the workers."""
IN_WORDS = {
    BLOCKS: "blocks on the driver",
    LEVELS: "levels with the workers, an evaluation is map-reduced over them",
    "single": "one factor, level by level: an evaluation is one task per shard",
    "nested": "whole trees of levels: an evaluation is one task per shard",
    "crossed": "PIRLS on blocks that are summed over shards",
}
LOOKS = {"single": (1, 1), "nested": (1, 1), "crossed": (2, 8)}
"""Looks at the shards per evaluation. Crossed terms take one for each step of PIRLS and one for the gradient
(measured)."""
ITERATIONS = 12
"""About what conjugate gradients take for each vector (measured: 10 for a linear and 16 for a generalized model of a
million ratings)."""
ROW_FLOPS = 60
"""Operations of a row's density and its derivatives, with an exponential and a logarithm."""
INNER_STEPS = 5
"""About so many steps of Newton's method are taken in a level or tree, from the last modes."""


@dataclass(frozen=True, slots=True)
class PlannedTerm:
    """A grouping factor: levels, covariates per level, and how its part of the Cholesky factor is stored.

    Attributes
    ----------
    kind : "block-diagonal" (eliminated level by level), also ", nested"; "dense" (crossed); or "applied, never formed".
    bytes : of what is stored.
    """

    name: str
    levels: int
    width: int
    kind: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a fit will take.

    A generalized model that does not fit is tried: its rows go through files then, and workers of a cluster have limits
    of their own.

    Attributes
    ----------
    engine : a key of `IN_WORDS`.
    solver, why : "exact" or "iterative", and the reason.
    terms : the grouping factors.
    pass_bytes : peak of the pass.
    solver_bytes, flops : of an evaluation.
    fits : whether all of it stays below the memory limit.
    refused : whether the fit is refused because it does not.
    """

    engine: str
    solver: str
    why: str
    terms: tuple[PlannedTerm, ...]
    pass_bytes: int
    solver_bytes: int
    flops: float
    fits: bool
    refused: bool


def forecast_linear(source: Source, spec: DesignSpec, workers: Executor, how: Settings) -> Forecast:
    """Forecast `lmm`."""
    layout, limit = spec.layout, how.memory_limit
    placement = level_placement(source, spec, workers, how)
    if placement is not None:
        return _forecast_levels(source, spec, workers, limit, placement)
    head = first_rows(source, spec)
    rows = row_sizes(source, layout, head).rows
    bounds = block_bounds(source, spec, workers, rows, head, how.progress)
    solver, why = bounds.solver(how.solver, limit)
    nbytes = solver_bytes(bounds.largest, memory.effects(layout), solver)
    summing = pass_bytes(source, spec, workers.n_workers)
    # The sums are given back before the first evaluation: the larger peak counts, not both together.
    fits = max(summing, nbytes) <= limit
    terms, flops = _terms(layout, bounds, solver), _flops(layout, bounds, solver)
    return Forecast(BLOCKS, solver, why, terms, summing, nbytes, flops, fits, not fits)


def _forecast_levels(
    source: Source, spec: DesignSpec, workers: Executor, limit: int, placement: LevelPlacement
) -> Forecast:
    terms, flops = terms_of_chain(spec.layout)
    summing, evaluating = level_model_bytes(source, spec, placement.head, workers.n_workers, limit)
    fits = max(summing, evaluating) <= limit
    # Workers of a cluster have limits of their own, which this process does not know.
    refused = not fits and workers.shares_memory
    return Forecast(LEVELS, "exact", placement.why, terms, summing, evaluating, flops, fits, refused)


def forecast_generalized(source: Source, spec: DesignSpec, workers: Executor, how: Settings, nagq: int) -> Forecast:
    """Forecast `glmm`."""
    layout = spec.layout
    head = first_rows(source, spec)
    chain = shard_chain(source, spec, workers, head, nagq, how.progress)
    size = row_sizes(source, layout, head)
    rows = storage(layout, size, chain, workers, how.memory_limit)
    shuffling = shuffle_bytes(source, spec, workers, rows, size, chain is None)
    if chain is None:
        bounds = block_bounds(source, spec, workers, size.rows, head, how.progress)
        return _forecast_crossed(layout, bounds, how, rows, size, shuffling)
    # nothing is left for the driver: all terms are the shards' own
    bounds = bounds_of_order(layout, (chain, ()), size.rows)
    solver, why = bounds.solver(how.solver, how.memory_limit)
    terms = tuple(_with_shards(term) for term in _terms(layout, bounds, solver))
    # On a cluster shards are evaluated in the memory of its workers.
    at_once = min(workers.n_workers, rows.n_shards) if workers.shares_memory else 0
    nbytes = rows.resident + memory.shard_work_bytes(at_once * rows.nbytes, rows.n_shards)
    nbytes += 3 * sum(term.bytes for term in terms)  # modes now, modes of the best theta, and a step
    flops = INNER_STEPS * max(nagq, 1) * _look_flops(layout, size)
    fits, engine = max(shuffling, nbytes) <= how.memory_limit, engine_name(layout, chain, nagq)
    return Forecast(engine, solver, why, terms, shuffling, nbytes, flops, fits, False)


def _forecast_crossed(
    layout: Layout, bounds: BlockBounds, how: Settings, rows: Storage, size: RowSizes, shuffling: int
) -> Forecast:
    limit, pairs = how.memory_limit, bounds.most
    # the solver has what rows and working sums leave
    beside = rows.resident + memory.working_sums_bytes(layout, entries(layout, pairs), sum(pairs.values()))
    solver, why = bounds.solver(how.solver, limit - beside)
    nbytes = beside + solver_bytes(bounds.largest, memory.effects(layout), solver)
    looks = LOOKS["crossed"][1]
    factors = looks if solver == "exact" else 1
    flops = looks * _look_flops(layout, size) + factors * _flops(layout, bounds, solver)
    fits, terms = max(shuffling, nbytes) <= limit, _terms(layout, bounds, solver)
    return Forecast("crossed", solver, why, terms, shuffling, nbytes, flops, fits, nbytes > limit)


def _look_flops(layout: Layout, size: RowSizes) -> float:
    """Operations of one look at all rows."""
    covariates = sum(term.width for term in layout.joint) + len(layout.fixed_names)
    return float(size.rows) * (ROW_FLOPS + 4 * covariates + (covariates + 1) ** 2)


def _terms(layout: Layout, bounds: BlockBounds, solver: str) -> tuple[PlannedTerm, ...]:
    """What is stored of each factor on the driver."""
    p, chain, terms = len(layout.fixed_names), bounds.order[0], []
    for j, joint in enumerate(layout.joint):
        q, k = joint.n_levels, joint.width
        if j in chain:
            kind = "block-diagonal" + (", nested" if chain.index(j) else "")
            nbytes = memory.stage_bytes(q, k, p)
        elif solver == "exact":
            kind, nbytes = "dense", memory.tail_bytes(q, k)
        else:
            kind = "applied, never formed"
            nbytes = memory.applied_bytes(sum(count for (_, b), count in bounds.most.items() if b == j))
        terms.append(PlannedTerm(joint.name, q, k, kind, nbytes))
    return tuple(terms)


def _flops(layout: Layout, bounds: BlockBounds, solver: str) -> float:
    """Operations of an evaluation by blocks on the driver."""
    p, chain, flops = len(layout.fixed_names), bounds.order[0], 0.0
    for j in chain:
        q, k = layout.joint[j].n_levels, layout.joint[j].width
        flops += 6.0 * q * k * k * (k + p + 1)
        # A level meets met / q levels of the tail, and takes an outer product of that size from it, q times.
        met = sum(count for pair, count in bounds.most.items() if j in pair and not set(pair) <= set(chain))
        flops += 2.0 * k * met * met / max(q, 1) if solver == "exact" else 0.0
    if solver == "exact":
        return flops + 1.4 * bounds.largest.dense_columns**3
    return flops + 4.0 * VECTORS * ITERATIONS * entries(layout, bounds.most)


def terms_of_chain(layout: Layout) -> tuple[tuple[PlannedTerm, ...], float]:
    """What all shards hold of each factor, and the operations of an evaluation."""
    p, c, terms, flops = len(layout.fixed_names), len(layout.columns) + 1, [], 0.0
    for number, joint in enumerate(layout.joint):
        q, k = joint.n_levels, joint.width
        kind = "block-diagonal, with the workers" + (", nested" if number else "")
        terms.append(PlannedTerm(joint.name, q, k, kind, memory.record_bytes(q, k, c)))
        flops += 6.0 * q * k * k * (k + p + 1)
    return tuple(terms), flops


def _with_shards(term: PlannedTerm) -> PlannedTerm:
    """The term when its levels are the shards' own."""
    kind = term.kind.replace("block-diagonal", "block-diagonal, with the shards")
    return PlannedTerm(term.name, term.levels, term.width, kind, memory.mode_bytes(term.levels, term.width))
