"""Two large crossed factors, whose pairs of levels are as many as the rows: the pass on threads and on a cluster."""

import os
import signal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import bigmm
from bigmm.accumulate import assemble
from bigmm.design import learn
from bigmm.execute import executor
from bigmm.execute.clock import Clock
from bigmm.fit.lmm import accumulate
from bigmm.fit.options import settings
from bigmm.planning.memory import has_many_pairs
from bigmm.source import open_source

ROWS, USERS, ITEMS = 20_000, 3000, 1500
FORMULAS = {
    "counts": "y ~ x + (1 | user) + (1 | item) + (1 | day)",
    "slopes": "y ~ x + (1 + x | item) + (1 | user) + (1 | day)",
}


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """Five files of a crossed design, some pairs more than once."""
    rng = np.random.default_rng(3)
    folder = tmp_path_factory.mktemp("crossed")
    columns = {
        "user": rng.integers(0, USERS, ROWS),
        "item": (ITEMS * rng.random(ROWS) ** 2).astype(np.int64),
        "day": rng.integers(0, 7, ROWS),
        "x": rng.normal(size=ROWS),
        "w": rng.uniform(0.5, 2.0, ROWS),
    }
    columns["y"] = rng.normal(size=USERS)[columns["user"]] + rng.normal(size=ITEMS)[columns["item"]] + columns["x"]
    columns["y"] += rng.normal(size=ROWS)
    for number, rows in enumerate(np.array_split(np.arange(ROWS), 5)):
        table = pa.table({name: values[rows] for name, values in columns.items()})
        pq.write_table(table, folder / f"part-{number}.parquet", row_group_size=900)
    return str(folder)


def blocks_of(data, formula, workers, weights=None, progress=None):
    """The Gram matrix that a fit sees, as a list of arrays."""
    source = open_source(data, partition_bytes=50_000)
    spec = learn(formula, source, workers, weights=weights)
    assert has_many_pairs(spec.layout)
    cross = accumulate(source, spec, workers, settings("auto", "auto", None, progress), Clock())
    gram = assemble(cross, spec.layout).gram
    pairs = [a for _, block in sorted(gram.cross.items()) for a in (block.indptr, block.indices, block.data)]
    return [gram.xy, *pairs, *(a for term in gram.terms for a in (term.diagonal, term.dense))]


def assert_same_bits(found, expected):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("weights", [None, "w"])
@pytest.mark.parametrize("name", FORMULAS)
def test_any_number_of_threads_gives_the_same_bits(lake, name, weights):
    one = blocks_of(lake, FORMULAS[name], executor(n_workers=1), weights)
    assert_same_bits(blocks_of(lake, FORMULAS[name], executor(n_workers=3), weights), one)


@pytest.mark.cluster
@pytest.mark.parametrize("name", FORMULAS)
def test_a_cluster_gives_the_bits_of_threads_also_when_a_worker_is_killed(client, lake, name):
    expected = blocks_of(lake, FORMULAS[name], executor(n_workers=2), "w")
    assert_same_bits(blocks_of(lake, FORMULAS[name], executor(client), "w"), expected)
    events = []

    def kill(event):
        events.append(event)
        if event.label == "accumulate" and event.lanes_done == 3:
            os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)

    assert_same_bits(blocks_of(lake, FORMULAS[name], executor(client), "w", kill), expected)
    last = [event for event in events if event.label == "accumulate"][-1]
    assert last.lanes_done == last.lanes_total
    assert last.rows_done == last.rows_total == ROWS


@pytest.mark.cluster
def test_rows_that_workers_hold_are_summed_where_they_are(client, lake):
    frame = pytest.importorskip("dask.dataframe").read_parquet(lake).persist()
    expected = blocks_of(frame, FORMULAS["slopes"], executor(n_workers=2))
    assert_same_bits(blocks_of(frame, FORMULAS["slopes"], executor(client)), expected)


def test_the_order_of_terms_in_the_formula_changes_no_estimate(lake):
    first = bigmm.lmm("y ~ x + (1 | user) + (1 | item)", lake)
    second = bigmm.lmm("y ~ x + (1 | item) + (1 | user)", lake)
    assert second.objective == pytest.approx(first.objective, rel=1e-12)
