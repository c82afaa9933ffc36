"""Simulated responses: reproducible, independent of partitioning, and of the right distribution."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from bigmm.errors import UsageError


def test_reproducible_by_seed(crossed, rows):
    one = crossed.simulate(rows, seed=4)
    np.testing.assert_array_equal(one, crossed.simulate(rows, seed=4))
    np.testing.assert_array_equal(one, crossed.simulate(seed=4))
    assert not np.allclose(one, crossed.simulate(rows, seed=5))


def test_partitioning_does_not_matter(crossed, rows, lake, tmp_path):
    whole = crossed.simulate(rows, seed=4, nsim=2)
    np.testing.assert_array_equal(crossed.simulate(str(lake), seed=4, nsim=2), whole)
    crossed.simulate(str(lake), seed=4, nsim=2, out=tmp_path / "sims")
    written = pq.read_table(tmp_path / "sims").to_pandas()
    np.testing.assert_array_equal(written[["sim_1", "sim_2"]], whole)


def test_shape(crossed, rows):
    assert crossed.simulate(rows, seed=0).shape == (240,)
    assert crossed.simulate(rows, seed=0, nsim=3).shape == (240, 3)


def test_moments(crossed):
    """Over replicates the mean is x'beta + offset, the variance that of new random effects and noise."""
    new = pd.DataFrame({"x": [0.5, 0.5, -2.0], "g": ["g01", "g01", "g02"], "h": ["h1"] * 3, "off": 0.0, "w": 1.0})
    draws = crossed.simulate(new, seed=1, nsim=3000)
    cov_g, cov_h = (crossed.sigma**2 * lam @ lam.T for lam in crossed.fitted.lambdas())
    z = np.array([1.0, 0.5])
    variance = z @ cov_g @ z + cov_h[0, 0] + crossed.scale
    mean = crossed.predict(new, random=False)
    assert np.abs(draws.mean(axis=1) - mean).max() < 5 * np.sqrt(3 * variance / 3000)
    assert draws[0].var() == pytest.approx(variance, rel=0.12)
    shared = np.cov(draws[0], draws[1])[0, 1]
    assert shared == pytest.approx(variance - crossed.scale, rel=0.2)


def test_estimated_modes_can_be_kept(crossed, rows):
    draws = crossed.simulate(rows, seed=2, nsim=200, use_modes=True)
    error = (draws.mean(axis=1) - crossed.predict(rows)) * np.sqrt(rows["w"]) / crossed.sigma
    assert error.std() == pytest.approx(1 / np.sqrt(200), rel=0.2)


def test_nsim_must_be_positive(crossed, rows):
    with pytest.raises(UsageError, match="nsim must be at least 1, got 0"):
        crossed.simulate(rows, nsim=0)
