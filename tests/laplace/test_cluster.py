"""Generalized models on a real cluster: the same bits as on threads, also when workers are killed."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import bigmm
from bigmm.errors import DataError
from bigmm.execute.dask.shards import ClusterShards
from bigmm.laplace import crossed, nested, one_factor
from bigmm.planning import placement, sharding

pytest.importorskip("distributed")
pytest.importorskip("dask")
pytestmark = pytest.mark.cluster

ONE, TWO, NESTED = "y ~ x + (1 | g)", "y ~ x + (1 | g) + (1 | h)", "y ~ x + (1 | s) + (1 | g)"


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(sharding, "SMALL_ROWS", 100)
    monkeypatch.setattr(placement, "FEW_LEVELS", 10)


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("lake"), np.random.default_rng(1)
    u, v, n = rng.normal(size=60), 0.5 * rng.normal(size=25), 1500
    for number in range(4):
        g, h, x = rng.integers(0, 60, n), rng.integers(0, 25, n), rng.normal(size=n)
        y = rng.random(n) < 1 / (1 + np.exp(-(0.3 + 0.5 * x + u[g] + v[h])))
        names = {"g": [f"g{i:03}" for i in g], "h": [f"h{i:02}" for i in h]}
        names["s"] = [f"s{i // 5:02}" for i in g]
        pq.write_table(pa.table({"y": y.astype(float), "x": x, **names}), folder / f"{number}.parquet")
    return folder


def fit(lake, formula, **where):
    return bigmm.glmm(formula, lake, family="bernoulli", **where)


def numbers(fitted):
    parts = [fitted.theta, fitted.beta, fitted.bse.to_numpy(), *fitted.fitted.estimates.u]
    return [fitted.objective, fitted.fitted.passes, *(np.asarray(part).tobytes() for part in parts)]


def count_shards(monkeypatch):
    seen, plain = [], ClusterShards._in_order

    def spy(self, task, *more):
        seen.append(self.n_shards)
        return plain(self, task, *more)

    monkeypatch.setattr(ClusterShards, "_in_order", spy)
    return seen


@pytest.mark.parametrize("formula", [ONE, TWO, NESTED])
def test_a_cluster_gives_the_bits_of_threads(client, lake, monkeypatch, formula):
    seen = count_shards(monkeypatch)
    assert numbers(fit(lake, formula, client=client)) == numbers(fit(lake, formula, n_workers=1))
    assert len(seen) > 5 and set(seen) == {8}


@pytest.mark.parametrize("formula", [ONE, NESTED, pytest.param(TWO, marks=pytest.mark.slow)])
def test_a_worker_killed_between_evaluations_changes_no_bit(client, lake, monkeypatch, formula):
    asked, plain, killed = [], ClusterShards._in_order, []

    def deadly(self, task, *more):
        asked.append(task)
        if len(asked) == 12:
            killed.append(next(iter(client.run(os.getpid).values())))
            os.kill(killed[0], signal.SIGKILL)
        return plain(self, task, *more)

    monkeypatch.setattr(ClusterShards, "_in_order", deadly)
    found = numbers(fit(lake, formula, client=client))
    assert killed, "nobody was killed"
    assert found == numbers(fit(lake, formula, n_workers=2))


def kill_once(task, mark, shard, *args):
    """Kill the worker at its tenth question."""
    kill_once.calls = getattr(kill_once, "calls", 0) + 1
    if kill_once.calls >= 10 and not Path(mark).exists():
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return task(shard, *args)


@pytest.mark.parametrize(
    ("formula", "engine", "name"),
    [
        pytest.param(ONE, one_factor, "evaluate_shard", marks=pytest.mark.slow),
        (TWO, crossed, "working_part"),
        (NESTED, nested, "evaluate_shard"),
    ],
)
def test_a_worker_killed_during_an_evaluation_changes_no_bit(
    client, lake, monkeypatch, tmp_path, formula, engine, name
):
    expected = numbers(fit(lake, formula, n_workers=2))
    mark = tmp_path / "killed"
    monkeypatch.setattr(engine, name, partial(kill_once, getattr(engine, name), str(mark)))
    assert numbers(fit(lake, formula, client=client)) == expected
    assert mark.exists(), "nobody was killed"


def test_a_sorted_lake_is_not_shuffled_between_workers(client, lake, tmp_path, monkeypatch):
    rows = pq.read_table(lake).sort_by("g")
    for number, first in enumerate(range(0, rows.num_rows, 500)):
        pq.write_table(rows.slice(first, 500), tmp_path / f"{number:02}.parquet")
    expected = numbers(fit(tmp_path, ONE, n_workers=2))
    asked, plain = [], ClusterShards._in_order

    def deadly(self, task, *more):
        assert all("-make-" in shard.key or "-change-" in shard.key for shard in self.futures)
        asked.append(task)
        if len(asked) == 6:
            os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)
        return plain(self, task, *more)

    monkeypatch.setattr(ClusterShards, "_in_order", deadly)
    assert numbers(fit(tmp_path, ONE, client=client)) == expected
    assert len(asked) > 10


def test_a_bad_response_on_a_worker_is_the_error_of_threads(client, lake, tmp_path):
    for path in lake.glob("*.parquet"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    table = pq.read_table(tmp_path / "3.parquet")
    y = table["y"].to_numpy().copy()
    y[17] = 3.0
    pq.write_table(table.set_column(0, "y", pa.array(y)), tmp_path / "3.parquet")
    messages = []
    for where in ({"client": client}, {"n_workers": 2}):
        with pytest.raises(
            DataError, match=r"3\.parquet.*response 'y', row 17: response 3: a bernoulli response"
        ) as caught:
            fit(tmp_path, ONE, **where)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
