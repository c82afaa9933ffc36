"""From what users write (path, glob, directory, URL, list of them) to files on one filesystem."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import translate
from pathlib import PurePath

from pyarrow import fs

from bigmm.errors import DataError, UsageError
from bigmm.source.faults import absolute_path, guarded
from bigmm.source.remote import open_url
from bigmm.urls import shown_url

_URL = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+)://")
_LOCAL_WILD = re.compile(r"[*?\[]")
_URL_WILD = re.compile(r"[*\[]")  # in a URL "?" begins the options
_SUFFIXES = (".parquet", ".parq", ".pq")

#: A directory that holds one of these is a table of another format; its files include deleted and rewritten rows.
_TABLE_FORMATS = {
    "_delta_log": ("a Delta Lake", "deltalake.DeltaTable(path).to_pyarrow_dataset()"),
    "metadata": ("an Iceberg", "pyiceberg: table.scan().to_arrow()"),
    ".hoodie": ("a Hudi", "the reader of Apache Hudi"),
}


@dataclass(frozen=True, slots=True)
class Location:
    """Files sorted by path, on one filesystem; ``remote`` asks for retries; ``prefix`` is for messages."""

    filesystem: fs.FileSystem
    remote: bool
    files: tuple[fs.FileInfo, ...]
    description: str
    prefix: str = ""

    def shown(self, path: str) -> str:
        """How messages name a file: with the URL's scheme, or relative to the working directory if below it."""
        return shown_path(path, self.prefix)


def shown_path(path: str, prefix: str) -> str:
    """See `Location.shown`."""
    if prefix:
        return shown_url(path if "://" in path else prefix + path)
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


def shown_place(place: str | PurePath) -> str:
    """What a user wrote without the secrets and options of a URL, for messages."""
    return shown_url(str(place))


def locate(places: Sequence[str | PurePath]) -> Location:
    """Find the Parquet files behind paths, globs, directories and URLs (mixed freely, on one filesystem).

    Raises `DataError` for a missing file, an empty directory, a Delta or Iceberg table; `UsageError` for what cannot be
    meant.
    """
    if not places:
        raise UsageError("no data: the list of paths is empty")
    first = shown_place(places[0])
    found: dict[str, fs.FileInfo] = {}
    filesystem, prefix = None, ""
    for place in places:
        system, prefix, base, pattern = _split(str(place))
        if filesystem is not None and not system.equals(filesystem):
            raise UsageError(
                f"all paths must lie on one filesystem; {shown_place(place)!r} does not lie with {first!r}"
            )
        filesystem = system
        for info in _files(system, prefix, base, pattern, shown_place(place)):
            if info.path in found:
                raise UsageError(f"file given twice: {shown_path(info.path, prefix)} (its rows would count twice)")
            found[info.path] = info
    assert filesystem is not None
    refuse_table_formats(filesystem, prefix, [_hive_root(path) for path in found])
    description = first if len(places) == 1 else f"{len(places)} paths, {first!r} first"
    files = tuple(found[path] for path in sorted(found))
    return Location(filesystem, is_remote(filesystem), files, description, prefix)


def is_remote(filesystem: fs.FileSystem) -> bool:
    """Whether reads go over a network."""
    while isinstance(filesystem, fs.SubTreeFileSystem):
        filesystem = filesystem.base_fs
    return not isinstance(filesystem, fs.LocalFileSystem)


def _split(place: str) -> tuple[fs.FileSystem, str, str, str]:
    """Filesystem, prefix for messages, path before the first wildcard, pattern from there on ("" without wildcard)."""
    match = _URL.match(place)
    if match is None:
        path = absolute_path(place)
        base, pattern = (path, "") if os.path.exists(path) else _cut_pattern(path, _LOCAL_WILD)
        return fs.LocalFileSystem(), "", base or "/", pattern
    address, mark, options = place.partition("?")
    base, pattern = _cut_pattern(address, _URL_WILD)
    filesystem, path = open_url(base + mark + options)
    prefix = "" if isinstance(filesystem, fs.LocalFileSystem) else f"{match[1]}://"
    return filesystem, prefix, path.rstrip("/"), pattern


def _cut_pattern(path: str, wild: re.Pattern) -> tuple[str, str]:
    segments = path.split("/")
    first = next((i for i, segment in enumerate(segments) if wild.search(segment)), len(segments))
    return "/".join(segments[:first]), "/".join(segments[first:])


def _files(filesystem: fs.FileSystem, prefix: str, base: str, pattern: str, place: str) -> list[fs.FileInfo]:
    remote = is_remote(filesystem)
    top = guarded(lambda: filesystem.get_file_info(base), prefix + base, remote)
    if top.type == fs.FileType.NotFound:
        raise DataError(f"no such file or directory: {place}")
    if not pattern and top.type == fs.FileType.File:
        return [top]
    below = guarded(lambda: filesystem.get_file_info(fs.FileSelector(base, recursive=True)), prefix + base, remote)
    if not pattern:
        return _data_files(below, base, place)
    matches = [info for info in below if _glob(pattern)(info.path[len(base) :].lstrip("/"))]
    if not matches:
        raise DataError(f"no file matches {place}")
    chosen = {info.path: info for info in matches if info.type == fs.FileType.File}
    for folder in (info for info in matches if info.type == fs.FileType.Directory):
        inside = [info for info in below if info.path.startswith(folder.path + "/")]
        chosen |= {info.path: info for info in _data_files(inside, folder.path, place)}
    return list(chosen.values())


def _data_files(below: Sequence[fs.FileInfo], base: str, place: str) -> list[fs.FileInfo]:
    """The Parquet files of a directory; names that begin with "_" or "." (markers, temporary files) are no data."""
    files = [info for info in below if info.type == fs.FileType.File]
    hidden = re.compile(r"(^|/)[_.]")
    data = [f for f in files if f.path.endswith(_SUFFIXES) and not hidden.search(f.path[len(base) :].lstrip("/"))]
    if not data:
        seen = f"; it holds {len(files)} other files, such as {files[0].base_name!r}" if files else ""
        raise DataError(f"no Parquet files in directory {place} (looked for *.parquet, at any depth{seen})")
    return data


def _glob(pattern: str) -> Callable[[str], re.Match | None]:
    """``**`` is any number of directories, ``*`` and ``?`` stay within a name."""
    parts = []
    for segment in pattern.rstrip("/").split("/"):
        if segment == "**":
            parts.append("(?:[^/]+/)*")
        else:
            name = translate(segment).removeprefix("(?s:").removesuffix(")\\Z").removesuffix(")\\z")
            parts.append(name.replace(".*", "[^/]*").replace("(?>", "(?:") + "/")
    return re.compile("".join(parts).removesuffix("/") + r"\Z").match


def _hive_root(path: str) -> str:
    folders = path.split("/")[:-1]
    while folders and "=" in folders[-1]:
        folders.pop()
    return "/".join(folders)


def refuse_table_formats(filesystem: fs.FileSystem, prefix: str, folders: Sequence[str]) -> None:
    """Delta, Iceberg and Hudi keep rows that were deleted in their files: reading those as plain Parquet is wrong."""
    roots = {root for folder in folders for root in (folder, folder.removesuffix("/data"))}
    paths = {f"{root}/{marker}": (root, marker) for root in sorted(roots) for marker in _TABLE_FORMATS}
    infos = guarded(lambda: filesystem.get_file_info(list(paths)), "the directory of the files", is_remote(filesystem))
    for info in infos:
        root, marker = paths[info.path]
        if info.type != fs.FileType.Directory or (marker == "metadata" and not _is_iceberg(filesystem, info.path)):
            continue
        name, reader = _TABLE_FORMATS[marker]
        raise DataError(
            f"{shown_path(root, prefix)} is {name} table (it has {marker}): its Parquet files also hold rows that "
            f"were deleted or rewritten. Open it with {reader} and pass that as data."
        )


def _is_iceberg(filesystem: fs.FileSystem, folder: str) -> bool:
    names = [info.base_name for info in filesystem.get_file_info(fs.FileSelector(folder))]
    return any(name.endswith((".metadata.json", ".avro")) or name == "version-hint.text" for name in names)
