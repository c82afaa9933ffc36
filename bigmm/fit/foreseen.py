"""The blocks of A as they can be foreseen: from the levels, the number of rows, and which factors lie within which.

A fit knows how many pairs of levels meet once it has looked at all rows. Before, there are bounds, and the solver is
chosen by the fit's own rule for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Any

from bigmm.blocks.structure import containing_chain
from bigmm.design import DesignSpec
from bigmm.design.layout import DesignChunk, JointTerm, Layout
from bigmm.design.nesting import all_nested, undecided
from bigmm.execute import Executor
from bigmm.solver import Sizes, choose_solver, named_factors
from bigmm.source import Source

Order = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Foreseen:
    """order: joint terms that are eliminated level by level, and those left for the tail; fewest, pairs: of levels that
    meet, at least and at most, by pair of joint terms; least, most: sizes with the fewest and the most pairs there can
    be."""

    order: Order
    fewest: dict[tuple[int, int], int]
    pairs: dict[tuple[int, int], int]
    least: Sizes
    most: Sizes

    def entries(self, layout: Layout, pairs: dict[tuple[int, int], int] | None = None) -> int:
        """Numbers in all cross blocks, with these pairs of levels; at most without."""
        width = [term.width for term in layout.joint]
        return sum(width[j] * width[k] * count for (j, k), count in (pairs or self.pairs).items())

    def solver(self, requested: str, memory_limit: int) -> tuple[str, str]:
        """As `choose_solver` will say; where it depends on how many pairs meet, the reason says so."""
        chosen, why = choose_solver(self.most, requested, memory_limit)
        if choose_solver(self.least, requested, memory_limit)[0] != chosen:
            why = f"{why} at most; exact should far fewer pairs of levels meet"
        return chosen, why


def foreseen(
    source: Source, spec: DesignSpec, workers: Executor, rows: int, head: DesignChunk, progress: Any = None
) -> Foreseen:
    """Reads grouping columns where neither the formula nor the first rows (head) tell whether a factor is nested."""
    layout = spec.layout
    joined = layout.joint

    @cache
    def nested(i: int, k: int) -> bool:
        pairs = undecided(layout, [(joined[i].grouping, joined[k].grouping)])
        return all_nested(spec, source, workers, pairs, head, progress)

    chain = containing_chain([j for j, term in enumerate(joined) if term.fixed_factor is None], nested)
    order = tuple(chain), tuple(j for j in range(len(joined)) if j not in chain)
    return of_order(layout, order, rows)


def of_order(layout: Layout, order: Order, rows: int) -> Foreseen:
    """What follows when the factors are eliminated in this order."""
    joined = layout.joint
    levels = [term.n_levels for term in joined]
    chain = order[0]
    least, most = {}, {}
    for j, k in combinations(range(len(joined)), 2):
        least[j, k] = max(levels[j], levels[k])
        most[j, k] = least[j, k] if j in chain and k in chain else max(least[j, k], min(rows, levels[j] * levels[k]))
    return Foreseen(order, least, most, _sizes(layout, joined, order, least), _sizes(layout, joined, order, most))


def _sizes(layout: Layout, joined: Sequence[JointTerm], order: Order, pairs: dict[tuple[int, int], int]) -> Sizes:
    width = [term.width for term in joined]
    levels = [term.n_levels for term in joined]
    m = sum(column >= 0 for column in layout.fixed_columns) + 1
    chain, tail = order
    fixed = [j for j in tail if joined[j].fixed_factor is not None]
    return Sizes(
        sum(levels[j] * width[j] for j in tail),
        len(tail) > len(fixed),
        named_factors([(joined[j].name, levels[j]) for j in fixed]),
        m,
        sum(count * (8 * width[j] * width[k] + 16) for (j, k), count in pairs.items()),
        sum(8 * levels[j] * width[j] * (2 * width[j] + m) for j in chain),
    )
