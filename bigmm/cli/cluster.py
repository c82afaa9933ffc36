"""The workers of a Dask scheduler for a run, when one is named."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bigmm.errors import TemporaryError

if TYPE_CHECKING:
    from distributed import Client

#: Seconds to wait for a scheduler to answer.
CONNECT_SECONDS = 10


@contextmanager
def connected(scheduler: str | None) -> Iterator[Client | None]:
    """A Dask client for the run, closed afterwards; None when threads of this process do the work.

    Raises TemporaryError when the scheduler does not answer.
    """
    if scheduler is None:
        yield None
        return
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what matters comes back as our own errors
    from distributed import Client

    try:
        client = Client(scheduler, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise TemporaryError(
            f"no Dask scheduler answers at {scheduler} ({type(error).__name__} within {CONNECT_SECONDS} s); "
            "check the address and that the scheduler runs, then try again"
        ) from error
    with client:
        yield client
