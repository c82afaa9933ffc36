"""Threads of this process: order, errors, Ctrl-C, progress, discipline."""

from __future__ import annotations

import os
import random
import signal
import threading
import time

import numpy as np
import pyarrow as pa
import pytest
import threadpoolctl

from bigmm.errors import DataError, UsageError
from bigmm.execute import Lane, Progress, executor
from bigmm.execute.discipline import one_thread_each

LONG = 300
"""Seconds after which something hangs, on however busy a machine."""
LANES = tuple(Lane(i, (i,)) for i in range(23))


def text_of(lane, tick):
    tick(10)
    return str(lane.index)


def pair(a, b):
    return f"({a} {b})"


@pytest.mark.parametrize("n_workers", [1, 2, 7, 40])
def test_same_tree_for_any_number_of_threads(n_workers):
    rng = random.Random(n_workers)
    naps = [rng.choice([0, 0, 0.002, 0.01]) for _ in LANES]

    def fold(lane, tick):
        time.sleep(naps[lane.index])
        return text_of(lane, tick)

    expected = executor(n_workers=1).map_reduce(text_of, LANES, pair, label="pass")
    assert executor(n_workers=n_workers).map_reduce(fold, LANES, pair, label="pass") == expected


def test_sums_have_the_same_bits_under_adversarial_delays():
    rng = np.random.default_rng(0)
    blocks = [rng.normal(size=100) * 10.0 ** rng.integers(-8, 8) for _ in LANES]

    def fold_after(naps):
        def fold(lane, tick):
            time.sleep(naps[lane.index])
            return blocks[lane.index]

        return fold

    late_first = [0.01 * (len(LANES) - i) / len(LANES) for i in range(len(LANES))]
    seen = {
        executor(n_workers=workers).map_reduce(fold_after(naps), LANES, np.add, label="sum").tobytes()
        for workers in (1, 2, 5, 23)
        for naps in ([0] * 23, late_first, late_first[::-1])
    }
    assert len(seen) == 1
    arrival = np.sum(blocks[::-1], axis=0)
    assert np.allclose(np.frombuffer(seen.pop()), arrival)


@pytest.mark.parametrize("n_workers", [1, 3])
def test_an_error_is_raised_unchanged_and_stops_the_rest(n_workers):
    started = []
    error = DataError("infinite value in lake/7.parquet, column 'x'")

    def fold(lane, tick):
        started.append(lane.index)
        if lane.index == 4:
            raise error
        while lane.index > 4:  # until the pass is over
            tick(0)
            time.sleep(0.001)
        return "x"

    with pytest.raises(DataError) as caught:
        executor(n_workers=n_workers).map_reduce(fold, LANES, pair, label="pass")
    assert caught.value is error
    assert len(started) < len(LANES)


def test_an_error_in_merge_is_raised():
    def merge(a, b):
        raise ZeroDivisionError("merge")

    for n_workers in (1, 2):
        with pytest.raises(ZeroDivisionError, match="merge"):
            executor(n_workers=n_workers).map_reduce(text_of, LANES, merge, label="pass")


@pytest.fixture
def interruptible():
    """Ctrl-C as in a terminal: whoever starts the tests in the background has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_in_mid_pass_returns_promptly_and_starts_nothing_more(interruptible):
    started, stopped, returned = [], threading.Semaphore(0), threading.Event()
    both = threading.Barrier(2, action=lambda: os.kill(os.getpid(), signal.SIGINT))

    def fold(lane, tick):
        started.append(lane.index)
        both.wait(LONG)
        assert returned.wait(LONG), "the pass returns while its lanes still run"
        try:
            while True:
                tick(1)
        finally:
            stopped.release()

    with pytest.raises(KeyboardInterrupt):
        executor(n_workers=2).map_reduce(fold, LANES, pair, label="pass")
    returned.set()
    for _ in range(2):
        assert stopped.acquire(timeout=LONG), "running lanes stop at their next tick"
    assert sorted(started) == [0, 1]


@pytest.mark.parametrize("n_workers", [1, 2])
def test_progress_counts_rows_and_lanes_in_the_calling_thread(n_workers):
    events, threads = [], set()

    def report(event):
        events.append(event)
        threads.add(threading.current_thread())

    executor(n_workers=n_workers).map_reduce(text_of, LANES, pair, label="levels", rows_total=230, progress=report)
    assert threads == {threading.current_thread()}
    assert len(events) == 46
    last = events[-1]
    assert last == Progress("levels", 230, 230, 23, 23, last.seconds)
    assert last.seconds > 0
    assert [e.rows_done for e in events] == sorted(e.rows_done for e in events)


def test_an_error_in_the_progress_callback_ends_the_pass():
    def report(event):
        raise RuntimeError("no terminal")

    with pytest.raises(RuntimeError, match="no terminal"):
        executor(n_workers=2).map_reduce(text_of, LANES, pair, label="pass", progress=report)


@pytest.mark.parametrize("n_workers", [1, 2, 5])
def test_map_keeps_the_order_and_bounds_what_is_in_flight(n_workers):
    begun = []

    def task(item):
        begun.append(item)
        time.sleep(0.002 * (item % 3))
        return item * item

    results = executor(n_workers=n_workers).map(task, range(30), label="predict")
    assert next(results) == 0
    time.sleep(0.05)
    assert len(begun) <= 2 * n_workers + 1
    assert list(results) == [i * i for i in range(1, 30)]


def test_map_raises_what_the_task_raises():
    def task(item):
        raise DataError(f"item {item}")

    for n_workers in (1, 2):
        with pytest.raises(DataError, match="item 0"):
            list(executor(n_workers=n_workers).map(task, range(5), label="predict"))


def test_one_lane_is_folded_without_a_thread():
    """A table in memory is one lane as a rule: starting threads would take longer than a small fit."""
    found = executor(n_workers=8).map_reduce(
        lambda lane, tick: threading.current_thread(), LANES[:1], pair, label="pass"
    )
    assert found is threading.current_thread()


def test_blas_and_arrow_have_one_thread_while_tasks_run_side_by_side():
    def threads():
        blas = [lib["num_threads"] for lib in threadpoolctl.threadpool_info() if lib["user_api"] == "blas"]
        return {*blas, pa.cpu_count()}

    before = pa.cpu_count(), [lib["num_threads"] for lib in threadpoolctl.threadpool_info()]
    inside = executor(n_workers=2).map_reduce(lambda lane, tick: threads(), LANES[:4], set.union, label="pass")
    assert inside == {1}
    with one_thread_each(), one_thread_each():
        assert threads() == {1}
    assert (pa.cpu_count(), [lib["num_threads"] for lib in threadpoolctl.threadpool_info()]) == before


def test_what_executor_refuses():
    with pytest.raises(UsageError, match="n_workers must be at least 1, got 0"):
        executor(n_workers=0)
    with pytest.raises(UsageError, match="either client= .* or n_workers="):
        executor(client=object(), n_workers=2)
    assert executor(n_workers=3).n_workers == 3
    assert repr(executor(n_workers=1)) == "1 thread of this process"
