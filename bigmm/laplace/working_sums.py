"""Working sums over rows, shard by shard: what a shard adds lies in its windows of the flat arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bigmm.laplace import working_kernels
from bigmm.laplace.block_layout import BlockLayout, LinearPredictor, NumberedRows, RowLayout
from bigmm.laplace.records import FlatSums


@dataclass(frozen=True, slots=True)
class ShardSums:
    """One shard's sums, flat as in `records.FlatSums`, and the windows of levels and entries that they are about."""

    windows: np.ndarray
    entry_windows: np.ndarray
    ll: float
    vectors: np.ndarray
    diagonal: np.ndarray
    dense: np.ndarray
    cross: np.ndarray
    xy: np.ndarray


def working_part(
    rows: NumberedRows, rules: RowLayout, predictor: LinearPredictor, with_x: bool, kind: Any
) -> ShardSums:
    """One shard's working sums at a linear predictor; kind: type of the cross blocks. A pure task."""
    m = (len(predictor.beta) if with_x else 0) + 1
    count, k = rows.windows[:, 1], rows.entry_windows[:, 1] * rules.width[rules.first] * rules.width[rules.second]
    sizes = [int((count * size).sum()) for size in (rules.width, rules.width**2, rules.width * m)]
    vectors, diagonal, dense = (np.zeros(size) for size in sizes)
    sums = FlatSums(np.zeros(1), vectors, diagonal, dense, np.zeros(int(k.sum()), kind), np.zeros((m, m)))
    working_kernels.add_working_sums(rows.record(), rules.record(rows, m), predictor.record(rows), with_x, sums)
    return ShardSums(rows.windows, rows.entry_windows, float(sums.ll[0]), *sums[1:])


@dataclass(slots=True)
class WorkingSums:
    """Working sums at one linear predictor: log-likelihood, Z's per term (q, k), and the blocks of A, flat."""

    ll: float
    score: tuple[np.ndarray, ...]
    diagonal: np.ndarray
    dense: np.ndarray
    cross: np.ndarray
    xy: np.ndarray


def working_sums(fold: Callable, wiring: BlockLayout, m: int, kind: Any, task: Callable, *args: Any) -> WorkingSums:
    """Add up ``task``'s parts in the shards' order; few of them are alive at a time."""
    vectors = np.zeros(wiring.q)
    out = WorkingSums(
        0.0,
        wiring.terms(vectors),
        np.zeros(int((wiring.width**2 * wiring.n_levels).sum())),
        np.zeros(wiring.q * m),
        # The cross blocks are the largest sums: the iterative solver may take them in single precision.
        np.zeros(wiring.entries, kind),
        np.zeros((m, m)),
    )
    k = wiring.width
    sizes = ((vectors, k), (out.diagonal, k * k), (out.dense, k * m))

    def add(part: ShardSums) -> None:
        out.ll += part.ll
        out.xy += part.xy
        for (total, size), mine in zip(sizes, (part.vectors, part.diagonal, part.dense), strict=True):
            add_windows(total, wiring.n_levels * size, size, part.windows, mine)
        numbers = np.array([k[i] * k[j] for i, j in wiring.pairs], np.int64)
        blocks = np.diff(np.append(wiring.cross_start, wiring.entries))
        add_windows(out.cross, blocks, numbers, part.entry_windows, part.cross)

    each_in_order(fold, add, task, *args)
    # The shards' sums leave this corner out.
    out.xy[-1, -1] = working_kernels.LAST_CORNER
    return out


def each_in_order(fold: Callable, use: Callable[[Any], None], task: Callable, *args: Any, **own: Any) -> None:
    """``use(task(shard, *args))`` for every shard, in their order."""

    def merge(before: Any, part: Any) -> None:
        if before is not None:
            use(before)
        use(part)

    # the first merge has two parts, every other one the part alone; a single shard is never merged
    alone = fold(merge, task, *args, **own)
    if alone is not None:
        use(alone)


def add_windows(
    total: np.ndarray, sizes: np.ndarray, numbers: np.ndarray, windows: np.ndarray, part: np.ndarray
) -> None:
    """Add a shard's windows, one after the other in ``part``, to a flat array of blocks of these sizes.

    numbers: how many a level (or entry) has, per block.
    """
    start = position = 0
    for size, k, (begin, count) in zip(sizes, numbers, windows, strict=True):
        total[start + begin * k : start + (begin + count) * k] += part[position : position + count * k]
        start, position = start + size, position + count * k
