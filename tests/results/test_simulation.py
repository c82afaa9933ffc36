"""Simulated responses: reproducible, independent of partitioning, and of the right distribution."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import bigmm
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


def unseen_rows(rows):
    """Four rows a new level of g, h as it was; one without a level."""
    new = rows.iloc[:40].copy()
    new["g"] = np.repeat([f"new{i}" for i in range(10)], 4)
    new.loc[new.index[-1], "g"] = None
    return new


def test_new_levels_draw_effects_of_their_own(crossed):
    """The covariance over replicates of rows of one new level is that of z'b and noise; of two levels, that of h."""
    new = pd.DataFrame({"x": [0.5, 0.5, -2.0], "g": ["a", "a", "b"], "h": ["h1"] * 3, "off": 0.0, "w": 1.0})
    draws = crossed.simulate(new, seed=1, nsim=3000)
    cov_g, cov_h = (crossed.sigma**2 * lam @ lam.T for lam in crossed.fitted.lambdas())
    z = np.array([1.0, 0.5])
    found = np.cov(draws)
    own = z @ cov_g @ z
    assert found[0, 0] == pytest.approx(own + cov_h[0, 0] + crossed.scale, rel=0.12)
    assert found[0, 1] == pytest.approx(own + cov_h[0, 0], rel=0.12)
    spread = np.sqrt((found[0, 0] * found[2, 2] + found[0, 2] ** 2) / 3000)
    assert found[0, 2] == pytest.approx(cov_h[0, 0], abs=5 * spread)
    mean = crossed.predict(new, random=False)
    assert np.abs(draws.mean(axis=1) - mean).max() < 5 * np.sqrt(np.diag(found).max() / 3000)


def test_a_new_level_has_one_effect_in_all_partitions(crossed, rows, tmp_path):
    new = unseen_rows(rows)
    whole = crossed.simulate(new, seed=3, nsim=2)
    for number in range(4):
        new.iloc[10 * number : 10 * number + 10].to_parquet(tmp_path / f"{number}.parquet")
    np.testing.assert_array_equal(crossed.simulate(str(tmp_path), seed=3, nsim=2), whole)
    assert not np.allclose(whole[:, 0] - whole[:, 1], crossed.simulate(new, seed=4, nsim=2) @ [1.0, -1.0])


def test_who_gets_no_new_effect(crossed, rows):
    new = unseen_rows(rows)
    none = new.assign(g=None)
    kept = crossed.simulate(new, seed=3, use_modes=True)
    np.testing.assert_array_equal(kept, crossed.simulate(none, seed=3, use_modes=True))
    drawn, without = crossed.simulate(new, seed=3), crossed.simulate(none, seed=3)
    assert (drawn[:-1] != without[:-1]).all() and drawn[-1] == without[-1]
    assert np.isnan(crossed.simulate(new, seed=3, new_levels="missing")).all()


def test_new_levels_of_an_interaction_are_combinations(rows):
    model = bigmm.lmm("y ~ x + (1 | g:h)", rows)
    new = rows.iloc[:3].assign(g=["a", "a", "b"], h=["c", "d", "c"], x=0.0)
    draws = model.simulate(new, seed=1, nsim=2000)
    correlation = np.corrcoef(draws)
    assert np.abs(correlation[np.triu_indices(3, 1)]).max() < 0.1
    assert draws[0].var() == pytest.approx(model.fitted.lambdas()[0][0, 0] ** 2 * model.scale + model.scale, rel=0.12)
