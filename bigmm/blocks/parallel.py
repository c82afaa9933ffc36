"""Run a nogil kernel over ranges of levels on the driver's threads.

The ranges are a function of the problem alone, never of the number of threads, so sums over ranges have the same bits
everywhere. (numba's own ``parallel=True`` is avoided: its default threading layer aborts when two threads fit at once.)
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from threading import local
from typing import TypeVar

T = TypeVar("T")

# Enough for the cores of a large machine. A constant, because sums over ranges are added range by range.
N_RANGES = 64
_alone = local()


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
# The key is the process: threads of a parent do not exist in a forked child, which needs a pool of its own.
def _pool(pid: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=available_cores(), thread_name_prefix="bigmm-blocks")


@contextmanager
def one_thread() -> Iterator[None]:
    """Kernels that this thread starts inside run in it: for a task beside which others have the cores."""
    before, _alone.here = getattr(_alone, "here", False), True
    try:
        yield
    finally:
        _alone.here = before


def ranges(n: int, grain: int) -> list[tuple[int, int]]:
    """Cut 0..n into at most `N_RANGES` contiguous ranges of at least `grain` items."""
    count = max(1, min(N_RANGES, n // max(grain, 1)))
    edges = [n * i // count for i in range(count + 1)]
    return list(pairwise(edges))


def run(kernel: Callable, n: int, grain: int, *args) -> list:
    """``[kernel(lo, hi, *args) for each range]``, in the order of the ranges."""
    pieces = ranges(n, grain)
    if len(pieces) == 1:
        # A small problem runs in the calling thread: the pool would cost more than the work.
        return [kernel(0, n, *args)]
    if getattr(_alone, "here", False):
        # One thread, but the same ranges: the bits do not change.
        return [kernel(lo, hi, *args) for lo, hi in pieces]
    futures = [_pool(os.getpid()).submit(kernel, lo, hi, *args) for lo, hi in pieces]
    return [future.result() for future in futures]


def in_order(work: Callable[[int], T], count: int) -> Iterator[T]:
    """``work(0), ..., work(count - 1)`` in their order, with few results alive at a time."""
    if getattr(_alone, "here", False):
        yield from map(work, range(count))
        return
    flying: deque[Future[T]] = deque()
    for number in range(count):
        flying.append(_pool(os.getpid()).submit(work, number))
        # The window keeps all cores busy and bounds how many results wait in memory for their turn.
        if len(flying) >= 2 * available_cores():
            yield flying.popleft().result()
    while flying:
        yield flying.popleft().result()
