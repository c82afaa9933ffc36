"""Questions to a Dask scheduler, each with a deadline, and the watch over workers that must make progress.

A scheduler or a worker that is stopped, swapping or cut off keeps its connections and says nothing, and Dask waits for
it without an end. So every question goes through `answer`, and every wait for a result through a `Watchdog`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from bigmm.errors import BigmmError, TemporaryError

if TYPE_CHECKING:
    from distributed import Client

CHECK_SECONDS = 2.0  # how often the watchdog looks when nothing finishes
ANSWER_SECONDS = 5.0  # how long one question to the scheduler may take before it is put again
_WORKERS_PER_SECOND = 100  # a look costs some kilobytes a worker, so large clusters are looked at less often


def answer(client: Client, question: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Result of a coroutine function of the client or of its scheduler.

    Raises TimeoutError after `ANSWER_SECONDS`, TemporaryError when the connection is lost.
    """
    with scheduler_errors():
        return client.sync(question, *arguments, callback_timeout=ANSWER_SECONDS, **options)


@contextmanager
def scheduler_errors() -> Iterator[None]:
    """A scheduler that is gone is a TemporaryError, not a bug. One that is late stays a TimeoutError."""
    from distributed.client import ClosedClientError

    try:
        yield
    except ClosedClientError as error:
        raise lost_connection(error) from error
    except (TimeoutError, BigmmError):
        raise
    except OSError as error:  # CommClosedError is one
        raise TemporaryError(f"the Dask scheduler does not answer ({error}). Start it and try again.") from error


def lost_connection(error: BaseException) -> TemporaryError:
    """What to say of a scheduler that is gone."""
    return TemporaryError(f"the connection to the Dask scheduler was lost ({error}). Start it and try again.")


class Watchdog:
    """Notices where Dask itself would wait for ever, and gives up after ``no_worker_seconds`` of it (TemporaryError).

    A result that arrives is progress, and so is a worker that executes a task or has received data and whose heartbeats
    arrive: a long task on a healthy worker is waited for. A scheduler that does not answer is no progress, nor are
    workers that are gone, paused, silent or idle while results are missing.
    """

    def __init__(self, client: Client, no_worker_seconds: float, label: str):
        self.client, self.no_worker_seconds, self.label = client, no_worker_seconds, label
        self.heartbeats: dict[str, float] = {}
        self.responsive: dict[str, float] = {}  # when we last noticed a new heartbeat, by address
        self.transfers: dict[str, int] = {}
        self.quiet_since: float | None = None
        self.next_look = 0.0
        self.paused: list[str] = []
        self.idle: list[str] = []
        self.reassigned_after: float | None = None

    def alive(self) -> None:
        """Note progress."""
        self.quiet_since = None

    def check_connection(self) -> None:
        """Raise TemporaryError when the client has lost its scheduler."""
        if self.client.status != "running":
            raise TemporaryError(f"{self.label}: the connection to the Dask scheduler was lost. Try again.")

    def check(self) -> bool:
        """Whether there is a worker that takes tasks; raises TemporaryError when nothing went on for too long."""
        self.check_connection()
        if time.monotonic() < self.next_look:
            return True
        try:
            workers = self._look()
        except TimeoutError:
            self._quiet(
                f"the Dask scheduler at {address_of(self.client)} has kept its connection but not answered for "
                f"{self.no_worker_seconds:.0f} s (stopped, overloaded or cut off). Mend or restart it and try again.",
                self.no_worker_seconds,
            )
            return False
        received, self.transfers = self.transfers, {a: _received(worker) for a, worker in workers.items()}
        fresh = [address for address in workers if self._is_fresh(address)]
        self.paused = [a for a in fresh if workers[a]["status"] == "paused"]
        self.idle = [a for a in fresh if workers[a]["status"] == "running" and not _executes(workers[a])]
        if any(_executes(workers[a]) or self.transfers[a] != received.get(a, self.transfers[a]) for a in fresh):
            self.paused = []
            self.alive()
        else:
            seconds = self._patience(workers)
            self._quiet(self._standstill(workers, seconds), seconds)
        return any(worker["status"] == "running" for worker in workers.values())

    def wait_for_workers(self) -> None:
        """Return when there is a worker that takes tasks."""
        while not self.check():
            time.sleep(0.1)

    def ask(self, question: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """`answer`, put again until it comes or the watchdog gives up."""
        while True:
            try:
                return answer(self.client, question, *arguments, **options)
            except TimeoutError:
                self.check()

    def stuck(self) -> set[str]:
        """Keys of tasks that wait on paused workers while nothing goes on and other workers are idle.

        Dask leaves the queue of a paused worker where it is.
        """
        if not (self.paused and self.idle and self.quiet_since is not None):
            return set()
        try:
            waiting = answer(self.client, calls_of(self.client).processing)
        except TimeoutError:
            return set()
        return {key for address in self.paused for key in waiting.get(address, ())}

    def responding(self) -> list[str] | None:
        """Addresses of the workers whose heartbeats arrive; None (all of them) where that is not known."""
        return [address for address in self.heartbeats if self._is_fresh(address)] or None

    def _look(self) -> dict[str, dict[Any, Any]]:
        """What the scheduler knows of its workers, by address, with new heartbeats noted.

        Heartbeats carry the scheduler's clock, so only their changes mean something here.
        """
        workers = answer(self.client, calls_of(self.client).identity, n_workers=-1)["workers"]
        now = time.monotonic()
        # Monotonic time: the clock of the day may be set while a fit runs.
        self.next_look = now + len(workers) / _WORKERS_PER_SECOND if len(workers) > _WORKERS_PER_SECOND else 0.0
        for address, worker in workers.items():
            if self.heartbeats.get(address, worker["last_seen"]) != worker["last_seen"]:
                self.responsive[address] = now
        self.heartbeats = {address: worker["last_seen"] for address, worker in workers.items()}
        self.responsive = {a: t for a, t in self.responsive.items() if a in workers}
        return workers

    def _is_fresh(self, address: str) -> bool:
        """Whether a heartbeat came since the last look, or not long ago."""
        return time.monotonic() - self.responsive.get(address, -1e9) < CHECK_SECONDS + ANSWER_SECONDS

    def _quiet(self, reason: str, seconds: float) -> None:
        """Note that nothing goes on; give up with the reason when it has lasted."""
        # Counted from the first look that found nothing: between two checks the caller may have worked for hours.
        now = time.monotonic()
        if self.quiet_since is None:
            self.quiet_since = now
        if now - self.quiet_since > seconds:
            raise TemporaryError(f"{self.label}: {reason}")

    def _standstill(self, workers: dict[str, dict[Any, Any]], seconds: float) -> str:
        """Why nothing goes on."""
        lasted = f"for {seconds:.0f} s"
        paused = [address for address, worker in workers.items() if worker["status"] == "paused"]
        silent = [address for address in workers if not self._is_fresh(address)]
        if not workers:
            return f"the Dask cluster has had no workers {lasted}. Start workers and try again."
        if len(silent) == len(workers):
            return (
                f"no worker of the Dask cluster has sent a heartbeat {lasted} ({_some(silent)}): stopped, overloaded "
                "or cut off. Mend or restart the workers and try again."
            )
        if len(paused) == len(workers):
            return (
                f"every worker of the Dask cluster has been paused {lasted} ({_some(paused)}): Dask gives no tasks to "
                "a worker whose memory is nearly full. Free or add memory and try again."
            )
        faults = [f"{_some(a)} {what}" for a, what in ((paused, "paused"), (silent, "without heartbeats")) if a]
        return (
            f"nothing has run {lasted} on the {len(workers)} workers of the Dask cluster although results are missing"
            f"{': ' * bool(faults)}{', '.join(faults)}. Look at the scheduler's dashboard and try again."
        )

    def _patience(self, workers: dict[str, dict[Any, Any]]) -> float:
        """Seconds that this standstill may last.

        Dask gives the tasks of a silent worker to others after its worker-ttl, which it looks at once in that time.
        """
        fresh = [self._is_fresh(address) for address in workers]
        if not fresh:
            return self.no_worker_seconds
        if all(fresh) or not any(fresh):
            return max(self.no_worker_seconds, ANSWER_SECONDS)  # heartbeats are some seconds apart
        if self.reassigned_after is None:
            self.reassigned_after = 0.0
            with suppress(Exception):  # a scheduler that runs no functions for us: no extra patience
                ttl = answer(
                    self.client, self.client._run_on_scheduler, lambda dask_scheduler: dask_scheduler.worker_ttl
                )
                self.reassigned_after = 2.0 * float(ttl or 0.0) + ANSWER_SECONDS
        return max(self.no_worker_seconds, self.reassigned_after)


def _executes(worker: dict[Any, Any]) -> bool:
    counts = worker.get("metrics", {}).get("task_counts", {})
    return bool(counts.get("executing") or counts.get("long-running"))


def _received(worker: dict[Any, Any]) -> int:
    """How many transfers of data a worker has finished."""
    return worker.get("metrics", {}).get("transfer", {}).get("incoming_count_total", 0)


def _some(addresses: list[str]) -> str:
    more = f" and {len(addresses) - 3} more" if len(addresses) > 3 else ""
    return ", ".join(sorted(addresses)[:3]) + more


def calls_of(client: Client) -> Any:
    """Remote calls of the client's scheduler; TemporaryError when the client has given it up."""
    if client.scheduler is None:
        raise TemporaryError("the connection to the Dask scheduler was lost. Start it and try again.")
    return client.scheduler


def address_of(client: Client) -> str:
    """Address of the client's scheduler, for messages."""
    return str(client.scheduler.address) if client.scheduler else "an unknown address"
