"""Write a directory or a file whole or not at all, one writer at a time, over nothing but bigmm's own."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bigmm.atomic.lock import hidden_name, locked, take
from bigmm.atomic.ownership import MARK, foreign_file, is_draft, is_record, mark_draft, write_mark
from bigmm.atomic.places import check_path, existing, local_path, resolved
from bigmm.atomic.reasons import output_error
from bigmm.atomic.shield import announce, shielded
from bigmm.atomic.streams import check_open, is_stream, open_number, poured
from bigmm.atomic.switch import is_unsettled, settle, switch, sync, sync_tree
from bigmm.errors import BigmmError, OutputError, TemporaryError, UsageError

#: A discarded draft is gone when it has stayed away for so many looks at it, so many seconds apart.
QUIET_CHECKS, QUIET_SECONDS = 5, 0.02

Name = str | os.PathLike[str]
Replaceable = Callable[[Path], bool]


def check_destination(path: Name, *, overwrite: bool = False) -> Path:
    """Refuse early a directory that cannot be written or is taken; returns its absolute path.

    Worth calling before hours of work. The directory must be absent or empty, or, with `overwrite`, written by bigmm.

    Raises UsageError for a name that cannot be meant, OutputError for the rest.
    """
    place = local_path(path)
    check_path(place, path)
    target = resolved(place)
    with _explained(path):
        if is_unsettled(target):
            _sweep(target)
        _check_early(target, path, overwrite)
        if target.is_dir() and not os.access(target, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "")
        _probe(target)
    return place


def check_file(path: Name, replaceable: Replaceable = is_record) -> Path:
    """Refuse early a file that cannot be written, or holds what bigmm did not write; returns its absolute path.

    A device, a pipe or an open file (``/dev/stdout``) is written into and never replaced. replaceable: whether an
    existing file is bigmm's to replace.
    """
    place = local_path(path)
    if os.path.basename(os.fsdecode(path)) in ("", ".", ".."):
        raise UsageError(f"{os.fsdecode(path)} is the name of a directory: name a file")
    number = open_number(place)
    if number is not None:
        with _explained(path):
            check_open(number)
    if is_stream(place):
        return place
    check_path(place, path)
    target = resolved(place)
    with _explained(path):
        _check_file(target, path, replaceable)
        _probe(target)
    return place


@dataclass(frozen=True, slots=True)
class Reservation:
    """A place that this run alone may write, by the `name` that the user wrote and the resolved path `target`."""

    name: Name
    target: Path
    overwrite: bool

    @property
    def is_stream(self) -> bool:
        """Whether the place is written into and not replaced."""
        return is_stream(self.target)


@contextmanager
def reserved(path: Name | Reservation, *, overwrite: bool = False) -> Iterator[Reservation]:
    """Hold the lock of a directory to be written, so that a second writer is told before its work, not after.

    Missing parents are made, and removed again when nothing was written. What a stopped writer left is settled first.

    Raises TemporaryError while another run writes the same place, else as `check_destination`.
    """
    if isinstance(path, Reservation):
        yield path
        return
    target = resolved(check_destination(path, overwrite=overwrite))
    with _alone(target, path):
        with _explained(path):
            _check_content(target, path, overwrite)
        yield Reservation(path, target, overwrite)


@contextmanager
def reserved_file(path: Name | Reservation, *, replaceable: Replaceable = is_record) -> Iterator[Reservation]:
    """Hold the lock of a file to be written, so that a second writer is told before its work, not after.

    A device, a pipe or an open file has none. Raises as `reserved`, and as `check_file`.
    """
    if isinstance(path, Reservation):
        yield path
        return
    place = check_file(path, replaceable)
    if is_stream(place):
        yield Reservation(path, place, overwrite=True)
        return
    target = resolved(place)
    with _alone(target, path):
        with _explained(path):
            _check_file(target, path, replaceable)
        yield Reservation(path, target, overwrite=True)


@contextmanager
def _alone(target: Path, name: Name) -> Iterator[None]:
    """Parents made, lock held, leftovers of stopped writers gone."""
    with ExitStack() as stack:
        with _explained(name):
            stack.callback(_remove_empty, target.parent, existing(target.parent))
            target.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(target, name))
            settle(target)
            _remove_leftovers(target)
        yield


@contextmanager
def whole_directory(path: Name | Reservation, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty directory to write into; it becomes `path` when the block ends without an exception.

    Missing parents are created. An existing directory is refused unless it is empty, or replaced as a whole with
    `overwrite` if bigmm wrote it. A signal that comes in during the replacement is delivered after it.
    """
    with reserved(path, overwrite=overwrite) as place, _explained(place.name), ExitStack() as cleanup:
        target = place.target
        draft = hidden_name(target, f"-{secrets.token_hex(4)}")
        cleanup.callback(_discard, draft)
        draft.mkdir()
        handle = os.open(draft / MARK, os.O_RDWR | os.O_CREAT, 0o666)
        cleanup.callback(os.close, handle)
        take(handle)
        mark_draft(draft)
        yield draft
        write_mark(draft)
        sync_tree(draft)
        _check_content(target, place.name, place.overwrite)
        with shielded():
            old = switch(draft, target, foreign_file)
            announce(target)
            sync(target.parent)
            if old is not None:
                cleanup.callback(_remove_tree, old)


@contextmanager
def whole_file(path: Name | Reservation, *, replaceable: Replaceable = is_record) -> Iterator[Path]:
    """Yield a path to write one file to; it replaces `path` when the block ends without an exception.

    replaceable: whether an existing file is bigmm's to replace. What is written to a device, a pipe or an open file
    goes into it as it is.
    """
    with reserved_file(path, replaceable=replaceable) as place, _explained(place.name), ExitStack() as cleanup:
        target = place.target
        if is_stream(target):
            yield cleanup.enter_context(poured(target))
            return
        draft = hidden_name(target, f"-{secrets.token_hex(4)}")
        cleanup.callback(draft.unlink, missing_ok=True)
        handle = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        cleanup.callback(os.close, handle)
        take(handle)
        yield draft
        sync(draft)
        with shielded():
            _check_file(target, place.name, replaceable)
            if target.exists():
                shutil.copymode(target, draft)
            os.replace(draft, target)
            announce(target)
            sync(target.parent)


def write_text(path: Name | Reservation, text: str, *, replaceable: Replaceable = is_record) -> None:
    """Write one small UTF-8 file, whole or not at all."""
    with whole_file(path, replaceable=replaceable) as draft:
        draft.write_text(text, encoding="utf-8")


@contextmanager
def _explained(name: Name) -> Iterator[None]:
    """An OSError becomes the OutputError that names the place; errors of bigmm stay as they are."""
    try:
        yield
    except BigmmError:
        raise
    except OSError as error:
        raise output_error(name, error) from error


def _check_early(target: Path, name: Name, overwrite: bool) -> None:
    """`_check_content` by one who does not hold the lock: the steps of a writer look like somebody else's files."""
    try:
        _check_content(target, name, overwrite)
    except OSError as error:
        try:
            with locked(target, name):
                _check_content(target, name, overwrite)
        except BigmmError:
            raise
        except OSError:  # no lock can be had there, and so nothing be written
            raise error from None


def _check_content(target: Path, name: Name, overwrite: bool) -> None:
    """The directory must be absent, empty, or bigmm's own with `overwrite`."""
    if not os.path.lexists(target):
        return
    if not target.is_dir():
        raise OutputError(f"{os.fspath(name)} exists and is a file: name a directory")
    foreign = foreign_file(target)
    if foreign is not None:
        reason = f"it holds {foreign}, which bigmm did not write, and is not replaced"
        raise OutputError(f"{os.fspath(name)} exists and is not empty: {reason}; choose another place or remove it")
    if any(target.iterdir()) and not overwrite:
        raise OutputError(f"{os.fspath(name)} exists and is not empty: choose another place or say overwrite")


def _check_file(target: Path, name: Name, replaceable: Replaceable) -> None:
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "")
    if not os.path.lexists(target):
        return
    if not stat.S_ISREG(os.stat(target).st_mode):
        raise OutputError(f"cannot write {os.fspath(name)}: it is no regular file; choose another place")
    if not replaceable(target):
        raise OutputError(
            f"{os.fspath(name)} exists and is not what bigmm writes there: it is not replaced; choose another place"
        )
    if not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, "")


def _probe(target: Path) -> None:
    """Make and remove something beside the target: permissions, read-only mounts and root's powers all have a say."""
    parent = target.parent
    there = existing(parent)
    if os.path.lexists(target):
        about = os.stat(parent)
        mine = os.geteuid() in (0, about.st_uid, os.lstat(target).st_uid)
        if about.st_mode & stat.S_ISVTX and not mine:
            raise PermissionError(errno.EPERM, "")
    probe = hidden_name(there / target.name, f"-{secrets.token_hex(4)}")
    probe.mkdir()
    with suppress(FileNotFoundError):  # the holder of the lock took it for a leftover
        probe.rmdir()


def _discard(draft: Path) -> None:
    """Remove a draft and keep it away: threads of an interrupted writer (zarr's) still make directories for a while."""
    if not draft.exists():
        return  # renamed: all is well
    _remove_tree(draft)
    away = 0
    while away < QUIET_CHECKS:
        away = 0 if draft.exists() else away + 1
        shutil.rmtree(draft, ignore_errors=True)
        time.sleep(QUIET_SECONDS)


def _remove_tree(folder: Path) -> None:
    """Remove a directory of bigmm's, its mark last: should we be stopped, the rest is still known as bigmm's."""
    with suppress(OSError):
        mark_draft(folder)
        for entry in list(os.scandir(folder)):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            elif entry.name != MARK:
                os.unlink(entry.path)
        (folder / MARK).unlink()
        folder.rmdir()


def _remove_empty(folder: Path, until: Path) -> None:
    """Remove the directories that were made for an output that did not come about."""
    while folder != until and folder != folder.parent:
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent


def _sweep(target: Path) -> None:
    """Settle and remove what stopped writers left of `target`; nothing while a writer is at work."""
    with suppress(TemporaryError, OutputError), _alone(target, target):
        pass


def settled_path(path: Name) -> Path:
    """The absolute path of an output to read; what a stopped writer left there is completed first."""
    place = local_path(path, "read")
    target = resolved(place)
    if is_unsettled(target):
        _sweep(target)
    return place


def _remove_leftovers(target: Path) -> None:
    """Remove drafts whose writer has ended: the lock on them is free. The caller holds the target's lock."""
    pattern = re.compile(re.escape(hidden_name(target, "").name) + r"-[0-9a-f]{8}(-old)?")
    with os.scandir(target.parent) as entries:
        drafts = [Path(entry.path) for entry in entries if pattern.fullmatch(entry.name)]
    for draft in drafts:
        if not draft.is_dir():
            if _is_abandoned(draft):
                draft.unlink(missing_ok=True)
        elif not (draft / MARK).exists() or _is_abandoned(draft / MARK):
            # What was at the target until the writer stopped may hold a file that somebody put there meanwhile.
            with suppress(FileNotFoundError):  # it was somebody's probe, and is gone
                if is_draft(draft) or foreign_file(draft) is None:
                    _remove_tree(draft)


def _is_abandoned(path: Path) -> bool:
    try:
        handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        return take(handle)
    finally:
        os.close(handle)
