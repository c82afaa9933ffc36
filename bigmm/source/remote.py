"""The filesystem behind a URL: pyarrow's own where it has one, fsspec's for the rest."""

from __future__ import annotations

import re
from typing import Any

import pyarrow as pa
from pyarrow import fs

from bigmm.errors import BigmmError, UsageError
from bigmm.source.faults import guarded, is_missing
from bigmm.urls import shown_url, without_secrets

_GOOGLE = re.compile(r"(gs|gcs)://")
_GOOGLE_SECONDS = 20  # Arrow's own retries last a quarter of an hour, and so does its search for credentials


def open_url(url: str) -> tuple[fs.FileSystem, str]:
    """Filesystem of a URL, and the path on it.

    Raises `UsageError` for what cannot be opened here (syntax, a library that is not installed), `ReadError` when the
    service does not answer, `DataError` when it refuses.
    """
    return guarded(lambda: _by_arrow(url) or _by_fsspec(url), shown_url(url), remote=True, secrets_of=url)


class FaultKeeper(fs.FSSpecHandler):
    """As `pyarrow.fs.FSSpecHandler`, but what could not be looked up is not taken for what is not there.

    fsspec's HTTP filesystem reports every failure as FileNotFoundError, with the failure as its cause.
    """

    def get_file_info(self, paths: list[str]) -> list[fs.FileInfo]:
        """Types and sizes; raises what kept the filesystem from looking."""
        infos = super().get_file_info(paths)
        for info in infos:
            if info.type == fs.FileType.NotFound:
                self._raise_cause(info.path)
        return infos

    def _raise_cause(self, path: str) -> None:
        try:
            self.fs.info(path)
        except FileNotFoundError as error:
            # A second look costs a request, but only where nothing was found.
            cause = error.__cause__
            if isinstance(cause, Exception) and not is_missing(cause):
                raise cause from None


def _by_arrow(url: str) -> tuple[fs.FileSystem, str] | None:
    """None for a protocol that pyarrow does not know."""
    # What the user sets in the URL wins.
    if _GOOGLE.match(url) and "retry_limit_seconds=" not in url:
        url += f"{'&' if '?' in url else '?'}retry_limit_seconds={_GOOGLE_SECONDS}"
    try:
        return fs.FileSystem.from_uri(url)
    except pa.ArrowInvalid as error:
        # Arrow has no class of its own for an unknown scheme.
        if "Unrecognized filesystem type" in str(error):
            return None
        raise _cannot_open(url, error) from None  # the error's own text may hold secrets
    except (pa.ArrowNotImplementedError, ImportError):
        return None


def _by_fsspec(url: str) -> tuple[fs.FileSystem, str]:
    try:
        import fsspec

        system, path = fsspec.core.url_to_fs(url)
    except (OSError, BigmmError):
        raise
    except Exception as error:  # every protocol's library has errors of its own
        raise _cannot_open(url, error, " Is the fsspec package of that protocol installed?") from None
    return fs.PyFileSystem(FaultKeeper(system)), path


def _cannot_open(url: str, error: Any, advice: str = "") -> UsageError:
    reason = without_secrets(str(error), [url]).strip().rstrip(".")
    return UsageError(f"cannot open {shown_url(url)!r}: {reason or type(error).__name__}.{advice}")
