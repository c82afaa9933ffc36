"""A real cluster of worker processes, some of which are killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from distributed.comm import CommClosedError

from bigmm.errors import DataError, TemporaryError, UsageError, VersionError
from bigmm.execute import Lane, cut_lanes, executor
from bigmm.execute.dask import versions, watchdog
from bigmm.execute.dask.executor import ClusterExecutor
from bigmm.execute.tasks import Task
from bigmm.source import open_source

distributed = pytest.importorskip("distributed")
dask = pytest.importorskip("dask")
pytestmark = pytest.mark.cluster


def start_cluster(n_workers):
    return distributed.LocalCluster(
        n_workers=n_workers, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
    )


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lake")
    rng = np.random.default_rng(5)
    for number in range(6):
        x = rng.normal(size=2000) * 10.0 ** rng.integers(-6, 6, size=2000)
        g = pa.array(rng.integers(0, 50, size=2000)).cast(pa.string())
        pq.write_table(pa.table({"x": x, "g": g}), folder / f"{number}.parquet", row_group_size=500)
    return folder


def fold(source, trap, nap, lane, tick):
    """Sums of x and x^2, in an order that matters; ``trap(lane)`` may do harm first."""
    if trap is not None:
        trap(lane)
    total = np.zeros(2)
    for part in lane.partitions:
        x = source.read(part, ["x", "g"])["x"].to_numpy()
        time.sleep(nap)
        total += x.sum(), (x * x).sum()
        tick(part.rows)
    return total


def kill_once(mark, lane):
    """Kill the worker that folds lane 3, the first time."""
    if lane.index == 3 and not Path(mark).exists():
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)


def kill_always(lane):
    if lane.index == 1:
        os.kill(os.getpid(), signal.SIGKILL)


def make_pass(lake, trap=None, nap=0.0):
    source = open_source(lake, partition_bytes=1)
    assert len(source.partitions) == 24
    return source, partial(fold, source, trap, nap), cut_lanes(source.partitions)


def test_a_killed_worker_changes_no_bit(client, lake, tmp_path):
    source, plain, lanes = make_pass(lake)
    expected = executor(n_workers=2).map_reduce(plain, lanes, np.add, label="pass")
    mark = tmp_path / "killed"
    _, deadly, _ = make_pass(lake, partial(kill_once, str(mark)), 0.01)
    before = set(client.nthreads())
    events = []
    found = executor(client).map_reduce(
        deadly, lanes, np.add, label="a pass", rows_total=source.rows_total, progress=events.append
    )
    assert mark.exists(), "nobody was killed"
    assert set(client.nthreads()) != before
    assert found.tobytes() == expected.tobytes()
    assert (events[-1].rows_done, events[-1].lanes_done) == (12_000, 8)


def test_the_current_client_is_used_and_gives_the_same_bits(client, lake):
    _, plain, lanes = make_pass(lake)
    chosen = executor()
    assert "Dask cluster" in repr(chosen)
    assert chosen.n_workers == 2
    expected = executor(n_workers=1).map_reduce(plain, lanes, np.add, label="pass")
    assert chosen.map_reduce(plain, lanes, np.add, label="pass").tobytes() == expected.tobytes()


def test_a_worker_lost_more_often_than_the_retries_allow(client, lake):
    _, deadly, lanes = make_pass(lake, kill_always)
    with pytest.raises(
        TemporaryError, match=r"lane \d \(from .*parquet, row group \d\) lost its worker more"
    ) as caught:
        executor(client).map_reduce(deadly, lanes, np.add, label="pass")
    assert "lower partition_bytes" in str(caught.value)
    assert caught.value.exit_code == 75


def test_bad_data_on_a_worker_is_raised_once_and_unchanged(client, tmp_path):
    log = tmp_path / "log"

    def bad(lane, tick):
        with open(log, "a") as stream:
            stream.write(f"{lane.index}\n")
        raise DataError(f"infinite value in lane {lane.index}")

    with pytest.raises(DataError, match=r"^infinite value in lane \d$"):
        executor(client).map_reduce(bad, lanes_of(12), np.add, label="pass")
    ran = log.read_text().split()
    assert len(ran) == len(set(ran)), "bad data are not tried again"


def test_other_errors_are_tried_again(client, tmp_path):
    def flaky(folder, lane, tick):
        mark = Path(folder) / f"{lane.index}"
        if not mark.exists():
            mark.touch()
            raise OSError("a transient fault")
        return lane.index

    total = executor(client).map_reduce(partial(flaky, str(tmp_path)), lanes_of(5), int.__add__, label="pass")
    assert total == 10


def lanes_of(count):
    return tuple(Lane(i, ()) for i in range(count))


def test_a_large_closure_travels_once_per_worker(client):
    big = os.urandom(3_000_000)
    found = executor(client).map_reduce(lambda lane, tick: len(big), lanes_of(10), int.__add__, label="pass")
    assert found == 30_000_000


def test_map_keeps_the_order(client):
    def task(item):
        time.sleep(0.01 * (item % 3))
        return item * item

    assert list(executor(client).map(task, range(12), label="predict")) == [i * i for i in range(12)]


def test_a_persisted_dask_dataframe_is_folded_where_it_is(client):
    frame = pd.DataFrame({"x": np.arange(1000.0), "g": ["a", "b"] * 500})
    persisted = dd.from_pandas(frame, npartitions=5).assign(y=lambda part: part.x).persist()
    for data in (persisted, persisted[["x", "g"]]):
        source = open_source(data, filter="g == 'a'")
        lanes = cut_lanes(source.partitions)
        for chosen in (executor(client), executor(n_workers=2)):
            total = chosen.map_reduce(partial(fold, source, None, 0), lanes, np.add, label="pass")
            assert total[0] == frame.x[frame.g == "a"].sum()


def test_a_closed_client_is_refused(cluster):
    connected = distributed.Client(cluster)
    connected.close()
    with pytest.raises(TemporaryError, match="the Dask client is closed"):
        executor(connected)


def test_a_fit_inside_a_task_stays_in_its_thread(client):
    assert client.submit(lambda: repr(executor()), pure=False).result(timeout=180) == "1 thread of this process"


def test_abandoned_lanes_are_cancelled(client, tmp_path):
    returned, late = tmp_path / "returned", tmp_path / "late"

    def fold_slowly(lane, tick):
        limit = time.monotonic() + 120
        while lane.index and not returned.exists():
            if time.monotonic() > limit:
                late.touch()
                break
            time.sleep(0.02)
        return 0

    def report(event):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        executor(client).map_reduce(fold_slowly, lanes_of(9), int.__add__, label="pass", progress=report)
    assert not late.exists(), "it returns while lanes still run"
    returned.touch()


def test_versions_must_agree(client, monkeypatch):
    ours = versions.packages_here()
    monkeypatch.setattr(versions, "packages_here", lambda: ours | {"pyarrow": "1.0"})
    with pytest.raises(VersionError, match=rf"worker tcp://\S+ has pyarrow {pa.__version__}, this process has 1\.0"):
        executor(client).map_reduce(lambda lane, tick: 1, lanes_of(3), int.__add__, label="pass")
    assert VersionError.exit_code == 78


def test_no_workers_at_all_and_workers_that_leave(monkeypatch):
    monkeypatch.setattr(watchdog, "CHECK_SECONDS", 0.2)
    with start_cluster(0) as empty, distributed.Client(empty) as client:
        chosen = executor(client, no_worker_seconds=0.3)
        with pytest.raises(TemporaryError, match=r"pass: the Dask cluster has had no workers for 0 s\. Start workers"):
            chosen.map_reduce(lambda lane, tick: 1, lanes_of(3), int.__add__, label="pass")
        empty.scale(1)
        client.wait_for_workers(1, timeout=180)
        threading.Timer(0.5, empty.scale, (0,)).start()
        with pytest.raises(TemporaryError, match="has had no workers for"):
            chosen.map_reduce(nap, lanes_of(3), int.__add__, label="pass")


ALONE = """
import time
from distributed import LocalCluster
if __name__ == "__main__":
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        print(cluster.scheduler_address, flush=True)
        time.sleep(60)
"""


def test_a_scheduler_that_is_gone(tmp_path):
    script = tmp_path / "alone.py"
    script.write_text(ALONE)
    command = [sys.executable, str(script)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        client = distributed.Client(process.stdout.readline().decode().strip(), timeout=20)
        threading.Timer(0.5, os.killpg, (process.pid, signal.SIGKILL)).start()
        with pytest.raises(TemporaryError, match="scheduler"):
            executor(client, no_worker_seconds=5).map_reduce(nap, lanes_of(3), int.__add__, label="pass")
        client.close()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()
        process.wait()


@pytest.mark.parametrize("status", ["finished", "error"])
def test_a_connection_that_closes_while_a_result_is_fetched(client, monkeypatch, status):
    """The client says "running" still: what was asked for is lost with the scheduler. A task's own error is its own."""

    def closed(future, timeout=None):
        raise CommClosedError("ConnectionPool.gather")

    monkeypatch.setattr(distributed.Future, "result", closed)
    monkeypatch.setattr(distributed.Future, "status", status)
    expected = TemporaryError if status == "finished" else CommClosedError
    with pytest.raises(expected, match="ConnectionPool.gather"):
        executor(client).map_reduce(lambda lane, tick: 1, lanes_of(3), int.__add__, label="pass")
    with pytest.raises(expected):
        executor(client).run_graph([Task(("one",), int, (), None, 0, True)], label="graph", ahead=1)
    assert client.status == "running"


def nap(lane, tick):
    time.sleep(60)  # longer than its worker lives
    return 0


def test_an_asynchronous_client_is_refused():
    class Asynchronous:
        asynchronous = True

    with pytest.raises(UsageError, match=r"needs a synchronous client"):
        ClusterExecutor(Asynchronous(), 600.0)
