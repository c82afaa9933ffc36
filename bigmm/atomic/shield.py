"""A step that a signal may not divide: what comes in meanwhile is delivered when the step is done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_listener: ContextVar[Callable[[Path], None] | None] = ContextVar("listener", default=None)


@contextmanager
def shielded() -> Iterator[None]:
    """Hold back SIGINT, SIGTERM and SIGHUP in the main thread while the block runs, and deliver them after it.

    Signal masks do not serve: another thread would take the signal, and Python would run its handler in this one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    late: list[int] = []
    try:
        with ExitStack() as handlers:
            for number in SIGNALS:
                before = signal.getsignal(number)
                if before in (None, signal.SIG_IGN):
                    continue
                handlers.callback(signal.signal, number, before)
                signal.signal(number, lambda signum, frame: late.append(signum))
            yield
    finally:
        # Each signal once: ten presses of Ctrl-C are one interruption.
        for arrived in dict.fromkeys(late):
            signal.raise_signal(arrived)


@contextmanager
def watched(listener: Callable[[Path], None]) -> Iterator[None]:
    """Call `listener` with the path of every output at the moment it is in place, signals still held back."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def announce(target: Path) -> None:
    """Tell the listener that the output is in place."""
    listener: Any = _listener.get()
    if listener is not None:
        listener(target)
