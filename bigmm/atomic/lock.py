"""One writer at a time: a lock of the kernel on a hidden file beside the target.

The kernel frees the lock when its process ends, however it ends, and knows neither process numbers nor host names: a
lock holds across containers that share a volume. The file is removed by its holder. So whoever opened the file must
ask, once the lock is there, whether the file still has its name; else the lock is on a file that nobody else can find.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bigmm.errors import TemporaryError

#: A file system that has no locks (Lustre without `flock`) says one of these; writers there are not kept apart.
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF)
_ATTEMPTS = 100


def hidden_name(target: Path, ending: str) -> Path:
    """A hidden name beside the target, of one length whatever the target's name."""
    return target.with_name(f".bigmm-{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:12]}{ending}")


def take(handle: int) -> bool:
    """Lock an open file: True when it is ours now, False when another has it or nobody can tell."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return False
    return True


@contextmanager
def locked(target: Path, shown: str | os.PathLike[str]) -> Iterator[None]:
    """Be the only writer of the target while the block runs; TemporaryError when there is another."""
    path = hidden_name(target, ".lock")
    handle = _lock(path, shown)
    try:
        yield
    finally:
        if _is_named(handle, path):
            with suppress(OSError):
                path.unlink()
        os.close(handle)


def _lock(path: Path, shown: str | os.PathLike[str]) -> int:
    for _ in range(_ATTEMPTS):
        try:
            handle = _open_file(path)
        except FileNotFoundError:  # another writer removed the directory that it had made
            path.parent.mkdir(parents=True, exist_ok=True)
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_named(handle, path):
                return handle
        except BlockingIOError:
            os.close(handle)
            raise TemporaryError(
                f"another run is writing {os.fspath(shown)}: wait until it has ended, or choose another place"
            ) from None
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return handle
            os.close(handle)
            raise
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
    raise TemporaryError(f"the lock of {os.fspath(shown)}, {path.name}, is removed again and again: try again")


def _open_file(path: Path) -> int:
    """Open the lock's file, made by whomever; a file of another user in a sticky directory must not be opened to
    create."""
    for flags in (os.O_RDWR, os.O_RDWR | os.O_CREAT | os.O_EXCL, os.O_RDWR, os.O_RDONLY):
        try:
            return os.open(path, flags | os.O_NOFOLLOW, 0o666)
        except (FileNotFoundError, FileExistsError, PermissionError) as error:
            last = error
    raise last


def _is_named(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except FileNotFoundError:
        return False
