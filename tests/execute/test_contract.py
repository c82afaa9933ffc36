"""What every executor promises (docs/extending/executor.md), on each of them, that of the documentation included."""

from __future__ import annotations

import importlib
import re
import sys
from functools import partial

import numpy as np
import pandas as pd
import pytest

import bigmm
from bigmm.errors import DataError
from bigmm.execute import Executor, Lane, executor
from bigmm.execute.tasks import Task
from bigmm.planning import placement, sharding

N_SHARDS = 4


@pytest.fixture(scope="module")
def documented(project, tmp_path_factory):
    """The class of the page, as a module that processes of a pool can import."""
    folder = tmp_path_factory.mktemp("page")
    (code,) = re.findall(r"```python\n(.*?)```", (project / "docs/extending/executor.md").read_text(), re.S)
    (folder / "documented_executor.py").write_text(code)
    sys.path.insert(0, str(folder))
    workers = importlib.import_module("documented_executor").PoolExecutor(2)
    yield workers
    workers.pool.shutdown()
    sys.path.remove(str(folder))


@pytest.fixture(params=["one thread", "three threads", pytest.param("cluster", marks=pytest.mark.cluster), "page"])
def workers(request):
    """One executor of each kind."""
    if request.param == "cluster":
        return executor(request.getfixturevalue("client"))
    if request.param == "page":
        return executor(request.getfixturevalue("documented"))
    return executor(n_workers=1 if request.param == "one thread" else 3)


def values(number):
    rng = np.random.default_rng(number)
    return rng.normal(size=400) * 10.0 ** rng.integers(-6, 6, size=400)


def fold(lane, tick):
    total = 0.0
    for number in lane.partitions:
        total += values(number).sum()
        tick(400)
    return total


def split(item):
    return [values(item)[number::N_SHARDS] for number in range(N_SHARDS)]


def join(number, pieces):
    return np.concatenate(pieces) + number


def total_of(shard, *more):
    return float(np.cumsum(shard)[-1]) + sum(more)


def refuse(item):
    if item in (2, 4):
        raise DataError(f"item {item} is bad")
    return split(item)


def test_it_is_an_executor(workers):
    assert isinstance(workers, Executor)
    assert workers.n_workers >= 1 and workers.capacity().processes >= 1
    assert executor(workers) is workers, "client= takes it as it is"


def test_lanes_are_merged_in_the_fixed_tree_and_rows_are_reported(workers):
    lanes, events = [Lane(i, (2 * i, 2 * i + 1)) for i in range(5)], []
    merge = lambda a, b: a * (1.0 + 1e-9) + b  # noqa: E731, which is neither associative nor commutative
    folded = [fold(lane, lambda rows: None) for lane in lanes]
    by_definition = merge(merge(merge(folded[0], folded[1]), merge(folded[2], folded[3])), folded[4])
    assert (
        workers.map_reduce(fold, lanes, merge, label="pass", rows_total=4000, progress=events.append) == by_definition
    )
    assert (events[-1].rows_done, events[-1].rows_total, events[-1].lanes_done) == (4000, 4000, 5)


def test_results_come_in_the_order_of_items(workers):
    assert list(workers.map(partial(pow, 2), range(30), label="map")) == [2**i for i in range(30)]


def test_the_first_bad_item_is_raised_as_it_is(workers):
    with pytest.raises(DataError, match="^item 2 is bad$"):
        list(workers.map(refuse, range(6), label="map"))
    with pytest.raises(DataError, match="^item 2 is bad$"):
        workers.shuffle(refuse, range(6), join, N_SHARDS)


def test_shards_answer_in_their_order(workers):
    expected = [np.concatenate([split(item)[number] for item in range(6)]) + number for number in range(N_SHARDS)]
    shards = workers.shuffle(split, range(6), join, N_SHARDS)
    assert shards.n_shards == N_SHARDS
    assert shards.map(total_of) == [total_of(shard) for shard in expected]
    assert shards.map(total_of, 3.0, per_shard=[1, 2, 3, 4]) == [
        total_of(s, i + 1, 3.0) for i, s in enumerate(expected)
    ]
    assert shards.fold(lambda a, b: 0.5 * a + b, total_of) == 0.5 * (
        0.5 * (0.5 * total_of(expected[0]) + total_of(expected[1])) + total_of(expected[2])
    ) + total_of(expected[3])
    assert shards.replaced(np.abs).map(total_of) == [total_of(np.abs(shard)) for shard in expected]
    assert shards.map(total_of) == [total_of(shard) for shard in expected], "the first ones are still there"
    once = workers.shuffle_once(split, range(6), join, N_SHARDS, label="once")
    assert [a.tobytes() for a in once] == [a.tobytes() for a in expected]


def test_shards_of_rows_in_order(workers):
    shards = workers.shard_sorted(values, range(5))
    assert shards.map(total_of) == [total_of(values(number)) for number in range(5)]


def test_a_graph_gives_its_outputs(workers):
    tasks = [Task(("leaf", i), np.negative, load=partial(values, i)) for i in range(4)]
    tasks += [
        Task(("sum", i), np.add, (("leaf", i), ("leaf", (i + 1) % 4)), place=i, is_output=i > 1) for i in range(4)
    ]
    results = workers.run_graph(tasks, label="graph", ahead=3)
    assert results.keys() == {("sum", 2), ("sum", 3)}
    assert results["sum", 3].tobytes() == (-values(3) - values(0)).tobytes()
    with pytest.raises(ValueError, match="does not come before it"):
        workers.run_graph(tasks[::-1], label="graph", ahead=3)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """A lake of twelve files."""
    folder, rng = tmp_path_factory.mktemp("rows"), np.random.default_rng(1)
    g = rng.integers(0, 60, 6000)
    x = rng.normal(size=6000)
    y = x + rng.normal(size=60)[g] + rng.normal(size=6000)
    frame = pd.DataFrame({"y": y, "x": x, "g": g, "z": (y > 0).astype(float)})
    for number in range(12):
        frame[500 * number : 500 * (number + 1)].to_parquet(folder / f"{number:02}.parquet")
    return str(folder)


def test_fits_have_the_bits_of_one_thread(workers, rows, monkeypatch):
    def numbers(**where):
        linear = bigmm.lmm("y ~ x + (1 | g)", rows, **where)
        with monkeypatch.context() as patch:
            patch.setattr(placement, "SHARE", 10**9)  # levels and rows go to shards, however few they are
            patch.setattr(sharding, "SMALL_ROWS", 100)
            sharded = bigmm.lmm("y ~ x + (1 | g)", rows, **where)
            generalized = bigmm.glmm("z ~ x + (1 | g)", rows, family="bernoulli", **where)
        return [(m.objective, *m.theta, *m.beta) for m in (linear, sharded, generalized)]

    assert numbers(client=workers) == numbers(n_workers=1)
