"""Where compiled kernels are kept between processes, decided once, before the first kernel is imported.

numba keeps them beside the source files, else in the user's cache directory, and refuses to compile where it can write
neither: an unprivileged user without a home and a package that belongs to root, a read-only file system. Then a private
directory among the temporary files takes them. What it holds is executed, so another user's directory is never taken.
"""

from __future__ import annotations

import atexit
import os
import stat
import sys
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).parent
_VARIABLE = "NUMBA_CACHE_DIR"  # read by numba when it is imported, and by processes that we start


def settle() -> None:
    """Leave numba's own choice where it has one; else name a private directory; else do without a cache."""
    if not hasattr(os, "getuid") or _numba_has_a_place():
        return
    folder = private_folder()
    if folder is None:
        _compile_without_cache()
        return
    os.environ[_VARIABLE] = folder
    if "numba" in sys.modules:
        sys.modules["numba"].config.CACHE_DIR = folder


def private_folder() -> str | None:
    """A directory among the temporary files that only this user can write, the same in the next process; else None."""
    import tempfile

    for parent in _temporary_places():
        if not _is_safe_parent(parent):
            continue
        folder = os.path.join(parent, f"bigmm-kernels-{os.geteuid()}")
        if _own_folder(folder):
            return folder
        try:
            folder = tempfile.mkdtemp(prefix="bigmm-kernels-", dir=parent)
        except OSError:
            continue
        atexit.register(_remove, folder, os.getpid())
        return folder
    return None


def _numba_has_a_place() -> bool:
    named = os.environ.get(_VARIABLE)
    if named and _is_writable(named):
        return True
    rooms = [path.parent for path in _PACKAGE.rglob("__init__.py")]
    if all(_holds_bytecode(room) for room in rooms):
        return True
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    # Without a home "~" stays as it is, and numba would make a directory of that name in the working directory.
    return os.path.isabs(home) and _is_writable(os.path.join(home, "numba"))


def _holds_bytecode(room: Path) -> bool:
    cache = room / "__pycache__"
    return os.access(cache if cache.exists() else room, os.W_OK | os.X_OK)


def _is_writable(folder: str) -> bool:
    """As numba finds out, which leaves the directory behind."""
    import tempfile  # here and below: `import bigmm` costs nothing where the package's own directories can be written

    try:
        os.makedirs(folder, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


def _temporary_places() -> list[str]:
    import tempfile

    try:
        places = [tempfile.gettempdir()]
    except OSError:  # none of the usual directories is usable
        places = []
    return [os.path.abspath(place) for place in (*places, "/dev/shm") if os.path.isdir(place)]


def _is_safe_parent(parent: str) -> bool:
    """Whether nobody else can put a directory of his own in the place of ours."""
    state = os.stat(parent)
    shared = state.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not state.st_mode & stat.S_ISVTX
    return state.st_uid in (0, os.geteuid()) and not shared


def _own_folder(folder: str) -> bool:
    """Make the directory, or accept it when it is a real one, ours, and closed to others."""
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        pass
    except OSError:
        return False
    state = os.lstat(folder)
    mine = state.st_uid == os.geteuid() and not state.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    return stat.S_ISDIR(state.st_mode) and mine and _is_writable(folder)


def _remove(folder: str, process: int) -> None:
    import shutil

    if os.getpid() == process:  # not in a child that was forked
        shutil.rmtree(folder, ignore_errors=True)


def _compile_without_cache() -> None:
    """Let numba go on without a cache where it would raise: every process compiles what it uses."""
    from numba.core.dispatcher import Dispatcher

    enable = Dispatcher.enable_caching

    def enable_if_possible(dispatcher: Any) -> None:
        try:
            enable(dispatcher)
        except RuntimeError as error:
            if "no locator available" not in str(error):
                raise

    Dispatcher.enable_caching = enable_if_possible  # type: ignore[method-assign,assignment]
