"""Trees of nested levels against brute force and dense matrices."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy.linalg import block_diag

from bigmm.design.layout import DesignChunk
from bigmm.errors import DataError
from bigmm.laplace import tree_kernels
from bigmm.laplace.records import TreeFactor, TreeNodes
from bigmm.laplace.tree import grow
from bigmm.shards import shard as shards

pytestmark = pytest.mark.interpreted


def nested_refs(rng, n, sizes):
    """Levels of a chain, finest first, in no order; some levels have no rows."""
    refs = [rng.integers(0, sizes[0], n)]
    for q, above in pairwise(sizes):
        refs.append(rng.integers(0, above, q)[refs[-1]])
    return tuple(r.astype(np.int32) for r in refs)


def shard_of(rng, refs, sizes, sort=True):
    n, top = len(refs[0]), len(refs) - 1
    chunk = DesignChunk(rng.normal(size=(2, n)), rng.normal(size=n), refs, rng.random(n), None, n, ())
    return shards.join([chunk], 0, sizes[-1], top, 0 if sort else None)


@pytest.mark.parametrize("sizes", [(9,), (30, 6), (60, 20, 5), (40, 25, 9, 3)])
@pytest.mark.parametrize("sort", [True, False])
def test_every_row_is_below_its_levels(sizes, sort):
    rng = np.random.default_rng(len(sizes))
    refs = nested_refs(rng, 200, sizes)
    shard = shard_of(rng, refs, sizes, sort)
    forest = grow(shard, range(len(sizes)))
    path = forest.path()
    found = np.stack([np.repeat(forest.level[nodes], np.diff(forest.indptr)) for nodes in path])
    order = np.lexsort((refs[0], refs[-1]))
    assert np.array_equal(found, np.stack(refs)[:, order])
    assert forest.rows == 200 and len(forest.w) == 200 and len(forest.offset) == 0
    whole = {tuple(row) for row in np.vstack([shard.columns, shard.y, shard.w]).T}
    assert whole == {tuple(row) for row in np.vstack([forest.columns, forest.y, forest.w]).T}
    for t in range(len(sizes)):
        assert sorted(forest.level[forest.nodes(t)]) == sorted(set(refs[t]))
        above = forest.parent[forest.nodes(t)]
        assert np.all(above == -1) if t == len(sizes) - 1 else set(above) == set(forest.nodes(t + 1))
    assert np.array_equal(forest.first[1:, 0], forest.first[:-1, -1]) and forest.first[-1, -1] == len(forest.parent)
    for g in range(len(forest.first)):
        assert len(set(path[-1][forest.leaves[g] : forest.leaves[g + 1]])) == 1


def test_rows_in_order_are_not_copied():
    rng = np.random.default_rng(0)
    shard = shard_of(rng, nested_refs(rng, 100, (20, 4)), (20, 4))
    forest = grow(shard, (0, 1))
    assert forest.columns is shard.columns and forest.y is shard.y and forest.w is shard.w


def test_a_shard_without_rows_is_an_empty_forest():
    rng = np.random.default_rng(0)
    empty = tuple(np.zeros(0, np.int32) for _ in range(2))
    forest = grow(shard_of(rng, empty, (5, 2)), (0, 1))
    assert forest.rows == 0 and len(forest.parent) == 0 and forest.first.shape == (0, 3)


@pytest.mark.parametrize("refs", [([0, 0], [0, 1]), ([0, 1, 2, 3], [0, 0, 1, 1], [0, 1, 0, 0])])
def test_two_parents_are_refused(refs):
    rng = np.random.default_rng(0)
    levels = tuple(np.array(r, np.int32) for r in refs)
    with pytest.raises(DataError, match="a level of a nested factor turned up within two levels of the next"):
        grow(shard_of(rng, levels, (4, 2, 2)[-len(refs) :]), range(len(refs)))


WIDTHS = [(1, 1), (2, 1), (1, 2), (2, 2, 1), (1, 3, 2)]


class Tree:
    """One tree of a forest with random fronts, and the same as dense matrices over all its random effects."""

    def __init__(self, widths, seed=0, zero=False):
        rng = np.random.default_rng(seed)
        sizes = [1] if len(widths) == 1 else [12, *([5] * (len(widths) - 2)), 1]
        forest = grow(shard_of(rng, nested_refs(rng, 80, sizes), sizes), range(len(widths)))
        self.first, self.parent, self.leaves = forest.first[0], forest.parent, len(forest.indptr) - 1
        self.at = np.cumsum([0, *widths]).astype(np.int64)
        d, n, self.widest = int(self.at[-1]), len(forest.parent), max(widths)
        lams = [np.tril(rng.normal(size=(k, k))) for k in widths]
        if zero:
            lams[0][:] = 0.0
        self.lam = block_diag(*lams)
        self.z = rng.normal(size=(80, d))
        weights, self.columns = rng.random(80), rng.normal(size=(80, 3))
        path = forest.path()
        depth_of = np.concatenate([np.full(len(forest.nodes(t)), t) for t in range(len(widths))])
        nodes = np.concatenate([forest.nodes(t) for t in range(len(widths))])
        start = dict(zip(nodes, np.cumsum([0, *np.array(widths)[depth_of]])[:-1], strict=True))
        self.place = {int(v): start[v] + np.arange(widths[t]) for v, t in zip(nodes, depth_of, strict=True)}
        self.q = sum(widths[t] for t in depth_of)
        big = np.zeros((80, self.q))
        leaf = np.repeat(np.arange(self.leaves), np.diff(forest.indptr))
        self.slots = [np.concatenate([self.place[int(v)] for v in path[:, i]]) for i in range(self.leaves)]
        for row in range(80):
            big[row, self.slots[leaf[row]]] = self.z[row]
        self.big_lam = np.zeros((self.q, self.q))
        for v, t in zip(nodes, depth_of, strict=True):
            self.big_lam[np.ix_(self.place[int(v)], self.place[int(v)])] = lams[t]
        self.zwz, self.zwx = big.T @ (weights[:, None] * big), big.T @ (weights[:, None] * self.columns)
        self.m = self.big_lam.T @ self.zwz @ self.big_lam + np.eye(self.q)
        self.front, self.dense = np.zeros((n, d, d)), np.zeros((n, d, 3))
        for row in range(80):
            self.front[leaf[row]] += weights[row] * np.outer(self.z[row], self.z[row])
            self.dense[leaf[row]] += weights[row] * np.outer(self.z[row], self.columns[row])
        self.gram = self.columns.T @ (weights[:, None] * self.columns)
        self.factor = TreeFactor(np.zeros((n, self.widest, self.widest)), np.zeros((n, self.widest, d)))
        self.nodes = TreeNodes(self.first, self.parent, self.at)
        self.depth_of = dict(zip(map(int, nodes), depth_of, strict=True))
        self.n, self.d = n, d

    def eliminate(self, front=None):
        front = self.front if front is None else front
        return tree_kernels.eliminate(self.nodes, self.lam, front, self.factor, self.dense, self.gram)


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("widths", WIDTHS)
def test_the_factor_of_a_tree_is_that_of_the_dense_matrix(widths, zero):
    tree = Tree(widths, zero=zero)
    gram = tree.gram - tree.zwx.T @ tree.big_lam @ np.linalg.solve(tree.m, tree.big_lam.T @ tree.zwx)
    assert tree.eliminate() == pytest.approx(np.linalg.slogdet(tree.m)[1], rel=1e-12)
    assert np.allclose(tree.gram, gram, rtol=1e-10, atol=1e-10)
    rng = np.random.default_rng(1)
    rhs, x = np.zeros((tree.n, tree.d)), np.zeros((tree.n, tree.widest))
    raw, own = np.zeros(tree.q), np.zeros(tree.q)
    for leaf in range(tree.leaves):
        rhs[leaf] = rng.normal(size=tree.d)
        raw[tree.slots[leaf]] += rhs[leaf]
    for node, place in tree.place.items():
        x[node, : len(place)] = own[place] = rng.normal(size=len(place))
    right = tree.big_lam.T @ raw + own
    expected = np.linalg.solve(tree.m, right)
    length = tree_kernels.solve_tree(tree.nodes, tree.lam, tree.factor, rhs, x)
    assert length == pytest.approx(right @ expected, rel=1e-10)
    for node, place in tree.place.items():
        assert np.allclose(x[node, : len(place)], expected[place], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("widths", WIDTHS)
def test_the_inverse_on_paths_is_that_of_the_dense_matrix(widths, zero):
    tree = Tree(widths, zero=zero)
    tree.eliminate()
    inverse, projected = np.zeros((tree.n, tree.d, tree.d)), np.zeros((tree.d, tree.d))
    tree_kernels.invert(tree.nodes, tree.lam, tree.factor, tree.front, inverse, projected)
    dense = tree.big_lam @ np.linalg.inv(tree.m) @ tree.big_lam.T
    for leaf in range(tree.leaves):
        expected = dense[np.ix_(tree.slots[leaf], tree.slots[leaf])]
        assert np.allclose(inverse[leaf], expected, rtol=1e-9, atol=1e-11)
    p = tree.zwz - tree.zwz @ dense @ tree.zwz
    expected = np.zeros_like(projected)
    for node, place in tree.place.items():
        t = tree.depth_of[node]
        own = slice(tree.at[t], tree.at[t + 1])
        expected[own, own] += p[np.ix_(place, place)]
    assert np.allclose(projected, expected, rtol=1e-9, atol=1e-9)


def test_sums_and_effects_on_paths():
    tree = Tree((1, 2, 1))
    rng = np.random.default_rng(2)
    sums = np.zeros((tree.n, tree.d))
    sums[: tree.leaves] = rng.normal(size=(tree.leaves, tree.d))
    total = np.zeros(tree.q)
    for leaf in range(tree.leaves):
        total[tree.slots[leaf]] += sums[leaf]
    tree_kernels.sums_on_paths(tree.nodes, sums)
    u, flat = np.zeros((tree.n, tree.widest)), rng.normal(size=tree.q)
    for node, place in tree.place.items():
        u[node, : len(place)] = flat[place]
    b, path = np.empty((tree.n, tree.d)), np.empty((tree.n, tree.d))
    tree_kernels.spread(tree.nodes, tree.lam, u, b)
    tree_kernels.gather(tree.nodes, u, path)
    for leaf in range(tree.leaves):
        assert np.allclose(sums[leaf], total[tree.slots[leaf]])
        assert np.allclose(b[leaf], (tree.big_lam @ flat)[tree.slots[leaf]])
        assert np.array_equal(path[leaf], flat[tree.slots[leaf]])


def test_a_matrix_that_is_not_positive_definite_has_no_factor():
    tree = Tree((1, 1))
    assert np.isnan(tree.eliminate(-1e3 * tree.front))
