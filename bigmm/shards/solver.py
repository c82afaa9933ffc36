"""The solver of a chain of nested factors whose levels stay in shards: every evaluation is two rounds of map-reduce.

Round one: every shard eliminates its own levels and returns its parts of log|M| and of the Schur complement of
[X y]'W[X y]. The driver factors that (p + 1) x (p + 1) matrix, which gives sigma and beta. Round two: with these every
shard returns its part of gradient and curvature. Messages are as large as the fixed effects. Shards are added in their
order, so the bits do not depend on workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from threading import Lock
from typing import Any, Self, TypeVar

import numpy as np

from bigmm.blocks.compress import Classes, as_term
from bigmm.blocks.exact.factor import Factor, eliminate_stages, factor_tail, triangular
from bigmm.blocks.exact.inverse import inverse_from_cholesky
from bigmm.blocks.exact.solve import Solution, solve
from bigmm.blocks.gram import CrossBlock, Gram
from bigmm.blocks.nested import ChainColumns, NestedSums, chain_gram, chain_structure
from bigmm.errors import MemoryLimitError
from bigmm.execute import Sharded
from bigmm.objective.cholesky import CholeskyFactor, CholeskySolver
from bigmm.objective.covariances import ModelCovariance
from bigmm.objective.driver_levels import ExactFactor, modes_from
from bigmm.objective.factorization import Lams, LevelMoments, Modes
from bigmm.objective.information import Changes
from bigmm.objective.start import fixed_coefficients, start_from
from bigmm.planning.memory import gathered_bytes
from bigmm.shards import level_tasks

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ShardedLevels:
    """Levels in shards, and the way of their arrays to the driver.

    Parameters
    ----------
    shards
        Each a `NestedSums`.
    columns
        See `ChainColumns`.
    sizes
        (T,) number of levels with rows, per factor.
    memory_limit
        Bytes that a gathered Gram may take.
    """

    shards: Sharded
    columns: ChainColumns
    sizes: tuple[int, ...]
    memory_limit: int

    def numbers(self, term: int) -> np.ndarray:
        """(q,) numbers of the levels of a factor that have rows, increasing."""
        return np.sort(np.concatenate(self.shards.map(_levels_of, term)))

    def gathered(self, term: int, task: Callable[..., tuple[Any, ...]], *args: Any) -> np.ndarray:
        """(q, ...) what ``task(shard, columns, *args)[term]`` gives per level, in the order of `numbers`."""
        # Shards hold levels of a finer factor in the order of their parents, not of their own numbers.
        order = np.argsort(np.concatenate(self.shards.map(_levels_of, term)), kind="stable")
        values = np.concatenate(self.shards.map(_picked, term, task, self.columns, args))
        return values if np.all(order[1:] > order[:-1]) else values[order]

    def whole_gram(self) -> Gram:
        """All blocks on the driver, levels in the order of `numbers`; MemoryLimitError when that is too much."""
        m = len(self.columns.picked)
        nbytes = gathered_bytes(self.sizes, [len(columns) for columns in self.columns.covariates], m)
        if nbytes > self.memory_limit:
            raise MemoryLimitError(
                f"the blocks of {max(self.sizes):,} levels stay with the workers; this answer needs them in one place, "
                f"about {-(-nbytes // 2**20):,} MiB, but the memory limit is {self.memory_limit >> 20:,} MiB: fit with "
                "a larger memory_limit"
            )
        parts = self.shards.map(chain_gram, self.columns)
        numbers = [np.concatenate(self.shards.map(_levels_of, term)) for term in range(len(self.sizes))]
        return joined_gram(parts, numbers, self.columns.fixed_part_gram)


@dataclass(frozen=True, slots=True)
class LevelNumbers:
    """`ShardedLevels.numbers` of one factor, as an array when NumPy asks for one; its length is known without."""

    levels: ShardedLevels
    term: int

    def __len__(self) -> int:
        return self.levels.sizes[self.term]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.levels.numbers(self.term).astype(dtype or np.int64)

    def __reduce__(self) -> tuple[Any, ...]:
        return np.asarray, (np.asarray(self),)


def _levels_of(sums: NestedSums, term: int) -> np.ndarray:
    return sums.levels_of(term)


def _picked(
    sums: NestedSums, term: int, task: Callable[..., tuple[Any, ...]], columns: ChainColumns, args: tuple[Any, ...]
) -> np.ndarray:
    return task(sums, columns, *args)[term]


def joined_gram(parts: Sequence[Gram], numbers: Sequence[np.ndarray], shell: Gram) -> Gram:
    """One Gram from those of shards; numbers: per term (q,) the levels' numbers, shard after shard."""
    orders = [np.argsort(level_numbers, kind="stable") for level_numbers in numbers]
    places = []
    for order in orders:
        place = np.empty(len(order), np.int32)
        place[order] = np.arange(len(order), dtype=np.int32)
        places.append(place)
    terms = tuple(
        replace(
            term,
            diagonal=np.concatenate([part.terms[j].diagonal for part in parts])[orders[j]],
            dense=np.concatenate([part.terms[j].dense for part in parts])[orders[j]],
        )
        for j, term in enumerate(shell.terms)
    )
    cross = {}
    for j, k in shell.cross:
        # Indices of a shard count its own levels of the coarser factor.
        before = np.cumsum([0, *(part.terms[k].n_levels for part in parts)])
        level = np.concatenate([part.cross[j, k].indices + first for part, first in zip(parts, before, strict=False)])
        data = np.concatenate([part.cross[j, k].data for part in parts])[orders[j]]
        cross[j, k] = CrossBlock(np.arange(len(level) + 1), places[k][level[orders[j]]], data)
    return replace(shell, terms=terms, cross=cross)


class Fetched(Sequence[T]):
    """A tuple whose items come from the shards at each access. None is stored: it may be as large as the levels."""

    def __init__(self, count: int, fetch: Callable[[int], T]):
        self.size, self.fetch = count, fetch

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return tuple(self.fetch(i) for i in range(*number.indices(self.size)))
        if not -self.size <= number < self.size:
            raise IndexError(number)
        return self.fetch(number % self.size)

    def __iter__(self) -> Iterator[T]:
        return (self.fetch(i) for i in range(self.size))

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, (list(self),)


class ShardedFactor(ExactFactor):
    """A `Factorization` whose tail and fixed effects are on the driver, as a `Factor` without levels."""

    def __init__(self, solver: ShardedSolver, factor: Factor):
        self.solver, self.driver_factor, self.gram = solver, factor, solver.gram
        self.lams, self.logdet_z, self.logdet_x, self.pwrss = (
            factor.lams,
            factor.logdet_z,
            factor.logdet_x,
            factor.pwrss,
        )
        # Rows of a prediction are read by several threads, of which one gathers the levels.
        self._driver: CholeskyFactor | None = None
        self._lock = Lock()

    def solution(self) -> Solution:
        """See `blocks.solve.solve`; the levels' part is empty."""
        return solve(self.driver_factor)

    def fixed_root(self) -> np.ndarray:
        """See `Factorization.fixed_root`."""
        return np.tril(self.driver_factor.tail[:-1, :-1])

    def moments(self, solution: Solution, lams: Lams, changes: Changes, with_fixed: bool) -> LevelMoments:
        """Round two."""
        beta, inverse = solution.beta, self._fixed_inverse(with_fixed)
        task, merge = level_tasks.part_moments, level_tasks.PartMoments.merge
        sums = self.solver.shards.fold(merge, task, self.solver.columns, lams, beta, inverse, changes)
        # What goes through X is known only after the sum over shards: hence two rounds and not one.
        through = triangular(self.driver_factor.tail[:-1, :-1], np.asfortranarray(sums.through))
        return LevelMoments(sums.outer, sums.projected, sums.information - through.T @ through)

    def projected(self, with_fixed: bool) -> tuple[np.ndarray | None, ...]:
        """See `Factorization.projected`."""
        inverse = self._fixed_inverse(with_fixed)
        parts = self.solver.shards.map(level_tasks.projected, self.solver.columns, self.lams, inverse)
        return tuple(sum(part) for part in zip(*parts, strict=True))

    def _fixed_inverse(self, with_fixed: bool) -> np.ndarray:
        """(p, p) inverse of X'V^-1X, (0, 0) where X is not projected out."""
        if not with_fixed:
            return np.zeros((0, 0))
        lower = inverse_from_cholesky(self.driver_factor.tail[:-1, :-1])
        return np.tril(lower) + np.tril(lower, -1).T

    def modes(self, solution: Solution, lams: Lams, joint: Lams) -> Modes:
        """See `Factorization.modes`. The modes of a term are fetched at each access."""

        def fetch(term: int) -> Modes:
            score = self.solver.levels.gathered(term, level_tasks.scores, lams, solution.beta)
            return modes_from([score], (lams[term],), (joint[term],))

        count = len(lams)
        return Modes(Fetched(count, lambda term: fetch(term).u[0]), Fetched(count, lambda term: fetch(term).b[0]))

    def covariances(self) -> tuple[np.ndarray | None, ...]:
        """See `ExactFactor.covariances`."""
        levels, lams = self.solver.levels, self.lams
        return tuple(levels.gathered(term, level_tasks.covariances, lams) for term in range(len(lams)))

    def rows(self, x: np.ndarray, refs: tuple[Any, ...], z: tuple[Any, ...]) -> np.ndarray:
        """See `Factorization.rows`; brings all levels to the driver, where they then stay."""
        with self._lock:
            if self._driver is None:
                self._driver = self.solver.on_driver().factor(self.lams)
        return self._driver.rows(x, refs, z)


class ShardedSolver:
    """A `Solver` of levels in shards; exact. Its Gram has no level, and its dense part is of all rows."""

    name = "held"
    is_exact = True
    is_cheap = False
    probing = None
    probed: tuple[str, ...] = ()
    eliminated: tuple[str, ...] = ()

    def __init__(self, levels: ShardedLevels):
        self.levels, self.shards, self.columns = levels, levels.shards, levels.columns
        self.gram = levels.columns.fixed_part_gram
        self.structure = chain_structure(self.gram)
        self._driver: CholeskySolver | None = None
        self._lock = Lock()

    def factor(self, lams: Lams) -> ShardedFactor:
        """Round one."""
        parts = self.shards.fold(level_tasks.Eliminated.merge, level_tasks.eliminated, self.columns, lams)
        stages, _, _ = eliminate_stages(self.structure, lams)  # without levels
        # A copy, since the base serves every theta.
        schur, lower = self.structure.base.copy(), np.tril_indices(self.structure.m)
        schur[lower] -= parts.vv[lower]
        return ShardedFactor(self, factor_tail(self.structure, lams, stages, schur, parts.logdet))

    def enlarged(self, probes: int, deflation: int, factor: Any = None) -> Self:
        """An exact solver has nothing to enlarge."""
        return self

    def reordered(self, first: Sequence[str], probes: int, deflation: int) -> ShardedSolver:
        """log|M| is exact in any order of elimination."""
        return self

    def gathered(self) -> CholeskySolver:
        """All blocks on the driver; MemoryLimitError where that is too much."""
        return CholeskySolver(self.levels.whole_gram())

    def on_driver(self) -> CholeskySolver:
        """`gathered`, once: the levels then stay on the driver."""
        with self._lock:
            if self._driver is None:
                self._driver = self.gathered()
        return self._driver

    def start(self, covariances: ModelCovariance) -> np.ndarray:
        """See `moment_start`."""
        sums = self.shards.map(level_tasks.start_sums, self.columns, fixed_coefficients(self.gram))
        # In the order of shards, as every sum here.
        return start_from(reduce(lambda a, b: a.merge(b), sums), self.gram, covariances)

    def squares(self) -> tuple[np.ndarray, ...]:
        """See `Solver.squares`."""
        sums = self.shards.map(level_tasks.summed_squares, self.columns)
        return tuple(sum(part) / size for part, size in zip(zip(*sums, strict=True), self.levels.sizes, strict=True))

    def level_counts(self) -> tuple[int, ...]:
        """See `Solver.level_counts`."""
        return self.levels.sizes

    def compressed(self) -> Gram | None:
        """Classes of identical levels of all shards together, for a single factor."""
        if len(self.gram.terms) != 1:
            return None
        classes = [
            part
            for part in self.shards.map(level_tasks.shard_classes, self.columns)
            if part is None or len(part.counts)
        ]
        if not classes or any(part is None for part in classes):
            return None
        # Classes are merged in the order of shards, so the compressed Gram has the same bits everywhere.
        joined = reduce(Classes.merge, classes)
        if not joined.is_worth:
            return None
        return replace(self.gram, terms=(as_term(joined, self.gram.terms[0]),))
