"""Trees of nested factors: numbered within their parents, and laid out as the general analysis would."""

from dataclasses import fields, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigmm.blocks import Gram, TermBlock, analyse
from bigmm.blocks.nested import (
    ChainColumns,
    NestedSums,
    batches_of_trees,
    chain_gram,
    chain_structure,
    distinct_places,
    tree_order,
)


def forest(seed, depth, n=200):
    """(refs finest first (depth, n), parents per factor but the last) of levels numbered at random."""
    rng = np.random.default_rng(seed)
    sizes = [40, 12, 4][3 - depth :] if depth > 1 else [40]
    parents = [rng.integers(0, b, a) for a, b in pairwise(sizes)]
    refs = [rng.integers(0, sizes[0], n)]
    for parent in parents:
        refs.append(parent[refs[-1]])
    return [ref.astype(np.int32) for ref in refs], parents


@settings(max_examples=30)
@given(st.integers(0, 2**31), st.integers(1, 3))
def test_children_of_one_parent_stand_side_by_side(seed, depth):
    refs, parents = forest(seed, depth)
    order = tree_order(refs)
    for t in range(depth):
        np.testing.assert_array_equal(order.levels[t][order.rows[t]], refs[t])
        assert len(set(order.levels[t].tolist())) == len(order.levels[t])
    for t, parent in enumerate(parents):
        assert np.all(np.diff(order.parents[t]) >= 0)
        np.testing.assert_array_equal(order.levels[t + 1][order.parents[t]], parent[order.levels[t]])


def test_places_of_numbers_far_apart_and_of_none():
    for numbers in ([5, 3, 5, 2**30, 0], [7], [4, 4, 5]):
        found, place = distinct_places(np.array(numbers, np.int32))
        assert found.tolist() == sorted(set(numbers))
        assert found[place].tolist() == numbers
    assert [len(part) for part in distinct_places(np.zeros(0, np.int32))] == [0, 0]


def sums_of(seed, depth, widths):
    """`NestedSums` of rows v = [1, x, t, y], one record a row at a time."""
    rng = np.random.default_rng(seed)
    refs, _ = forest(seed, depth)
    order = tree_order(refs)
    v = np.column_stack([np.ones(len(refs[0])), rng.normal(size=(len(refs[0]), 3))])
    records = [np.zeros((len(order.levels[t]), widths[t], 4)) for t in range(depth)]
    for row, own in enumerate(v):
        for t in range(depth):
            records[t][order.rows[t][row]] += np.outer(own[: widths[t]], own)
    flat = (np.concatenate([np.zeros(0, np.int32), *part]) for part in (order.levels, order.parents))
    sizes = tuple(len(found) for found in order.levels)
    sums = NestedSums(
        sizes, widths, *flat, np.concatenate([r.ravel() for r in records]), v.T @ v, len(v), len(v), (), 0.0
    )
    return sums, order, v


def columns_for(sums):
    covariates = tuple(np.arange(k) for k in sums.widths)
    terms = tuple(
        TermBlock(str(t), np.zeros((0, k, k)), np.zeros((0, k, 3)), np.eye(k)) for t, k in enumerate(sums.widths)
    )
    ones = np.eye(2)[0], np.ones(2, bool), np.arange(2)
    shell = Gram(terms, {}, np.zeros((3, 3)), 0, 0.0, np.eye(2), 0.0, *ones, 1.0)
    return ChainColumns(shell, covariates, np.array([0, 1, 3]))


@pytest.mark.parametrize("widths", [(1,), (2,), (1, 1, 1), (2, 1, 3), (1, 2)])
def test_blocks_are_the_products_of_the_rows(widths):
    sums, order, v = sums_of(3, len(widths), widths)
    gram = chain_gram(sums, columns_for(sums))
    z = []
    for t, k in enumerate(widths):
        wide = np.zeros((len(v), sums.sizes[t], k))
        wide[np.arange(len(v)), order.rows[t]] = v[:, :k]
        z.append(wide.reshape(len(v), -1))
    for t, k in enumerate(widths):
        whole = (z[t].T @ z[t]).reshape(sums.sizes[t], k, sums.sizes[t], k)
        each = np.arange(sums.sizes[t])
        np.testing.assert_allclose(gram.terms[t].diagonal, whole[each, :, each, :], atol=1e-9)
        np.testing.assert_allclose(gram.terms[t].dense.reshape(-1, 3), z[t].T @ v[:, [0, 1, 3]], atol=1e-9)
        for above in range(t + 1, len(widths)):
            block = gram.cross[t, above]
            dense = np.zeros((sums.sizes[t], sums.sizes[above], k, widths[above]))
            dense[np.repeat(each, np.diff(block.indptr)), block.indices] = block.data
            expected = (z[t].T @ z[above]).reshape(sums.sizes[t], k, sums.sizes[above], widths[above])
            np.testing.assert_allclose(dense, expected.transpose(0, 2, 1, 3), atol=1e-9)


@pytest.mark.parametrize("widths", [(1,), (2,), (1, 1, 1), (2, 1, 3), (1, 2)])
def test_the_structure_is_that_of_the_general_analysis(widths):
    sums, _, _ = sums_of(5, len(widths), widths)
    gram = chain_gram(sums, columns_for(sums))
    found, expected = chain_structure(gram), analyse(gram)
    assert (found.r_raw, len(found.tail), len(found.stages)) == (0, 0, len(expected.stages))
    np.testing.assert_array_equal(found.base, expected.base)
    for one, other in zip(found.stages, expected.stages, strict=True):
        same(one, other)
        for parent, expected_parent in zip(one.parents, other.parents, strict=True):
            same(parent, expected_parent)
    for pair, block in expected.transposed.items():
        same(found.transposed[pair], block)


def same(found, expected):
    names = found._fields if isinstance(found, tuple) else [field.name for field in fields(found)]
    for name in names:
        a, b = getattr(found, name), getattr(expected, name)
        if name == "parents":
            assert len(a) == len(b)
        else:
            np.testing.assert_array_equal(a, b, err_msg=name)
            assert getattr(a, "dtype", None) == getattr(b, "dtype", None), name


def test_no_level_at_all():
    sums, _, _ = sums_of(5, 3, (2, 1, 1))
    shell = columns_for(sums).fixed_part_gram
    empty = NestedSums(
        (0, 0, 0), (2, 1, 1), *(np.zeros(0, np.int32),) * 2, np.zeros(0), np.zeros((4, 4)), 0, 0, (), 0.0
    )
    structure = chain_structure(chain_gram(empty, replace(columns_for(sums), fixed_part_gram=shell)))
    assert [stage.n_levels for stage in structure.stages] == [0, 0, 0]


@pytest.mark.parametrize("widths", [(1,), (2, 1), (2, 1, 3)])
@pytest.mark.parametrize("levels", [1, 7, 1000])
def test_groves_are_whole_trees_one_after_the_other(widths, levels):
    sums, order, _ = sums_of(8, len(widths), widths)
    parts = list(batches_of_trees(sums, levels))
    assert (len(parts) > 1) == (levels < 1000)
    for term in range(len(widths)):
        np.testing.assert_array_equal(np.concatenate([part.levels_of(term) for part in parts]), order.levels[term])
        np.testing.assert_array_equal(np.concatenate([p.records_of(term) for p in parts]), sums.records_of(term))
    for part in parts:
        for term in range(len(widths) - 1):
            above = part.levels_of(term + 1)[part.parents_of(term)]
            place = np.searchsorted(np.sort(order.levels[term]), part.levels_of(term))
            own = np.argsort(order.levels[term])[place]
            np.testing.assert_array_equal(above, order.levels[term + 1][order.parents[term][own]])
