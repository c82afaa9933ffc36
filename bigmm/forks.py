"""Processes that were forked while bigmm was at work: they are refused, because they would wait for ever.

A fork copies every lock and none of the threads that would open them. Locks of bigmm could be made again in the child,
but those of imports, of numba's compiler and of Arrow's threads cannot.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import get_ident

from bigmm.errors import UsageError

_depths: dict[int, int] = {}  # calls under way, by thread; each thread changes its own entry only
_is_cut_off = False


@contextmanager
def at_work() -> Iterator[None]:
    """Count a public call while it runs.

    Raises
    ------
    UsageError
        In a process that was forked during such a call.
    """
    check_fork()
    thread = get_ident()
    _depths[thread] = _depths.get(thread, 0) + 1
    try:
        yield
    finally:
        depth = _depths.pop(thread, 1) - 1
        if depth > 0:
            _depths[thread] = depth


def check_fork() -> None:
    """Raise UsageError in a process that was forked while bigmm was at work."""
    if _is_cut_off:
        raise UsageError(
            "this process was forked while bigmm was at work in its parent, and would wait for ever for threads that "
            "only the parent has: start processes by 'spawn' or 'forkserver', such as "
            "multiprocessing.get_context('spawn'), or fork while nothing runs"
        )


def _after_fork() -> None:
    global _is_cut_off
    _is_cut_off = _is_cut_off or bool(_depths)
    _depths.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
