"""Do the grouping factors form one chain, every level of each within one level of the next, as pupils in classes in
schools?

The formula says so for (1 | school/class). Where class numbers are unique over schools, (1 | school) + (1 | class) is
the same model, and only the rows can tell: one pass over the grouping columns, that stops at the first level with two
parents and is not begun when the first rows show one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numba import njit

from bigmm.design.encoding.encoder import Cells
from bigmm.design.layout import DesignChunk, Layout
from bigmm.design.spec import DesignSpec
from bigmm.execute import Executor, Lane, cut_lanes
from bigmm.source.partition import Source

Pairs = tuple[tuple[int, int], ...]
"""(grouping, the grouping that should contain it)."""


def nested_chain(
    spec: DesignSpec, source: Source, workers: Executor, head: DesignChunk | None = None, progress: Any = None
) -> tuple[int, ...] | None:
    """The numbers in `Layout.joint` of all random effects' groupings, finest first, when they form a chain; else None.

    head: the first rows, encoded, which tell most crossed factors. Reads the grouping columns once, unless the formula
    or the head decides. None too when a factor with many levels is among the fixed effects: it couples all levels.
    """
    layout = spec.layout
    if layout.fixed_factors:
        return None
    if not all_nested(spec, source, workers, undecided_pairs(layout), head, progress):
        return None
    # `joint` is sorted by decreasing number of levels, so the finest factor is first without a search.
    return tuple(range(len(layout.joint)))


def all_nested(
    spec: DesignSpec, source: Source, workers: Executor, pairs: Pairs, head: DesignChunk | None, progress: Any = None
) -> bool:
    """Does every level of each pair's first grouping lie in one level of its second? Reads the grouping columns of the
    pairs once, unless the head, or that there are none, decides."""
    if not pairs:
        return True
    return _nested_rows(head, pairs, spec.layout) and _nested_source(spec, source, workers, pairs, progress)


def undecided_pairs(layout: Layout) -> Pairs:
    """Neighbouring groupings, by decreasing number of levels, that the formula does not nest; () when it nests all."""
    groupings = [term.grouping for term in layout.joint if term.fixed_factor is None]
    return undecided(layout, pairwise(groupings))


def undecided(layout: Layout, pairs: Iterable[tuple[int, int]]) -> Pairs:
    """Those of the pairs of groupings that the formula does not nest."""
    variables = [set(grouping.variables) for grouping in layout.groupings]
    # school:class lies in school by its name: the columns of the coarse factor are among those of the fine one.
    return tuple((a, b) for a, b in pairs if not variables[b] <= variables[a])


def level_numbers(spec: DesignSpec, table: pa.Table, where: str, grouping: int) -> np.ndarray:
    """(n,) int32 levels of a grouping from its own columns alone; -1 where one is missing."""
    variables = spec.plan.groupings[grouping]
    cells = Cells(table, where, spec.levels, spec.replayer, strict=False)
    if len(variables) == 1:
        return cells.level(variables[0])
    return spec.combinations[variables].numbers([cells.level(name) for name in variables])


def grouping_columns(spec: DesignSpec, groupings: Any) -> list[str]:
    """The columns that `level_numbers` of these groupings reads."""
    return list(dict.fromkeys(name for g in groupings for name in spec.plan.groupings[g]))


@dataclass(frozen=True, slots=True)
class Parents:
    """By pair, (q,) int32 parents: the one coarse level of each fine level, -1 for none yet.

    `numbers` is None as soon as a level has two.
    """

    numbers: tuple[np.ndarray, ...] | None

    def merge(self, other: Parents) -> Parents:
        """The parents in the rows of both; None where a level has two."""
        if self.numbers is None or other.numbers is None:
            return Parents(None)
        # The arrays of the first are filled in place, because a merge owns both summaries.
        return Parents(self.numbers if all(map(_join, self.numbers, other.numbers)) else None)


def _join(into: np.ndarray, other: np.ndarray) -> bool:
    """Add the parents of the other; False where they differ."""
    if np.any((into >= 0) & (other >= 0) & (into != other)):
        return False
    # Known parents agree and an unknown one is -1, so the maximum is the union.
    np.maximum(into, other, out=into)
    return True


def _nested_rows(head: DesignChunk | None, pairs: Pairs, layout: Layout) -> bool:
    if head is None:
        return True
    # Crossed factors nearly always show a level with two parents in the first rows, and then no pass begins.
    return all(note_parents(head.refs[a], head.refs[b], _unknown(layout, a)) for a, b in pairs)


def _nested_source(spec: DesignSpec, source: Source, workers: Executor, pairs: Pairs, progress: Any) -> bool:
    # int32 parents of every fine level; lanes are fewer where one array is large.
    sizes = sum(4 * spec.layout.groupings[a].n_levels for a, _ in pairs)
    parents = workers.map_reduce(
        partial(fold_parents, source, spec, pairs),
        cut_lanes(source.partitions, accumulator_bytes=sizes),
        Parents.merge,
        label="nesting",
        rows_total=sum(partition.rows for partition in source.partitions),
        progress=progress,
    )
    return parents.numbers is not None


def fold_parents(source: Source, spec: DesignSpec, pairs: Pairs, lane: Lane, tick: Callable[[int], None]) -> Parents:
    """The parents that the rows of a lane show; no further partition is read after a level with two. A pure task."""
    groupings = list(dict.fromkeys(g for pair in pairs for g in pair))
    columns = grouping_columns(spec, groupings)
    parents = tuple(_unknown(spec.layout, a) for a, _ in pairs)
    for partition in lane.partitions:
        table = source.read(partition, columns)
        refs = {g: level_numbers(spec, table, partition.where, g) for g in groupings}
        for (a, b), numbers in zip(pairs, parents, strict=True):
            if not note_parents(refs[a], refs[b], numbers):
                return Parents(None)
        tick(partition.rows)
    return Parents(parents)


def _unknown(layout: Layout, grouping: int) -> np.ndarray:
    return np.full(layout.groupings[grouping].n_levels, -1, np.int32)


@njit(cache=True, nogil=True)
def note_parents(fine: np.ndarray, coarse: np.ndarray, parents: np.ndarray) -> bool:
    """parents[fine[i]] <- coarse[i] for the rows that have both; False at the first level that has another already."""
    for i in range(len(fine)):
        f, c = fine[i], coarse[i]
        if f < 0 or c < 0:
            continue
        if parents[f] < 0:
            parents[f] = c
        elif parents[f] != c:
            return False
    return True
