"""What lies in a folder: files, folders, and what can be neither, such as a link to a file that is gone."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from pyarrow import fs

from bigmm.source.faults import guarded, readable
from bigmm.source.names import Pattern


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a folder.

    Attributes
    ----------
    folder : bool
        The name is a folder's.
    stamp : str
        Times of writing and of change of a local file, of writing of a remote one, in nanoseconds.
    inode : tuple of two int or None
        Device and number of a local file.
    problem : str
        Why it can be neither read nor entered; "" where it can.
    """

    path: str
    folder: bool
    size: int = 0
    stamp: str = ""
    inode: tuple[int, int] | None = None
    problem: str = ""


def look_up(filesystem: fs.FileSystem, path: str, where: str, remote: bool) -> Entry | None:
    """The entry of one path, None when there is nothing.

    Messages name the path by `where`. A failure is looked at again where `remote` is True.
    """
    if isinstance(filesystem, fs.LocalFileSystem):
        try:
            return _local_entry(path, os.stat(path))
        except (FileNotFoundError, NotADirectoryError):
            # os.stat follows links, so a link to nothing looks as if the name did not exist.
            return Entry(path, False, problem="it is a link to nothing") if os.path.islink(path) else None
        except OSError as error:
            return Entry(path, False, problem=f"{error.strerror}")
        except ValueError as error:  # a null byte
            return Entry(path, False, problem=str(error))
    info = guarded(lambda: filesystem.get_file_info(path), where, remote)
    return None if info.type == fs.FileType.NotFound else _remote_entry(info)


def entries_below(filesystem: fs.FileSystem, base: str, pattern: Pattern, where: str) -> Iterator[Entry]:
    """Everything in a folder and in those below it that the pattern enters, sorted by path within each folder."""
    if isinstance(filesystem, fs.LocalFileSystem):
        yield from _walk(base, (), pattern, ())
        return
    # Object stores list a whole prefix in few requests; folder by folder would take one for each.
    infos = guarded(lambda: filesystem.get_file_info(fs.FileSelector(base, recursive=True)), where, True)
    yield from sorted(map(_remote_entry, infos), key=lambda entry: entry.path)


def _remote_entry(info: fs.FileInfo) -> Entry:
    if info.type == fs.FileType.Directory:
        return Entry(info.path, True)
    problem = "" if info.type == fs.FileType.File else "it is neither a file nor a folder"
    stamp = "" if info.mtime_ns is None else str(info.mtime_ns)
    return Entry(info.path, False, info.size or 0, stamp, problem=problem)


def _local_entry(path: str, status: os.stat_result) -> Entry:
    if stat.S_ISDIR(status.st_mode):
        return Entry(path, True, inode=(status.st_dev, status.st_ino))
    problem = "" if stat.S_ISREG(status.st_mode) else "it is a pipe, a socket or a device"
    # The inode is no part of the stamp: network mounts number files anew. Nobody can set the time of change (ctime).
    stamp = f"{status.st_mtime_ns}/{status.st_ctime_ns}"
    return Entry(path, False, status.st_size, stamp, (status.st_dev, status.st_ino), problem)


def _walk(
    folder: str, parts: tuple[str, ...], pattern: Pattern, above: tuple[tuple[int, int] | None, ...]
) -> Iterator[Entry]:
    """pyarrow's own walk leaves out links to nothing without a word, and does not end on links in a circle."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        yield Entry(folder, True, problem=f"the folder cannot be listed ({error.strerror})")
        return
    for name in names:
        entry = _named_entry(os.path.join(folder, name))
        if entry is None:
            continue  # deleted since the folder was listed
        yield entry
        below = (*parts, name)
        if entry.folder and pattern.enters(below):
            # Device and inode identify a folder whatever path led to it.
            if entry.inode in above:
                yield Entry(entry.path, True, problem="it is a link to a folder above it")
            else:
                yield from _walk(entry.path, below, pattern, (*above, entry.inode))


def _named_entry(path: str) -> Entry | None:
    try:
        path.encode()
    except UnicodeEncodeError:
        return Entry(readable(path), False, problem="its name is not UTF-8")
    return look_up(fs.LocalFileSystem(), path, path, False)
