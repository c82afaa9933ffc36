"""Graphs of tasks on threads, through a temporary file, and on real worker processes of which some are killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from bigmm.errors import OutputError, TemporaryError
from bigmm.execute import executor, spill
from bigmm.execute.dask import watchdog
from bigmm.execute.tasks import Capacity, Task
from bigmm.execute.threads.results import Results
from tests.execute.test_cluster import start_cluster

distributed = pytest.importorskip("distributed")
dask = pytest.importorskip("dask")

SIDE, DEEP = 6, 5


def leaf(seed):
    return np.random.default_rng(seed).normal(size=(40, 40))


def mix(value, other, nap=0.0, trap=None):
    """Depends on the order and overwrites what nobody needs any more."""
    if trap is not None:
        trap()
    time.sleep(nap)
    product = np.tanh(other @ value / 40.0)
    out = value if value.flags.writeable else value.copy()
    out *= 0.7
    out += product
    return out


def grid(nap=0.0, traps=None):
    """SIDE columns, DEEP rows: each value is mixed with its left neighbour of the row above; the last row is wanted."""
    tasks = [Task(("leaf", i), np.asarray, load=partial(leaf, i), place=i) for i in range(SIDE)]
    above = [task.name for task in tasks]
    for row in range(DEEP):
        for i in range(SIDE):
            work = partial(mix, nap=nap, trap=(traps or {}).get((row, i)))
            tasks.append(Task(("mix", row, i), work, (above[i], above[i - 1]), place=i, is_output=row == DEEP - 1))
        above = [("mix", row, i) for i in range(SIDE)]
    return tasks


def by_definition():
    values = [leaf(i) for i in range(SIDE)]
    for _ in range(DEEP):
        values = [0.7 * values[i] + np.tanh(values[i - 1] @ values[i] / 40.0) for i in range(SIDE)]
    return {("mix", DEEP - 1, i): value for i, value in enumerate(values)}


def same_bits(found, expected):
    return found.keys() == expected.keys() and all(found[k].tobytes() == expected[k].tobytes() for k in expected)


@pytest.fixture(scope="module")
def expected():
    """On one thread, which is what the definition says."""
    found = executor(n_workers=1).run_graph(grid(), label="grid", ahead=1)
    for name, value in by_definition().items():
        np.testing.assert_allclose(found[name], value, rtol=1e-12)
    return found


@pytest.mark.parametrize("ahead", [1, 4, 1000])
@pytest.mark.parametrize("n_workers", [1, 2, 7])
def test_threads_give_the_same_bits(expected, n_workers, ahead):
    events = []
    found = executor(n_workers=n_workers).run_graph(grid(0.001), label="grid", ahead=ahead, progress=events.append)
    assert same_bits(found, expected)
    assert [e.lanes_done for e in events] == list(range(1, len(grid()) + 1))
    assert {(e.label, e.lanes_total) for e in events} == {("grid", len(grid()))}


@pytest.mark.parametrize("memory", [0, 40_000, 100_000])
def test_what_does_not_fit_waits_in_a_file(expected, monkeypatch, memory):
    written, held = [], []
    write, make_room = spill.SpillFile.write_at, Results._make_room

    def counted(self, start, array):
        written.append((start, array.nbytes))
        write(self, start, array)

    def watched(self, nbytes):
        make_room(self, nbytes)
        if self.memory is not None:  # at the end, what is wanted comes back as a whole
            held.append(self.nbytes + nbytes)

    monkeypatch.setattr(spill.SpillFile, "write_at", counted)
    monkeypatch.setattr(Results, "_make_room", watched)
    assert same_bits(executor(n_workers=2).run_graph(grid(), label="grid", ahead=4, memory=memory), expected)
    assert written or memory == 100_000, "which is nearly enough: the order of two threads decides"
    if not memory:
        assert max(start + size for start, size in written) < sum(size for _, size in written), "rooms are used again"
    assert max(held) <= memory + 5 * 12_800, "the limit and what two tasks work with"


def test_enough_memory_needs_no_file(expected, monkeypatch):
    monkeypatch.setattr(spill.SpillFile, "__init__", lambda self: pytest.fail("a file"))
    assert same_bits(executor(n_workers=2).run_graph(grid(), label="grid", ahead=9, memory=10**6), expected)


def test_a_full_disk_is_said(monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OutputError, match=r"No space left.*TMPDIR"):
        executor(n_workers=2).run_graph(grid(), label="grid", ahead=4, memory=0)


def test_results_are_dropped_after_their_last_use():
    alive, most = set(), []

    class Value:
        def __init__(self):
            alive.add(id(self))
            most.append(len(alive))

        def __del__(self):
            alive.discard(id(self))

    tasks = [Task(("start",), lambda: Value())]
    for i in range(30):
        tasks.append(Task(("next", i), lambda value: Value(), (tasks[-1].name,), is_output=i == 29))
    executor(n_workers=2).run_graph(tasks, label="chain", ahead=10)
    assert max(most) <= 3


def test_only_what_nobody_else_needs_is_writeable():
    def writeable(*values):
        return tuple(value.flags.writeable for value in values)

    tasks = [
        Task(("a",), lambda: np.zeros(3)),
        Task(("kept",), lambda: np.zeros(3), is_output=True),
        Task(("first",), writeable, (("a",), ("kept",)), is_output=True),
        Task(("last",), writeable, (("a",), ("kept",)), is_output=True),
    ]
    found = executor(n_workers=1).run_graph(tasks, label="flags", ahead=1)
    assert found[("first",)] == (False, False)
    assert found[("last",)] == (True, False)


def fail(*_):
    raise ArithmeticError("pivot 3 is not positive")


def test_the_first_error_stops_the_rest():
    done = []
    tasks = [
        Task(("bad",), fail),
        *(Task(("slow", i), lambda: done.append(time.sleep(0.02))) for i in range(500)),
    ]
    with pytest.raises(ArithmeticError, match="pivot 3 is not positive"):
        executor(n_workers=2).run_graph(tasks, label="bad", ahead=10)
    assert len(done) < 20


def test_ctrl_c_gives_the_prompt_back():
    def interrupt(event):
        raise KeyboardInterrupt

    returned, waited = threading.Event(), []
    tasks = [
        Task(("quick",), int),
        *(Task(("slow", i), lambda: waited.append(returned.wait(300))) for i in range(4)),
    ]
    with pytest.raises(KeyboardInterrupt):
        executor(n_workers=2).run_graph(tasks, label="nap", ahead=10, progress=interrupt)
    assert not waited, "it returns while its tasks still run"
    returned.set()


@pytest.mark.parametrize(
    "tasks", [[Task(("b",), int, (("a",),)), Task(("a",), int)], [Task(("a",), int), Task(("a",), int)]]
)
def test_a_graph_that_is_none(tasks):
    with pytest.raises(ValueError, match="needs|two tasks"):
        executor(n_workers=1).run_graph(tasks, label="bad", ahead=1)


# ---------------------------------------------------------------------------------------------------- cluster


@pytest.fixture(scope="module")
def cluster():
    with start_cluster(2) as running:
        yield running


@pytest.fixture
def client(cluster):
    with distributed.Client(cluster) as connected:
        connected.wait_for_workers(2, timeout=180)
        yield connected


def kill_once(mark):
    if not Path(mark).exists():
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)


def kill_always():
    os.kill(os.getpid(), signal.SIGKILL)


def fail_once(mark):
    if not Path(mark).exists():
        Path(mark).touch()
        raise OSError("a transient fault")


@pytest.mark.cluster
@pytest.mark.parametrize("ahead", [1, 8, 1000])
def test_a_cluster_gives_the_same_bits(client, expected, ahead):
    events = []
    found = executor(client).run_graph(grid(), label="grid", ahead=ahead, progress=events.append)
    assert same_bits(found, expected)
    assert events[-1].lanes_done == len(grid())
    wait_until_empty(client)


def wait_until_empty(client):
    """Nothing may stay behind on the workers."""
    deadline = time.monotonic() + 120
    while any(client.has_what().values()):
        assert time.monotonic() < deadline, client.has_what()
        time.sleep(0.05)


@pytest.mark.cluster
def test_lost_results_are_made_again(client, expected, tmp_path):
    before = set(client.nthreads())
    mark = tmp_path / "killed"
    tasks = grid(0.02, {(3, 2): partial(kill_once, str(mark))})
    assert same_bits(executor(client).run_graph(tasks, label="grid", ahead=1000), expected)
    assert mark.exists()
    assert set(client.nthreads()) != before


@pytest.mark.cluster
def test_a_blamed_task_begins_the_graph_anew(expected, tmp_path, monkeypatch):
    monkeypatch.setattr(watchdog, "CHECK_SECONDS", 0.2)
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        start_cluster(2) as running,
        distributed.Client(running) as client,
    ):
        traps = {(2, 1): partial(kill_once, str(tmp_path / "a")), (4, 3): partial(kill_once, str(tmp_path / "b"))}
        assert same_bits(executor(client).run_graph(grid(0.01, traps), label="grid", ahead=9), expected)
        assert (tmp_path / "b").exists()
        with pytest.raises(TemporaryError, match=r"grid: workers were lost more often.*smaller tiles"):
            executor(client).run_graph(grid(0.0, {(1, 1): kill_always}), label="grid", ahead=9)


@pytest.mark.cluster
def test_a_failing_task_on_a_cluster(client):
    tasks = [*grid(0.01)[:9], Task(("bad",), fail, (("mix", 0, 0),), is_output=True)]
    with pytest.raises(ArithmeticError, match="pivot 3 is not positive"):
        executor(client).run_graph(tasks, label="bad", ahead=100)
    wait_until_empty(client)


@pytest.mark.cluster
def test_transient_faults_are_tried_again(client, expected, tmp_path):
    tasks = grid(0.0, {(2, 2): partial(fail_once, str(tmp_path / "failed"))})
    assert same_bits(executor(client).run_graph(tasks, label="grid", ahead=100), expected)


@pytest.mark.cluster
def test_tasks_of_one_place_share_a_worker(client):
    def where():
        return distributed.get_worker().address

    tasks = [Task(("where", i), where, place=i % 4, is_output=True) for i in range(20)]
    found = executor(client).run_graph(tasks, label="where", ahead=100)
    homes = [{found[("where", i)] for i in range(20) if i % 4 == place} for place in range(4)]
    assert all(len(home) == 1 for home in homes)
    assert homes[0] != homes[1]


@pytest.mark.cluster
def test_workers_that_leave(monkeypatch):
    monkeypatch.setattr(watchdog, "CHECK_SECONDS", 0.2)
    with start_cluster(1) as running, distributed.Client(running) as client:
        client.wait_for_workers(1, timeout=180)
        threading.Timer(0.5, running.scale, (0,)).start()
        with pytest.raises(TemporaryError, match="has had no workers for"):
            executor(client, no_worker_seconds=0.5).run_graph(
                [Task(("nap",), partial(time.sleep, 60))], label="nap", ahead=1
            )


@pytest.mark.cluster
def test_capacity(client):
    assert executor(n_workers=3).capacity() == Capacity(1, None)
    with start_cluster(0) as none, distributed.Client(none) as empty:
        assert executor(empty).capacity() == Capacity(1, None)
    limits = [worker["memory_limit"] for worker in client.scheduler_info()["workers"].values()]
    assert executor(client).capacity() == Capacity(2, int(0.6 * sum(limits)))
