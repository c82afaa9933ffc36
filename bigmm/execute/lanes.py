"""Contiguous runs of partitions, the unit of work that one accumulator is folded over."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

#: One lane per so many bytes of rows, between ``minimum`` and `MAXIMUM_LANES` lanes.
TARGET_BYTES = 1 << 30
MAXIMUM_LANES = 256


@dataclass(frozen=True, slots=True)
class Lane:
    """Partitions folded in order into one accumulator; ``index`` fixes the lane's place in the merge tree."""

    index: int
    partitions: tuple[Any, ...]


def cut_lanes(
    partitions: Sequence[Any], *, accumulator_bytes: int = 0, target_bytes: int = TARGET_BYTES, minimum: int = 8
) -> tuple[Lane, ...]:
    """Cut partitions into contiguous lanes of about equal ``nbytes``.

    Their number is a function of the data alone (never of the workers), so sums have the same bits everywhere.
    ``accumulator_bytes`` is the size of one accumulator: large ones get fewer lanes, because each lane costs a merge.
    """
    count = lane_count([p.nbytes for p in partitions], accumulator_bytes, target_bytes, minimum)
    # Running sizes must increase for the bisection, also where partitions are empty.
    bounds = _balanced_bounds([max(p.nbytes, 1) for p in partitions], count)
    return tuple(Lane(i, tuple(partitions[a:b])) for i, (a, b) in enumerate(pairwise(bounds)))


def lane_count(sizes: Sequence[int], accumulator_bytes: int, target_bytes: int, minimum: int) -> int:
    """How many lanes partitions of these sizes (bytes) get."""
    total = sum(sizes)
    count = max(minimum, min(MAXIMUM_LANES, -(-total // target_bytes)))
    if accumulator_bytes:
        # A lane reads at least four times the bytes of its accumulator, else merging would cost as much as reading.
        count = max(minimum, min(count, total // (4 * accumulator_bytes)))
    return min(count, len(sizes))


def _balanced_bounds(sizes: Sequence[int], count: int) -> list[int]:
    """(count + 1,) increasing cuts of range(len(sizes)): cut k lies where the running size passes k / count."""
    if not sizes:
        return [0]
    ends = list(accumulate(sizes))
    bounds = [0]
    for k in range(1, count):
        nearest = bisect_left(ends, ends[-1] * k / count) + 1
        # Every lane has a partition: one is left for each lane on either side of the cut.
        bounds.append(min(max(nearest, bounds[-1] + 1), len(sizes) - (count - k)))
    return [*bounds, len(sizes)]
