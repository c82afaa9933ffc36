"""The algebra of a chain of nested factors whose levels stay in shards: every evaluation is two rounds of map-reduce.

Round one: every shard eliminates its own levels and says what log|M| and [X y]'W[X y] make of it; the driver factors
the (p + 1) x (p + 1) rest, which gives sigma and beta. Round two: with these every shard says its part of gradient and
curvature. What travels is as large as the fixed effects. Shards are added in their order, so the bits do not depend on
workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from threading import Lock
from typing import Any, Protocol, TypeVar

import numpy as np

from bigmm.blocks.compress import Classes, as_term
from bigmm.blocks.exact.factor import Factor, eliminate_stages, factor_tail, triangular
from bigmm.blocks.exact.inverse import inverse_from_cholesky
from bigmm.blocks.exact.rows import row_quadratics
from bigmm.blocks.exact.solve import Solution
from bigmm.blocks.gram import CrossBlock, Gram
from bigmm.blocks.nested import ChainColumns, ChainSums, chain_gram, chain_structure
from bigmm.errors import MemoryLimitError
from bigmm.objective import shards
from bigmm.objective.algebra import ExactAlgebra
from bigmm.objective.information import Changes
from bigmm.objective.moments import Lams, LevelMoments, Modes, modes_from
from bigmm.objective.start import fixed_coefficients, start_from
from bigmm.objective.templates import Templates

T = TypeVar("T")


class Shards(Protocol):
    """Where tasks of (shard, arguments) are answered: `execute.Held`."""

    def map(self, task: Callable, *args: Any) -> list:
        """``task(shard, *args)`` of every shard, in their order."""
        ...

    def fold(self, merge: Callable[[Any, Any], Any], task: Callable, *args: Any) -> Any:
        """``reduce(merge, map(task, *args))`` with few results alive at a time."""
        ...


@dataclass(frozen=True, slots=True)
class HeldLevels:
    """Where the levels are, and how arrays per level come to the driver.

    held: shards, each a `ChainSums`; columns: see there; sizes (T,): levels with rows, per factor; memory_limit: bytes
    that a gathered Gram may take.
    """

    held: Shards
    columns: ChainColumns
    sizes: tuple[int, ...]
    memory_limit: int

    def numbers(self, term: int) -> np.ndarray:
        """(q,) numbers of the levels of a factor that have rows, increasing."""
        return np.sort(np.concatenate(self.held.map(_levels_of, term)))

    def gathered(self, term: int, task: Callable[..., tuple], *args: Any) -> np.ndarray:
        """(q, ...) what ``task(shard, columns, *args)[term]`` gives per level, in the order of `numbers`."""
        order = np.argsort(np.concatenate(self.held.map(_levels_of, term)), kind="stable")
        values = np.concatenate(self.held.map(_picked, term, task, self.columns, args))
        return values if np.all(order[1:] > order[:-1]) else values[order]

    def whole_gram(self) -> Gram:
        """All blocks on the driver, levels in the order of `numbers`; MemoryLimitError when that is too much."""
        m = len(self.columns.picked)
        widths = [len(own) for own in self.columns.covariates]
        above = [sum(widths[t + 1 :]) for t in range(len(widths))]
        each = [8 * k * (2 * k + 2 * m + 3 * w) for k, w in zip(widths, above, strict=True)]
        needed = sum(2 * q * size for q, size in zip(self.sizes, each, strict=True))
        if needed > self.memory_limit:
            raise MemoryLimitError(
                f"the blocks of {max(self.sizes):,} levels stay with the workers; this answer needs them in one place, "
                f"about {-(-needed // 2**20):,} MiB, but the memory limit is {self.memory_limit >> 20:,} MiB: fit with "
                "a larger memory_limit"
            )
        parts = self.held.map(chain_gram, self.columns)
        numbers = [np.concatenate(self.held.map(_levels_of, term)) for term in range(len(self.sizes))]
        return joined_gram(parts, numbers, self.columns.shell)


@dataclass(frozen=True, slots=True)
class LevelNumbers:
    """`HeldLevels.numbers` of one factor, as an array when NumPy asks for one; its length is known without."""

    levels: HeldLevels
    term: int

    def __len__(self) -> int:
        return self.levels.sizes[self.term]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.levels.numbers(self.term).astype(dtype or np.int64)

    def __reduce__(self) -> tuple:
        return np.asarray, (np.asarray(self),)


def _levels_of(sums: ChainSums, term: int) -> np.ndarray:
    return sums.levels_of(term)


def _picked(sums: ChainSums, term: int, task: Callable[..., tuple], columns: ChainColumns, args: tuple) -> np.ndarray:
    return task(sums, columns, *args)[term]


def joined_gram(parts: Sequence[Gram], numbers: Sequence[np.ndarray], shell: Gram) -> Gram:
    """One Gram from those of shards; numbers: per term (q,) the levels' numbers, shard after shard."""
    orders = [np.argsort(own, kind="stable") for own in numbers]
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
        before = np.cumsum([0, *(part.terms[k].n_levels for part in parts)])
        level = np.concatenate([part.cross[j, k].indices + at for part, at in zip(parts, before, strict=False)])
        data = np.concatenate([part.cross[j, k].data for part in parts])[orders[j]]
        cross[j, k] = CrossBlock(np.arange(len(level) + 1), places[k][level[orders[j]]], data)
    return replace(shell, terms=terms, cross=cross)


class Fetched(Sequence[T]):
    """A tuple whose items are fetched from the shards when they are asked for, and not kept."""

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

    def __reduce__(self) -> tuple:
        return tuple, (list(self),)


class HeldAlgebra(ExactAlgebra):
    """Exact; ``structure`` is that of a Gram without levels, whose dense part is of all rows."""

    name = "held"

    def __init__(self, levels: HeldLevels):
        super().__init__(levels.columns.shell, chain_structure(levels.columns.shell))
        self.levels, self.held, self.columns = levels, levels.held, levels.columns
        self._here: tuple[Factor, ExactAlgebra, Factor] | None = None
        self._lock = Lock()

    def factor(self, lams: Lams) -> Factor:
        """Round one."""
        found = self.held.fold(shards.Eliminated.merge, shards.eliminated, self.columns, lams)
        stages, _, _ = eliminate_stages(self.structure, lams)  # without levels
        schur, lower = self.structure.base.copy(), np.tril_indices(self.structure.m)
        schur[lower] -= found.vv[lower]
        return factor_tail(self.structure, lams, stages, schur, found.logdet)

    def moments(
        self, factor: Factor, solution: Solution, lams: Lams, changes: Changes, with_fixed: bool
    ) -> LevelMoments:
        """Round two."""
        beta, inverse = solution.beta, self._fixed_inverse(factor, with_fixed)
        task, merge = shards.part_moments, shards.PartMoments.merge
        found = self.held.fold(merge, task, self.columns, lams, beta, inverse, changes)
        through = triangular(factor.tail[:-1, :-1], np.asfortranarray(found.through))
        return LevelMoments(found.outer, found.projected, found.information - through.T @ through)

    def projected(self, factor: Factor, with_fixed: bool) -> tuple[np.ndarray | None, ...]:
        """See `ExactAlgebra.projected`."""
        inverse = self._fixed_inverse(factor, with_fixed)
        found = self.held.map(shards.projected, self.columns, factor.lams, inverse)
        return tuple(sum(own) for own in zip(*found, strict=True))

    def _fixed_inverse(self, factor: Factor, with_fixed: bool) -> np.ndarray:
        """(p, p) inverse of X'V^-1X, (0, 0) where X is not projected out."""
        if not with_fixed:
            return np.zeros((0, 0))
        lower = inverse_from_cholesky(factor.tail[:-1, :-1])
        return np.tril(lower) + np.tril(lower, -1).T

    def modes(self, factor: Factor, solution: Solution, lams: Lams, joint: Lams) -> Modes:
        """Fetched when asked for."""

        def fetch(term: int) -> Modes:
            score = self.levels.gathered(term, shards.scores, lams, solution.beta)
            return modes_from([score], (lams[term],), (joint[term],))

        count = len(lams)
        return Modes(Fetched(count, lambda term: fetch(term).u[0]), Fetched(count, lambda term: fetch(term).b[0]))

    def covariances(self, factor: Factor) -> tuple[np.ndarray | None, ...]:
        """See `ExactAlgebra.covariances`."""
        return tuple(self.levels.gathered(term, shards.covariances, factor.lams) for term in range(len(factor.lams)))

    def start(self, templates: Templates) -> np.ndarray:
        """See `moment_start`."""
        shell = self.columns.shell
        found = self.held.map(shards.start_sums, self.columns, fixed_coefficients(shell))
        return start_from(reduce(lambda a, b: a.merge(b), found), shell, templates)

    def squares(self) -> tuple[np.ndarray, ...]:
        """See `LevelsHere.squares`."""
        found = self.held.map(shards.summed_squares, self.columns)
        return tuple(sum(own) / size for own, size in zip(zip(*found, strict=True), self.levels.sizes, strict=True))

    def level_counts(self) -> tuple[int, ...]:
        """See `LevelsHere.level_counts`."""
        return self.levels.sizes

    def compressed(self) -> Gram | None:
        """Classes of identical levels of all shards together, for a single factor."""
        shell = self.columns.shell
        if len(shell.terms) != 1:
            return None
        found = [own for own in self.held.map(shards.shard_classes, self.columns) if own is None or len(own.counts)]
        if not found or any(own is None for own in found):
            return None
        joined = reduce(Classes.merge, found)
        if not joined.is_worth:
            return None
        return replace(shell, terms=(as_term(joined, shell.terms[0]),))

    def rows(self, factor: Factor, x: np.ndarray, refs: tuple, z: tuple) -> np.ndarray:
        """See `ExactAlgebra.rows`; brings all levels to the driver, where they then stay."""
        with self._lock:
            if self._here is None or self._here[0] is not factor:
                algebra = ExactAlgebra(self.levels.whole_gram()) if self._here is None else self._here[1]
                self._here = factor, algebra, algebra.factor(factor.lams)
            here = self._here[2]
        return row_quadratics(here, x, refs, z)

    def gathered_gram(self) -> Gram:
        """All blocks on the driver; MemoryLimitError when that is too much."""
        return self.levels.whole_gram()
