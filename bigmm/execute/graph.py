"""Steps that need each other's results: a directed graph of pure tasks, on threads or on a cluster, with the same bits.

The tasks come in an order in which each could be done when it is its turn; few more than can run are begun ahead of
it, so that memory is bounded. A result is gone after its last use. On threads results may wait in a temporary file; on
a cluster they live on the workers, and what a dead worker took with it is computed again from the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from heapq import heappop, heappush
from queue import SimpleQueue
from threading import Event
from typing import Any

from bigmm.execute.discipline import one_thread_each
from bigmm.execute.executor import Executor
from bigmm.execute.graph_results import Results
from bigmm.execute.progress import ProgressCallback, Reporter

Name = tuple


@dataclass(frozen=True, slots=True)
class Task:
    """``work(*results of needs)``, or ``work(given(), *results of needs)``.

    work: pure, and picklable for a cluster. An array among the results that arrives writeable is needed by nobody else:
    work may write over it and return it; all others are read-only. given: makes data that this process has, when it is
    the task's turn. place: tasks of one place run on the same worker if possible. wanted: the caller gets the result.
    """

    name: Name
    work: Callable
    needs: tuple[Name, ...] = ()
    given: Callable[[], Any] | None = None
    place: int | None = None
    wanted: bool = False


class Uses:
    """Who needs whom: users[name] the numbers of the tasks that take a result, waiting[i] how many results task i
    waits for."""

    def __init__(self, tasks: Sequence[Task]):
        self.users: dict[Name, list[int]] = {}
        for number, task in enumerate(tasks):
            for name in set(task.needs):
                if name not in self.users:
                    raise ValueError(f"task {task.name} needs {name}, which does not come before it")
                self.users[name].append(number)
            if task.name in self.users:
                raise ValueError(f"two tasks are named {task.name}")
            self.users[task.name] = []
        self.waiting = [len(set(task.needs)) for task in tasks]


@dataclass(frozen=True, slots=True)
class Capacity:
    """What an executor has room for. elsewhere: results live in other processes; processes: their number; bytes: of
    results they may hold in memory together, None when nobody has said."""

    elsewhere: bool
    processes: int
    bytes: int | None


def capacity(executor: Executor) -> Capacity:
    """Asked of the cluster, now."""
    ask = getattr(executor, "capacity", None)
    return Capacity(False, 1, None) if ask is None else ask()


def run_graph(
    executor: Executor,
    tasks: Sequence[Task],
    *,
    label: str,
    ahead: int,
    memory: int | None = None,
    progress: ProgressCallback | None = None,
) -> dict[Name, Any]:
    """The wanted results by name.

    ahead: how many tasks beyond the first unfinished one may be begun; memory: bytes of arrays to keep in memory on
    threads, the rest waits in a temporary file (None: all in memory). The first error of a task stops the rest and is
    raised as it is; OutputError when the disk is full; TemporaryError when a cluster loses too many workers.
    """
    elsewhere = getattr(executor, "run_graph", None)
    if elsewhere is not None:
        return elsewhere(tasks, label=label, ahead=ahead, progress=progress)
    with one_thread_each():
        return _on_threads(tasks, executor.n_workers, label, ahead, memory, progress)


def _on_threads(
    tasks: Sequence[Task],
    n_workers: int,
    label: str,
    ahead: int,
    memory: int | None,
    progress: ProgressCallback | None,
) -> dict[Name, Any]:
    uses, reporter = Uses(tasks), Reporter(progress, label, 0, len(tasks))
    waiting = list(uses.waiting)
    results = Results(uses.users, [task.name for task in tasks if task.wanted], memory)
    users = {name: tuple(numbers) for name, numbers in uses.users.items()}  # results strikes out those that are done
    events: SimpleQueue[tuple[int, BaseException | None]] = SimpleQueue()
    stop = Event()

    def run(number: int) -> None:
        try:
            if not stop.is_set():
                _do(tasks[number], number, results)
            events.put((number, None))
        except BaseException as error:
            events.put((number, error))

    ready = [number for number, count in enumerate(waiting) if not count]
    finished = [False] * len(tasks)
    running = first = 0
    pool = ThreadPoolExecutor(n_workers, thread_name_prefix="bigmm-graph")
    try:
        while first < len(tasks):
            while ready and running < n_workers and ready[0] < first + ahead:
                pool.submit(run, heappop(ready))
                running += 1
            number, error = events.get()
            if error is not None:
                raise error
            running -= 1
            finished[number] = True
            for user in users[tasks[number].name]:
                waiting[user] -= 1
                if not waiting[user]:
                    heappush(ready, user)
            while first < len(tasks) and finished[first]:
                first += 1
            reporter.add(lanes=1)
        return results.wanted()
    finally:
        stop.set()
        # Not waited for: whoever pressed Ctrl-C wants the prompt back.
        pool.shutdown(wait=False, cancel_futures=True)


def _do(task: Task, number: int, results: Results) -> None:
    arguments = results.take(number, task.needs)
    if task.given is not None:
        arguments.insert(0, task.given())
    value = task.work(*arguments)
    del arguments
    results.done(number, task.needs)
    results.put(task.name, value)
