"""Tasks on one shard of whole trees, for `shards.solver.ShardedSolver`: pure functions of (NestedSums, arguments).

The kernels are those of the driver: a shard is a model of its own, whose dense tail is the fixed effects' alone.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import reduce
from typing import Any

import numpy as np

from bigmm.blocks.compress import Classes, classes
from bigmm.blocks.exact.factor import Factor, StageFactor, eliminate_stages
from bigmm.blocks.exact.inverse import invert_stages
from bigmm.blocks.exact.solve import Solution, backward, forward, residual_products, tall_product
from bigmm.blocks.nested import ChainColumns, NestedSums, batches_of_trees, chain_gram, chain_structure
from bigmm.blocks.structure import Structure
from bigmm.objective.information import Changes, average_information
from bigmm.objective.start import MomentSums, moment_sums, summed_diagonal

Lams = tuple[np.ndarray, ...]

BATCH = 1 << 17
"""Levels of the finest factor that are looked at together: what that takes is bounded, however large a shard is."""


@dataclass(frozen=True, slots=True)
class Eliminated:
    """The shard's part of log|M|, and vv (m, m), the lower triangle of what its levels take off [X y]'W[X y]."""

    logdet: float
    vv: np.ndarray

    def merge(self, other: Eliminated) -> Eliminated:
        """Of both shards."""
        return Eliminated(self.logdet + other.logdet, self.vv + other.vv)


def eliminated(sums: NestedSums, columns: ChainColumns, lams: Lams) -> Eliminated:
    """The shard's levels eliminated: the first round of an evaluation."""

    def part(batch: NestedSums) -> Eliminated:
        # The factor itself is dropped: it is as large as the levels, and made again in the second round.
        _, logdet, vv = eliminate_stages(chain_structure(chain_gram(batch, columns)), lams)
        return Eliminated(logdet, vv)

    m = len(columns.picked)
    # Batches are cut by the data alone and merged in their order, so the bits do not depend on workers.
    return reduce(Eliminated.merge, map(part, batches_of_trees(sums, BATCH)), Eliminated(0.0, np.zeros((m, m))))


@dataclass(frozen=True, slots=True)
class PartMoments:
    """The shard's part of `LevelMoments`.

    Attributes
    ----------
    outer, projected : per term (k, k).
    information : (nt, nt) without the part that goes through X.
    through : (p, nt) that part, before the driver solves for it.
    """

    outer: tuple[np.ndarray, ...]
    projected: tuple[np.ndarray, ...]
    information: np.ndarray
    through: np.ndarray

    def merge(self, other: PartMoments) -> PartMoments:
        """Of both shards."""
        pairs = (zip(getattr(self, name), getattr(other, name), strict=True) for name in ("outer", "projected"))
        outer, projected = (tuple(a + b for a, b in pair) for pair in pairs)
        return PartMoments(outer, projected, self.information + other.information, self.through + other.through)


def part_moments(
    sums: NestedSums, columns: ChainColumns, lams: Lams, beta: np.ndarray, inverse: np.ndarray, changes: Changes
) -> PartMoments:
    """The second round: beta (p,) working basis; inverse (p, p) of X'V^-1X, or (0, 0) when P does not project X out."""
    nothing = tuple(np.zeros((len(lam), len(lam))) for lam in lams)
    zero = PartMoments(nothing, nothing, np.zeros((len(changes),) * 2), np.zeros((len(beta), len(changes))))
    parts = (
        _batch_moments(_factor(batch, columns, lams), beta, inverse, changes) for batch in batches_of_trees(sums, BATCH)
    )
    return reduce(PartMoments.merge, parts, zero)


def _batch_moments(factor: Factor, beta: np.ndarray, inverse: np.ndarray, changes: Changes) -> PartMoments:
    structure, score = factor.structure, _scores(factor, beta)
    projected = _projected(factor, inverse)
    through: list[np.ndarray] = []

    def by_levels(image: tuple[np.ndarray, ...], rhs_x: np.ndarray) -> np.ndarray:
        swept = forward(structure, factor.stages, image, rhs_x)
        # The driver subtracts this part, for its tail is of all shards: products of sums are no sums of products.
        through.append(swept.fixed)
        return swept.total

    information = average_information(structure, by_levels, changes, score)
    return PartMoments(tuple(tall_product(s, s) for s in score), projected, information, through[0])


def projected(sums: NestedSums, columns: ChainColumns, lams: Lams, inverse: np.ndarray) -> tuple[np.ndarray, ...]:
    """Per term (k, k) sum over the shard's levels of (Z'PZ)_ll."""
    parts = [_projected(_factor(batch, columns, lams), inverse) for batch in batches_of_trees(sums, BATCH)]
    return tuple(sum((part[t] for part in parts), np.zeros_like(lam)) for t, lam in enumerate(lams))


def _projected(factor: Factor, inverse: np.ndarray) -> tuple[np.ndarray, ...]:
    sums: list[Any] = [None] * len(factor.lams)
    invert_stages(factor, len(inverse), inverse, (False, False), sums, [None] * len(sums))
    return tuple(sums)


def scores(sums: NestedSums, columns: ChainColumns, lams: Lams, beta: np.ndarray) -> tuple[np.ndarray, ...]:
    """Per term (q, k) Z'W(y - X beta - Z b), working basis."""
    return _side_by_side(
        sums, [_scores(_factor(batch, columns, lams), beta) for batch in batches_of_trees(sums, BATCH)]
    )


def covariances(sums: NestedSums, columns: ChainColumns, lams: Lams) -> tuple[np.ndarray, ...]:
    """Per term (q, k, k) Lambda (M^-1)_ll Lambda'."""

    def part(factor: Factor) -> tuple[np.ndarray, ...]:
        blocks: list[Any] = [None] * len(lams)
        # A tail of no columns: X is not projected out of these covariances.
        invert_stages(factor, 0, np.zeros((0, 0)), (True, False), [None] * len(lams), blocks)
        return tuple(blocks)

    square = [part(_factor(batch, columns, lams)) for batch in batches_of_trees(sums, BATCH)]
    return _side_by_side(sums, square, square=True)


def _side_by_side(
    sums: NestedSums, parts: list[tuple[np.ndarray, ...]], square: bool = False
) -> tuple[np.ndarray, ...]:
    """Per term the batches' arrays, which follow each other as the levels do."""
    empty = [np.zeros((0, k, k) if square else (0, k)) for k in sums.widths]
    return tuple(np.concatenate([empty[t], *(part[t] for part in parts)]) for t in range(len(empty)))


def start_sums(sums: NestedSums, columns: ChainColumns, coefficients: np.ndarray) -> MomentSums:
    """Moments of the shard's levels that theta starts from."""
    return moment_sums(chain_gram(sums, columns), coefficients)


def summed_squares(sums: NestedSums, columns: ChainColumns) -> tuple[np.ndarray, ...]:
    """Per term (k, k) Z'WZ summed over the shard's levels."""
    return tuple(summed_diagonal(term) for term in chain_gram(sums, columns).terms)


def shard_classes(sums: NestedSums, columns: ChainColumns) -> Classes | None:
    """Levels with identical diagonal blocks, together; None where too few are."""
    return classes(chain_gram(sums, columns).terms[0])


@dataclass(frozen=True, slots=True)
class ChainFacts:
    """Sums over rows that no theta enters.

    Attributes
    ----------
    sizes : (T,) levels with rows.
    gram, n, rows_read, dropped, sum_log_w : as in `NestedSums`.
    within : (T,) sum over levels of (Z'Wy)^2 / Z'WZ of each term's first covariate, about the shift.
    """

    sizes: np.ndarray
    gram: np.ndarray
    n: int
    rows_read: int
    dropped: dict[str, int]
    sum_log_w: float
    within: np.ndarray

    def merge(self, other: ChainFacts) -> ChainFacts:
        """Of both shards."""
        added = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self) if f.name != "dropped"}
        names = {**self.dropped, **other.dropped}
        dropped = {name: self.dropped.get(name, 0) + other.dropped.get(name, 0) for name in names}
        return ChainFacts(**added, dropped=dropped)


def chain_facts(sums: NestedSums, covariates: tuple[np.ndarray, ...]) -> ChainFacts:
    """The shard's part of `ChainFacts`; covariates: per term (k,) columns of its Z."""
    within = []
    for number, term_columns in enumerate(covariates):
        record = sums.records_of(number)
        squares = record[:, 0, term_columns[0]]
        # A level in which the covariate is zero adds nothing.
        inverse = np.divide(1.0, squares, out=np.zeros(len(record)), where=squares > 0)
        within.append(float((record[:, 0, -1] ** 2) @ inverse))
    plain = (sums.n, sums.rows_read, dict(sums.dropped), sums.sum_log_w)
    return ChainFacts(np.array(sums.sizes), sums.gram, *plain, np.array(within))


def _factor(sums: NestedSums, columns: ChainColumns, lams: Lams) -> Factor:
    structure = chain_structure(chain_gram(sums, columns))
    stages, logdet, _ = eliminate_stages(structure, lams)
    return _local(structure, lams, stages, logdet)


def _local(structure: Structure, lams: Lams, stages: tuple[StageFactor, ...], logdet: float) -> Factor:
    """A factor whose tail nobody asks for: it belongs to all shards."""
    p = structure.m - 1
    # NaN where the driver's tail would be needed, so that a mistaken use shows.
    return Factor(structure, lams, stages, np.zeros((0, 0)), np.zeros((0, 0)), 0, p, logdet, np.nan, np.nan)


def _scores(factor: Factor, beta: np.ndarray) -> tuple[np.ndarray, ...]:
    coefficients = np.append(-beta, 1.0)
    effects = backward(factor, beta, tuple(part.v for part in factor.stages), coefficients)
    return residual_products(factor.structure, factor.lams, Solution(beta, effects))
