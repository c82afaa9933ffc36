"""The choice of an executor for a call of the package."""

from __future__ import annotations

import numbers
import os
import sys
from typing import Any

from bigmm.errors import UsageError
from bigmm.execute.protocol import Executor
from bigmm.execute.threads.executor import ThreadExecutor
from bigmm.forks import check_fork

#: Seconds without any worker after which a pass on a cluster is given up (TemporaryError).
NO_WORKER_SECONDS = 600.0


def executor(
    client: Any = None, n_workers: int | None = None, *, no_worker_seconds: float = NO_WORKER_SECONDS
) -> Executor:
    """Choose where to work: the client's cluster, else that of the current client, else threads of this process.

    Parameters
    ----------
    client
        A `distributed.Client`, or an `Executor`, which is taken as it is.
    n_workers
        So many threads of this process, and no cluster. A fit inside a Dask task stays in its thread.
    no_worker_seconds
        A pass on a cluster without any worker for so long is a TemporaryError.
    """
    check_fork()
    if n_workers is not None:
        return ThreadExecutor(_checked(n_workers, client))
    if isinstance(client, Executor):
        return client
    distributed = sys.modules.get("distributed")  # importing it costs a second, and who has a client has imported it
    if distributed is not None:
        if client is None and _inside_a_task():
            return ThreadExecutor(1)
        client = _current_client() if client is None else client
    if client is None:
        # A container or taskset may give this process fewer processors than the machine has.
        return ThreadExecutor(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    if distributed is None or not isinstance(client, distributed.Client):
        raise UsageError(
            f"client must be a connected distributed.Client, got {client!r}: for the address of a scheduler write "
            "client=distributed.Client('tcp://head:8786'), for a cluster client=cluster.get_client()"
        )
    from bigmm.execute.dask.executor import ClusterExecutor

    return ClusterExecutor(client, no_worker_seconds)


def _checked(n_workers: Any, client: Any) -> int:
    if client is not None:
        raise UsageError("give either client= (a cluster) or n_workers= (threads of this process), not both")
    if isinstance(n_workers, bool) or not isinstance(n_workers, numbers.Integral):
        raise UsageError(f"n_workers must be a number of threads, got {n_workers!r}")
    if n_workers < 1:
        raise UsageError(f"n_workers must be at least 1, got {n_workers}")
    return int(n_workers)


def _inside_a_task() -> bool:
    # Submitting from a task and waiting for the result can starve the workers' threads.
    from distributed import get_worker

    try:
        get_worker()
    except ValueError:
        return False
    return True


def _current_client() -> Any:
    from distributed import default_client

    try:
        return default_client()
    except ValueError:
        return None
