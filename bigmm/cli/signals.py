"""Ctrl-C, SIGTERM and SIGHUP end a run by an exception, so that drafts are removed and workers let go."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


class Terminated(BaseException):
    """A batch system, a supervisor or a terminal that went away asked us to stop."""

    def __init__(self, number: int = signal.SIGTERM):
        super().__init__(number)
        self.exit_code = 128 + number


class Interrupted(BaseException):
    """Ctrl-C. Not KeyboardInterrupt, for which click prints an empty line of its own."""


@contextmanager
def termination() -> Iterator[None]:
    """Raise Terminated or Interrupted in the main thread while the block runs; ignored signals stay ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with ExitStack() as handlers:
        for number, handler in ((signal.SIGINT, _interrupt), (signal.SIGTERM, _terminate), (signal.SIGHUP, _terminate)):
            before = signal.getsignal(number)
            if before is not None and before != signal.SIG_IGN:
                handlers.callback(signal.signal, number, before)
                signal.signal(number, handler)
        yield


def _terminate(number: int, frame: object) -> None:
    raise Terminated(number)


def _interrupt(number: int, frame: object) -> None:
    raise Interrupted
