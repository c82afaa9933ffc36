"""What reading errors mean: try again, give up, or say what is wrong with the file.

Arrow raises OSError both for a broken network and for a broken page, so they are told apart by kind, then by text
(ECOSYSTEM notes: CRC failures are OSError; S3 errors carry "AWS Error" or "curlCode").
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from typing import TypeVar

import pyarrow as pa

from bigmm.errors import BigmmError, DataError, ReadError

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
_DAMAGED = re.compile(
    r"CRC|corrupt|thrift|end of stream|page (header|integrity)|unknown encoding|decompress|dictionary|malformed"
    r"|invalid (or )?(data|column|page|number)|truncat|magic bytes|expected .* values",
    re.IGNORECASE,
)


def guarded(action: Callable[[], T], where: str, remote: bool) -> T:
    """Run a reading action; remote ones are tried again while the error may pass.

    Raises `DataError` (no such file, no permission, damaged) at once, `ReadError` when it gave up. ``where`` names file
    and row groups in the message.
    """
    deadline, pause = time.monotonic() + RETRY_SECONDS, FIRST_PAUSE_SECONDS
    while True:
        try:
            return action()
        except BigmmError:
            raise
        except Exception as error:
            if not _is_reading_error(error):
                raise
            if not (remote and is_transient(error)):
                raise explained(error, where) from error
            if time.monotonic() + pause > deadline:
                message = f"gave up reading {where} after {RETRY_SECONDS:.0f} s of retries: {_reason(error)}"
                raise ReadError(f"{message}. Check the network and the storage service, then run again.") from error
        time.sleep(pause * random.uniform(0.5, 1.5))
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def is_transient(error: Exception) -> bool:
    """Whether a remote error may pass when tried again (everything but missing, forbidden and damaged)."""
    if isinstance(error, (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)):
        return False
    if isinstance(error, pa.ArrowException):
        return False
    return not any(pattern.search(str(error)) for pattern in (_MISSING, _FORBIDDEN, _DAMAGED))


def explained(error: Exception, where: str) -> BigmmError:
    """The error users see for an error that is not worth another try."""
    reason = _reason(error)
    if isinstance(error, FileNotFoundError) or (not isinstance(error, pa.ArrowException) and _MISSING.search(reason)):
        return DataError(f"no such file: {where} ({reason})")
    if isinstance(error, PermissionError) or _FORBIDDEN.search(reason):
        return DataError(f"no permission to read {where} ({reason}). Check the file's permissions or the credentials.")
    if isinstance(error, OSError) and error.errno is not None:
        return ReadError(f"cannot read {where}: {reason}")
    if _ENCRYPTED.search(reason):
        return DataError(f"{where} has an encrypted column, which bigmm does not read ({reason})")
    return DataError(f"damaged or unreadable Parquet in {where}: {reason}. Write the file again from its origin.")


def _is_reading_error(error: Exception) -> bool:
    if isinstance(error, pa.ArrowMemoryError):
        return False
    if isinstance(error, (pa.ArrowException, OSError)):
        return True
    return type(error).__module__.partition(".")[0] in _NETWORK_LIBRARIES


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
