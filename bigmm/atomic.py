"""Output that appears whole or not at all: written beside its place, synced, then renamed into it.

A rename within one directory is atomic on POSIX file systems; what is left after a kill is a hidden temporary that the
next write to the same place sweeps away. Every failure is an `OutputError` that names the path and the reason.
"""

from __future__ import annotations

import errno
import glob
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bigmm.errors import OutputError

#: A discarded draft is gone when it has stayed away for so many looks at it, so many seconds apart.
QUIET_CHECKS, QUIET_SECONDS = 5, 0.02

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
}


def output_error(path: str | os.PathLike[str], error: OSError) -> OutputError:
    """The OutputError that says what could not be written, why, and that nothing is left behind."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    advice = ADVICE.get(error.errno or 0, "nothing was left behind; choose another place or try again")
    return OutputError(f"cannot write {os.fspath(path)}: {reason}; {advice}")


def check_destination(path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Refuse early a place that cannot be written or is taken; returns the absolute path.

    Worth calling before hours of work: the directory must be absent, empty or `overwrite`, its parent writable.
    """
    target = Path(path).absolute()
    if target.is_dir() and any(target.iterdir()) and not overwrite:
        raise OutputError(f"{path} exists and is not empty: choose another place or say overwrite")
    if target.exists() and not target.is_dir() and not overwrite:
        raise OutputError(f"{path} exists: choose another place or say overwrite")
    probe = _draft(_existing_parent(target) / target.name)
    try:  # the only honest answer: permissions, read-only mounts and root's powers all have a say
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise output_error(path, error) from error
    return target


@contextmanager
def whole_directory(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty directory to write into; it becomes `path` when the block ends without an exception.

    Missing parents are created. An existing non-empty directory is refused, or replaced as a whole with `overwrite`.
    """
    target = check_destination(path, overwrite=overwrite)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target)
        draft = _draft(target)
        draft.mkdir()
    except OSError as error:
        raise output_error(path, error) from error
    try:
        yield draft
        _sync_tree(draft)
        _replace_directory(draft, target)
    except OutputError:
        raise
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        _discard(draft)


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a path to write one file to; it replaces `path` when the block ends without an exception."""
    target = Path(path).absolute()
    try:
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, "")
        _sweep(target)
        draft = _draft(target)
        draft.touch()
    except OSError as error:
        raise output_error(path, error) from error
    try:
        yield draft
        _sync(draft)
        os.replace(draft, target)
        _sync(target.parent)
    except OutputError:
        raise
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        draft.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write one small UTF-8 file, whole or not at all."""
    with whole_file(path) as draft:
        draft.write_text(text, encoding="utf-8")


def _replace_directory(draft: Path, target: Path) -> None:
    # Renaming onto a non-empty directory is not possible, so the old one steps aside first.
    old = draft.with_name(draft.name + "-old")
    if target.exists():
        os.rename(target, old)
    try:
        os.rename(draft, target)
    except BaseException:
        if old.exists():
            os.rename(old, target)
        raise
    _sync(target.parent)
    if old.is_dir():
        shutil.rmtree(old, ignore_errors=True)
    else:
        old.unlink(missing_ok=True)


def _discard(draft: Path) -> None:
    """Remove a draft and keep it away: threads of an interrupted writer (zarr's) still make directories for a while."""
    if not draft.exists():
        return  # renamed: all is well
    away = 0
    while away < QUIET_CHECKS:
        away = 0 if draft.exists() else away + 1
        shutil.rmtree(draft, ignore_errors=True)
        time.sleep(QUIET_SECONDS)


def _existing_parent(target: Path) -> Path:
    parent = target.parent
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    return parent


def _draft(target: Path) -> Path:
    return target.with_name(f"{_mark(target)}{os.getpid()}-{secrets.token_hex(4)}")


def _mark(target: Path) -> str:
    return f".{target.name}.partial-{os.uname().nodename}-"


def _sweep(target: Path) -> None:
    """Remove what dead writers of this machine left of `target`; a writer that lives may be at work beside us."""
    mark = _mark(target)
    for draft in target.parent.glob(f"{glob.escape(mark)}*"):
        writer, _, rest = draft.name.removeprefix(mark).partition("-")
        if not writer.isdigit() or _is_alive(int(writer)):
            continue
        if rest.endswith("-old") and not target.exists():
            os.rename(draft, target)  # killed between the two renames: the old one comes back
        elif draft.is_dir():
            shutil.rmtree(draft, ignore_errors=True)
        else:
            draft.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _sync_tree(root: Path) -> None:
    for folder, _, files in os.walk(root):
        for name in files:
            _sync(Path(folder) / name)
        _sync(Path(folder))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
