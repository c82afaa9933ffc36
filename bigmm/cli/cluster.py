"""The workers of a Dask scheduler for a run, when one is named."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distributed import Client

#: Seconds to wait for a scheduler to answer.
CONNECT_SECONDS = 10

#: Seconds to take leave of a scheduler.
CLOSE_SECONDS = 3

LOUD = ("distributed", "tornado", "asyncio")
"""Loggers that report a lost connection at length, beside our own error."""


@contextmanager
def connected(scheduler: str | None) -> Iterator[Client | None]:
    """A Dask client for the run, closed afterwards; None when threads of this process do the work.

    Raises UsageError for what is no address, TemporaryError when no scheduler answers, VersionError when it and this
    process do not agree on TLS.
    """
    if scheduler is None:
        yield None
        return
    # Imported where a scheduler is named only: neither TLS nor Dask belongs to the start of every command.
    from bigmm.cli.listener import address_parts, refuse_strangers

    address_parts(scheduler)
    import distributed  # noqa: F401  importing it sets the levels of its loggers

    quiet_loggers()
    # Asked before a Client is made: one that could not connect complains again when it is thrown away.
    refuse_strangers(scheduler, CONNECT_SECONDS)
    client = _client(scheduler)
    try:
        yield client
    finally:
        _leave(client)


def _client(scheduler: str) -> Client:
    """A client, or TemporaryError: distributed has no deadline for some of the steps of connecting."""
    from distributed import Client

    from bigmm.cli.listener import no_answer

    outcome: list[Any] = []

    def connect() -> None:
        try:
            # Not the default client: a second run in this process must not find it by accident.
            outcome.append(Client(scheduler, timeout=CONNECT_SECONDS, set_as_default=False))
        except Exception as error:
            outcome.append(error)

    # A daemon thread: one that hangs in a step without a deadline does not keep the process alive.
    thread = Thread(target=connect, name="bigmm-connect", daemon=True)
    thread.start()
    thread.join(2 * CONNECT_SECONDS)
    if not outcome:
        raise no_answer(scheduler, f"it took the connection, and nothing more within {2 * CONNECT_SECONDS} s")
    if isinstance(outcome[0], Exception):
        reason = f"{type(outcome[0]).__name__}: {outcome[0]}"
        raise no_answer(scheduler, reason) from outcome[0]
    return outcome[0]


def _leave(client: Client) -> None:
    """Close the client; a scheduler that is gone or stopped is not waited for."""
    with suppress(Exception):
        client.close(timeout=CLOSE_SECONDS)
    client.status = "closed"  # so that the client does not try again when it is thrown away


def quiet_loggers() -> None:
    """What matters comes back as our own errors."""
    # Child loggers with a level of their own do not inherit the parent's, so each one is set.
    for name in [*LOUD, *logging.Logger.manager.loggerDict]:
        if name.split(".")[0] in LOUD:
            logging.getLogger(name).setLevel(logging.CRITICAL)
