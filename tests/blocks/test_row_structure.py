"""Which terms the iterative solver eliminates, and that no nested pair is left to conjugate gradients."""

import numpy as np
import pytest

from bigmm.blocks import analyse
from bigmm.blocks.exact.factor import eliminate_stages
from bigmm.blocks.iterative.krylov import conjugate_gradients, tail_operator
from bigmm.blocks.iterative.structure import analyse_iterative, iterative_order, row_structure
from tests.oracle import Rows, Shape

CROSSED = Shape(((60, 1, False), (40, 2, False), (20, 1, False)), n=900)
NESTED_TAIL = Shape(((90, 1, False), (60, 1, True), (6, 1, False)), n=2000)
NESTED_FIRST = Shape(((90, 1, True), (30, 2, False), (25, 1, False)), n=900)


@pytest.mark.parametrize(
    ("shape", "chain", "tail"),
    [(CROSSED, [0], [1, 2]), (NESTED_TAIL, [1, 2], [0]), (NESTED_FIRST, [0, 1], [2])],
    ids=["crossed", "nested tail", "nested first"],
)
def test_nested_terms_are_eliminated(shape, chain, tail):
    assert iterative_order(Rows.draw(shape, 1).gram) == (chain, tail)


def test_rows_are_those_of_the_full_analysis():
    gram = Rows.draw(CROSSED, 1).gram
    ours, full = row_structure(gram), analyse(gram, dense_tail=False)
    (stage,), (expected,) = ours.stages, full.stages
    assert [t.offset for t in ours.tail] == [t.offset for t in full.tail]
    np.testing.assert_array_equal(stage.indptr, expected.indptr)
    np.testing.assert_array_equal(stage.columns, expected.columns)
    np.testing.assert_array_equal(stage.data, expected.data)
    assert stage.columns.dtype == np.int32 and ours.transposed == {}


def test_two_crossed_intercepts_cost_no_memory():
    gram = Rows.draw(Shape(((60, 1, False), (40, 1, False)), n=900), 1).gram
    (stage,) = row_structure(gram).stages
    assert np.shares_memory(stage.data, gram.cross[0, 1].data)
    assert np.shares_memory(stage.columns, gram.cross[0, 1].indices)


def test_conjugate_gradients_converge_fast_beside_nested_factors():
    rows = Rows.draw(NESTED_TAIL, 1)
    lams = rows.covariances.working(rows.gram, np.array([0.6, 20.0, 30.0]))  # nearly flat priors: nesting hurts most
    iterations = []
    for order in (None, ([0], [1, 2])):
        structure = analyse_iterative(rows.gram, order)
        operator = tail_operator(structure, lams, eliminate_stages(structure.whole, lams)[0])
        rhs = np.random.default_rng(0).standard_normal((operator.size, 4))
        iterations.append(conjugate_gradients(operator, rhs).iterations)
    assert max(iterations) < 40  # whether the nested pair is eliminated or left to the preconditioner
