"""Bounds of the blocks of A before the pass, from levels, the number of rows, and which factors lie within which.

A fit knows how many pairs of levels meet once it has looked at all rows. Before, there are bounds, and the solver is
chosen by the same rule for both.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Any

from bigmm.blocks.structure import containing_chain
from bigmm.design import DesignSpec
from bigmm.design.layout import DesignChunk, Layout
from bigmm.design.levels.nesting import all_nested, undecided
from bigmm.execute import Executor
from bigmm.planning.memory import cross_bytes, level_bytes
from bigmm.planning.solver_choice import BlockSizes, choose_solver, named_factors
from bigmm.source import Source

Order = tuple[tuple[int, ...], tuple[int, ...]]
"""Joint terms that are eliminated level by level, and those that are left for the dense tail."""
Pairs = dict[tuple[int, int], int]
"""Number of pairs of levels that meet in some row, by pair of joint terms."""


@dataclass(frozen=True, slots=True)
class BlockBounds:
    """Bounds of the blocks of A.

    Attributes
    ----------
    order : terms that are eliminated level by level, and those of the tail.
    fewest, most : pairs of levels, at least and at most.
    least, largest : the sizes of the blocks with so many pairs.
    """

    order: Order
    fewest: Pairs
    most: Pairs
    least: BlockSizes
    largest: BlockSizes

    def solver(self, requested: str, memory_limit: int) -> tuple[str, str]:
        """Choose as `choose_solver` will. Where the choice depends on how many pairs meet, the reason says so."""
        chosen, why = choose_solver(self.largest, requested, memory_limit)
        if choose_solver(self.least, requested, memory_limit)[0] != chosen:
            why = f"{why} at most; exact should far fewer pairs of levels meet"
        return chosen, why


def block_bounds(
    source: Source, spec: DesignSpec, workers: Executor, rows: int, head: DesignChunk, progress: Any = None
) -> BlockBounds:
    """Bound the blocks; head: the first rows.

    The grouping columns are read where neither the formula nor the head tells whether a factor is nested in another.
    """
    layout = spec.layout
    joined = layout.joint

    @cache
    def nested(i: int, k: int) -> bool:
        # The answer may take a look at the grouping columns of all rows, hence the cache.
        pairs = undecided(layout, [(joined[i].grouping, joined[k].grouping)])
        return all_nested(spec, source, workers, pairs, head, progress)

    # As `elimination_order` does with blocks: fixed factors are left for the tail.
    chain = containing_chain([j for j, term in enumerate(joined) if term.fixed_factor is None], nested)
    order = tuple(chain), tuple(j for j in range(len(joined)) if j not in chain)
    return bounds_of_order(layout, order, rows)


def bounds_of_order(layout: Layout, order: Order, rows: int) -> BlockBounds:
    """Bound the blocks when the factors are eliminated in this order."""
    chain = order[0]
    fewest, most = {}, {}
    for (j, first), (k, second) in combinations(enumerate(layout.joint), 2):
        # A level with a row meets a level of the other factor, so the larger factor alone makes so many pairs.
        fewest[j, k] = most[j, k] = max(first.n_levels, second.n_levels)
        if not (j in chain and k in chain):  # within a chain every level meets one level of a coarser factor
            most[j, k] = max(fewest[j, k], min(rows, first.n_levels * second.n_levels))
    return BlockBounds(order, fewest, most, _sizes(layout, order, fewest), _sizes(layout, order, most))


def entries(layout: Layout, pairs: Pairs) -> int:
    """Numbers in all cross blocks."""
    return sum(layout.joint[j].width * layout.joint[k].width * count for (j, k), count in pairs.items())


def _sizes(layout: Layout, order: Order, pairs: Pairs) -> BlockSizes:
    chain, tail = ([layout.joint[j] for j in part] for part in order)
    fixed = [term for term in tail if term.fixed_factor is not None]
    m = sum(column >= 0 for column in layout.fixed_columns) + 1
    return BlockSizes(
        sum(term.n_levels * term.width for term in tail),
        len(tail) > len(fixed),
        named_factors([(term.name, term.n_levels) for term in fixed]),
        m,
        sum(cross_bytes(n, layout.joint[j].width * layout.joint[k].width) for (j, k), n in pairs.items()),
        sum(level_bytes(term.n_levels, term.width, m) for term in chain),
    )
