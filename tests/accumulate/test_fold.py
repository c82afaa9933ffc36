from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigmm.accumulate import fold_lane, merge, shift_vector
from bigmm.errors import DataError
from bigmm.execute import executor
from bigmm.execute.lanes import Lane
from bigmm.planning.memory import accumulator_bytes
from tests.accumulate import twins
from tests.accumulate.twins import ListSource, accumulate, make_chunk, make_layout, random_model, rows_slice


def same_bits(a, b):
    return (
        np.array_equal(a.gram, b.gram)
        and all(np.array_equal(r, s) for r, s in zip(a.records, b.records))
        and all(np.array_equal(r, s) for r, s in zip(a.counts, b.counts))
        and all(
            np.array_equal(x, y) for k, p in a.pairs.items() for x, y in zip(p.total(), b.pairs[k].total(), strict=True)
        )
        and (a.n, a.rows_read, a.dropped, a.sum_log_w) == (b.n, b.rows_read, b.dropped, b.sum_log_w)
    )


def assert_close(a, b, tolerance=1e-12):
    np.testing.assert_allclose(a.gram, b.gram, rtol=tolerance, atol=tolerance * np.abs(b.gram).max())
    for r, s in zip(a.records, b.records):
        np.testing.assert_allclose(r, s, rtol=tolerance, atol=tolerance * np.abs(s).max())
    for c, d in zip(a.counts, b.counts):
        np.testing.assert_array_equal(c, d)
    for key, pair in a.pairs.items():
        (keys, data), (other_keys, other_data) = pair.total(), b.pairs[key].total()
        np.testing.assert_array_equal(keys, other_keys)
        np.testing.assert_allclose(data, other_data, rtol=tolerance, atol=tolerance * 10)
    assert a.n == b.n
    assert a.sum_log_w == pytest.approx(b.sum_log_w, abs=1e-10)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 99),
    weighted=st.booleans(),
    offset=st.booleans(),
    factor=st.booleans(),
    shifted=st.booleans(),
    dense=st.booleans(),
    n=st.sampled_from([1, 3, 255, 256, 257, 700]),
)
def test_sums_equal_the_dense_oracle(seed, weighted, offset, factor, shifted, dense, n):
    model = random_model(seed, n=n, weighted=weighted, offset=offset, factor=factor, center=3.0)
    shift = shift_vector(model.layout, model.chunk) if shifted else np.zeros(6)
    cross = accumulate(model.layout, [model.chunk], shift, dense_bytes=1 << 24 if dense else 0)
    v = twins.rows_of(model.chunk.columns, model.y, np.empty(0), shift)
    np.testing.assert_allclose(cross.gram, v.T @ (model.w[:, None] * v), rtol=1e-11, atol=1e-11 * n)
    assert np.array_equal(cross.gram, cross.gram.T)
    terms = model.layout.joint
    z = []
    for j, term in enumerate(terms):
        onehot = np.eye(term.n_levels)[model.chunk.refs[term.grouping]]
        z.append(onehot[:, :, None] * v[:, None, list(term.covariates)])
        expected = np.einsum("nqk,n,nm->qkm", z[j], model.w, v)
        np.testing.assert_allclose(cross.records[j], expected, rtol=1e-11, atol=1e-11 * n)
        np.testing.assert_array_equal(cross.counts[j], onehot.sum(0))
    for (j, k), pair in cross.pairs.items():
        expected = np.einsum("nqa,n,nrb->qrab", z[j], model.w, z[k])
        there = np.einsum("nq,nr->qr", z[j].any(2), z[k].any(2)).reshape(-1) > 0
        keys, data = pair.total()
        np.testing.assert_array_equal(keys, np.flatnonzero(there))
        blocks = expected.reshape(-1, *expected.shape[2:])[keys]
        np.testing.assert_allclose(data, blocks, rtol=1e-11, atol=1e-11 * n)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 99), cuts=st.lists(st.integers(0, 300), max_size=6), weighted=st.booleans())
def test_any_partitioning_agrees_to_rounding_and_the_same_one_to_the_bit(seed, cuts, weighted):
    model = random_model(seed, n=300, weighted=weighted)
    edges = [0, *sorted(cuts), 300]
    parts = [rows_slice(model.chunk, slice(a, b)) for a, b in pairwise(edges)]
    whole = accumulate(model.layout, [model.chunk])
    one_lane = accumulate(model.layout, parts)
    assert_close(one_lane, whole)
    assert same_bits(one_lane, accumulate(model.layout, parts))
    lanes = [accumulate(model.layout, [part]) for part in parts]
    merged = lanes[0]
    for lane in lanes[1:]:
        merged = merge(merged, lane)
    assert_close(merged, whole)


def test_fold_lane_reads_its_partitions_in_order_and_ticks():
    model = random_model(1, n=90)
    parts = [rows_slice(model.chunk, slice(a, a + 30)) for a in (0, 30, 60)]
    source, ticks = ListSource(model.layout, parts), []
    cross = fold_lane(source, source, np.zeros(6), Lane(0, source.partitions), ticks.append)
    assert same_bits(cross, accumulate(model.layout, parts))
    assert source.asked == [(i, ("a",)) for i in range(3)]
    assert ticks == [30, 30, 30]


def test_the_number_of_threads_does_not_change_a_bit():
    model = random_model(5, n=4000, weighted=True, center=10.0)
    parts = [rows_slice(model.chunk, slice(a, a + 200)) for a in range(0, 4000, 200)]
    source = ListSource(model.layout, parts)
    lanes = [Lane(i, source.partitions[4 * i : 4 * i + 4]) for i in range(5)]
    fold = partial(fold_lane, source, source, shift_vector(model.layout, parts[0]))
    sums = [executor(n_workers=n).map_reduce(fold, lanes, merge, label="accumulate") for n in (1, 2, 5)]
    assert same_bits(sums[0], sums[1])
    assert same_bits(sums[0], sums[2])


def test_rows_of_weight_zero_count_for_nothing_but_rows_read():
    model = random_model(3, n=200, weighted=True)
    w = model.chunk.w.copy()
    w[::3] = 0.0
    chunk = make_chunk(model.chunk.columns, model.chunk.y, model.chunk.refs, w, dropped=(("a", 5),))
    cross = accumulate(model.layout, [chunk])
    kept = accumulate(model.layout, [rows_slice(chunk, np.flatnonzero(w))])
    assert_close(cross, kept)
    assert cross.n == np.count_nonzero(w)
    assert cross.rows_read == 205
    assert cross.dropped == {"a": 5}
    assert cross.sum_log_w == pytest.approx(np.log(w[w > 0]).sum())


def test_sorted_and_unsorted_rows_agree():
    model = random_model(2, n=600)
    order = np.argsort(model.chunk.refs[0], kind="stable")
    assert_close(accumulate(model.layout, [rows_slice(model.chunk, order)]), accumulate(model.layout, [model.chunk]))


def test_integer_weights_are_repeated_rows():
    model = random_model(4, n=150)
    times = np.arange(150) % 4 + 1
    weighted = make_chunk(model.chunk.columns, model.chunk.y, model.chunk.refs, times.astype(float))
    repeated = rows_slice(model.chunk, np.repeat(np.arange(150), times))
    a, b = accumulate(model.layout, [weighted]), accumulate(model.layout, [repeated])
    np.testing.assert_allclose(a.gram, b.gram, rtol=1e-12, atol=1e-10)
    for r, s in zip(a.records, b.records):
        np.testing.assert_allclose(r, s, rtol=1e-12, atol=1e-10)


def test_no_columns_no_terms_and_no_rows():
    layout = make_layout((), [0], [], ())
    cross = accumulate(layout, [make_chunk([], [1.0, 2.0, 4.0], [])])
    np.testing.assert_array_equal(cross.gram, [[3.0, 7.0], [7.0, 21.0]])
    assert cross.records == ()
    empty = accumulate(layout, [make_chunk([], [], [])])
    assert (empty.n, empty.gram.any()) == (0, False)


def test_a_level_outside_the_table_is_an_error():
    layout = make_layout((), [0], [(0, (0,))], (3,))
    for bad in (-1, 3):
        with pytest.raises(
            DataError, match="grouping factor 'g0' has a level that was not there when levels were lear"
        ):
            accumulate(layout, [make_chunk([], [1.0, 2.0], [[0, bad]])])


def test_predicted_bytes_are_those_of_the_buffers():
    model = random_model(2, n=50)
    cross = accumulate(model.layout, [model.chunk])
    arrays = cross.gram.nbytes + sum(a.nbytes for a in (*cross.records, *cross.counts))
    table = 8 * 7 * 11 * 3
    assert accumulator_bytes(model.layout) == arrays + table
    big = make_layout((), [0], [(0, (0,)), (1, (0,))], (160_000, 60_000))
    assert accumulator_bytes(big, rows=10**6) - accumulator_bytes(big) == 32 * 10**6


@pytest.mark.parametrize("distance", [1, 10**6, 10**12])
def test_level_sums_keep_nist_digits(distance):
    """NIST StRD SmLs: between and within sums of squares of data with 1, 7 and 13 constant leading digits."""
    levels, rows = 9, 2001
    steps = np.tile([0.3, 0.5], rows // 2)
    centers = np.array([0.4, 0.3, 0.2, 0.5, 0.6, 0.7, 0.3, 0.4, 0.5])
    y = np.concatenate([distance + np.concatenate([[c], c - 0.4 + steps]) for c in centers])
    refs = np.repeat(np.arange(levels), rows)
    layout = make_layout((), [0], [(0, (0,))], (levels,))
    order = np.random.default_rng(0).permutation(len(y))
    chunk = make_chunk([], y[order], [refs[order]])
    cross = accumulate(layout, [chunk], shift_vector(layout, chunk))
    record, gram = cross.records[0][:, 0], cross.gram
    between = (record[:, 1] ** 2 / record[:, 0]).sum() - gram[0, 1] ** 2 / gram[0, 0]
    within = gram[1, 1] - (record[:, 1] ** 2 / record[:, 0]).sum()
    f = (between / (levels - 1)) / (within / (levels * (rows - 1)))
    # What the rounded input itself says, in exact arithmetic.
    exact = y.astype(np.longdouble).reshape(levels, rows) - np.longdouble(distance)
    means = exact.mean(1)
    expected = (rows * ((means - means.mean()) ** 2).sum() / (levels - 1)) / (
        ((exact - means[:, None]) ** 2).sum() / (levels * (rows - 1))
    )
    assert abs(f / float(expected) - 1) < 2e-13
