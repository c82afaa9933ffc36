"""What reading errors mean: try again, give up, or say what is wrong with the file.

Arrow raises OSError both for a broken network and for a broken page, so they are told apart by kind, then by text
(failed checksums are OSError without an error number; errors of S3 carry "AWS Error" or "curlCode").
"""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable
from typing import TypeVar

import pyarrow as pa

from bigmm.errors import BigmmError, DataError, ReadError, UsageError
from bigmm.urls import without_secrets

T = TypeVar("T")

#: A remote read is tried again for this long (Arrow's own S3 retries end after 1-2 s), with growing, jittered pauses.
RETRY_SECONDS = 90.0
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 15.0

_NETWORK_LIBRARIES = frozenset({"aiohttp", "botocore", "requests", "urllib3", "gcsfs", "adlfs", "azure", "google"})
_MISSING = re.compile(r"NO_SUCH|NOT_FOUND|HTTP status 404|No such file|does not exist|BlobNotFound", re.IGNORECASE)
_FORBIDDEN = re.compile(
    r"ACCESS_DENIED|FORBIDDEN|HTTP status 40[13]|INVALID_ACCESS_KEY|SIGNATURE_DOES_NOT_MATCH|INVALID_CLIENT_TOKEN"
    r"|Permission denied|AuthenticationFailed|AuthorizationFailure",
    re.IGNORECASE,
)
_ENCRYPTED = re.compile(r"Cannot decrypt|FileDecryption")
_NOT_INSTALLED = re.compile(r"libjvm|libhdfs|JAVA_HOME|CLASSPATH", re.IGNORECASE)
_DISTRUSTED = re.compile(r"certificate|WRONG_VERSION_NUMBER|curlCode: (35|51|58|60|77)\b", re.IGNORECASE)
_NO_CREDENTIALS = re.compile(
    r"no credentials|credentials? (could not|cannot|can't) be (found|retrieved)|could not .{0,40}credentials"
    r"|unable to locate credentials|could not create a OAuth2 access token|Credentials\d+AuthenticationException"
    r"|DefaultCredentialsError|DefaultAzureCredential|CredentialUnavailable",
    re.IGNORECASE,
)
_SERVICE = re.compile(r"Azure::|N5Azure|google::cloud|AWS Error|curlCode")  # of Arrow's own clients
_DAMAGED = re.compile(
    r"CRC|corrupt|thrift|end of stream|page (header|integrity)|unknown encoding|decompress|dictionary|malformed"
    r"|invalid (or )?(data|column|page|number)|truncat|magic bytes|expected .* values",
    re.IGNORECASE,
)


def guarded(action: Callable[[], T], where: str, remote: bool, secrets_of: str = "") -> T:
    """Run a reading action; remote ones are tried again while the error may pass.

    Raises `DataError` (no such file, no permission, damaged) at once, `ReadError` when it gave up, `UsageError` for a
    library that is not installed. ``where`` names file and row groups in the message; ``secrets_of`` is a URL of which
    pieces may stand in the error's own text.
    """
    # A monotonic clock: a correction of the machine's time must not end or prolong the retries.
    deadline, pause = time.monotonic() + RETRY_SECONDS, FIRST_PAUSE_SECONDS
    where = without_secrets(where)
    while True:
        try:
            return action()
        except BigmmError:
            # Errors of this package are final: the inner call has already tried again and explained itself.
            raise
        except UnicodeError as error:  # Arrow knows only names that are UTF-8
            raise not_utf8(where) from error
        except Exception as error:
            if not _is_reading_error(error):
                raise
            reason = _reason(error, secrets_of)
            if not (remote and is_transient(error)):
                raise explained(error, where, reason) from error
            if time.monotonic() + pause > deadline:
                message = f"gave up reading {where} after {RETRY_SECONDS:.0f} s of retries: {reason}"
                raise ReadError(f"{message}. Check the network and the storage service, then run again.") from error
        # Jitter keeps many workers, which failed together, from asking together again.
        time.sleep(pause * random.uniform(0.5, 1.5))
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def not_utf8(name: str) -> DataError:
    """The error of a name that Arrow cannot be given."""
    return DataError(f"cannot read {readable(name)}: its name is not UTF-8. Rename the file or directory.")


def readable(name: str) -> str:
    """A file name for a message: bytes that are not UTF-8 as ``\\xff``."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def absolute_path(place: str) -> str:
    """Absolute path of a local place; DataError when the working directory was deleted."""
    try:
        return os.path.abspath(os.path.expanduser(place))
    except FileNotFoundError as error:
        raise DataError(f"no such file or directory: {readable(place)} (the working directory was deleted)") from error


def is_transient(error: Exception) -> bool:
    """Whether a remote error may pass when tried again (everything but missing, forbidden, distrusted and damaged)."""
    if isinstance(error, (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)):
        return False
    # Arrow complains about bytes that it has read, and these stay the same.
    if _is_arrows(error):
        return False
    status = _status(error)
    if status is not None:
        # Timeout, too early and too many requests pass by themselves; other codes of the 400s do not.
        return status >= 500 or status in (408, 425, 429)
    permanent = (_NOT_INSTALLED, _DISTRUSTED, _NO_CREDENTIALS, _MISSING, _FORBIDDEN, _DAMAGED)
    return not any(pattern.search(str(error)) for pattern in permanent)


def is_missing(error: Exception) -> bool:
    """Whether an error says that there is nothing, rather than that one could not look."""
    if _status(error) is not None:
        return _status(error) in (404, 410)
    return isinstance(error, FileNotFoundError) or bool(_MISSING.search(str(error)))


def explained(error: Exception, where: str, reason: str = "") -> BigmmError:
    """The error users see for an error that is not worth another try."""
    reason = reason or _reason(error)
    arrow = _is_arrows(error)
    # The order matters: a message about credentials may hold "403", and one about Java "does not exist".
    if not arrow and _NOT_INSTALLED.search(reason):
        return UsageError(
            f"cannot open {where}: {reason}. Install a Java runtime and the client libraries of Hadoop, and set "
            "JAVA_HOME and HADOOP_HOME."
        )
    if isinstance(error, FileNotFoundError) or (not arrow and is_missing(error)):
        return DataError(f"no such file: {where} ({reason})")
    if not arrow and _NO_CREDENTIALS.search(reason):
        return DataError(f"no credentials to read {where} ({reason}). Set those of the storage service.")
    if isinstance(error, PermissionError) or _status(error) in (401, 403, 407) or _FORBIDDEN.search(reason):
        return DataError(f"no permission to read {where} ({reason}). Check the file's permissions or the credentials.")
    if not arrow and _DISTRUSTED.search(reason):
        return DataError(f"no trusted connection to {where} ({reason}). Check the address and the certificates.")
    if _status(error) is not None:
        return DataError(f"the server refuses to send {where} ({reason}). Check the address.")
    # Errors of the system have a number; a failed checksum of Arrow's has none.
    if isinstance(error, OSError) and error.errno is not None:
        return ReadError(f"cannot read {where}: {reason}")
    if _ENCRYPTED.search(reason):
        return DataError(f"{where} has an encrypted column, which bigmm does not read ({reason})")
    return DataError(f"damaged or unreadable Parquet in {where}: {reason}. Write the file again from its origin.")


def _is_arrows(error: Exception) -> bool:
    """Whether Arrow complains about what it has read; of a service it also raises what it knows no better class for."""
    return isinstance(error, pa.ArrowException) and not _SERVICE.search(str(error))


def _status(error: Exception) -> int | None:
    """The HTTP status that a network library gives with its error."""
    status = getattr(error, "status", None)
    return status if isinstance(status, int) and not isinstance(status, bool) and status >= 400 else None


def _is_reading_error(error: Exception) -> bool:
    # A full memory says nothing about the file, and another try would fill it again.
    if isinstance(error, pa.ArrowMemoryError):
        return False
    if isinstance(error, (pa.ArrowException, OSError)):
        return True
    return type(error).__module__.partition(".")[0] in _NETWORK_LIBRARIES


def _reason(error: Exception, secrets_of: str = "") -> str:
    text = " ".join(without_secrets(str(error), [secrets_of]).split())
    return text.rstrip(".") or type(error).__name__
