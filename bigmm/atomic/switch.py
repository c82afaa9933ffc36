"""Put a finished draft in the place of its target, in one step of the kernel where there is one.

Linux exchanges two names at once (``renameat2``), so that at every moment the old or the new result is at the target.
Where the kernel or the file system cannot, the step is two renames, and a journal beside the target says so: whoever
looks at the target next completes it (`settle`).
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from bigmm.atomic.lock import hidden_name
from bigmm.errors import OutputError

_AT_FDCWD, _NOREPLACE, _EXCHANGE = -100, 1, 2
_UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)
_DRAFT = re.compile(r"\.bigmm-[0-9a-f]{12}-[0-9a-f]{8}(-old)?")


def switch(draft: Path, target: Path, foreign: Callable[[Path], str | None]) -> Path | None:
    """Rename the draft to the target; returns where the old directory is now, None when there was none.

    foreign: names a file that must not be lost, when a directory holds one. It is asked after the exchange, because
    somebody may have written to the target until then; if it finds one, the exchange is undone (OutputError).
    """
    if not os.path.lexists(target):
        _rename_to_nothing(draft, target)
        return None
    with suppress(OSError):
        # The permissions that the user gave to the old result stay.
        shutil.copymode(target, draft)
    if exchange(draft, target):
        old = draft
    else:
        _record(draft, target)
        old = draft.with_name(f"{draft.name}-old")
        os.rename(target, old)
        try:
            os.rename(draft, target)
        except BaseException:
            os.rename(old, target)
            _journal(target).unlink()
            raise
        _journal(target).unlink()
    try:
        name = foreign(old)
        if name is not None:
            raise OutputError(f"{target} now holds {name}, which bigmm did not write: it was left as it was")
    except BaseException:
        if not exchange(old, target):
            os.rename(target, draft)
            os.rename(old, target)
        raise
    return old


def exchange(first: Path, second: Path) -> bool:
    """Exchange two names in one step; False when kernel or file system cannot."""
    return _renameat2(first, second, _EXCHANGE)


def _rename_to_nothing(draft: Path, target: Path) -> None:
    """Rename to a name that is free; OutputError when it is no longer."""
    try:
        if not _renameat2(draft, target, _NOREPLACE):
            if os.path.lexists(target):
                raise FileExistsError
            os.rename(draft, target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST) or isinstance(error, FileExistsError):
            raise OutputError(f"{target} appeared while it was written here: choose another place") from error
        raise


def _renameat2(old: Path, new: Path, flags: int) -> bool:
    # Python has no call for it, and older C libraries have none either.
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    if call(_AT_FDCWD, os.fsencode(old), _AT_FDCWD, os.fsencode(new), flags) == 0:
        return True
    number = ctypes.get_errno()
    if number in _UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number), os.fspath(new))


def _journal(target: Path) -> Path:
    return hidden_name(target, ".journal")


def _record(draft: Path, target: Path) -> None:
    journal = _journal(target)
    draft_of_journal = journal.with_name(f"{journal.name}-draft")
    with open(draft_of_journal, "w", encoding="ascii") as stream:
        json.dump({"draft": draft.name}, stream)
        stream.flush()
        # The journal has to be on the disk before the first rename that it describes.
        os.fsync(stream.fileno())
    os.replace(draft_of_journal, journal)
    sync(target.parent)


def is_unsettled(target: Path) -> bool:
    """Whether a writer was stopped between the two renames, so that the target is to be settled."""
    return os.path.lexists(_journal(target))


def settle(target: Path) -> None:
    """Complete the two renames of a writer that was stopped between them. The caller holds the lock."""
    journal = _journal(target)
    hidden_name(target, ".journal-draft").unlink(missing_ok=True)
    if not os.path.lexists(journal):
        return
    name = json.loads(journal.read_bytes())["draft"]
    # The name comes from a file in a directory that others may write: only a draft's name is believed.
    if _DRAFT.fullmatch(name) and not os.path.lexists(target):
        draft, old = target.with_name(name), target.with_name(f"{name}-old")
        os.rename(draft if draft.exists() else old, target)
        sync(target.parent)
    journal.unlink()


def sync(path: Path) -> None:
    """Have the disk keep what a file or a directory holds now."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(root: Path) -> None:
    """`sync` of all files and directories below."""
    for folder, _, files in os.walk(root):
        for name in files:
            sync(Path(folder) / name)
        sync(Path(folder))
