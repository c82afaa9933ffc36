"""One thread per task for BLAS and Arrow while many tasks run side by side (docs/architecture.md)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import pyarrow as pa
import threadpoolctl

_lock = Lock()
_inside = 0
_undo: list[Any] = []


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Limit BLAS, OpenMP and Arrow's pool to one thread; uses are counted and the last to leave restores."""
    _enter()
    try:
        yield
    finally:
        _leave()


def _enter() -> None:
    global _inside
    with _lock:
        _inside += 1
        if _inside == 1:
            # The limits are those of the process. A second fit in another thread finds them set and must not save them.
            _undo[:] = [threadpoolctl.threadpool_limits(limits=1), pa.cpu_count()]
            pa.set_cpu_count(1)


def _leave() -> None:
    global _inside
    with _lock:
        _inside -= 1
        if _inside == 0:
            limits, arrow_threads = _undo
            limits.restore_original_limits()
            pa.set_cpu_count(arrow_threads)
