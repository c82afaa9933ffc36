"""Which engine a fit will take, and about how many bytes and operations that is.

The choices are made by the functions that the fit calls: `staying` and `choose_solver` for linear models, `chain_of`,
`engine_for` and `choose_solver` for generalized ones.
"""

from __future__ import annotations

from dataclasses import dataclass

from bigmm.design import DesignSpec
from bigmm.design.encoding.first_rows import first_rows
from bigmm.design.layout import Layout
from bigmm.execute import Executor
from bigmm.fit.engines import engine_for
from bigmm.fit.held_levels import WORKING_COPIES, held_bytes
from bigmm.fit.held_model import SHUFFLE_COPIES, RowSizes, Storage, chain_of, row_sizes, storage
from bigmm.fit.settings import Settings
from bigmm.fit.staying import staying
from bigmm.laplace.crossed import CrossedLaplace
from bigmm.laplace.nested import NestedFactors
from bigmm.laplace.single import SingleFactor
from bigmm.planning.block_bounds import BlockBounds, block_bounds, bounds_of_order, entries
from bigmm.planning.limits import pass_bytes
from bigmm.planning.memory import VECTORS, accumulator_bytes, effects, working_sums_bytes
from bigmm.planning.solver_choice import solver_bytes
from bigmm.source import Source

BLOCKS, LEVELS = "blocks", "levels"
"""Linear models: all blocks on the driver, or levels with the workers."""
ENGINES = {SingleFactor: "single", NestedFactors: "nested", CrossedLaplace: "crossed"}
IN_WORDS = {
    BLOCKS: "blocks on the driver",
    LEVELS: "levels with the workers, an evaluation is map-reduced over them",
    "single": "one factor, level by level: an evaluation is one task per shard",
    "nested": "whole trees of levels: an evaluation is one task per shard",
    "crossed": "PIRLS on blocks that are summed over shards",
}
LOOKS = {"single": (1, 1), "nested": (1, 1), "crossed": (2, 8)}
"""Looks at the shards per evaluation; crossed: one for each step of PIRLS and one for the gradient (measured)."""

ITERATIONS = 12
"""About what conjugate gradients take for each vector (measured: 10 for a linear and 16 for a generalized model of a
million ratings)."""
ROW_FLOPS = 60
"""Of a row's density and its derivatives, with an exponential and a logarithm."""
INNER_STEPS = 5
"""About so many of Newton's method in a level or tree, from the last modes."""


@dataclass(frozen=True, slots=True)
class PlannedTerm:
    """A grouping factor: levels, covariates per level, and how its part of the Cholesky factor is stored.

    kind: "block-diagonal" (eliminated level by level), also ", nested"; "dense" (crossed), or "applied, never formed".
    """

    name: str
    levels: int
    width: int
    kind: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """engine: a key of `IN_WORDS`; solver: "exact" or "iterative", why; terms; pass_bytes: peak of the pass;
    solver_bytes, flops: of an evaluation; fits: whether all of it stays below the memory limit; refused: whether the
    fit is refused because it does not. Rows of a generalized model go through files then, and workers of a cluster have
    limits of their own."""

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
    """Of `lmm`."""
    layout, limit = spec.layout, how.memory_limit
    stays = staying(source, spec, workers, how)
    if stays is not None:
        terms, flops = terms_of_chain(layout)
        summing, evaluating = held_bytes(source, spec, stays.head, how, workers.n_workers)
        fits = max(summing, evaluating) <= limit
        refused = not fits and workers.shares_memory
        return Forecast(LEVELS, "exact", stays.why, terms, summing, evaluating, flops, fits, refused)
    head = first_rows(source, spec)
    rows = row_sizes(source, layout, head).rows
    blocks = block_bounds(source, spec, workers, rows, head, how.progress)
    solver, why = blocks.solver(how.solver, limit)
    terms, needed, flops = _on_driver(layout, blocks, solver)
    summing = pass_bytes(source, spec, workers.n_workers)
    fits = max(summing, needed) <= limit
    return Forecast(BLOCKS, solver, why, terms, summing, needed, flops, fits, not fits)


def forecast_generalized(source: Source, spec: DesignSpec, workers: Executor, how: Settings, nagq: int) -> Forecast:
    """Of `glmm`."""
    layout, limit = spec.layout, how.memory_limit
    head = first_rows(source, spec)
    chain = chain_of(source, spec, workers, how, head, nagq)
    engine = ENGINES[engine_for(layout, chain, nagq)]
    size = row_sizes(source, layout, head)
    kept = storage(layout, size, chain, workers, how)
    if chain is None:
        blocks = block_bounds(source, spec, workers, size.rows, head, how.progress)
    else:  # nothing is left for the driver: all terms are the shards' own
        blocks = bounds_of_order(layout, (chain, ()), size.rows)
    # of blocks with crossed factors there is more to hold than the solver's own
    beside = kept.resident
    if chain is None:
        beside += working_sums_bytes(layout, entries(layout, blocks.most), sum(blocks.most.values()))
    solver, why = blocks.solver(how.solver, limit if chain else limit - beside)
    terms, solving, flops = _on_driver(layout, blocks, solver)
    shuffling = _shuffle_bytes(source, spec, workers, kept, size, chain is not None)
    covariates = sum(term.width for term in layout.joint) + len(layout.fixed_names)
    look = float(size.rows) * (ROW_FLOPS + 4 * covariates + (covariates + 1) ** 2)
    if chain is None:
        looks, factors = LOOKS[engine][1], LOOKS[engine][1] if solver == "exact" else 1
        at_once, flops = 0, looks * look + factors * flops
    else:
        terms = tuple(_with_shards(term) for term in terms)
        solving, flops = 3 * sum(term.bytes for term in terms), INNER_STEPS * max(nagq, 1) * look
        at_once = min(workers.n_workers, kept.n_shards) * WORKING_COPIES * kept.nbytes // kept.n_shards
        at_once = at_once if workers.shares_memory else 0
    needed = beside + at_once + solving
    fits, refused = max(shuffling, needed) <= limit, chain is None and needed > limit
    return Forecast(engine, solver, why, terms, shuffling, needed, flops, fits, refused)


def _on_driver(layout: Layout, blocks: BlockBounds, solver: str) -> tuple[tuple[PlannedTerm, ...], int, float]:
    """Per factor what is stored; bytes beside A and flops of an evaluation by that solver."""
    p, chain, pairs = len(layout.fixed_names), blocks.order[0], blocks.most
    terms = []
    flops, whole = 0.0, blocks.largest.dense_columns
    for j, joint in enumerate(layout.joint):
        q, k = joint.n_levels, joint.width
        if j in chain:
            kind, held = "block-diagonal" + (", nested" if chain.index(j) else ""), 8 * q * k * (3 * k + 2 * (p + 1))
            flops += 6.0 * q * k * k * (k + p + 1)
            met = sum(count for pair, count in pairs.items() if j in pair and not set(pair) <= set(chain))
            flops += 2.0 * k * met * met / max(q, 1) if solver == "exact" else 0.0
        elif solver == "exact":
            kind, held = "dense", 8 * (q * k) ** 2
        else:
            kind, held = "applied, never formed", 48 * sum(count for (_, b), count in pairs.items() if b == j)
        terms.append(PlannedTerm(joint.name, q, k, kind, held))
    flops += 1.4 * whole**3 if solver == "exact" else 4.0 * VECTORS * ITERATIONS * entries(layout, pairs)
    return tuple(terms), solver_bytes(blocks.largest, effects(layout), solver), flops


def terms_of_chain(layout: Layout) -> tuple[tuple[PlannedTerm, ...], float]:
    """Per factor what all shards hold of it, and the flops of an evaluation."""
    p, terms, flops = len(layout.fixed_names), [], 0.0
    for number, joint in enumerate(layout.joint):
        q, k = joint.n_levels, joint.width
        kind = "block-diagonal, with the workers" + (", nested" if number else "")
        held = q * (8 * k * (len(layout.columns) + 1) + 8)
        terms.append(PlannedTerm(joint.name, q, k, kind, held))
        flops += 6.0 * q * k * k * (k + p + 1)
    return tuple(terms), flops


def _with_shards(term: PlannedTerm) -> PlannedTerm:
    """A factor whose levels are the shards': modes, and what a level needs to know of its parent."""
    kind = term.kind.replace("block-diagonal", "block-diagonal, with the shards")
    return PlannedTerm(term.name, term.levels, term.width, kind, term.levels * (8 * term.width + 16))


def _shuffle_bytes(
    source: Source, spec: DesignSpec, workers: Executor, kept: Storage, size: RowSizes, whole: bool
) -> int:
    """Peak of bringing the rows into shards and of the first look at them; whole: shards hold all that meets, and no
    pairs of levels are counted."""
    layout = spec.layout
    at_once = min(workers.n_workers, max(len(source.partitions), 1))
    partition = max((p.rows for p in source.partitions), default=0) * (size.each + 8 * len(spec.used_columns))
    names = sum(8 * grouping.n_levels for grouping in layout.groupings)
    looking = 0 if whole else (2 * at_once + 1) * accumulator_bytes(layout, size.rows // kept.n_shards)
    if not workers.shares_memory:
        return names + looking
    moving = 0 if kept.in_files else SHUFFLE_COPIES * size.rows * size.each
    shard = kept.nbytes // kept.n_shards
    making = at_once * (partition + SHUFFLE_COPIES * shard)
    return names + max(moving, making, kept.resident + at_once * shard + looking)
