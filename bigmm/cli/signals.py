"""SIGTERM ends a run the way Ctrl-C does: by an exception, so that drafts are removed and workers let go."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Terminated(BaseException):
    """A batch system or a supervisor asked us to stop."""


@contextmanager
def termination() -> Iterator[None]:
    """Raise Terminated in the main thread on SIGTERM while the block runs."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _raise)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _raise(number: int, frame: object) -> None:
    raise Terminated
