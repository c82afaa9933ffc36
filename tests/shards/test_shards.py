"""Rows cut by levels: in memory and through files, the same shards."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from bigmm.design.layout import DesignChunk
from bigmm.execute.spill import SpillFile, looked_up
from bigmm.planning import sharding
from bigmm.shards import shard as shards
from bigmm.shards.files import RowShape, ShardFiles


def chunk(seed, n, levels=40, weighted=True, in_order=False):
    rng = np.random.default_rng(seed)
    g = rng.integers(0, levels, n).astype(np.int32)
    if in_order:
        g.sort()
    h = rng.integers(0, 7, n).astype(np.int32)
    w, offset = (rng.random(n), rng.normal(size=n)) if weighted else (None, None)
    return DesignChunk(rng.normal(size=(3, n)), rng.normal(size=n), (h, g), w, offset, n + 2, (("x", 2),))


def pieces_of(chunks, edges):
    return list(zip(*(shards.split(c, edges, 1) for c in chunks), strict=True))


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("count", [1, 6])
@pytest.mark.parametrize("in_order", [True, False])
def test_every_row_is_in_the_shard_of_its_level_in_order(weighted, count, in_order):
    chunks = [chunk(seed, n, weighted=weighted, in_order=in_order) for seed, n in ((1, 500), (2, 0), (3, 301))]
    edges = shards.bounds(40, count)
    whole = {name: np.concatenate([getattr(c, name) for c in chunks], axis=-1) for name in ("columns", "y")}
    g = np.concatenate([c.refs[1] for c in chunks])
    order = np.argsort(g, kind="stable")
    found = [
        shards.join(pieces, int(edges[i]), int(edges[i + 1] - edges[i]), 1)
        for i, pieces in enumerate(pieces_of(chunks, edges))
    ]
    assert np.array_equal(np.concatenate([s.y for s in found]), whole["y"][order])
    assert np.array_equal(np.concatenate([s.columns for s in found], axis=1), whole["columns"][:, order])
    assert np.array_equal(np.concatenate([s.refs[1] for s in found]), g[order])
    assert np.array_equal(np.concatenate([np.diff(s.indptr) for s in found]), np.bincount(g, minlength=40))
    assert all(len(s.w) == len(s.offset) == (s.rows if weighted else 0) for s in found)
    assert sum(s.rows_read for s in found) == 801 + 6
    assert shards.added_counts(s.dropped for s in found) == (("x", 6),)


@pytest.mark.parametrize("weighted", [True, False])
def test_shards_through_files_are_those_in_memory(weighted):
    chunks = [chunk(seed, n, 90, weighted) for seed, n in ((1, 4000), (2, 0), (3, 6007), (4, 1))]
    edges = shards.bounds(90, 7)
    files, target = ShardFiles(1, RowShape(3, 2, weighted, weighted), None, edges), SpillFile()
    for item in (2, 0, 3, 1):  # threads finish in any order
        files.add(item, shards.split(chunks[item], edges, 1))
    placed = [files.joined(number, target) for number in range(7)]
    for number, pieces in enumerate(pieces_of(chunks, edges)):
        expected = shards.join(pieces, int(edges[number]), int(edges[number + 1] - edges[number]), 1)
        found = looked_up(placed[number], target)
        for field in fields(expected):
            a, b = getattr(expected, field.name), getattr(found, field.name)
            assert np.array_equal(a, b), field.name
            if isinstance(a, np.ndarray):
                assert (a.shape, a.dtype) == (b.shape, b.dtype), field.name
    assert all(file.file.closed for file in files.files), "the disk of the pieces is given back"


def test_pieces_of_a_sorted_chunk_are_views_and_empty_ones_keep_nothing():
    one = chunk(1, 1000, in_order=True)
    pieces = list(shards.split(one, np.array([0, 10, 10, 40]), 1))
    assert [np.shares_memory(p.columns, one.columns) for p in pieces] == [True, False, True]
    assert not any(np.shares_memory(p.columns, chunk(1, 1000).columns) for p in pieces)


def test_the_number_of_shards_is_a_function_of_the_data():
    assert sharding.shard_count(49_999, 60, 1000) == 1
    assert sharding.shard_count(50_000, 60, 1000) == 8
    assert sharding.shard_count(50_000, 60, 3) == 3
    assert sharding.shard_count(50_000_000, 52, 10**6) == 78
    assert sharding.shard_count(10**10, 52, 10**6) == 512


def test_blocks_hold_every_row_once():
    shard = shards.join([chunk(5, 1000)], 0, 40, 1)
    blocks = list(shards.blocks(shard, 300))
    assert [b.rows for b in blocks] == [300, 300, 300, 100]
    assert np.array_equal(np.concatenate([b.columns for b in blocks], axis=1), shard.columns)
    assert np.array_equal(np.concatenate([b.refs[0] for b in blocks]), shard.refs[0])
    assert sum(b.rows_read for b in blocks) == 0
