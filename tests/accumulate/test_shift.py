import numpy as np
import pytest

from bigmm.accumulate import shift_vector
from tests.accumulate.twins import make_chunk, make_layout


def head(n_columns, offset=None):
    rng = np.random.default_rng(0)
    return make_chunk(
        rng.normal(50, 1, (n_columns, 30)), rng.normal(9, 1, 30), [np.zeros(30), np.zeros(30)], offset=offset
    )


def test_columns_and_response_move_to_their_means():
    layout = make_layout(("x",), [0, 1], [(0, (0, 1))], (1,))
    chunk = head(1, offset=np.full(30, 4.0))
    shift = shift_vector(layout, chunk)
    np.testing.assert_allclose(shift, [0.0, chunk.columns[0].mean(), chunk.y.mean() - 4.0])


@pytest.mark.parametrize(
    ("layout", "moves"),
    [
        (make_layout(("x",), [1], [(0, (0, 1))], (1,)), [False, False]),  # no constant in X
        (make_layout(("x",), [0, 1], [(0, (1,))], (1,)), [False, True]),  # a term without the constant
        (make_layout(("x",), [0, 1], [(0, (1,)), (0, (0,))], (1,)), [True, True]),  # joined with the constant
        (make_layout(("x",), [0], [(0, (0, 1))], (1,)), [True, True]),  # in Z only
        (make_layout(("x",), [1], [(0, (0,))], (1,), one=np.array([2.0])), [False, True]),  # x makes the constant
        (
            make_layout(("x",), [1, 0], [(0, (0,))], (1,), one=np.array([0, 1.0])),
            [False, True],
        ),  # x before the constant
        (make_layout(("x",), [0, 1], [], (2,), factors=[(0, 1, np.eye(2)[:, 1:])]), [False, True]),  # x times factor
        (make_layout(("x",), [0, 1], [], (2,), factors=[(0, 0, np.eye(2)[:, 1:])]), [True, True]),
    ],
)
def test_a_column_moves_only_where_the_constant_is_at_hand(layout, moves):
    np.testing.assert_array_equal(shift_vector(layout, head(1))[1:] != 0, moves)


def test_zeros_and_ones_stay():
    layout = make_layout(("d", "x"), [0, 1, 2], [], ())
    chunk = make_chunk([[0, 1, 1], [0, 1, 2]], [1.0, 2.0, 3.0], [])
    np.testing.assert_array_equal(shift_vector(layout, chunk), [0.0, 0.0, 1.0, 2.0])


def test_an_empty_head_means_no_shift():
    layout = make_layout(("x",), [0, 1], [], ())
    np.testing.assert_array_equal(shift_vector(layout, make_chunk([[]], [], [])), np.zeros(3))
