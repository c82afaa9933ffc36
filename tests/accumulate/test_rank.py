import numpy as np
import pytest

from bigmm.accumulate.rank import sequential_rank


def rank_of(x):
    gram = x.T @ x
    spread = ((x - x.mean(0)) ** 2).sum(0)
    return sequential_rank(gram, spread, np.full(len(gram), 1e-30))


@pytest.mark.parametrize("p", [1, 5, 63, 64, 65, 150])
def test_full_rank_is_the_cholesky_factor(p):
    x = np.random.default_rng(p).normal(size=(300, p))
    rank = rank_of(x)
    assert rank.independent.all()
    np.testing.assert_allclose(rank.factor, np.linalg.cholesky(x.T @ x), rtol=1e-8, atol=1e-10)


def test_the_later_of_dependent_columns_goes_across_panels():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 140))
    x[:, 3] = 0.0
    x[:, 70] = x[:, 1] - 2 * x[:, 60]
    x[:, 139] = x[:, 70] + x[:, 5]
    rank = rank_of(x)
    np.testing.assert_array_equal(np.flatnonzero(~rank.independent), [3, 70, 139])
    for column in (3, 70, 139):
        np.testing.assert_allclose(x @ rank.coefficients(column), x[:, column], atol=1e-10)
        assert not rank.coefficients(column)[~rank.independent].any()


@pytest.mark.parametrize(("difference", "kept"), [(1e-4, True), (1e-7, False)])
def test_nearly_equal_columns_are_told_apart_down_to_the_tolerance(difference, kept):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1000, 2))
    x[:, 1] = x[:, 0] + difference * x[:, 1]
    assert rank_of(x).independent[1] == kept


def test_a_constant_column_is_kept_alone_and_dropped_after_another():
    assert rank_of(np.full((50, 1), 3.0)).independent.tolist() == [True]
    assert rank_of(np.column_stack([np.ones(50), np.full(50, 0.1)])).independent.tolist() == [True, False]
