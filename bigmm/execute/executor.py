"""The only door to Dask: where lanes are folded, and how one is chosen."""

from __future__ import annotations

import numbers
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from bigmm.errors import UsageError
from bigmm.execute.lanes import Lane
from bigmm.execute.progress import ProgressCallback
from bigmm.execute.threads import ThreadExecutor

if TYPE_CHECKING:
    from distributed import Client

T = TypeVar("T")

#: Seconds without any worker after which a pass on a cluster is given up (TemporaryError).
NO_WORKER_SECONDS = 600.0


class Executor(Protocol):
    """Runs pure, picklable tasks. Results have the same bits on every executor and any number of workers."""

    @property
    def n_workers(self) -> int:
        """Tasks that run side by side."""
        ...

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
        """Fold every lane, merge the results as a fixed binary tree over lane numbers.

        ``fold(lane, tick)`` makes one accumulator from the lane's partitions in order and calls ``tick(rows)`` after
        each; ``merge(left, right)`` may be called in any thread. The first error of a lane stops the rest and is raised
        as it is.
        """
        ...

    def map(
        self, task: Callable[[Any], T], items: Iterable, *, label: str, progress: ProgressCallback | None = None
    ) -> Iterator[T]:
        """``task(item)`` of every item, in the order of items, a bounded number in flight."""
        ...


def executor(
    client: Client | None = None, n_workers: int | None = None, *, no_worker_seconds: float = NO_WORKER_SECONDS
) -> Executor:
    """Choose where to work: the given `distributed.Client`, else the current one, else threads of this process.

    ``n_workers`` asks for that many threads of this process (and no cluster). A fit inside a Dask task stays in its
    thread. ``no_worker_seconds``: a pass on a cluster without any worker for so long is a `TemporaryError`.
    """
    if n_workers is not None:
        if client is not None:
            raise UsageError("give either client= (a cluster) or n_workers= (threads of this process), not both")
        if isinstance(n_workers, bool) or not isinstance(n_workers, numbers.Integral):
            raise UsageError(f"n_workers must be a number of threads, got {n_workers!r}")
        if n_workers < 1:
            raise UsageError(f"n_workers must be at least 1, got {n_workers}")
        return ThreadExecutor(int(n_workers))
    if client is None and "distributed" in sys.modules:
        if _inside_a_task():
            return ThreadExecutor(1)
        client = _current_client()
    if client is None:
        return ThreadExecutor(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    known = hasattr(client, "submit") and hasattr(client, "nthreads")
    if not known and not getattr(client, "asynchronous", False):
        raise UsageError(
            f"client must be a connected distributed.Client, got {client!r}: for the address of a scheduler write "
            "client=distributed.Client('tcp://head:8786'), for a cluster client=cluster.get_client()"
        )
    from bigmm.execute.cluster import ClusterExecutor

    return ClusterExecutor(client, no_worker_seconds)


def _inside_a_task() -> bool:
    # Submitting from a task and waiting for the result can starve the workers' threads.
    from distributed import get_worker

    try:
        get_worker()
    except ValueError:
        return False
    return True


def _current_client() -> Client | None:
    from distributed import default_client

    try:
        return default_client()
    except ValueError:
        return None
