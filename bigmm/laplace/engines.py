"""Which engine evaluates a generalized model, and the rows as it reads them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from bigmm.laplace.block_layout import block_layout, ready_rows, without_numbers
from bigmm.laplace.crossed import CrossedLaplace
from bigmm.laplace.glmm_data import GlmmData
from bigmm.laplace.montecarlo import ProbedLaplace
from bigmm.laplace.nested import NestedFactors
from bigmm.laplace.objective import LaplaceObjective, Parameters
from bigmm.laplace.one_factor import SingleFactor
from bigmm.laplace.tree import grow
from bigmm.objective.covariances import RootElements
from bigmm.objective.solvers import WORKING_SOLVERS
from bigmm.planning.placement import engine_name

ENGINES: dict[str, type[LaplaceObjective]] = {
    "single": SingleFactor,
    "nested": NestedFactors,
    "crossed": CrossedLaplace,
}
"""The engine of each name that `planning.placement.engine_name` gives."""


def make_engine(
    model: GlmmData,
    roots: RootElements,
    beta0: np.ndarray,
    nagq: int,
    observed: bool,
    parameters: Parameters,
    solver: str,
    seed: int,
) -> tuple[LaplaceObjective, GlmmData]:
    """(the engine of `engine_name`, the model from now on); roots, parameters: of the engine's psi."""
    joined = model.spec.layout.joint
    # Kernels number factors from the finest; without a chain they take the order of the Gram's terms.
    order = model.chain or model.assembled.term_order
    covariates, groupings = list(model.covariates), [joined[j].grouping for j in order]
    xc, family = model.fixed_columns, model.family
    common = family, roots, parameters, observed
    kind = ENGINES[engine_name(model.spec.layout, model.chain, nagq)]
    if kind is SingleFactor:
        return SingleFactor(model.shards.map, model.edges, xc, covariates[0], *common, nagq, model.constant), model
    if kind is NestedFactors:
        shards = model.shards.replaced(partial(grow, groupings=groupings))
        return NestedFactors(shards.map, shards.n_shards, xc, covariates, *common, model.constant), model
    wiring = block_layout(model.assembled.gram, xc, covariates)
    places = list(model.level_index)
    shards = model.shards.replaced(partial(ready_rows, wiring=wiring, groupings=groupings, places=places))
    # the numbers of the blocks and the rows as they came have served; they are as large as what the engine holds
    bare = replace(model.assembled, gram=without_numbers(model.assembled.gram))
    model = replace(model, shards=shards, assembled=bare)
    # The solver sees the pattern only: the order of elimination does not depend on the numbers.
    working_solver = WORKING_SOLVERS[solver](wiring.pattern, seed)
    engine = CrossedLaplace if working_solver.probing is None else ProbedLaplace
    return engine(shards, wiring, *common, model.constant, beta0, working_solver), model
