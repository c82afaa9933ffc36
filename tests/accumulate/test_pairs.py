import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigmm.accumulate import pairs
from bigmm.accumulate.pairs import PairBuffer, PairSums
from tests.accumulate import twins


def as_dict(sums: PairSums):
    assert np.all(np.diff(sums.keys) > 0)
    return dict(zip(sums.keys.tolist(), sums.data))


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
    frozen = buffer.freeze()
    assert frozen.data.sum() == 20_000
    assert frozen.keys.base is None


@pytest.mark.parametrize("bits", [1, 11, 12, 33, 62])
def test_radix_sorts_are_stable_sorts(bits):
    keys = np.random.default_rng(bits).integers(0, min(2**bits, 2**62), 3000)
    keys[::7] = keys[0]
    before = keys.copy()
    ordered, rows = pairs.radix_sort(keys, bits)
    np.testing.assert_array_equal(rows, np.argsort(keys, kind="stable"))
    np.testing.assert_array_equal(ordered, np.sort(keys))
    np.testing.assert_array_equal(pairs.radix_sort_keys(keys, bits), np.sort(keys))
    np.testing.assert_array_equal(keys, before)


def test_levels_come_back_from_keys():
    buffer = PairBuffer((3, 7), (1, 1))
    buffer.add_counts(np.array([2, 0, 2], np.int32), np.array([6, 1, 6], np.int32))
    first, second = buffer.freeze().levels
    assert (first.tolist(), second.tolist()) == ([0, 2], [1, 6])


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
    np.testing.assert_array_equal(back.keys, halves[0].keys)
    np.testing.assert_allclose(back.data, halves[0].data, rtol=1e-12)


@pytest.mark.parametrize("width", [1, 2])
@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_long_runs_are_merged_by_pieces_with_the_same_bits(width, piece, monkeypatch):
    rng = np.random.default_rng(piece)
    monkeypatch.setattr(pairs, "PIECE", piece)
    for size_a, size_b, most in ((300, 200, 400), (5, 500, 10_000), (500, 3, 600), (40, 40, 41)):
        runs = []
        for size in (size_a, size_b):
            keys = np.sort(rng.choice(most + size, size, replace=False)).astype(np.int64)
            runs.append((keys, rng.normal(size=(size, width, 1))))
        (keys_a, data_a), (keys_b, data_b) = runs
        keys, data = pairs.merge_runs(keys_a, data_a, keys_b, data_b)
        expected = np.union1d(keys_a, keys_b)
        np.testing.assert_array_equal(keys, expected)
        total = np.zeros((len(expected), width, 1))
        total[np.searchsorted(expected, keys_a)] += data_a
        total[np.searchsorted(expected, keys_b)] += data_b
        np.testing.assert_array_equal(data, total)
