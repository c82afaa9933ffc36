"""Lakes in the order of the leading factor are not shuffled."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import bigmm
from bigmm.execute.threads.executor import ThreadExecutor
from bigmm.planning import sharding
from bigmm.shards.sorted_partitions import cut_by_level, level_range
from bigmm.source import open_source
from bigmm.source.partition import Fingerprint, Partition

FORMULA = "y ~ x + (1 | g)"


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(sharding, "SMALL_ROWS", 100)


@pytest.fixture
def made(monkeypatch):
    """The shards that were made without a shuffle, and those that were not."""
    counts = {"sorted": 0, "shuffled": 0}

    def count(name, plain):
        def spy(workers, work, items, *more, **how):
            found = plain(workers, work, items, *more, **how)
            counts[name] += found.n_shards
            return found

        return spy

    monkeypatch.setattr(ThreadExecutor, "shard_sorted", count("sorted", ThreadExecutor.shard_sorted))
    monkeypatch.setattr(ThreadExecutor, "shuffle", count("shuffled", ThreadExecutor.shuffle))
    return counts


def table(n=12_000, levels=150):
    rng = np.random.default_rng(2)
    g = np.sort(rng.integers(0, levels, n))
    x = np.where(rng.random(n) < 0.01, np.nan, rng.normal(size=n))
    eta = 0.3 + 0.5 * np.nan_to_num(x) + rng.normal(size=levels)[g]
    h = pa.array(rng.integers(0, 11, n)).cast("string")
    return pa.table({"y": (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(float), "x": x, "g": g, "h": h})


def write(folder, rows, order=None, files=12):
    """The table's rows in files; ``order``: of the files."""
    edges = np.arange(files + 1) * rows.num_rows // files
    for name, i in enumerate(order if order is not None else range(files)):
        pq.write_table(rows.slice(edges[i], edges[i + 1] - edges[i]), folder / f"{name:02}.parquet")
    return folder


def fit(lake, formula=FORMULA, **how):
    return bigmm.glmm(formula, lake, family="bernoulli", **how)


@pytest.mark.parametrize("formula", [FORMULA, "y ~ x + (1 | g) + (1 | h)"])
@pytest.mark.parametrize("shuffled_files", [False, True])
def test_a_sorted_lake_is_fitted_without_a_shuffle(tmp_path, made, formula, shuffled_files):
    rows, rng = table(), np.random.default_rng(0)
    order = rng.permutation(12) if shuffled_files else None
    in_order = fit(write(tmp_path, rows, order), formula, n_workers=1)
    assert made["shuffled"] == 0 and made["sorted"] >= 6
    in_memory = fit(rows.take(rng.permutation(rows.num_rows)), formula, n_workers=1)
    assert made["shuffled"] > 0
    assert in_order.nobs == in_memory.nobs < rows.num_rows
    assert in_order.fitted.rows_read == rows.num_rows
    assert dict(in_order.fitted.dropped) == dict(in_memory.fitted.dropped) == {"x": rows.num_rows - in_order.nobs}
    assert abs(in_order.objective - in_memory.objective) < 1e-9 * in_memory.objective
    assert np.allclose(in_order.beta, in_memory.beta, rtol=1e-7)


def test_threads_and_files_give_the_same_bits(tmp_path, made):
    lake = write(tmp_path, table())
    found = [fit(lake, n_workers=1), fit(lake, n_workers=2), fit(lake, n_workers=2, memory_limit=100_000)]
    assert made["shuffled"] == 0
    assert len({(f.objective, f.theta.tobytes(), f.beta.tobytes(), f.bse.to_numpy().tobytes()) for f in found}) == 1


def test_a_lake_in_no_order_is_shuffled(tmp_path, made):
    rows = table()
    fit(write(tmp_path, rows.take(np.random.default_rng(0).permutation(rows.num_rows))), n_workers=1)
    assert made["sorted"] == 0 and made["shuffled"] == 8


def parts(sizes):
    return [Partition(i, Fingerprint(f"{i}", 1, "", (0,), 10), 10, size, f"{i}") for i, size in enumerate(sizes)]


def test_runs_cover_every_level_and_count_every_partition_once():
    ranges = np.array([[0, 9], [9, 9], [9, 20], [21, 30], [30, 44], [45, 60], [0, 0], [61, 79]])
    runs = cut_by_level(parts([10] * 8), ranges, 80, 4)
    assert runs.edges[0] == 0 and runs.edges[-1] == 80 and np.all(np.diff(runs.edges) > 0)
    for first, last, lane in zip(runs.edges[:-1], runs.edges[1:], runs.lanes, strict=True):
        touching = {i for i, (low, high) in enumerate(ranges) if low < last and high >= first}
        assert {p.index for p in lane.partitions} == touching
    assert sorted(i for owned in runs.counted for i in owned) == list(range(8))
    assert all(
        owned <= {p.index for p in lane.partitions} for owned, lane in zip(runs.counted, runs.lanes, strict=True)
    )


def test_partitions_that_overlap_are_no_runs():
    rng = np.random.default_rng(1)
    low = rng.integers(0, 40, 20)
    assert cut_by_level(parts([10] * 20), np.stack([low, low + 40], axis=1), 80, 8) is None
    assert cut_by_level(parts([10] * 20), np.array([[0, 79]] * 20), 80, 8) is None


def test_the_range_of_levels_is_that_of_the_rows(tmp_path):
    rows = table()
    source = open_source(write(tmp_path, rows))
    fitted = fit(rows, "y ~ x + (1 | g:h)", n_workers=1)
    layout = fitted.fitted.spec.layout
    partition = source.partitions[3]
    chunk = fitted.fitted.spec.encode(source.read(partition, fitted.fitted.spec.used_columns), "")
    low, high = level_range(source, fitted.fitted.spec, 0, partition)
    assert (low, high) == (chunk.refs[0].min(), chunk.refs[0].max())
    assert layout.groupings[0].name == "g:h"
