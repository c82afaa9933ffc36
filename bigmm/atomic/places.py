"""From what users write for an output (path, ``~``, ``file://`` URL) to one resolved local path, or a refusal."""

from __future__ import annotations

import errno
import os
import re
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bigmm.atomic.reasons import output_error
from bigmm.errors import OutputError, UsageError
from bigmm.urls import shown_url

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
#: `Path("s3://bucket")` is the local path "s3:/bucket", which nobody means.
_COLLAPSED = re.compile(r"(s3a?|gs|gcs|abfss?|az|adl|wasbs?|hdfs|https?|ftp|file):/")
_LOCAL_SCHEMES = ("file", "local")
_LOCAL_HOSTS = ("", "localhost")

#: Bytes of a path that are left for the files inside a directory of results.
ROOM = 512
PATH_BYTES = 4096

_MOUNTS = Path("/proc/self/mountinfo")


def is_url(place: str | os.PathLike[str]) -> bool:
    """Whether a place is on another file system than those of this machine."""
    match = _URL.match(os.fspath(place))
    return match is not None and match[1].lower() not in _LOCAL_SCHEMES


def local_path(place: str | os.PathLike[str], verb: str = "write to") -> Path:
    """The absolute path that a user means, links not followed.

    Raises UsageError for an empty name, a URL of an object store, and a relative path when the working directory is
    gone.
    """
    text = os.fspath(place)
    if isinstance(text, bytes):
        text = os.fsdecode(text)
    if not text.strip():
        raise UsageError(f"cannot {verb} a place without a name ({text!r}): give a path")
    if "\0" in text:
        raise UsageError(f"cannot {verb} {text!r}: a path holds no null character")
    if _URL.match(text):
        text = _path_of_url(text, verb)
    # A directory that is really called "s3:" is meant.
    elif _COLLAPSED.match(text) and not os.path.lexists(text.partition(":")[0] + ":"):
        raise UsageError(f"cannot {verb} {text}: this is a URL with one slash; name a local directory")
    try:
        return Path(os.path.abspath(os.path.expanduser(text)))
    except FileNotFoundError:
        raise UsageError(f"cannot {verb} {text}: the working directory was deleted; give an absolute path") from None


def shown_path(place: str | os.PathLike[str]) -> Path:
    """A place as the user wrote it, but a URL and ``~`` as the path they mean; UsageError for what is no place."""
    path, text = local_path(place), os.fsdecode(place)
    return path if _URL.match(text) or text.startswith("~") else Path(text)


def _path_of_url(url: str, verb: str) -> str:
    if is_url(url):
        advice = "name a local directory and copy it up afterwards" if verb == "write to" else "copy it here first"
        raise UsageError(f"cannot {verb} {shown_url(url)}: {advice}")
    parts = urlsplit(url)
    if parts.netloc not in _LOCAL_HOSTS or not parts.path.strip("/ "):
        raise UsageError(
            f"cannot {verb} {shown_url(url)}: a local path follows after three slashes, file:// and /data/results"
        )
    return unquote(parts.path)


def resolved(path: Path) -> Path:
    """The path with all links followed, whether it exists or not."""
    return Path(os.path.realpath(path))


def check_path(path: Path, shown: str | os.PathLike[str]) -> None:
    """Refuse what no output can be at: a dangling link, a name that is too long, a mount point (OutputError)."""
    try:
        for part in (path, *path.parents):
            if part.is_symlink() and not part.exists():
                os.stat(part)  # a circle says so itself
        _check_lengths(path)
        if is_mounted(resolved(path)):
            raise OSError(errno.EBUSY, "")
    except FileNotFoundError as error:
        error.errno = errno.ENOENT
        raise _dangling(shown, error) from None
    except OSError as error:
        raise output_error(shown, error) from error


def _dangling(shown: str | os.PathLike[str], error: OSError) -> OutputError:
    return OutputError(
        f"cannot write {os.fspath(shown)}: {error.filename} is a link to a place that does not exist; "
        "create that place or name another"
    )


def _check_lengths(path: Path) -> None:
    """Ask the file system about the length of every name that is yet to be made."""
    real = resolved(path)
    if len(os.fsencode(real)) > PATH_BYTES - ROOM:
        raise OSError(errno.ENAMETOOLONG, "")
    there = existing(real)
    for name in real.relative_to(there).parts:
        with suppress(FileNotFoundError):
            # A name that is too long is an error of lstat, also where nothing has that name.
            os.lstat(there / name)


def existing(path: Path) -> Path:
    """The nearest directory on the way up that exists; the path itself when it does."""
    while not os.path.lexists(path) and path != path.parent:
        path = path.parent
    return path


def is_mounted(path: Path) -> bool:
    """Whether something is mounted at the path; a bind mount counts, and one file can be mounted too."""
    if os.path.ismount(path):
        return True
    try:
        lines = _MOUNTS.read_bytes().splitlines()
    except OSError:
        return False
    # The kernel writes blanks in paths of mountinfo as octal escapes.
    places = (re.sub(rb"\\([0-7]{3})", lambda code: bytes([int(code[1], 8)]), line.split()[4]) for line in lines)
    return os.fsencode(path) in places
