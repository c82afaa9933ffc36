"""`CrossProducts` in parts, for a cluster whose workers add up sums that are as many as the rows.

Part 0 has all but the many pairs; the others have what all lanes found for some ranges of levels, so that each is added
up by one worker and the driver only joins them. Every part takes the same tree of lanes, hence the bits of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from bigmm.accumulate.crossproducts import CrossProducts
from bigmm.accumulate.pairs import PairRows, PairSums
from bigmm.blocks.parallel import one_thread
from bigmm.execute.lanes import Lane
from bigmm.execute.tree import merged

# One part for all but the many pairs and 16 for these. A constant, so that the cut does not depend on the cluster.
N_PARTS = 17
Pair = tuple[int, int]


def fold_in_parts(fold: Callable[[Lane, Callable[[int], None]], CrossProducts], lane: Lane) -> list:
    """A lane's sums as `N_PARTS` parts; a pure task."""
    cross = fold(lane, _uncounted)
    many = {key: pair for key, pair in cross.pairs.items() if isinstance(pair, PairSums) and len(pair.ranges) > 1}
    few = {key: pair for key, pair in cross.pairs.items() if key not in many}
    parts: list[dict[Pair, PairSums]] = [{} for _ in range(N_PARTS - 1)]
    for key, pair in many.items():
        for part, ranges in zip(parts, pair.parts(len(parts)), strict=True):
            part[key] = ranges
    return [replace(cross, pairs=few), *parts]


def add_up_part(number: int, lanes: Sequence) -> CrossProducts | dict[Pair, PairRows]:
    """One part of all lanes, in their order; a pure task."""
    # Other tasks have the worker's other cores.
    with one_thread():
        if number == 0:
            return merged(lanes, CrossProducts.merge)
        return {key: merged([lane[key] for lane in lanes], PairSums.merge).rows() for key in lanes[0]}


def whole(parts: Sequence) -> CrossProducts:
    """The sums of all rows from all parts."""
    first, *pair_parts = parts
    pairs = {key: PairRows.joined([part[key] for part in pair_parts]) for key in pair_parts[0]}
    return replace(first, pairs={**first.pairs, **pairs})


def _uncounted(rows: int) -> None:
    """Rows are not reported from inside a task."""
