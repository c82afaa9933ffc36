"""Schedulers and workers that keep their connections and do nothing: the pass ends, and says which of them it was.

Processes are really stopped. The moment is a report of progress, so nothing depends on how fast the machine is.
"""

from __future__ import annotations

import signal
import time
from functools import partial

import pytest

from bigmm.errors import TemporaryError
from bigmm.execute import Lane, executor
from bigmm.execute.dask import watchdog
from bigmm.execute.tasks import Task
from tests.execute.processes import PAUSED, Processes

pytestmark = pytest.mark.cluster
LIMIT = 3.0


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(watchdog, "CHECK_SECONDS", 0.2)
    monkeypatch.setattr(watchdog, "ANSWER_SECONDS", 1.0)


@pytest.fixture
def start(tmp_path):
    """Start processes and a client; both end with the test, and the client does not wait for the stopped ones."""
    opened = []

    def call(workers, **settings):
        processes = Processes(tmp_path, workers, **settings)
        opened.append(processes)
        client = processes.client()
        opened.insert(0, client)
        return processes, client

    yield call
    for one in opened[::-1]:  # the processes first: a client of a stopped scheduler waits for it
        one.close()


def lanes_of(count):
    return tuple(Lane(i, ()) for i in range(count))


def nap(seconds, lane, tick=None):
    import time

    time.sleep(seconds)
    return 1


def local(function):
    """Pickled by value: the workers of these tests do not know the tests."""
    import cloudpickle

    cloudpickle.register_pickle_by_value(__import__(__name__, fromlist=["_"]))
    return function


def fold(client, seconds=0.05, count=40, progress=None, limit=LIMIT):
    work = local(partial(nap, seconds))
    chosen = executor(client, no_worker_seconds=limit)
    return chosen.map_reduce(work, lanes_of(count), int.__add__, label="pass", progress=progress)


def stopping(*processes):
    """A progress callback that stops processes at its first call."""

    def report(event):
        for process in processes:
            process.send_signal(signal.SIGSTOP)

    return report


def test_a_scheduler_that_is_stopped_before_and_in_a_pass(start):
    processes, client = start(2)
    message = r"pass: the Dask scheduler at tcp://127\.0\.0\.1:\d+ has kept its connection but not answered for 3 s"
    assert fold(client) == 40
    with pytest.raises(TemporaryError, match=message):
        fold(client, progress=stopping(processes.scheduler))
    with pytest.raises(TemporaryError, match="not answered for 3 s"):
        fold(client)
    chosen = executor(client, no_worker_seconds=0.5)
    for question in (
        lambda: list(chosen.map(nap, range(3), label="pass")),
        lambda: chosen.shuffle(local(lambda part: [part]), [1, 2], lambda i, parts: parts, 1, label="pass"),
        lambda: chosen.run_graph([Task(("one",), int, (), None, 0, True)], label="graph", ahead=1),
        chosen.capacity,
        lambda: chosen.n_workers,
    ):
        with pytest.raises(TemporaryError, match="not answered"):
            question()


def test_a_scheduler_that_goes_on_in_time_changes_nothing(start):
    processes, client = start(2)
    events = []

    def report(event):
        events.append(event)
        if len(events) == 1:
            processes.scheduler.send_signal(signal.SIGSTOP)
            time.sleep(1.5 * watchdog.ANSWER_SECONDS)
            processes.scheduler.send_signal(signal.SIGCONT)

    assert fold(client, progress=report, limit=60) == 40


def test_all_workers_stopped(start):
    processes, client = start(2)
    message = r"pass: no worker of the Dask cluster has sent a heartbeat for 3 s \(tcp://\S+, tcp://\S+\): stopped"
    with pytest.raises(TemporaryError, match=message):
        fold(client, progress=stopping(*processes.workers))
    with pytest.raises(TemporaryError, match=message):  # before the pass, by an executor that asks for versions
        fold(client)


def test_one_worker_stopped_and_its_work_done_by_the_other(start, monkeypatch):
    """Dask gives its tasks to the other after worker-ttl, which is waited for although the limit is shorter."""
    monkeypatch.setattr(watchdog, "ANSWER_SECONDS", 5.0)  # heartbeats of the healthy one may be late
    processes, client = start(2, DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL="5s")
    assert fold(client, progress=stopping(processes.workers[0]), limit=4.0) == 40


def test_one_worker_stopped_before_the_versions_are_asked_for(start, monkeypatch):
    monkeypatch.setattr(watchdog, "ANSWER_SECONDS", 5.0)
    processes, client = start(2, DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL="5s")
    processes.workers[0].send_signal(signal.SIGSTOP)
    assert fold(client, limit=4.0) == 40


def test_the_only_worker_paused(start):
    _, client = start(1, **PAUSED)
    message = r"pass: every worker of the Dask cluster has been paused for 3 s \(tcp://\S+\): Dask gives no tasks"
    with pytest.raises(TemporaryError, match=message):
        fold(client)


def test_a_long_task_on_a_healthy_worker_is_no_standstill(start, monkeypatch):
    monkeypatch.setattr(watchdog, "ANSWER_SECONDS", 5.0)  # the least patience; heartbeats may be late
    _, client = start(1)
    assert fold(client, seconds=12.0, count=1, limit=0.5) == 1


@pytest.mark.parametrize("work", ["map_reduce", "hold", "graph"])
def test_a_worker_paused_in_a_pass_beside_a_healthy_one(start, work):
    """Dask does not take its queue from it, so we give the tasks to the other worker."""
    _, client = start(2)
    first = next(iter(client.nthreads()))
    paused = []

    def report(event):
        if not paused:
            paused.append(client.run(local(pause), workers=[first]))

    chosen = executor(client, no_worker_seconds=60)
    if work == "map_reduce":
        assert fold(client, progress=report, limit=60) == 40
    elif work == "hold":
        held = chosen.shuffle(split_slowly, list(range(20)), add_up, 2, label="hold", progress=report)
        assert held.map(int) == [190, 190]
    else:
        tasks = [Task((i,), local(partial(nap, 0.05)), (), int, 0, True) for i in range(40)]
        assert chosen.run_graph(tasks, label="graph", ahead=40, progress=report) == {(i,): 1 for i in range(40)}
    assert paused


def split_slowly(item):
    import time

    time.sleep(0.05)
    return [item, item]


def add_up(number, pieces):
    return sum(pieces)


def pause(dask_worker=None):
    """Runs on a worker: any process is too large for it from now on."""
    dask_worker.memory_manager.memory_pause_fraction = 0.0001
