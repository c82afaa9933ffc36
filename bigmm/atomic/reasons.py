"""Why an output cannot be written, and what to do about it."""

from __future__ import annotations

import errno
import os

from bigmm.errors import OutputError

ADVICE = {
    errno.ENOSPC: "the disk is full: free some space or choose another place",
    errno.EDQUOT: "the quota is used up: free some space or choose another place",
    errno.EFBIG: "the file would be larger than the limit on file sizes allows",
    errno.EACCES: "no permission to write there: choose another place",
    errno.EPERM: "no permission to write there: choose another place",
    errno.EROFS: "the file system is read-only: choose another place",
    errno.ENOENT: "its parent directory does not exist: create it first",
    errno.ENOTDIR: "a part of the path is a file, not a directory",
    errno.EISDIR: "it is a directory: name a file",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "its links lead in a circle: choose another place",
    errno.EBUSY: "something is mounted there: name a directory inside it",
}


def output_error(path: str | os.PathLike[str], error: OSError) -> OutputError:
    """The OutputError that says what could not be written, why, and that nothing is left behind."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    advice = ADVICE.get(error.errno or 0, "nothing was left behind; choose another place or try again")
    return OutputError(f"cannot write {os.fspath(path)}: {reason}; {advice}")
