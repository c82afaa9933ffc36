"""The workers of a Dask scheduler for a run, when one is named."""

from __future__ import annotations

import logging
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bigmm.errors import TemporaryError, UsageError

if TYPE_CHECKING:
    from distributed import Client

#: Seconds to wait for a scheduler to answer.
CONNECT_SECONDS = 10

ADDRESS = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+-]*://)?(?P<host>\[[0-9a-fA-F:.]+\]|[^\s/:\[\]]+):(?P<port>[0-9]{1,5})/?"
)
LOUD = ("distributed", "tornado", "asyncio")
"""Loggers that report a lost connection at length, beside our own error."""


@contextmanager
def connected(scheduler: str | None) -> Iterator[Client | None]:
    """A Dask client for the run, closed afterwards; None when threads of this process do the work.

    Raises UsageError for what is no address, TemporaryError when the scheduler does not answer.
    """
    if scheduler is None:
        yield None
        return
    wait_for_listener(scheduler)
    from distributed import Client

    quiet_loggers()  # importing distributed sets their levels
    try:
        client = Client(scheduler, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise no_answer(scheduler, error) from error
    with client:
        yield client


def wait_for_listener(scheduler: str) -> None:
    """Return when something listens at the address. Asked here, and not by a Client: one that could not connect
    complains again when it is thrown away."""
    found = ADDRESS.fullmatch(scheduler)
    if found is None or int(found["port"]) > 65535:
        raise UsageError(f"--scheduler {scheduler}: not an address; write host and port, such as tcp://head:8786")
    if found["scheme"] not in (None, "tcp://", "tls://"):
        return
    begun = time.monotonic()
    while True:
        try:
            socket.create_connection((found["host"].strip("[]"), int(found["port"])), CONNECT_SECONDS).close()
            return
        except OSError as error:
            if time.monotonic() - begun > CONNECT_SECONDS:
                raise no_answer(scheduler, error) from error
        time.sleep(0.2)


def no_answer(scheduler: str, error: Exception) -> TemporaryError:
    """What to say of a scheduler that cannot be reached."""
    return TemporaryError(
        f"no Dask scheduler answers at {scheduler} ({type(error).__name__} within {CONNECT_SECONDS} s); "
        "check the address and that the scheduler runs, then try again"
    )


def quiet_loggers() -> None:
    """What matters comes back as our own errors."""
    for name in [*LOUD, *logging.Logger.manager.loggerDict]:
        if name.split(".")[0] in LOUD:
            logging.getLogger(name).setLevel(logging.CRITICAL)
