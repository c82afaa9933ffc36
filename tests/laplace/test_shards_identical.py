"""Identical rows counted: exact, and only where it pays."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

import bigmm
from bigmm.design.layout import DesignChunk
from bigmm.errors import UsageError
from bigmm.families import family
from bigmm.laplace.identical import counted
from bigmm.planning import sharding
from bigmm.shards import shard as shards


def shard(n, kinds, weighted=False, seed=0):
    """Rows of 12 levels with covariates that take so many values."""
    rng = np.random.default_rng(seed)
    columns = rng.integers(0, kinds, (2, n)) / 7.0
    g, h = rng.integers(0, 12, n).astype(np.int32), rng.integers(0, 2, n).astype(np.int32)
    w, offset = (rng.random(n) + 0.1, rng.integers(0, 2, n) / 3.0) if weighted else (None, None)
    y = (rng.random(n) < 0.4).astype(float)
    return shards.join([DesignChunk(columns, y, (g, h), w, offset, n, ())], 0, 12, 0)


@pytest.mark.parametrize("weighted", [True, False])
def test_totals_per_distinct_row_are_those_of_a_dictionary(weighted):
    before = shard(3000, 3, weighted)
    after = counted(before, family("bernoulli"))
    expected: dict[tuple, list[float]] = {}
    for i in range(before.rows):
        key = (*before.columns[:, i], *before.refs[:, i], *(before.offset[i : i + 1]))
        total = expected.setdefault(key, [0.0, 0.0])
        w = before.w[i] if weighted else 1.0
        total[0] += w
        total[1] += w * before.y[i]
    found = [(*after.columns[:, i], *after.refs[:, i], *(after.offset[i : i + 1])) for i in range(after.rows)]
    assert found == list(expected), "in the order of first appearance"
    assert np.allclose(after.w, [w for w, _ in expected.values()], rtol=1e-14)
    assert np.allclose(after.w * after.y, [wy for _, wy in expected.values()], rtol=1e-13)
    assert np.array_equal(np.diff(after.indptr), np.bincount(after.refs[0], minlength=12))
    assert after.rows < before.rows / 2


def test_rows_of_weight_zero_stay_without_weight():
    before = shard(2000, 2, weighted=True)
    before.w[:] = 0.0
    after = counted(before, family("binomial"))
    assert after.rows < 1000 and not after.w.any() and np.isfinite(after.y).all()


@pytest.mark.parametrize("kinds", [10**6, 40])
def test_a_shard_of_mostly_distinct_rows_is_left_alone(kinds):
    before = shard(40_000 if kinds > 40 else 20_000, kinds)
    assert counted(before, family("bernoulli")) is before


@pytest.mark.parametrize("name", ["gaussian", "gamma", "negative_binomial", "inverse_gaussian"])
def test_families_that_are_not_linear_in_y_are_left_alone(name):
    before = shard(2000, 1)
    assert counted(before, family(name)) is before


def table(n=6000, seed=3):
    rng = np.random.default_rng(seed)
    g, h, x = rng.integers(0, 30, n), rng.integers(0, 9, n), rng.integers(0, 4, n) / 2.0
    eta = -0.5 + 0.6 * x + rng.normal(size=30)[g] + 0.4 * rng.normal(size=9)[h]
    y = (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(float)
    trials = rng.integers(1, 4, n)
    wins = rng.binomial(trials, 1 / (1 + np.exp(-eta)))
    names = {"g": [f"g{i:02}" for i in g], "h": [f"h{i}" for i in h]}
    counts = rng.poisson(np.exp(0.3 * eta))
    return pa.table({"y": y, "wins": wins, "trials": trials, "n": counts, "x": x, "o": (h % 2) / 3.0, **names})


CASES = [
    ("y ~ x + (1 | g)", "bernoulli", {}),
    ("y ~ x + (1 | g)", "bernoulli", {"nagq": 5}),
    ("y ~ x + (1 | g) + (1 | h)", "bernoulli", {"link": "probit"}),
    ("wins / trials ~ x + (1 + x | g)", "binomial", {}),
    ("n ~ x + offset(o) + (1 | g)", "poisson", {}),
    ("n ~ x + (1 | g) + (1 | h)", "poisson", {"nagq": 0}),
]


@pytest.mark.parametrize(("formula", "name", "how"), CASES)
def test_estimates_are_those_of_all_rows(monkeypatch, formula, name, how):
    monkeypatch.setattr(sharding, "SMALL_ROWS", 100)
    data = table()
    fast, plain = (bigmm.glmm(formula, data, family=name, n_workers=1, compress=c, **how) for c in ("auto", False))
    assert plain.fitted.compressed_rows is None
    assert fast.fitted.compressed_rows < 0.5 * data.num_rows
    assert fast.nobs == plain.nobs == data.num_rows
    assert abs(fast.objective - plain.objective) < 1e-9 * abs(plain.objective)
    assert np.allclose(fast.theta, plain.theta, rtol=1e-9, atol=1e-9)
    assert np.allclose(fast.beta, plain.beta, rtol=1e-9, atol=1e-9)
    assert np.allclose(fast.bse, plain.bse, rtol=1e-6)
    for a, b in zip(fast.fitted.estimates.u, plain.fitted.estimates.u, strict=True):
        assert np.allclose(a, b, atol=1e-8)


def test_compress_is_auto_or_false():
    with pytest.raises(UsageError, match="^compress must be 'auto' or False, got 'always'$"):
        bigmm.glmm("y ~ x + (1 | g)", table(50), family="bernoulli", compress="always")
