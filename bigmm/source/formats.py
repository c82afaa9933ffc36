"""Tables of Delta Lake, Iceberg and Hudi: their Parquet files also hold rows that were deleted or rewritten."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from typing import NoReturn

from pyarrow import fs

from bigmm.errors import DataError
from bigmm.source.faults import guarded
from bigmm.source.listing import entries_below
from bigmm.source.names import Pattern

DELTA, HUDI, ICEBERG = "_delta_log", ".hoodie", "metadata"

#: A folder that holds one of these is a table of another format: its name, and how to open it.
_READERS = {
    DELTA: ("a Delta Lake", "deltalake.DeltaTable(path).to_pyarrow_dataset()"),
    ICEBERG: ("an Iceberg", "pyiceberg: table.scan().to_arrow()"),
    HUDI: ("a Hudi", "the reader of Apache Hudi"),
}
_ICEBERG_FILE = re.compile(r"(\.metadata\.json(\.gz)?|\.avro)$|^version-hint\.text$")


Markers = Callable[[str], list[str]]
"""Folder -> names of the markers that lie in it."""


def markers_of(filesystem: fs.FileSystem) -> Markers:
    """Looks into each folder once: the files of a long list have few folders above them, and a look is a request."""
    return cache(partial(_markers, filesystem))


def refuse_tables_above(filesystem: fs.FileSystem, base: str, markers: Markers, show: Callable[[str], str]) -> None:
    """Raise `DataError` when ``base`` is, or lies in, a table of another format.

    Iceberg's marker is a folder with a common name, so its files have to lie in ``base``, or in ``data`` beside it.
    """
    for folder, marker in _tables_above(filesystem, base, markers):
        refuse(folder, marker, show)


def _tables_above(filesystem: fs.FileSystem, base: str, markers: Markers) -> Iterator[tuple[str, str]]:
    for folder, child in _ancestors(base):
        for marker in markers(folder):
            # "metadata" is a common name of folders: only Iceberg's own files in it make a table.
            if marker != ICEBERG or (child in ("", "data") and _is_iceberg(filesystem, f"{folder}/{marker}")):
                yield folder, marker


def refuse_whole_folders(filesystem: fs.FileSystem, files: Sequence[str], show: Callable[[str], str]) -> None:
    """Raise `DataError` when the files of a dataset are all that a folder within a table of another format holds.

    Such a dataset comes from listing the folder. A dataset that leaves files of the folder out comes from somebody who
    has read the table's log. The dataset of `deltalake.DeltaTable.to_pyarrow_dataset()` has paths below the table's
    root on a file system of its own, where no marker is seen.
    """
    markers = markers_of(filesystem)
    folders = sorted({path.rpartition("/")[0] for path in files})
    for root, marker in dict.fromkeys(t for folder in folders for t in _tables_above(filesystem, folder, markers)):
        inside = [path for path in files if path.startswith(f"{root}/")]
        if not _leaves_out(filesystem, inside):
            refuse(root, marker, show)


def _leaves_out(filesystem: fs.FileSystem, files: Sequence[str]) -> bool:
    """Whether the deepest folder that all the files lie in holds another Parquet file."""
    # The deepest common folder is what a listing would have begun at.
    base = os.path.commonpath([path.rpartition("/")[0] for path in files])
    listed = {entry.path for entry in entries_below(filesystem, base, Pattern(), base) if not entry.folder}
    others = [path[len(base) :].strip("/").split("/") for path in listed.difference(files)]
    return any(parts[-1].endswith(".parquet") and Pattern().takes(parts) for parts in others)


def refuse_tables_below(
    filesystem: fs.FileSystem, base: str, paths: Iterable[str], files: Sequence[str], show: Callable[[str], str]
) -> None:
    """Raise `DataError` when one of the files lies in a table of another format whose root is below ``base``.

    `paths` are those of all folders and files below ``base``; `files` are those of the data.
    """
    roots: dict[tuple[str, str], None] = {}
    for path in paths:
        parts = path[len(base) :].strip("/").split("/")
        roots |= {("/".join([base.rstrip("/"), *parts[:i]]), p): None for i, p in enumerate(parts) if p in _READERS}
    for root, marker in sorted(roots):
        if not any(path.startswith(root.rstrip("/") + "/") for path in files):
            continue
        if marker != ICEBERG or _is_iceberg(filesystem, f"{root}/{marker}"):
            refuse(root, marker, show)


def refuse(root: str, marker: str, show: Callable[[str], str]) -> NoReturn:
    """Raise `DataError` with the call that reads the table right."""
    name, reader = _READERS[marker]
    raise DataError(
        f"{show(root)} is {name} table (it has {marker}): its Parquet files also hold rows that were deleted or "
        f"rewritten. Open it with {reader} and pass that as data."
    )


def _ancestors(base: str) -> Iterator[tuple[str, str]]:
    """(folder, name of the child on the way to ``base``) from ``base`` itself up to the root, or to the host of a URL;
    hive folders count as none, because they belong to the folder above them."""
    scheme, mark, path = base.rstrip("/").rpartition("://")
    parts, child = path.split("/"), ""
    while parts:
        yield scheme + mark + "/".join(parts), child
        last = parts.pop()
        # A partition folder year=2020 lies in the table as its files do.
        child = child if "=" in last else last


def _markers(filesystem: fs.FileSystem, folder: str) -> list[str]:
    if isinstance(filesystem, fs.LocalFileSystem):
        return [marker for marker in _READERS if os.path.isdir(f"{folder}/{marker}")]
    if not folder:
        return []
    paths = [f"{folder}/{marker}" for marker in _READERS]
    try:
        # One request for all markers of a folder.
        infos = guarded(lambda: filesystem.get_file_info(paths), folder, True)
    except DataError:  # a folder above the data that may not be looked at is no reason to refuse them
        return []
    return [m for m, info in zip(_READERS, infos, strict=True) if info.type == fs.FileType.Directory]


def _is_iceberg(filesystem: fs.FileSystem, folder: str) -> bool:
    try:
        infos = guarded(lambda: filesystem.get_file_info(fs.FileSelector(folder)), folder, False)
    except DataError:
        return False
    return any(_ICEBERG_FILE.search(info.base_name) for info in infos)
