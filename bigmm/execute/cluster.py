"""Executor on a `distributed` cluster. With `held_cluster` the only file of the project that talks to Dask's scheduler.

Results are pulled off the workers as they finish and merged here in the fixed tree: results left on workers die with
them again and again when workers are lost often. Nothing is scattered: scattered data cannot be computed again.
"""

from __future__ import annotations

import time
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

import cloudpickle

from bigmm.errors import BigmmError, TemporaryError, UsageError, VersionError
from bigmm.execute import watchdog as watching
from bigmm.execute.discipline import one_thread_each
from bigmm.execute.lanes import Lane
from bigmm.execute.progress import ProgressCallback, Reporter
from bigmm.execute.tree import MergeTree
from bigmm.execute.watchdog import Watchdog, address_of, answer, calls_of, lost_connection, scheduler_errors

if TYPE_CHECKING:
    from distributed import Client, Future

    from bigmm.execute.graph import Capacity, Task

T = TypeVar("T")

RETRIES = 2  # how often a task that failed (not one whose data are bad) is run again, by Dask
LANES_PER_THREAD = 2  # in flight; bounds what waits on the workers
_MUST_AGREE = ("bigmm", "numpy", "pyarrow")
_LARGE_PAYLOAD = 1 << 20  # bytes; from here on the workers share one copy of the task's closure


class ClusterExecutor:
    """Folds lanes on the workers of a client. Gives up (TemporaryError) after ``no_worker_seconds`` without workers."""

    def __init__(self, client: Client, no_worker_seconds: float):
        if getattr(client, "asynchronous", False):
            raise UsageError("bigmm needs a synchronous client: Client(..., asynchronous=False)")
        if client.status in ("closed", "closing"):
            raise TemporaryError("the Dask client is closed. Connect again and try again.")
        self.client, self.no_worker_seconds, self.checked = client, no_worker_seconds, False
        self.threads, self.counted = 0, 0.0

    def __repr__(self) -> str:
        return f"Dask cluster at {address_of(self.client)}"

    @property
    def n_workers(self) -> int:
        """Threads of all workers now there, at least 1."""
        return self._n_workers(self._watchdog("workers"))

    def _n_workers(self, watchdog: Watchdog) -> int:
        if not self.counted or time.monotonic() - self.counted > watching.CHECK_SECONDS:
            self.threads = sum(watchdog.ask(calls_of(self.client).ncores).values())
            self.counted = time.monotonic()
        return max(1, self.threads)

    def _watchdog(self, label: str) -> Watchdog:
        return Watchdog(self.client, self.no_worker_seconds, label)

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
        """See `Executor.map_reduce`; rows are reported when a lane is finished."""
        reporter = Reporter(progress, label, rows_total, len(lanes))
        tree = MergeTree(len(lanes), merge)
        with self._flight(_fold_lane, fold, lanes, label) as (flight, watchdog):
            while flight.futures:
                number = flight.landed(watchdog)
                if number is not None:
                    value, rows = flight.take(number, watchdog)
                    flight.fill(self.n_workers)
                    tree.add(number, value)
                    reporter.add(rows=rows, lanes=1)
        return tree.result()

    def map(
        self, task: Callable[[Any], T], items: Iterable, *, label: str, progress: ProgressCallback | None = None
    ) -> Iterator[T]:
        """See `Executor.map`."""
        items = list(items)
        reporter = Reporter(progress, label, 0, len(items))
        with self._flight(run_task, task, items, label) as (flight, watchdog):
            for number in range(len(items)):
                result = flight.take(number, watchdog)
                flight.fill(self._n_workers(watchdog))
                reporter.add(lanes=1)
                yield result

    def hold(
        self,
        split: Callable[[Any], Iterable],
        items: Sequence,
        join: Callable[[int, list], Any],
        n_shards: int,
        *,
        label: str,
        progress: ProgressCallback | None = None,
    ) -> Any:
        """See `held.hold`; the shards stay on the workers."""
        from bigmm.execute.held_cluster import left_there, shuffle

        self._check_versions(self._watchdog(label))
        return left_there(*shuffle(self, split, items, join, n_shards, label, progress))

    def exchange(
        self,
        split: Callable[[Any], Iterable],
        items: Sequence,
        join: Callable[[int, list], Any],
        n_shards: int,
        *,
        label: str,
        progress: ProgressCallback | None = None,
    ) -> list:
        """See `held.exchange`."""
        from bigmm.execute.held_cluster import fetched_from_there, shuffle

        self._check_versions(self._watchdog(label))
        return fetched_from_there(*shuffle(self, split, items, join, n_shards, label, progress))

    def hold_each(
        self, make: Callable[[Any], Any], items: Sequence, *, label: str, progress: ProgressCallback | None = None
    ) -> Any:
        """See `held.hold_each`; the shards stay on the workers."""
        from bigmm.execute.held_cluster import made

        self._check_versions(self._watchdog(label))
        return made(self, make, items, label, progress)

    def run_graph(
        self, tasks: Sequence[Task], *, label: str, ahead: int, progress: ProgressCallback | None = None
    ) -> dict[tuple, Any]:
        """See `graph.run_graph`; results stay on the workers."""
        from bigmm.execute.graph_cluster import run

        self._check_versions(self._watchdog(label))
        return run(self.client, tasks, lambda: self._watchdog(label), label, ahead, progress)

    def capacity(self) -> Capacity:
        """See `graph.capacity`."""
        from bigmm.execute.graph_cluster import capacity_of_workers

        return capacity_of_workers(self._watchdog("workers"))

    @contextmanager
    def _flight(
        self, runner: Callable, work: Callable, items: Sequence, label: str
    ) -> Iterator[tuple[Flight, Watchdog]]:
        """Tasks under way, with the first ones submitted; what is left is cancelled at the end."""
        watchdog = self._watchdog(label)
        self._check_versions(watchdog)
        flight = Flight(self.client, runner, work, items, label)
        try:
            flight.fill(self._n_workers(watchdog))
            yield flight, watchdog
        finally:
            flight.cancel()

    def _check_versions(self, watchdog: Watchdog) -> None:
        if self.checked:
            return
        watchdog.wait_for_workers()
        ours, theirs = packages_here(), packages_of_workers(watchdog)
        for address, versions in theirs.items():
            for name in _MUST_AGREE:
                if versions.get(name) != ours.get(name):
                    raise VersionError(
                        f"worker {address} has {name} {versions.get(name) or 'not installed'}, this process has "
                        f"{ours.get(name)}. Use the same versions everywhere."
                    )
        self.checked = True


def packages_here() -> dict[str, str]:
    """Versions of the packages that must agree, in this process."""
    from distributed.versions import get_versions

    return dict(get_versions(packages=list(_MUST_AGREE))["packages"])


def packages_of_workers(watchdog: Watchdog) -> dict[str, dict[str, str]]:
    """Versions of the packages that must agree, by address of the worker.

    A worker that has stopped sending heartbeats is left out: it would keep the others waiting.
    """
    client, message, workers = watchdog.client, {"op": "versions", "packages": list(_MUST_AGREE)}, None
    while True:
        try:
            answers = answer(client, calls_of(client).broadcast, msg=message, workers=workers, on_error="ignore")
            return {address: worker["packages"] for address, worker in answers.items()}
        except TimeoutError:
            watchdog.check()
            workers = watchdog.responding()


class Flight:
    """Tasks under way: number -> future. Submits in order, a bounded number at a time."""

    def __init__(self, client: Client, runner: Callable, work: Callable, items: Sequence, label: str):
        self.client, self.runner, self.items, self.label = client, runner, items, label
        self.futures: dict[int, Future] = {}
        self.events: SimpleQueue[tuple[int, str]] = SimpleQueue()
        self.submitted, self.lost = 0, dict.fromkeys(range(len(items)), 0)
        self.payload = shared(client, work, label)

    def fill(self, n_workers: int) -> None:
        """Submit the next items until each worker thread has `LANES_PER_THREAD`."""
        with scheduler_errors():
            while self.submitted < len(self.items) and len(self.futures) < LANES_PER_THREAD * n_workers:
                self.submit(self.submitted)
                self.submitted += 1

    def submit(self, number: int) -> None:
        """(Re)submit one item."""
        key = new_key(self.label, str(number))
        arguments = self.arguments(number)
        future = self.client.submit(self.runner, self.payload, *arguments, key=key, pure=False, retries=RETRIES)
        self.futures[number] = future
        future.add_done_callback(lambda _: self.events.put((number, key)))

    def arguments(self, number: int) -> tuple:
        """What the runner gets after the payload."""
        item = self.items[number]
        return item, needed_futures(item)

    def landed(self, watchdog: Watchdog) -> int | None:
        """The number of an item that finished, waiting for it; None when there is nothing new after a while."""
        try:
            number, key = self.events.get(timeout=watching.CHECK_SECONDS)
        except Empty:
            watchdog.check()
            self.rescue(watchdog)
            return None
        watchdog.alive()
        return number if number in self.futures and self.futures[number].key == key else None

    def take(self, number: int, watchdog: Watchdog) -> Any:
        """Fetch a result and release it on its worker; raises what the task raised."""
        from distributed import CancelledError, KilledWorker

        seconds = watching.CHECK_SECONDS
        while True:
            future = self.futures[number]
            try:
                outcome = fetched(future, seconds)
            except TimeoutError:
                if future.status == "error":
                    raise
                watchdog.check()
                self.rescue(watchdog)
                self.free()
                seconds = longer(seconds, watchdog)
                continue
            except KilledWorker as error:
                # Dask blames every task that was queued on a dead worker, so one blame is no proof.
                self._submit_again(number, self._killed(number, error), error)
                continue
            except CancelledError as error:
                watchdog.check_connection()
                reason = f"{self.label}: the result of lane {number} was lost too often ({error}). Try again."
                self._submit_again(number, reason, error)
                continue
            watchdog.alive()
            del self.futures[number]
            if isinstance(outcome, BigmmError):
                raise outcome
            return outcome

    def rescue(self, watchdog: Watchdog) -> None:
        """Submit again what waits on paused workers: the scheduler gives it to others."""
        stuck = watchdog.stuck()
        for number in [number for number, future in self.futures.items() if future.key in stuck]:
            self.submit(number)

    def free(self) -> None:
        """Called when nothing finishes for a while."""

    def _submit_again(self, number: int, reason: str, error: BaseException) -> None:
        self.lost[number] += 1
        if self.lost[number] > RETRIES:
            raise TemporaryError(reason) from error
        self.submit(number)

    def _killed(self, number: int, error: Any) -> str:
        item = self.items[number]
        first = getattr(item, "partitions", ())[:1]
        where = f" (from {first[0].where})" if first and hasattr(first[0], "where") else ""
        return (
            f"{self.label}: lane {number}{where} lost its worker more often than the retries allow, last on "
            f"{error.last_worker.address}. Workers are usually killed for memory: give them more, run fewer threads "
            "per worker or lower partition_bytes; on machines that may be taken away, raise Dask's "
            "distributed.scheduler.allowed-failures. Then try again."
        )

    def cancel(self) -> None:
        """Give up what is in flight."""
        give_up(self.client, self.futures)


def longer(seconds: float, watchdog: Watchdog) -> float:
    """Deadline of the next attempt: one that ends begins its transfer anew, so a large result needs ever more."""
    return min(2.0 * seconds, max(watchdog.no_worker_seconds, watching.CHECK_SECONDS))


def fetched(future: Future, seconds: float) -> Any:
    """The result of a future, within so many seconds or TimeoutError; raises what its task raised.

    A scheduler that goes away while it is asked for the result closes the connection before the client knows.
    """
    from distributed.comm import CommClosedError

    try:
        return future.result(timeout=seconds)
    except CommClosedError as error:
        if future.status == "error":  # the task's own: a worker lost another one, say
            raise
        raise lost_connection(error) from error


def give_up(client: Client, futures: dict[int, Future]) -> None:
    """Cancel what is in flight, and forget it; what cannot be told to a scheduler that is gone ends with it."""
    rest = list(futures.values())
    futures.clear()
    if rest and client.status == "running":
        with suppress(TimeoutError, TemporaryError):
            answer(client, client._cancel, rest, force=True)


def new_key(label: str, name: str) -> str:
    """A key that no other task has."""
    return f"bigmm-{label.replace(' ', '_')}-{name}-{uuid.uuid4().hex}"


class Sealed(bytes):
    """Pickled work, which can hold secrets: Dask writes the arguments of a task that fails into the workers' logs."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"


def shared(client: Client, work: Any, label: str) -> bytes | Future:
    """``work`` pickled, as a future when it is large, so that it travels once per worker and not with every task."""
    content = Sealed(cloudpickle.dumps(work))
    if len(content) < _LARGE_PAYLOAD:
        return content
    # A task's argument is kept by the scheduler, so unlike scattered data it survives its worker.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sending large graph", category=UserWarning)
        return client.submit(Sealed, content, key=new_key(label, "payload"), pure=False)


def needed_futures(item: Any) -> list[list]:
    """Futures inside an item would not survive the journey; as arguments they are dependencies that Dask fetches."""
    needs = [list(getattr(part, "futures", ())) for part in getattr(item, "partitions", ())]
    return needs if any(needs) else []


def _fold_lane(payload: bytes, lane: Lane, needs: list[list]) -> tuple[Any, int] | BigmmError:
    """Runs on a worker. Errors in the data come back as values: running those again would only read the lane again."""
    counted = [0]

    def tick(rows: int) -> None:
        counted[0] += rows

    value = run_task(payload, lane, needs, tick)
    return value if isinstance(value, BigmmError) else (value, counted[0])


def run_task(payload: bytes, item: Any, needs: list[list], *more: Any) -> Any:
    """One task on a worker: unpack the work, hand it the item, send a BigmmError back as a value."""
    work = cloudpickle.loads(payload)
    if needs:
        parts = zip(item.partitions, needs, strict=True)
        item = replace(item, partitions=tuple(part.supplied(got) if got else part for part, got in parts))
    with one_thread_each():
        try:
            return work(item, *more)
        except BigmmError as error:
            return error
