"""theta in lme4's order, and the joint lambdas of terms that share a grouping factor."""

import numpy as np
import pytest

from bigmm.design.layout import Grouping, Layout, RandomTerm
from bigmm.errors import FormulaError
from bigmm.objective import covariances_for
from bigmm.objective.covariances import lower_factor


def layout(*terms: tuple[str, int, tuple[int, ...]]) -> Layout:
    """Terms as (label, grouping, columns) over the columns 1, x, z and the groupings g (5 levels) and h (3)."""
    columns = ("1", "x", "z")
    groupings = tuple(Grouping(name, (name,), np.arange(q).astype(str)) for name, q in (("g", 5), ("h", 3)))
    names = {0: "(Intercept)", 1: "x", 2: "z"}
    random = tuple(RandomTerm(label, g, cs, tuple(names[c] for c in cs)) for label, g, cs in terms)
    return Layout(columns, ("(Intercept)",), (0,), (), random, groupings, np.ones(1), "y")


def test_order_and_names_are_those_of_lme4():
    found = covariances_for(layout(("g", 0, (0, 1, 2)), ("h", 1, (0,))), (0, 1))
    assert found.n_theta == 7
    assert found.names == (
        "g.(Intercept)", "g.x.(Intercept)", "g.z.(Intercept)", "g.x", "g.z.x", "g.z", "h.(Intercept)",
    )  # fmt: skip
    np.testing.assert_array_equal(found.lower, [0, -np.inf, -np.inf, 0, -np.inf, 0, 0])


def test_lambdas_are_filled_column_by_column():
    found = covariances_for(layout(("g", 0, (0, 1, 2)), ("h", 1, (0,))), (0, 1))
    g, h = found.lambdas(np.arange(1.0, 8.0))
    np.testing.assert_array_equal(g, [[1, 0, 0], [2, 4, 0], [3, 5, 6]])
    np.testing.assert_array_equal(h, [[7]])


def test_terms_of_one_grouping_are_joined_without_covariance():
    """(1 | g) + (0 + x | g): two terms, one block of width 2."""
    found = covariances_for(layout(("g", 0, (0,)), ("g.1", 0, (1,))), (0,))
    assert found.widths == (2,)
    (joint,) = found.joint(np.array([2.0, 3.0]))
    np.testing.assert_array_equal(joint, np.diag([2.0, 3.0]))
    assert found.root_elements.elements == ((0, 0, 0), (0, 1, 1))


def test_the_order_of_the_blocks_is_not_the_order_of_theta():
    found = covariances_for(layout(("g", 0, (0, 1)), ("h", 1, (0,))), (1, 0))
    assert found.widths == (1, 2)
    first, second = found.joint(np.array([1.0, 2.0, 3.0, 4.0]))
    np.testing.assert_array_equal(first, [[4.0]])
    np.testing.assert_array_equal(second, [[1.0, 0.0], [2.0, 3.0]])


def test_rectified_flips_whole_columns():
    found = covariances_for(layout(("g", 0, (0, 1)), ("h", 1, (0,))), (0, 1))
    theta = np.array([-1.0, 0.5, -2.0, -0.0])
    rectified = found.rectified(theta)
    np.testing.assert_array_equal(rectified, [1.0, -0.5, 2.0, 0.0])
    assert not np.signbit(rectified[3])
    for a, b in zip(found.lambdas(theta), found.lambdas(rectified), strict=True):
        np.testing.assert_allclose(a @ a.T, b @ b.T)


def test_one_covariate_twice_is_an_error():
    message = "the random effect of 'x' appears twice for grouping factor 'g': the two variances cannot be told apart"
    with pytest.raises(FormulaError, match=message):
        covariances_for(layout(("g", 0, (0, 1)), ("g.1", 0, (1,))), (0,))


@pytest.mark.parametrize("mean", [0.0, 3.0, 1e6])
def test_a_lower_factor_keeps_the_digits_that_squares_would_lose(mean):
    root = np.array([[1.0, -mean], [0.0, 1.0]]) @ np.array([[0.5, 0.0], [0.1, 0.3]])
    found = lower_factor(root)
    assert found[0, 1] == 0.0 and np.all(np.diagonal(found) > 0)
    np.testing.assert_allclose(found @ found.T, root @ root.T, rtol=1e-14, atol=1e-14)
    assert np.prod(np.diagonal(found)) == pytest.approx(0.15, rel=1e-15 * max(1e3, 10 * mean))


def test_a_lower_factor_of_dependent_rows_has_zeros():
    root = np.array([[0.0, 0.0, 0.0], [0.3, 0.1, 0.2], [0.6, 0.2, 0.4]])
    found = lower_factor(root)
    np.testing.assert_allclose(found @ found.T, root @ root.T, atol=1e-15)
    assert np.diagonal(found)[[0, 2]].tolist() == [0.0, 0.0]
    triangle = np.array([[0.3, 0.0], [-0.2, 0.0]])
    np.testing.assert_array_equal(lower_factor(triangle), triangle)
