"""The working blocks of nested factors at their modes: what standard errors and predictions are read off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bigmm.blocks import CrossBlock
from bigmm.laplace import working_kernels
from bigmm.laplace.objective import ModeBlocks
from bigmm.laplace.records import FlatSums, KernelModel, KernelPoint, KernelRows, LevelModel, Point
from bigmm.laplace.tree import Forest


@dataclass(frozen=True, slots=True)
class ShardBlocks:
    """`ModeBlocks` of one shard, per factor, finest first.

    Attributes
    ----------
    levels : per factor (q,) level numbers, in the order of the shard's nodes.
    diagonal, dense, u, xy, ll : as in `ModeBlocks`, for the shard's levels and rows.
    above : {(i, j): (q_i,)} the level of j that each level of i lies in.
    cross : {(i, j): (q_i, k_i, k_j)} Z_i'W Z_j of these two levels.
    """

    levels: tuple[np.ndarray, ...]
    diagonal: tuple[np.ndarray, ...]
    dense: tuple[np.ndarray, ...]
    u: tuple[np.ndarray, ...]
    above: dict[tuple[int, int], np.ndarray]
    cross: dict[tuple[int, int], np.ndarray]
    xy: np.ndarray
    ll: float


def blocks_of_shard(forest: Forest, u, model: LevelModel, point: Point) -> ShardBlocks:
    """One shard's blocks at the modes u (N, K); pure."""
    xc, edges, lam = model.xc, model.depths, point.lam
    width, m, depths = np.diff(edges), len(xc) + 1, range(forest.depth)
    nodes = [forest.nodes(t) for t in depths]
    n_levels = np.array([len(numbers) for numbers in nodes], np.int64)
    number = np.empty(len(forest.parent), np.int64)  # of a node among those of its depth
    for numbers in nodes:
        number[numbers] = np.arange(len(numbers))
    refs = np.repeat(number[forest.path()], np.diff(forest.indptr), axis=1)
    pairs = [(i, j) for j in depths for i in range(j)]
    first, second = (np.array([pair[side] for pair in pairs], np.int64) for side in (0, 1))
    sizes = width * width * n_levels, width * n_levels * m, width[first] * width[second] * n_levels[first]
    starts = [_starts(size) for size in (width * n_levels, *sizes)]
    columns = model.family, model.link, xc, model.zc
    layout = KernelModel(*columns, width, starts[0], starts[1], starts[2], first, second, starts[3])
    # a level of i meets one of j: the entry of a row is its level of i
    refs = refs.astype(np.int32)
    rows = KernelRows(forest.columns, forest.y, forest.w, forest.offset, refs, refs[first])
    modes = [u[numbers, :k] for numbers, k in zip(nodes, width, strict=True)]
    b = [mode @ lam[edges[t] : edges[t + 1], edges[t] : edges[t + 1]].T for t, mode in enumerate(modes)]
    vectors, xy = np.zeros(int((width * n_levels).sum())), np.zeros((m, m))
    diagonal, dense, cross = (np.zeros(int(size.sum())) for size in sizes)
    sums = FlatSums(np.zeros(1), vectors, diagonal, dense, cross, xy)
    effects = np.concatenate([x.ravel() for x in b])
    predictor = KernelPoint(point.beta, effects, point.phi, model.observed)
    # The kernel of crossed factors serves here: at the optimum speed matters less than one set of sums.
    working_kernels.add_working_sums(rows, layout, predictor, True, sums)
    return ShardBlocks(
        tuple(forest.level[numbers] for numbers in nodes),
        tuple(_cut(diagonal, starts[1], [(q, k, k) for q, k in zip(n_levels, width, strict=True)])),
        tuple(_cut(dense, starts[2], [(q, k, m) for q, k in zip(n_levels, width, strict=True)])),
        tuple(modes),
        {(i, j): forest.level[_ancestors(forest, nodes[i], j - i)] for i, j in pairs},
        dict(zip(pairs, _cut(cross, starts[3], [(n_levels[i], width[i], width[j]) for i, j in pairs]), strict=True)),
        xy,
        float(sums.ll[0]),
    )


def _starts(sizes: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(sizes)])[:-1].astype(np.int64)


def _cut(flat: np.ndarray, starts: np.ndarray, shapes: Sequence[tuple]) -> list[np.ndarray]:
    return [flat[s : s + int(np.prod(shape))].reshape(shape) for s, shape in zip(starts, shapes, strict=True)]


def _ancestors(forest: Forest, nodes: np.ndarray, steps: int) -> np.ndarray:
    for _ in range(steps):
        nodes = forest.parent[nodes]
    return nodes


def joined(parts: Sequence[ShardBlocks], beta: np.ndarray) -> ModeBlocks:
    """The blocks of all shards; every level is in one of them."""
    depths = range(len(parts[0].levels))
    levels = [np.concatenate([part.levels[t] for part in parts]) for t in depths]
    # Shards number their nodes tree by tree; blocks are in the order of the levels.
    order = [np.argsort(numbers, kind="stable") for numbers in levels]
    level_numbers = tuple(numbers[by] for numbers, by in zip(levels, order, strict=True))

    def all_of(name: str) -> tuple[np.ndarray, ...]:
        return tuple(np.concatenate([getattr(part, name)[t] for part in parts])[order[t]] for t in depths)

    cross = {}
    for i, j in parts[0].above:
        above = np.concatenate([part.above[i, j] for part in parts])[order[i]]
        data = np.concatenate([part.cross[i, j] for part in parts])[order[i]]
        # A level lies in one level of each coarser factor, so a block row has one entry.
        indices = np.searchsorted(level_numbers[j], above).astype(np.int32)
        cross[i, j] = CrossBlock(np.arange(len(above) + 1, dtype=np.int64), indices, data)
    xy = np.sum([part.xy for part in parts], axis=0)
    xy[-1, -1] = working_kernels.LAST_CORNER
    ll = float(sum(part.ll for part in parts))
    return ModeBlocks(level_numbers, all_of("diagonal"), all_of("dense"), cross, xy, beta, all_of("u"), ll)
