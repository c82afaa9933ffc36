"""Tasks of a `distributed` client under way: submitted in order, fetched and released as they finish.

Nothing is scattered: scattered data cannot be computed again.
"""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import cloudpickle

from bigmm.errors import BigmmError, TemporaryError
from bigmm.execute.dask import watchdog as watching
from bigmm.execute.dask.watchdog import Watchdog, answer, lost_connection, scheduler_errors
from bigmm.execute.discipline import one_thread_each

if TYPE_CHECKING:
    from distributed import Client, Future

RETRIES = 2  # how often a task that failed (not one whose data are bad) is run again, by Dask
LANES_PER_THREAD = 2  # in flight; bounds what waits on the workers
_LARGE_PAYLOAD = 1 << 20  # bytes; from here on the workers share one copy of the task's closure


class Flight:
    """Tasks under way: number -> future. Submits in order, a bounded number at a time."""

    def __init__(
        self, client: Client, runner: Callable[..., Any], work: Callable[..., Any], items: Sequence[Any], label: str
    ):
        self.client, self.runner, self.items, self.label = client, runner, items, label
        self.futures: dict[int, Future[Any]] = {}
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
        # Dask calls back in a thread of its own, which therefore touches nothing but the queue.
        future.add_done_callback(lambda _: self.events.put((number, key)))

    def arguments(self, number: int) -> tuple[Any, ...]:
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
        # An item that was submitted again has another key; news of the earlier future is stale.
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
        # A list, because submit changes the dictionary.
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


def fetched(future: Future[Any], seconds: float) -> Any:
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


def give_up(client: Client, futures: dict[int, Future[Any]]) -> None:
    """Cancel what is in flight, and forget it; what cannot be told to a scheduler that is gone ends with it."""
    unfinished = list(futures.values())
    futures.clear()
    if unfinished and client.status == "running":
        with suppress(TimeoutError, TemporaryError):
            # Through `answer`, because Client.cancel has no deadline.
            answer(client, client._cancel, unfinished, force=True)


def new_key(label: str, name: str) -> str:
    """A key that no other task has."""
    # Dask takes tasks of one key for one task, and would answer with an old result.
    return f"bigmm-{label.replace(' ', '_')}-{name}-{uuid.uuid4().hex}"


class Sealed(bytes):
    """Pickled work. Dask writes the arguments of a failed task into the workers' logs, and work can hold secrets."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"


def shared(client: Client, work: Any, label: str) -> bytes | Future[Any]:
    """``work`` pickled, as a future when it is large, so that it travels once per worker and not with every task."""
    content = Sealed(cloudpickle.dumps(work))
    if len(content) < _LARGE_PAYLOAD:
        return content
    # A task's argument is kept by the scheduler, so unlike scattered data it survives its worker.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sending large graph", category=UserWarning)
        return client.submit(Sealed, content, key=new_key(label, "payload"), pure=False)


def needed_futures(item: Any) -> list[list[Any]]:
    """Futures inside an item would not survive the journey; as arguments they are dependencies that Dask fetches."""
    needs = [list(getattr(part, "futures", ())) for part in getattr(item, "partitions", ())]
    return needs if any(needs) else []


def run_task(payload: bytes, item: Any, needs: list[list[Any]], *more: Any) -> Any:
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
