"""What listens at the address of a scheduler: a scheduler, something else, or nothing.

Dask's own client waits without an end for a listener that says nothing, and takes the first bytes of any other
protocol for the size of a message. A scheduler speaks first: it sends the size of its greeting, a number of 8 bytes
(`distributed/comm/tcp.py`), so one look at these bytes tells what is there.
"""

from __future__ import annotations

import re
import socket
import ssl
import struct
import time
from contextlib import suppress

from bigmm.errors import TemporaryError, UsageError, VersionError

ADDRESS = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+-]*://)?(?P<host>\[[0-9a-fA-F:.]+\]|[^\s/:\[\]]+):(?P<port>[0-9]{1,5})/?"
)
_LARGEST_GREETING = 1 << 20  # bytes; Dask's has some hundred
_SILENCE_SECONDS = 1.0  # after so long without a greeting other protocols are tried
_TLS_ADVICE = (
    "Set distributed.comm.tls.ca-file and distributed.comm.tls.client.cert and .key in Dask's configuration to those "
    "of the scheduler."
)


def address_parts(scheduler: str) -> tuple[str, str, int]:
    """Scheme ("tcp" if none), host and port; UsageError for what is no address."""
    parts = ADDRESS.fullmatch(scheduler)
    if parts is None or int(parts["port"]) > 65535 or not scheduler.isascii():
        raise UsageError(f"--scheduler {scheduler}: not an address; write host and port, such as tcp://head:8786")
    return (parts["scheme"] or "tcp://").removesuffix("://"), parts["host"].strip("[]"), int(parts["port"])


def refuse_strangers(scheduler: str, seconds: float) -> None:
    """Return when a scheduler greets us at the address.

    Raises TemporaryError when nothing, or nothing that is a scheduler, answers within so many seconds, and VersionError
    when only one side speaks TLS or a certificate is refused.
    """
    scheme, host, port = address_parts(scheduler)
    if scheme not in ("tcp", "tls"):
        return
    context = _tls_context(scheduler) if scheme == "tls" else None
    deadline = time.monotonic() + seconds
    while True:
        try:
            greeting = _greeting(scheduler, (host, port), context, deadline)
            break
        except ssl.SSLError as error:
            raise _tls_refused(scheduler, error) from error
        except OSError as error:
            if time.monotonic() > deadline:
                raise no_answer(scheduler, f"{error.strerror or error} within {seconds} s") from error
        time.sleep(0.2)
    if len(greeting) < 8 or struct.unpack("<Q", greeting)[0] > _LARGEST_GREETING:
        raise no_answer(scheduler, "something else answers there")


def _greeting(scheduler: str, place: tuple[str, int], context: ssl.SSLContext | None, deadline: float) -> bytes:
    """The first 8 bytes that a listener sends by itself; fewer when it closes the connection."""
    if context is None:
        with suppress(TimeoutError), _connection(place, min(_SILENCE_SECONDS, _seconds_remaining(deadline))) as plain:
            return _first_bytes(plain, deadline)
        # The silent connection is closed by now: a server with one thread would not take another.
        _refuse_other_protocols(scheduler, place)
    try:
        with _connection(place, _seconds_remaining(deadline)) as plain:
            if context is None:
                return _first_bytes(plain, deadline)
            with context.wrap_socket(plain, server_hostname=place[0]) as wrapped:
                return _first_bytes(wrapped, deadline)
    except TimeoutError as error:
        reason = "something takes connections there and says nothing: a scheduler that is stopped, or another service"
        raise no_answer(scheduler, reason) from error


def _connection(place: tuple[str, int], seconds: float) -> socket.socket:
    try:
        return socket.create_connection(place, seconds)
    except TimeoutError as error:
        raise ConnectionError("timed out") from error  # nobody there, which is not the same as a silent listener


def _seconds_remaining(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0.1)


def _first_bytes(connection: socket.socket, deadline: float) -> bytes:
    """The deadline is that of all bytes together: some come one a second."""
    content = b""
    while len(content) < 8 and (more := connection.recv(8 - len(content))):
        content += more
        connection.settimeout(_seconds_remaining(deadline))
    return content


def _refuse_other_protocols(scheduler: str, place: tuple[str, int]) -> None:
    """A listener that waits for us to speak first: does it know TLS, or HTTP?"""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with suppress(OSError), socket.create_connection(place, _SILENCE_SECONDS) as plain:
        try:
            context.wrap_socket(plain).close()
        except ssl.SSLError as error:
            if "ALERT" not in str(error.reason):
                raise
        raise VersionError(
            f"--scheduler {scheduler}: the scheduler speaks TLS; write tls:// instead of tcp://. {_TLS_ADVICE}"
        )
    with suppress(OSError), socket.create_connection(place, _SILENCE_SECONDS) as plain:
        plain.sendall(b"HEAD / HTTP/1.0\r\n\r\n")
        if plain.recv(5) == b"HTTP/":
            raise no_answer(scheduler, "an HTTP server answers there; is it the port of the dashboard?")


def _tls_context(scheduler: str) -> ssl.SSLContext:
    """Certificates from Dask's configuration."""
    from distributed.security import Security

    try:
        context = Security().get_connection_args("client").get("ssl_context")
    except (OSError, ValueError) as error:
        raise VersionError(
            f"--scheduler {scheduler}: the certificates of Dask's configuration cannot be used ({error}). {_TLS_ADVICE}"
        ) from error
    if context is None:
        raise VersionError(f"--scheduler {scheduler}: TLS needs certificates, and none are configured. {_TLS_ADVICE}")
    return context


def _tls_refused(scheduler: str, error: ssl.SSLError) -> VersionError:
    if error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNSUPPORTED_PROTOCOL"):
        return VersionError(
            f"--scheduler {scheduler}: the scheduler does not speak TLS; write tcp:// instead of tls://"
        )
    reason = getattr(error, "verify_message", "") or error.reason or error
    return VersionError(
        f"--scheduler {scheduler}: this process and the scheduler do not accept each other's certificates ({reason}). "
        f"{_TLS_ADVICE}"
    )


def no_answer(scheduler: str, reason: str) -> TemporaryError:
    """What to say of a scheduler that cannot be reached."""
    return TemporaryError(
        f"no Dask scheduler answers at {scheduler} ({reason}); check the address and that the scheduler runs, then try "
        "again"
    )
