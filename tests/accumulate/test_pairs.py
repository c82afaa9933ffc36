from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigmm.accumulate import pair_kernels, pairs
from bigmm.accumulate.pairs import PairBuffer, PairRows, PairSums
from tests.accumulate import twins


def as_dict(sums: PairSums):
    keys, data = sums.total()
    assert np.all(np.diff(keys) > 0)
    return dict(zip(keys.tolist(), data, strict=True))


def assert_same(sums: PairSums, expected):
    found = as_dict(sums)
    assert list(found) == list(expected)
    for key, block in expected.items():
        np.testing.assert_allclose(found[key], block, rtol=1e-12, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    n_levels=st.sampled_from([(1, 1), (3, 5), (60_000, 3), (5000, 90_000), (2_000_000, 900_000)]),
    widths=st.sampled_from([(1, 1), (2, 1), (2, 3)]),
    chunks=st.lists(st.integers(0, 400), min_size=1, max_size=5),
)
def test_runs_and_table_equal_the_twin(seed, n_levels, widths, chunks):
    rng = np.random.default_rng(seed)
    parts = []
    for n in chunks:
        few = rng.integers(0, [min(q, 20) for q in n_levels], (n, 2)).T * [[max(1, q // 20)] for q in n_levels]
        parts.append((*few.astype(np.int32), rng.normal(size=(widths[0], n)), rng.normal(size=(widths[1], n))))
    first, second, z_first, z_second = (np.concatenate(p, axis=-1) for p in zip(*parts))
    expected = twins.pair_sums(first, second, n_levels[1], z_first, z_second)
    runs = PairBuffer(n_levels, widths, dense_bytes=0)
    assert runs.table is None
    for part in parts:
        runs.add(*part)
    assert_same(runs.freeze(), expected)
    table = PairBuffer(n_levels, widths)
    if n_levels[0] * n_levels[1] < 10**5:
        assert table.table is not None
        for part in parts:
            table.add(*part)
        assert_same(table.freeze(), expected)


@pytest.mark.parametrize("dense_bytes", [0, 1 << 20])
def test_counts_equal_sums_of_ones(dense_bytes, monkeypatch):
    monkeypatch.setattr(pairs, "RUN_ROWS", 100)
    rng = np.random.default_rng(1)
    first, second = rng.integers(0, 40, 1000).astype(np.int32), rng.integers(0, 30, 1000).astype(np.int32)
    buffer = PairBuffer((40, 30), (1, 1), dense_bytes)
    buffer.add_counts(first, second)
    ones = np.ones((1, 1000))
    assert_same(buffer.freeze(), twins.pair_sums(first, second, 30, ones, ones))


def test_runs_stay_few_while_a_lane_is_long():
    buffer = PairBuffer((10**6, 10**6), (1, 1))
    rng = np.random.default_rng(0)
    for _ in range(40):
        buffer.add_counts(*rng.integers(0, 10**6, (2, 500)).astype(np.int32))
        assert len(buffer.runs) <= 7
    assert buffer.freeze().total()[1].sum() == 20_000


@pytest.mark.parametrize("bits", [1, 11, 12, 33, 62])
def test_radix_sorts_are_stable_sorts(bits):
    keys = np.random.default_rng(bits).integers(0, min(2**bits, 2**62), 3000)
    keys[::7] = keys[0]
    before = keys.copy()
    ordered, rows = pair_kernels.radix_sort(keys, bits)
    np.testing.assert_array_equal(rows, np.argsort(keys, kind="stable"))
    np.testing.assert_array_equal(ordered, np.sort(keys))
    np.testing.assert_array_equal(pair_kernels.radix_sort_keys(keys, bits), np.sort(keys))
    np.testing.assert_array_equal(keys, before)


@pytest.mark.parametrize("width", [1, 2])
def test_subtract_undoes_merge_and_forgets_pairs_without_rows(width):
    rng = np.random.default_rng(5)
    halves = []
    for low, high in ((0, 6), (4, 10)):
        buffer = PairBuffer((10, 10), (width, 1))
        levels = rng.integers(low, high, (2, 300)).astype(np.int32)
        buffer.add(*levels, rng.uniform(0.1, 1.0, (width, 300)), np.ones((1, 300)))
        halves.append(buffer.freeze())
    back = halves[0].merge(halves[1]).subtract(halves[1])
    (keys, data), (expected_keys, expected_data) = back.total(), halves[0].total()
    np.testing.assert_array_equal(keys, expected_keys)
    np.testing.assert_allclose(data, expected_data, rtol=1e-12)


def lanes_of(width, n_levels=(300, 70), lanes=5, counts=False):
    """The same rows as sums of lanes, and all at once from the twin."""
    rng = np.random.default_rng(width)
    parts, sums = [], []
    for n in rng.integers(0, 4000, lanes):
        levels = rng.integers(0, n_levels, (n, 2)).T.astype(np.int32)
        parts.append((*levels, rng.normal(size=(width, n)), np.ones((1, n))))
        buffer = PairBuffer(n_levels, (width, 1), dense_bytes=0)
        if counts:
            parts[-1][2][:] = 1.0
            buffer.add_counts(*levels)
        else:
            buffer.add(*parts[-1])
        sums.append(buffer.freeze())
    first, second, z_first, z_second = (np.concatenate(p, axis=-1) for p in zip(*parts))
    return sums, twins.pair_sums(first, second, n_levels[1], z_first, z_second)


@pytest.mark.parametrize(("width", "counts"), [(1, True), (1, False), (2, False)])
@pytest.mark.parametrize("pending", [0, 20, 1 << 18])
def test_lanes_that_are_added_up_early_or_late_are_the_same_sums(width, counts, pending, monkeypatch):
    monkeypatch.setattr(pairs, "PENDING", pending)
    monkeypatch.setattr(pairs, "RUN_ROWS", 512)
    monkeypatch.setattr(pairs, "SHORT", 100)
    sums, expected = lanes_of(width, counts=counts)
    assert_same(reduce(PairSums.merge, sums), expected)


@pytest.mark.parametrize("count", [1, 3, 16])
@pytest.mark.parametrize("width", [1, 2])
def test_parts_added_up_apart_are_the_bits_of_the_whole(width, count):
    sums, _ = lanes_of(width)
    whole = reduce(PairSums.merge, sums)
    keys, data = whole.total()
    apart = [reduce(PairSums.merge, own).total() for own in zip(*(s.parts(count) for s in sums), strict=True)]
    assert len(apart) == count
    np.testing.assert_array_equal(np.concatenate([k for k, _ in apart]), keys)
    np.testing.assert_array_equal(np.concatenate([d for _, d in apart]), data)


@pytest.mark.parametrize(("width", "counts"), [(1, True), (1, False), (2, False)])
def test_the_block_holds_every_pair_in_order_of_levels(width, counts):
    sums, expected = lanes_of(width, (300, 1000), counts=counts)
    whole = reduce(PairSums.merge, sums)
    parts = whole.parts(3)
    joined = PairRows.joined([part.rows() for part in parts])
    for part, block in ((whole, whole.block()), (whole, joined.block()), *((part, part.block()) for part in parts)):
        low, high = part.edges[0], part.edges[-1]
        mine = {key: value for key, value in expected.items() if low <= key // 1000 < high}
        assert len(block.indptr) == high - low + 1
        assert block.indices.dtype == np.int32
        levels = np.repeat(np.arange(low, high), np.diff(block.indptr))
        np.testing.assert_array_equal(levels * 1000 + block.indices, list(mine))
        np.testing.assert_allclose(block.data, list(mine.values()), rtol=1e-12, atol=1e-12)


def test_pairs_that_occur_once_take_no_memory_for_their_sums():
    buffer = PairBuffer((5000, 3000), (1, 1), dense_bytes=0)
    buffer.add_counts(np.arange(3000, dtype=np.int32), np.arange(3000, dtype=np.int32))
    once = buffer.freeze()
    assert once.nbytes == 8 * 3000
    assert once.rows().nbytes == 8 * 5000 + 4 * 3000
    assert once.merge(once).added_up().nbytes == 16 * 3000


def test_terms_are_paired_with_the_larger_one_first():
    assert pairs.pairs_of_terms([3, 5, 3]) == [(1, 0), (0, 2), (1, 2)]
