"""Counter-based normals: any stretch of a stream can be drawn alone."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bigmm.errors import UsageError
from bigmm.results.draws import check_seed, standard_normal


@pytest.mark.parametrize("first", [0, 1, 2, 3, 4, 7, 1000])
def test_a_stretch_is_the_same_as_the_whole(first):
    whole = standard_normal(3, ("row", 0), 0, 1010)
    np.testing.assert_array_equal(standard_normal(3, ("row", 0), first, 10), whole[first : first + 10])


def test_far_away_and_empty():
    assert np.isfinite(standard_normal(3, ("row", 0), 2**50 + 1, 5)).all()
    assert standard_normal(3, ("row", 0), 5, 0).shape == (0,)


def test_streams_and_seeds_differ():
    draws = [standard_normal(s, k, 0, 8) for s, k in [(1, ("row", 0)), (2, ("row", 0)), (1, ("row", 1)), (1, ("g", 0))]]
    assert len({tuple(d) for d in draws}) == 4


def test_standard_normal():
    draws = standard_normal(11, ("row", 0), 0, 20_000)
    assert stats.kstest(draws, "norm").pvalue > 0.01
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 0.02


@pytest.mark.parametrize("seed", [-1, 1.5, "a", None, True])
def test_seed_must_be_a_count(seed):
    with pytest.raises(UsageError, match="seed must be a non-negative integer"):
        check_seed(seed)
