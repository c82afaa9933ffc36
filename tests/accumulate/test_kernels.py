import numpy as np
import pytest
from numba import config

from bigmm.accumulate import kernels
from tests.accumulate import twins

pytestmark = pytest.mark.interpreted

compiled = pytest.mark.skipif(config.DISABLE_JIT, reason="the interpreter adds in another order")


@pytest.mark.parametrize("m", [2, 3, 4, 5, 7, 8, 13])
@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize(("weighted", "offset"), [(False, False), (True, True)])
@pytest.mark.parametrize(("q", "in_order"), [(17, False), (17, True), (5000, False)])
def test_add_rows_equals_its_twin(m, k, weighted, offset, q, in_order):
    rng = np.random.default_rng(m * k)
    n, k = 1003, min(k, m - 1)  # three rows are left over after fours
    columns, y = rng.normal(size=(m - 2, n)), rng.normal(size=n)
    extra = rng.normal(size=n) if offset else np.empty(0), rng.uniform(size=n) if weighted else np.empty(0)
    refs, covariates = rng.integers(0, q, n).astype(np.int32), np.arange(k)
    refs = np.sort(refs) if in_order else refs
    results = []
    for add_rows in (kernels.add_rows, twins.add_rows):
        high, low, records = np.zeros((m, m)), np.zeros((m, m)), kernels.zero_records(q, k, m)
        shift = np.concatenate([[0.0], np.full(m - 1, 0.25)])
        target = records if add_rows is kernels.add_rows else records[:, :, :m]
        rows = kernels.ChunkRows(columns, y, *extra, shift)
        add_rows(rows, True, high, low, True, refs, covariates, target)
        assert not records[:, :, m:].any()
        results.append((np.triu(high + low), records[:, :, :m]))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-12, atol=1e-11)
    np.testing.assert_allclose(results[0][1], results[1][1], rtol=1e-12, atol=1e-12)


def test_switches_leave_the_other_half_alone():
    rng = np.random.default_rng(0)
    columns, y, none = rng.normal(size=(2, 10)), rng.normal(size=10), np.empty(0)
    high, low, records = np.zeros((4, 4)), np.zeros((4, 4)), np.zeros((2, 1, 4))
    rows = kernels.ChunkRows(columns, y, none, none, np.zeros(4))
    refs, covariates = np.zeros(10, np.int32), np.zeros(1, np.int64)
    kernels.add_rows(rows, True, high, low, False, refs, covariates, records)
    assert high.any()
    assert not records.any()
    high[:] = 0.0
    kernels.add_rows(rows, False, high, low, True, refs, covariates, records)
    assert not high.any()
    assert records[0].any()


@compiled
def test_gram_keeps_the_rounding_errors_of_its_partial_sums():
    """10^5 blocks of sums that are not representable: the compensated total is the correctly rounded one."""
    n = 400 * kernels.BLOCK
    y = np.full(n, 0.1)
    high, low, none = np.zeros((2, 2)), np.zeros((2, 2)), np.empty(0)
    nothing = np.empty(0, np.int32), np.empty(0, np.int64), np.empty((0, 0, 2))
    for _ in range(20):
        rows = kernels.ChunkRows(np.empty((0, n)), y, none, none, np.zeros(2))
        kernels.add_rows(rows, True, high, low, False, *nothing)
    exact = 20 * n * float.fromhex("0x1.999999999999ap-4")
    assert abs((high + low)[0, 1] / exact - 1) < 3e-16 * 8


def test_records_lie_on_cache_lines_and_are_padded_little():
    assert [kernels.padded(m) for m in (2, 3, 4, 6, 7, 8, 9, 11)] == [2, 3, 4, 6, 8, 8, 9, 12]
    for q in (1, 1000):
        records = kernels.zero_records(q, 2, 7)
        assert records.shape == (q, 2, 8)
        assert records.ctypes.data % 64 == 0
        assert records.flags.c_contiguous
        assert not records.any()


def test_count_levels():
    counts = np.array([1, 0, 5])
    kernels.count_levels(np.array([2, 2, 0], np.int32), counts)
    np.testing.assert_array_equal(counts, [2, 0, 7])
