"""Executor on a `distributed` cluster.

Results are pulled off the workers as they finish and merged here in the fixed tree: results left on workers die with
them again and again when workers are lost often.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from bigmm.errors import BigmmError, TemporaryError, UsageError
from bigmm.execute.dask import graph, shards
from bigmm.execute.dask import watchdog as watching
from bigmm.execute.dask.flight import Flight, run_task
from bigmm.execute.dask.shards import ClusterShards
from bigmm.execute.dask.versions import check_versions
from bigmm.execute.dask.watchdog import Watchdog, address_of, calls_of
from bigmm.execute.lanes import Lane
from bigmm.execute.progress import ProgressCallback, Reporter
from bigmm.execute.sharded import PieceStore
from bigmm.execute.tasks import Capacity, Name, Task
from bigmm.execute.tree import MergeTree

if TYPE_CHECKING:
    from distributed import Client

T = TypeVar("T")


class ClusterExecutor:
    """Folds lanes on the workers of a client. Gives up (TemporaryError) after ``no_worker_seconds`` without workers."""

    shares_memory = False

    def __init__(self, client: Client, no_worker_seconds: float):
        if getattr(client, "asynchronous", False):
            raise UsageError("bigmm needs a synchronous client: Client(..., asynchronous=False)")
        if client.status in ("closed", "closing"):
            raise TemporaryError("the Dask client is closed. Connect again and try again.")
        self.client, self.no_worker_seconds = client, no_worker_seconds
        self.same_versions = False
        self.threads, self.counted = 0, 0.0

    def __repr__(self) -> str:
        return f"Dask cluster at {address_of(self.client)}"

    @property
    def n_workers(self) -> int:
        """Threads of all workers now there, at least 1."""
        return self._n_workers(self._watchdog("workers"))

    def _n_workers(self, watchdog: Watchdog) -> int:
        if not self.counted or time.monotonic() - self.counted > watching.CHECK_SECONDS:
            # A question is a round trip, and workers come and go slowly beside that.
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
                    # The next tasks are submitted before the merge, which may be long: workers would wait for it.
                    value, rows = flight.take(number, watchdog)
                    flight.fill(self.n_workers)
                    tree.add(number, value)
                    reporter.add(rows=rows, lanes=1)
        return tree.result()

    def map(
        self, task: Callable[[Any], T], items: Iterable[Any], *, label: str, progress: ProgressCallback | None = None
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
    ) -> ClusterShards:
        """See `Executor.shuffle`; the shards stay on the workers."""
        self._check_versions(self._watchdog(label))
        return shards.left_there(*self._shuffled(split, items, join, n_shards, label, progress))

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
        self._check_versions(self._watchdog(label))
        return shards.fetched_from_there(*self._shuffled(split, items, join, n_shards, label, progress))

    def shard_sorted(
        self,
        make: Callable[[Any], Any],
        items: Iterable[Any],
        *,
        in_files: bool = False,
        label: str = "shard",
        progress: ProgressCallback | None = None,
    ) -> ClusterShards:
        """See `Executor.shard_sorted`; the shards stay on the workers."""
        self._check_versions(self._watchdog(label))
        return shards.from_sorted(self.client, self.no_worker_seconds, make, list(items), label, progress)

    def run_graph(
        self,
        tasks: Sequence[Task],
        *,
        label: str,
        ahead: int,
        memory: int | None = None,
        progress: ProgressCallback | None = None,
    ) -> dict[Name, Any]:
        """See `Executor.run_graph`; results stay on the workers."""
        self._check_versions(self._watchdog(label))
        return graph.run(self.client, tasks, lambda: self._watchdog(label), label, ahead, progress)

    def capacity(self) -> Capacity:
        """See `Executor.capacity`."""
        return graph.capacity_of_workers(self._watchdog("workers"))

    @contextmanager
    def _flight(
        self, runner: Callable[..., Any], work: Callable[..., Any], items: Sequence[Any], label: str
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

    def _shuffled(self, *work: Any) -> tuple[ClusterShards, Reporter]:
        return shards.shuffle(self.client, self.no_worker_seconds, *work)

    def _check_versions(self, watchdog: Watchdog) -> None:
        if not self.same_versions:
            check_versions(watchdog)
            self.same_versions = True


def _fold_lane(payload: bytes, lane: Lane, needs: list[list[Any]]) -> tuple[Any, int] | BigmmError:
    """Runs on a worker. Errors in the data come back as values: running those again would only read the lane again."""
    counted = [0]

    def tick(rows: int) -> None:
        counted[0] += rows

    value = run_task(payload, lane, needs, tick)
    return value if isinstance(value, BigmmError) else (value, counted[0])
