"""Executor on threads of this process (kernels, decoding and BLAS release the interpreter lock)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from threading import Event
from typing import Any, TypeVar

from bigmm.execute.discipline import one_thread_each
from bigmm.execute.lanes import Lane
from bigmm.execute.progress import ProgressCallback, Reporter
from bigmm.execute.sharded import PieceStore
from bigmm.execute.tasks import Capacity, Name, Task
from bigmm.execute.threads import graph, shards
from bigmm.execute.threads.shards import ThreadShards
from bigmm.execute.tree import MergeTree

T = TypeVar("T")


class Stopped(Exception):
    """Raised by ``tick`` inside a lane whose pass was given up; never leaves this module."""


class ThreadExecutor:
    """Folds lanes on ``n_workers`` threads; inline, without any thread, when one is enough."""

    shares_memory = True

    def __init__(self, n_workers: int):
        self.n_workers = n_workers

    def __repr__(self) -> str:
        return f"{self.n_workers} thread{'s' * (self.n_workers != 1)} of this process"

    def capacity(self) -> Capacity:
        """See `Executor.capacity`."""
        return Capacity(1, None)

    def map_reduce(
        self,
        fold: Callable[[Lane, Callable[[int], None]], T],
        lanes: Sequence[Lane],
        merge: Callable[[T, T], T],
        *,
        label: str,
        rows_total: int = 0,
        progress: ProgressCallback | None = None,
    ) -> T:
        """See `Executor.map_reduce`."""
        reporter = Reporter(progress, label, rows_total, len(lanes))
        tree = MergeTree(len(lanes), merge)
        if self.n_workers == 1 or len(lanes) == 1:
            for number, lane in enumerate(lanes):
                tree.add(number, fold(lane, reporter.add))
                reporter.add(lanes=1)
            return tree.result()
        with one_thread_each():
            _run_lanes(fold, lanes, tree, reporter, self.n_workers)
        return tree.result()

    def map(
        self, task: Callable[[Any], T], items: Iterable[Any], *, label: str, progress: ProgressCallback | None = None
    ) -> Iterator[T]:
        """See `Executor.map`."""
        items = list(items)
        reporter = Reporter(progress, label, 0, len(items))
        if self.n_workers == 1 or len(items) <= 1:
            results: Iterator[T] = map(task, items)
        else:
            results = _windowed(task, items, self.n_workers)
        for result in results:
            reporter.add(lanes=1)
            yield result

    def shuffle(
        self,
        split: Callable[[Any], Iterable[Any]],
        items: Sequence[Any],
        join: Callable[[int, list[Any]], Any],
        n_shards: int,
        *,
        files: Callable[[], PieceStore] | None = None,
        label: str = "shard",
        progress: ProgressCallback | None = None,
    ) -> ThreadShards:
        """See `Executor.shuffle`."""
        if files is None:
            return ThreadShards(
                shards.in_memory(self.map, split, items, join, n_shards, label, progress), self.n_workers
            )
        mapped, file = shards.in_file(self.map, split, items, files(), n_shards, label, progress)
        return ThreadShards(mapped, self.n_workers, file)

    def shuffle_once(
        self,
        split: Callable[[Any], Iterable[Any]],
        items: Sequence[Any],
        join: Callable[[int, list[Any]], Any],
        n_shards: int,
        *,
        label: str,
        progress: ProgressCallback | None = None,
    ) -> list[Any]:
        """See `Executor.shuffle_once`."""
        return shards.in_memory(self.map, split, items, join, n_shards, label, progress)

    def shard_sorted(
        self,
        make: Callable[[Any], Any],
        items: Iterable[Any],
        *,
        in_files: bool = False,
        label: str = "shard",
        progress: ProgressCallback | None = None,
    ) -> ThreadShards:
        """See `Executor.shard_sorted`."""
        if not in_files:
            return ThreadShards(list(self.map(make, items, label=label, progress=progress)), self.n_workers)
        mapped, file = shards.sorted_in_file(self.map, make, items, label, progress)
        return ThreadShards(mapped, self.n_workers, file)

    def run_graph(
        self,
        tasks: Sequence[Task],
        *,
        label: str,
        ahead: int,
        memory: int | None = None,
        progress: ProgressCallback | None = None,
    ) -> dict[Name, Any]:
        """See `Executor.run_graph`."""
        with one_thread_each():
            return graph.run(tasks, self.n_workers, label, ahead, memory, progress)


def _run_lanes(
    fold: Callable[..., Any], lanes: Sequence[Lane], tree: MergeTree[Any], reporter: Reporter, n_workers: int
) -> None:
    """Fold lanes on a pool; this thread only counts events, so progress and Ctrl-C are served here at once."""
    events: SimpleQueue[Any] = SimpleQueue()
    stop = Event()

    def tick(rows: int) -> None:
        if stop.is_set():
            raise Stopped
        events.put(rows)

    def run(number: int) -> None:
        try:
            if not stop.is_set():
                tree.add(number, fold(lanes[number], tick))
            events.put(None)
        # BaseException: a lane that ended without an event would leave the caller waiting for ever.
        except BaseException as error:
            events.put(error)

    pool = ThreadPoolExecutor(min(n_workers, len(lanes)), thread_name_prefix="bigmm")
    try:
        for number in range(len(lanes)):
            pool.submit(run, number)
        while reporter.lanes_done < len(lanes):
            _serve(events.get(), reporter)
    finally:
        stop.set()
        # Not waited for: a running lane stops at its next tick, and whoever pressed Ctrl-C wants the prompt back.
        pool.shutdown(wait=False, cancel_futures=True)


def _serve(event: int | BaseException | None, reporter: Reporter) -> None:
    if isinstance(event, BaseException):
        raise event
    if event is None:
        reporter.add(lanes=1)
    else:
        reporter.add(rows=event)


def _windowed(task: Callable[[Any], T], items: Sequence[Any], n_workers: int) -> Iterator[T]:
    """Results in the order of items, with at most twice as many tasks in flight as there are threads."""
    pool = ThreadPoolExecutor(n_workers, thread_name_prefix="bigmm")
    flying: deque[Future[Any]] = deque()
    try:
        with one_thread_each():
            for item in items:
                flying.append(pool.submit(task, item))
                if len(flying) >= 2 * n_workers:
                    yield flying.popleft().result()
            while flying:
                yield flying.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
