"""A graph of tasks on a `distributed` cluster: results stay with the workers, and are computed again when lost.

The client submits in order, a bounded number ahead, and lets go of a result as soon as every task that takes it is
submitted; the scheduler keeps how it was made as long as anything that follows from it is wanted.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import cloudpickle
import numpy as np

from bigmm.errors import TemporaryError
from bigmm.execute.dask import watchdog as watching
from bigmm.execute.dask.flight import RETRIES, fetched, give_up, longer, new_key
from bigmm.execute.dask.watchdog import Watchdog, answer, calls_of, scheduler_errors
from bigmm.execute.discipline import one_thread_each
from bigmm.execute.progress import ProgressCallback, Reporter
from bigmm.execute.tasks import Capacity, Name, Task, Uses

if TYPE_CHECKING:
    from distributed import Client, Future


class Lost(Exception):
    """Dask has given up a task because its workers died; never leaves this module."""


def run(
    client: Client,
    tasks: Sequence[Task],
    watchdog: Callable[[], Watchdog],
    label: str,
    ahead: int,
    progress: ProgressCallback | None,
) -> dict[Name, Any]:
    """See `Executor.run_graph`. The whole graph starts anew when Dask blames one of its tasks for deaths of workers."""
    for _ in range(RETRIES + 1):
        attempt = _Attempt(client, tasks, watchdog(), label, ahead, Reporter(progress, label, 0, len(tasks)))
        try:
            return attempt.run()
        except Lost as error:
            reason = error
        finally:
            attempt.cancel()
    raise TemporaryError(
        f"{label}: workers were lost more often than the retries allow ({reason}). Workers are usually killed for "
        "memory: give them more, run fewer threads per worker or use smaller tiles; on machines that may be taken "
        "away, raise Dask's distributed.scheduler.allowed-failures. Then try again."
    ) from reason


class _Attempt:
    """One try: number -> future of what is submitted and may still be asked for."""

    def __init__(
        self, client: Client, tasks: Sequence[Task], watchdog: Watchdog, label: str, ahead: int, reporter: Reporter
    ):
        self.client, self.tasks, self.watchdog, self.label, self.ahead = client, tasks, watchdog, label, ahead
        self.reporter, uses = reporter, Uses(tasks)
        self.to_submit = {name: len(users) for name, users in uses.users.items()}
        self.number = {task.name: number for number, task in enumerate(tasks)}
        self.futures: dict[int, Future[Any]] = {}
        self.finished = [False] * len(tasks)
        self.first = self.submitted = 0
        self.events: SimpleQueue[int] = SimpleQueue()
        self.workers: list[str] = []
        self.looked = 0.0
        self.outputs: dict[Name, Any] = {}

    def run(self) -> dict[Name, Any]:
        """Submit, wait, take the outputs; raises Lost."""
        while self.first < len(self.tasks):
            with scheduler_errors():
                self._fill()
            try:
                number = self.events.get(timeout=watching.CHECK_SECONDS)
            except Empty:
                self._look_after()
                continue
            self.watchdog.alive()
            self._landed(number)
        return self.outputs

    def cancel(self) -> None:
        """Give up what is in flight."""
        give_up(self.client, self.futures)

    def _fill(self) -> None:
        if self.submitted == min(self.first + self.ahead, len(self.tasks)):
            return
        if time.monotonic() - self.looked > watching.CHECK_SECONDS:
            self.workers, self.looked = _threads(self.watchdog.ask(calls_of(self.client).ncores)), time.monotonic()
        while self.submitted < min(self.first + self.ahead, len(self.tasks)):
            self._submit(self.submitted)
            self.submitted += 1

    def _submit(self, number: int) -> None:
        task = self.tasks[number]
        data = None if task.load is None else cloudpickle.dumps(task.load())
        needs = [self.futures[self.number[name]] for name in task.needs]
        where = None
        if task.place is not None and self.workers:
            # A preference only (allow_other_workers below): the worker may be gone when the task's turn comes.
            where = [self.workers[task.place % len(self.workers)]]
        with warnings.catch_warnings():
            # Kept by the scheduler on purpose: unlike scattered data it survives its worker.
            warnings.filterwarnings("ignore", message="Sending large graph", category=UserWarning)
            future = self.client.submit(
                _step,
                task.work,
                data,
                *needs,
                key=new_key(self.label, "-".join(map(str, task.name))),
                pure=False,
                retries=RETRIES,
                priority=-number,
                workers=where,
                allow_other_workers=where is not None,
            )
        self.futures[number] = future
        future.add_done_callback(lambda _: self.events.put(number))
        for name in set(task.needs):
            self.to_submit[name] -= 1
            self._let_go(self.number[name])

    def _landed(self, number: int) -> None:
        from distributed import CancelledError, KilledWorker

        if self.finished[number]:
            return
        future, task = self.futures[number], self.tasks[number]
        try:
            if future.status == "error":
                future.result()
            if future.status in ("cancelled", "lost"):
                raise CancelledError(future.key)
            if task.is_output:
                self.outputs[task.name] = self._taken(future)
        except (KilledWorker, CancelledError) as error:
            self.watchdog.check_connection()
            raise Lost(f"last while doing {task.name}: {type(error).__name__}") from error
        self.finished[number] = True
        self.reporter.add(lanes=1)
        while self.first < len(self.tasks) and self.finished[self.first]:
            self.first += 1
        self._let_go(number)

    def _taken(self, future: Future[Any]) -> Any:
        seconds = watching.CHECK_SECONDS
        while True:
            try:
                return fetched(future, seconds)
            except TimeoutError:
                if future.status == "error":
                    raise
                self._look_after()
                seconds = longer(seconds, self.watchdog)

    def _let_go(self, number: int) -> None:
        if self.finished[number] and not self.to_submit[self.tasks[number].name]:
            self.futures.pop(number, None)

    def _look_after(self) -> None:
        """Nothing finished for a while: are there workers, and does anything wait for what Dask has given up?"""
        self.watchdog.check()
        if not self.watchdog.stuck().isdisjoint(future.key for future in self.futures.values()):
            raise Lost("a worker was paused with tasks in its queue")
        keys = [future.key for number, future in self.futures.items() if not self.finished[number]]
        try:
            in_vain = answer(self.client, self.client._run_on_scheduler, _any_in_vain, keys)
        except TimeoutError:  # the watchdog knows what to do
            return
        if in_vain:
            raise Lost("a result could not be made again")


def _threads(n_threads: dict[str, int]) -> list[str]:
    """Each worker as often as it has threads, taking turns."""
    # Sorted by address, so that places mean the same workers each time the list is made.
    turns = range(max(n_threads.values(), default=0))
    return [address for turn in turns for address, threads in sorted(n_threads.items()) if threads > turn]


def _step(work: Callable[..., Any], data: bytes | None, *values: Any) -> Any:
    """Runs on a worker. Everything is read-only: a task may run again, and others may have the same array."""
    arguments = [] if data is None else [cloudpickle.loads(data)]
    for value in values:
        if isinstance(value, np.ndarray):
            value.flags.writeable = False
    with one_thread_each():
        result = work(*arguments, *values)
    if isinstance(result, np.ndarray):
        result.flags.writeable = False
    return result


def _any_in_vain(keys: list[str], dask_scheduler: Any = None) -> bool:
    """Runs on the scheduler: will one of the tasks never be done, because it or one that it waits for was given up?

    A task that was to run on a worker that is gone, among others, is given up too when it comes up while there is no
    worker at all: Dask leaves it without one although others come (state "no-worker").
    """
    given_up = ("erred", "no-worker") if dask_scheduler.running else ("erred",)
    stack = [dask_scheduler.tasks[key] for key in keys if key in dask_scheduler.tasks]
    visited = set(stack)
    while stack:
        task = stack.pop()
        if task.state in given_up:
            return True
        # A result that is in memory does not wait for what it was made of.
        if task.state != "memory":
            more = task.dependencies - visited
            visited |= more
            stack.extend(more)
    return False


def capacity_of_workers(watchdog: Watchdog) -> Capacity:
    """The workers now there, and what they may hold before Dask moves results to disk."""
    limits, share = watchdog.ask(watchdog.client._run_on_scheduler, _limits)
    return Capacity(max(1, len(limits)), None if not limits or 0 in limits else int(share * sum(limits)))


def _limits(dask_scheduler: Any = None) -> tuple[list[int], float]:
    """Runs on the scheduler."""
    import dask

    share = dask.config.get("distributed.worker.memory.target", 0.6)
    return [worker.memory_limit or 0 for worker in dask_scheduler.workers.values()], float(share or 0.6)
