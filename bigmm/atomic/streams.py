"""Outputs that are written into and never replaced: devices, pipes, and files that are open (``/dev/stdout``)."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_NAMES = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}
_NUMBER = re.compile(r"/(?:dev|proc/(?P<process>self|\d+))/fd/(?P<number>\d+)")


def open_number(place: Path) -> int | None:
    """The number of the open file of this process that a path stands for; None for any other path.

    What such a file is redirected to was opened by somebody else, who keeps it open: it can be appended to only.
    """
    text = os.fspath(place)
    if text in _NAMES:
        return _NAMES[text]
    match = _NUMBER.fullmatch(text)
    if match is None or match["process"] not in (None, "self", str(os.getpid())):
        return None
    return int(match["number"])


def check_open(number: int) -> None:
    """Raise OSError unless the open file can be written."""
    if fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(errno.EBADF, "")


def is_stream(place: Path) -> bool:
    """Whether an output is written into: a device, a pipe or an open file."""
    if open_number(place) is not None:
        return True
    try:
        mode = os.stat(place).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


@contextmanager
def poured(target: Path) -> Iterator[Path]:
    """A draft elsewhere, copied into the stream when the block ends; a reader that has seen enough is no error."""
    # A draft, since a pipe cannot be taken back when the run fails half-way.
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "stream"
        yield draft
        with suppress(BrokenPipeError), open(draft, "rb") as content, _open_stream(target) as stream:
            shutil.copyfileobj(content, stream)


def _open_stream(target: Path) -> BinaryIO:
    number = open_number(target)
    if number is None:
        return open(target, "wb", buffering=0)
    # What Python still holds back comes before the copied bytes.
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    return os.fdopen(os.dup(number), "wb")
