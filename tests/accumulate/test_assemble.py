import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigmm.accumulate import assemble, shift_vector
from bigmm.errors import DataError
from tests.accumulate.twins import Model, accumulate, make_chunk, make_layout, random_model


def assembled(model: Model, shift=None):
    shift = shift_vector(model.layout, model.chunk) if shift is None else shift
    return assemble(accumulate(model.layout, [model.chunk], shift), model.layout)


def block_diagonal(blocks):
    q, k, _ = blocks.shape
    out = np.zeros((q, k, q, k))
    out[np.arange(q), :, np.arange(q), :] = blocks
    return out.reshape(q * k, q * k)


def dense_cross(block, shape):
    q_j, q_k, k_j, k_k = shape
    out = np.zeros((q_j, k_j, q_k, k_k))
    for row in range(q_j):
        for at in range(block.indptr[row], block.indptr[row + 1]):
            out[row, :, block.indices[at], :] = block.data[at]
    return out.reshape(q_j * k_j, q_k * k_k)


def assert_equals_dense_algebra(model: Model, tolerance=1e-9):
    """Every block of A, brought back from the working basis, against matrices written out row by row."""
    result = assembled(model)
    gram, w = result.gram, model.w
    p = len(gram.fixed_order)
    x = np.empty((model.chunk.rows, p))
    x[:, gram.fixed_order] = model.x()
    basis, active = gram.x_basis, gram.active
    # X = X_working B on the active columns, y = y_working + s X one
    p_dense = p - sum(t.contrast.shape[1] for t in gram.terms if t.contrast is not None)
    if p_dense == p:
        b = basis[np.ix_(active, active)]
        xa = x[:, active]
        y_working = model.y - (0.0 if gram.one is None else gram.y_shift * (x @ gram.one))
        xy = np.column_stack([xa @ np.linalg.inv(b), y_working])
        close(gram.xy, xy.T @ (w[:, None] * xy), tolerance)
    else:
        y_working = model.y - (0.0 if gram.one is None else gram.y_shift)
    if gram.one is not None:
        np.testing.assert_allclose(x @ gram.one, 1.0, atol=1e-9)
        assert not gram.one[~active].any()
    weighted_mean = (w @ model.y) / w.sum()
    assert gram.y_sum_squares_total == pytest.approx(w @ (model.y - weighted_mean) ** 2, rel=1e-9)
    z = []
    for term, j, kept in zip(gram.terms, result.term_order, result.level_numbers):
        z.append(model.z(j)[:, kept].reshape(model.chunk.rows, -1))
        back = np.kron(np.eye(term.n_levels), term.basis)
        close(back.T @ block_diagonal(term.diagonal) @ back, z[-1].T @ (w[:, None] * z[-1]), tolerance)
        zwy = back.T @ term.dense[:, :, -1].reshape(-1)
        close(zwy, z[-1].T @ (w * y_working), tolerance)
    for (a, b), block in gram.cross.items():
        s, t = gram.terms[a], gram.terms[b]
        dense = dense_cross(block, (s.n_levels, t.n_levels, s.width, t.width))
        left, right = np.kron(np.eye(s.n_levels), s.basis), np.kron(np.eye(t.n_levels), t.basis)
        close(left.T @ dense @ right, z[a].T @ (w[:, None] * z[b]), tolerance)
        assert block.indptr.dtype == np.int64
        assert block.indices.dtype == np.int32
        assert block.data.flags.c_contiguous
    return result


def close(a, b, tolerance):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * max(1.0, np.abs(b).max()))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 99),
    weighted=st.booleans(),
    offset=st.booleans(),
    intercept=st.booleans(),
    factor=st.booleans(),
    center=st.sampled_from([0.0, 30.0]),
)
def test_blocks_equal_dense_algebra(seed, weighted, offset, intercept, factor, center):
    model = random_model(seed, weighted=weighted, offset=offset, intercept=intercept, factor=factor, center=center)
    assert_equals_dense_algebra(model)


def test_terms_come_by_decreasing_levels_that_have_rows():
    layout = make_layout(("x",), [0, 1], [(0, (0, 1)), (1, (0,))], (9, 5))
    rng = np.random.default_rng(0)
    refs = [rng.choice([2, 5, 8], 60), rng.integers(0, 5, 60)]
    model = Model(layout, make_chunk(rng.normal(7, 1, (1, 60)), rng.normal(size=60), refs))
    result = assert_equals_dense_algebra(model)
    assert result.term_order == (1, 0)
    assert [t.name for t in result.gram.terms] == ["g1", "g0"]
    assert [t.n_levels for t in result.gram.terms] == [5, 3]
    np.testing.assert_array_equal(result.level_numbers[1], [2, 5, 8])


def test_fixed_factors_come_last_with_their_contrast():
    rng = np.random.default_rng(1)
    contrast = np.vstack([np.zeros(3), np.eye(3)])
    layout = make_layout(("x",), [0, 1], [(0, (0,))], (3, 4), factors=[(1, 0, contrast)])
    refs = [rng.integers(0, 3, 80), rng.choice([0, 1, 3], 80)]
    model = Model(layout, make_chunk(rng.normal(7, 1, (1, 80)), rng.normal(size=80), refs))
    result = assert_equals_dense_algebra(model)
    factor = result.gram.terms[1]
    assert not factor.penalized
    assert result.dropped_columns == ("g1[1]",)
    np.testing.assert_array_equal(factor.contrast, [[0, 0], [1, 0], [0, 1]])
    np.testing.assert_array_equal(result.gram.active, [True, True, True, False, True])
    np.testing.assert_array_equal(result.gram.fixed_order, np.arange(5))


def test_factor_coefficients_between_dense_ones_keep_the_users_order():
    rng = np.random.default_rng(1)
    made = make_layout(("x",), [0, 1], [(0, (0,))], (3, 3), factors=[(1, 0, np.eye(3)[:, 1:])])
    factor = made.fixed_factors[0]
    layout = type(made)(
        **{name: getattr(made, name) for name in ("columns", "terms", "groupings", "response")},
        fixed_names=("Intercept", "f1", "f2", "x"),
        fixed_columns=(0, -1, -1, 1),
        fixed_factors=(type(factor)(factor.grouping, factor.covariate, factor.contrast, (1, 2)),),
        one=np.array([1.0, 0.0, 0.0, 0.0]),
    )
    refs = rng.integers(0, 3, (2, 60))
    # x is the indicator of level 2: it depends on the factor, which the user wrote earlier.
    model = Model(layout, make_chunk([refs[1] == 2], rng.normal(size=60), refs))
    result = assembled(model)
    np.testing.assert_array_equal(result.gram.fixed_order, [0, 2, 3, 1])
    assert result.dropped_columns == ("x",)
    np.testing.assert_array_equal(result.gram.active, [True, False, True, True])


@pytest.mark.parametrize("two", [False, True])
def test_a_huge_response_and_covariate_lose_nothing(two):
    """y = 1e9 + noise and x = 1e7 + noise give the same working blocks as the noise alone (integers, so exactly)."""
    rng = np.random.default_rng(2)
    noise_x, noise_y = rng.integers(-50, 50, (2, 400)).astype(float)
    noise_x[:2], noise_y[:2] = 0.0, 0.0
    refs = [rng.integers(0, 8, 400), rng.integers(0, 3, 400)]
    terms = [(0, (0, 1)), (1, (0,))][: 1 + two]
    layout = make_layout(("x",), [0, 1], terms, (8, 3))
    near = assembled(Model(layout, make_chunk([noise_x], noise_y, refs)), np.zeros(3)).gram
    chunk = make_chunk([noise_x + 1e7], noise_y + 1e9, refs)
    far = assembled(Model(layout, chunk), np.array([0.0, 1e7, 1e9])).gram
    np.testing.assert_array_equal(far.xy, near.xy)
    np.testing.assert_array_equal(far.terms[0].diagonal, near.terms[0].diagonal)
    np.testing.assert_array_equal(far.terms[0].dense, near.terms[0].dense)
    np.testing.assert_array_equal(far.terms[0].basis, [[1.0, 1e7], [0.0, 1.0]])
    np.testing.assert_array_equal(far.x_basis, [[1.0, 1e7], [0.0, 1.0]])
    assert far.y_shift == 1e9


def test_dependent_columns_are_dropped_later_first_even_far_from_zero():
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(2, 300)) + 1e6
    columns = [a, b, a - b, np.full(300, 5.1), a + 1e-3 * rng.normal(size=300), a]
    layout = make_layout(("a", "b", "diff", "const", "near", "again"), [0, 1, 2, 3, 4, 5, 6], [(0, (0,))], (4,))
    model = Model(layout, make_chunk(columns, rng.normal(size=300), [rng.integers(0, 4, 300)]))
    result = assembled(model)
    assert result.dropped_columns == ("diff", "const", "again")
    assert result.gram.xy.shape == (5, 5)
    assert result.gram.terms[0].dense.shape == (4, 1, 5)


def test_one_is_rewritten_when_a_column_that_makes_it_is_dropped():
    """1 = d1 + d2 + d3, but d1 is already there under another name (and shifted columns hang on the constant)."""
    rng = np.random.default_rng(4)
    dummies = np.eye(3)[rng.integers(0, 3, 200)].T
    columns = [2 * dummies[0], *dummies, rng.normal(1e3, 1, 200)]
    one = np.array([0.0, 1.0, 1.0, 1.0, 0.0])
    layout = make_layout(("twice", "d1", "d2", "d3", "x"), [1, 2, 3, 4, 5], [(0, (0,))], (4,), one=one)
    model = Model(layout, make_chunk(columns, rng.normal(50, 1, 200), [rng.integers(0, 4, 200)]))
    result = assert_equals_dense_algebra(model)
    assert result.dropped_columns == ("d1",)
    np.testing.assert_allclose(result.gram.one, [0.5, 0.0, 1.0, 1.0, 0.0], atol=1e-9)


def test_the_basis_holds_for_any_vector_that_makes_the_constant():
    """1 = (u + v) / 10 with u itself moved by a foreign shift: c = a / (1 + s'a) and B = I + a s'."""
    rng = np.random.default_rng(5)
    u = rng.normal(5, 1, 100)
    layout = make_layout(("u", "v", "x"), [1, 2, 3], [(0, (0,))], (4,), one=np.array([0.1, 0.1, 0.0]))
    model = Model(layout, make_chunk([u, 10 - u, rng.normal(8, 1, 100)], rng.normal(size=100), [np.arange(100) % 4]))
    cross = accumulate(layout, [model.chunk], np.array([0.0, 3.0, 0.0, 8.0, 1.0]))
    gram = assemble(cross, layout).gram
    xw = model.chunk.columns.T - [3.0, 0.0, 8.0]
    np.testing.assert_allclose(xw @ gram.x_basis, model.x(), rtol=1e-12)
    np.testing.assert_allclose(model.x() @ gram.one, 1.0)


def test_constant_response_is_an_error():
    layout = make_layout((), [0], [(0, (0,))], (2,), response="weight")
    for value, n in ((0.1, 1000), (1e9 / 3, 77), (0.0, 10)):
        model = Model(layout, make_chunk([], np.full(n, value), [np.arange(n) % 2]))
        with pytest.raises(
            DataError, match=r"the response is constant: 'weight' \(less any offset\) is .* in all \d+ rows"
        ):
            assembled(model)
    barely = np.full(1000, 1e9)
    barely[7] += 1e-3
    assert assembled(Model(layout, make_chunk([], barely, [np.arange(1000) % 2]))).gram.y_sum_squares_total > 0


def test_as_many_coefficients_as_rows_is_an_error():
    rng = np.random.default_rng(0)
    layout = make_layout(("a", "b"), [0, 1, 2], [(0, (0,))], (2,))
    model = Model(layout, make_chunk(rng.normal(size=(2, 3)), [1.0, 2.0, 4.0], [[0, 1, 1]]))
    with pytest.raises(DataError, match="the model has p = 3 fixed-effect coefficients but only n = 3 rows"):
        assembled(model)


def test_no_rows_is_an_error_that_says_where_they_went():
    layout = make_layout(("x",), [0, 1], [(0, (0,))], (2,))
    model = Model(layout, make_chunk([[]], [], [[]], dropped=(("x", 12),)))
    with pytest.raises(
        DataError, match=r"there are no rows to fit: 12 rows were read, and all are dropped: 12 where 'x' is missing$"
    ):
        assembled(model)


def test_a_model_without_random_terms_or_without_fixed_effects_assembles():
    rng = np.random.default_rng(0)
    y = rng.normal(size=20)
    only_fixed = assembled(Model(make_layout((), [0], [], ()), make_chunk([], y, [])))
    assert (only_fixed.gram.terms, only_fixed.gram.cross) == ((), {})
    only_random = assembled(Model(make_layout((), [], [(0, (0,))], (2,)), make_chunk([], y, [np.arange(20) % 2])))
    assert only_random.gram.xy.shape == (1, 1)
    assert only_random.gram.x_basis.shape == (0, 0)
