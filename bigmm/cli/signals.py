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
def termination(arrived: list[BaseException]) -> Iterator[None]:
    """Raise Terminated or Interrupted in the main thread while the block runs; ignored signals stay ignored.

    arrived: takes what was raised. A compiler that it came through may have made another exception of it.
    """
    # Python sets handlers in the main thread only.
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: object) -> None:
        arrived.append(Interrupted() if number == signal.SIGINT else Terminated(number))
        raise arrived[-1]

    with ExitStack() as handlers:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            before = signal.getsignal(number)
            # nohup ignores SIGHUP on purpose. None is a handler that was not set by Python and could not be restored.
            if before is not None and before != signal.SIG_IGN:
                handlers.callback(signal.signal, number, before)
                signal.signal(number, handle)
        yield
