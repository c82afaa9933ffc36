"""The compilation of kernels: what it takes, and one line about it for those who watch.

numba compiles a kernel when it is first called and keeps it in a cache (`kernel_cache`). A fresh installation is
silent for seconds at its first fit. `tell` has that said, `bigmm warmup` does it beforehand.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

NOTICE = "compiling numerical kernels, once on this machine; `bigmm warmup` does it beforehand"
NOTICEABLE = 1.0
"""Seconds of compilation from which a person wonders."""


@dataclass
class Compilation:
    """What was compiled.

    Attributes
    ----------
    kernels : number of compiled functions, those inside others included.
    seconds : time of the outer ones.
    """

    kernels: int = 0
    seconds: float = 0.0


def _listener(total: Compilation, started: Callable[[Compilation], object]) -> Any:
    """A listener to numba's compile events that adds to ``total`` and calls ``started`` when a kernel's turn comes.

    numba is imported here, since `import bigmm` does without it.
    """
    from numba.core.event import Listener

    class Watch(Listener):
        def __init__(self) -> None:
            self.starts: dict[int, list[float]] = {}

        def on_start(self, event: Any) -> None:
            self.starts.setdefault(threading.get_ident(), []).append(time.perf_counter())
            started(total)

        def on_end(self, event: Any) -> None:
            starts = self.starts.get(threading.get_ident())
            if not starts:  # it began before anybody listened
                return
            start = starts.pop()
            total.kernels += 1
            if not starts:  # the compiler calls itself for functions that a kernel calls
                total.seconds += time.perf_counter() - start

    return Watch()


@contextmanager
def watched() -> Iterator[Compilation]:
    """Count what is compiled inside; the value grows while it is."""
    from numba.core import event

    total = Compilation()
    listener = _listener(total, lambda total: None)
    event.register("numba:compile", listener)
    try:
        yield total
    finally:
        event.unregister("numba:compile", listener)


class _Notice:
    """The one line of a process: what says it, and whether it was said."""

    say: Callable[[str], object] | None = None
    is_registered = False

    @classmethod
    def check(cls, total: Compilation) -> None:
        """Say it once when the compiler has been noticed."""
        if total.seconds > NOTICEABLE and cls.say is not None:
            say, cls.say = cls.say, None
            say(NOTICE)


def tell(say: Callable[[str], object]) -> None:
    """Call ``say`` with `NOTICE` once this process has compiled for a while.

    The last caller is told, in whichever thread compiles.
    """
    from numba.core import event

    if not _Notice.is_registered:
        _Notice.is_registered, _Notice.say = True, say
        event.register("numba:compile", _listener(Compilation(), _Notice.check))
    elif _Notice.say is not None:
        _Notice.say = say
