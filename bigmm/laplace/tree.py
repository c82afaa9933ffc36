"""Levels of nested factors as trees, one for each level of the top factor, with the rows in the order of their leaves.

M is block-diagonal over trees, and within a tree a level meets only the levels above it: eliminating from the leaves to
the root fills nothing in. Depth 0 are the leaves (levels of the finest factor).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bigmm.errors import DataError
from bigmm.shards.shard import Shard, leaf_order


@dataclass(frozen=True, slots=True)
class Forest:
    """The rows of a shard by leaf, and its trees. Nodes are numbered tree by tree, leaves first, the root last.

    Attributes
    ----------
    columns, y, w, offset : (c - 1, n) and (n,), as in `Shard`.
    indptr : (n_leaves + 1,) int64 rows of each leaf.
    leaves : (G + 1,) int64 first leaf of each of G trees.
    first : (G, T + 1) int64 where each tree's nodes of depth t begin.
    parent : (N,) int64 parent of each node, -1 at a root.
    level : (N,) int32 number of each node among the levels of its factor.
    """

    columns: np.ndarray
    y: np.ndarray
    w: np.ndarray
    offset: np.ndarray
    indptr: np.ndarray
    leaves: np.ndarray
    first: np.ndarray
    parent: np.ndarray
    level: np.ndarray

    @property
    def rows(self) -> int:
        """Number of rows n."""
        return len(self.y)

    @property
    def depth(self) -> int:
        """Number of factors T."""
        return self.first.shape[1] - 1

    def nodes(self, t: int) -> np.ndarray:
        """The nodes of depth t, tree by tree."""
        return _ranges(self.first[:, t], self.first[:, t + 1])

    def path(self) -> np.ndarray:
        """(T, n_leaves) the nodes from each leaf to its root."""
        out = np.empty((self.depth, len(self.indptr) - 1), np.int64)
        out[0] = self.nodes(0)
        for t in range(1, self.depth):
            out[t] = self.parent[out[t - 1]]
        return out


def _ranges(start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """start[0] .. stop[0], start[1] .. stop[1], ..."""
    sizes = stop - start
    before = np.cumsum(sizes) - sizes
    return np.arange(int(sizes.sum()), dtype=np.int64) + np.repeat(start - before, sizes)


def grow(shard: Shard, groupings: Sequence[int]) -> Forest:
    """The forest of a shard; groupings: finest first, the one that cuts the shards last. Pure.

    Rows that are in the order of (root, leaf) are not copied. Raises DataError where a level has two parents.
    """
    refs = shard.refs[list(groupings)]
    columns, y, w, offset = shard.columns, shard.y, shard.w, shard.offset
    order = leaf_order(refs[-1], refs[0])
    if order is not None:
        refs, columns, y = refs[:, order], np.ascontiguousarray(columns[:, order]), y[order]
        w, offset = (a[order] if len(a) else a for a in (w, offset))
    # Cut to n, for without rows there is no first leaf.
    begins = np.append(True, np.any(refs[:, 1:] != refs[:, :-1], axis=0))[: len(y)]
    starts = np.flatnonzero(begins).astype(np.int64)
    first, parent, level, leaves = _trees(refs[:, starts].astype(np.int64))
    return Forest(columns, y, w, offset, np.append(starts, len(y)), leaves, first, parent, level)


def _trees(path: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(first, parent, level, leaves) from the levels on the way from each leaf to its root (T, n_leaves)."""
    depth, n_leaves = path.shape
    roots, tree = np.unique(path[-1], return_inverse=True)
    rank = np.empty_like(path)  # of each leaf's ancestor among those of its depth
    sizes = np.empty((len(roots), depth), np.int64)
    for t in range(depth):
        # One number for (tree, level), so that nodes of a depth are numbered tree by tree.
        keys = tree * (path[t].max(initial=0) + 1) + path[t]
        _, leaf, rank[t] = np.unique(keys, return_index=True, return_inverse=True)
        sizes[:, t] = np.bincount(tree[leaf], minlength=len(roots))
    ends = np.append(0, np.cumsum(sizes.ravel()))
    first = ends[np.arange(len(roots))[:, None] * depth + np.arange(depth + 1)]
    before = np.cumsum(sizes, axis=0) - sizes
    node = rank + (first[:, :-1] - before)[tree].T
    parent, level = np.full(int(ends[-1]), -1, np.int64), np.empty(int(ends[-1]), np.int32)
    good = len(np.unique(node[0])) == n_leaves
    for t in range(depth):
        level[node[t]] = path[t]
        # A level is in one tree only, else two nodes would share its number.
        good = good and len(np.unique(path[t])) == sizes[:, t].sum()
        if t + 1 < depth:
            # Of two parents the assignment keeps one, which the comparison after it finds out.
            parent[node[t]] = node[t + 1]
            good = good and np.array_equal(parent[node[t]], node[t + 1])
    if not good:
        raise DataError(
            "a level of a nested factor turned up within two levels of the next: the data changed while they were read"
        )
    return first, parent, level, np.append(0, np.cumsum(sizes[:, 0]))
