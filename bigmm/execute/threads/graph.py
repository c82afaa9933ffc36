"""A graph of tasks on threads of this process."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from heapq import heappop, heappush
from queue import SimpleQueue
from threading import Event
from typing import Any

from bigmm.execute.progress import ProgressCallback, Reporter
from bigmm.execute.tasks import Name, Task, Uses
from bigmm.execute.threads.results import Results


def run(
    tasks: Sequence[Task],
    n_workers: int,
    label: str,
    ahead: int,
    memory: int | None,
    progress: ProgressCallback | None,
) -> dict[Name, Any]:
    """See `Executor.run_graph`."""
    uses, reporter = Uses(tasks), Reporter(progress, label, 0, len(tasks))
    waiting = list(uses.waiting)
    results = Results(uses.users, [task.name for task in tasks if task.is_output], memory)
    users = {name: tuple(numbers) for name, numbers in uses.users.items()}  # results strikes out those that are done
    events: SimpleQueue[tuple[int, BaseException | None]] = SimpleQueue()
    stop = Event()

    def step(number: int) -> None:
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
                # The lowest number first: the window of `ahead` begins at the first unfinished task.
                pool.submit(step, heappop(ready))
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
        return results.outputs()
    finally:
        stop.set()
        # Not waited for: whoever pressed Ctrl-C wants the prompt back.
        pool.shutdown(wait=False, cancel_futures=True)


def _do(task: Task, number: int, results: Results) -> None:
    arguments = results.take(number, task.needs)
    if task.load is not None:
        arguments.insert(0, task.load())
    value = task.work(*arguments)
    # This frame would keep the inputs alive while they are let go.
    del arguments
    results.done(number, task.needs)
    results.put(task.name, value)
