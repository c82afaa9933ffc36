"""An output never is, holds or lies in what a run reads: data, or a saved model.

Paths are compared as the file system sees them, by device and inode, so that links, ``file://``, ``~`` and a directory
mounted a second time make no difference; what does not exist yet is compared by its resolved path.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from bigmm.atomic.places import is_url, local_path, resolved
from bigmm.errors import UsageError
from bigmm.urls import shown_url

_WILD = re.compile(r"[*?\[]")
Identity = tuple[int, int] | Path


def local_inputs(data: Any) -> list[str]:
    """The places on this machine behind data: paths and globs as given, files of a dataset, a source or a Dask frame.

    A table in memory and a URL of an object store have none.
    """
    if isinstance(data, (str, os.PathLike)):
        return [] if is_url(data) else [os.fsdecode(data)]
    if isinstance(data, (list, tuple)):
        return [place for item in data if isinstance(item, (str, os.PathLike)) for place in local_inputs(item)]
    # By attributes: this room is below `source` in the layers and may not import it.
    if hasattr(data, "partitions") and hasattr(data, "read"):  # a Source
        system = getattr(getattr(data, "reader", None), "filesystem", None)
        prints = (getattr(partition, "fingerprint", None) for partition in data.partitions)
        paths = [path for mark in prints if (path := getattr(mark, "path", ""))]
        files = local_files(path for path in paths if system is None) or _on_this_machine(system, paths)
        described = str(getattr(data, "description", ""))  # the directory or glob that a user gave
        if described == "pyarrow dataset":
            return _with_root(files)
        return [described, *files] if files and described and not is_url(described) else files
    if hasattr(data, "children") and hasattr(data, "schema"):  # a union of pyarrow datasets
        return [place for child in data.children for place in local_inputs(child)]
    if hasattr(data, "filesystem") and hasattr(data, "files"):  # a pyarrow dataset
        return _with_root(_on_this_machine(data.filesystem, data.files))
    if hasattr(data, "expr") and hasattr(data, "map_partitions"):  # a Dask frame that reads Parquet
        reads = (node.operand("path") for node in data.expr.walk() if "path" in getattr(node, "_parameters", ()))
        return [place for path in reads for place in local_inputs(path)]
    return []


def _on_this_machine(system: Any, paths: Iterable[str]) -> list[str]:
    """Absolute paths of those files of a file system, pyarrow's or fsspec's, that is a part of this machine's."""
    base = ""
    while system is not None:
        name = type(system).__name__
        if name == "LocalFileSystem":
            return [os.path.abspath(os.path.join(base, path.lstrip("/") if base else path)) for path in paths]
        if name == "SubTreeFileSystem":
            base, system = os.path.join(system.base_path, base.lstrip("/")), system.base_fs
        elif name == "PyFileSystem":
            system = getattr(system.handler, "fs", None)
        elif name == "DirFileSystem":
            base, system = os.path.join(system.path, base.lstrip("/")), system.fs
        else:
            break
    return []


def _with_root(files: list[str]) -> list[str]:
    """The files of a dataset, and the directory that was read if they are all that is in it."""
    if len(files) < 2:
        return files
    root = os.path.commonpath([os.path.dirname(file) for file in files])
    there = 0
    for _, folders, names in os.walk(root):
        # In place, which is how os.walk is told to leave folders out.
        folders[:] = [name for name in folders if not name.startswith((".", "_"))]
        there += sum(not name.startswith((".", "_")) for name in names)
        if there > len(files):
            return files
    return [root, *files]


def local_files(paths: Iterable[str]) -> list[str]:
    """Of the paths that fingerprints name, those that are files on this machine."""
    return [path for path in dict.fromkeys(paths) if os.path.isabs(path) and os.path.isfile(path)]


def check_apart(out: str | os.PathLike[str], inputs: Iterable[str], *, option: str = "out") -> None:
    """Refuse an output that is, holds or lies in one of the inputs (UsageError that names both)."""
    target, identity = (
        resolved(local_path(out)),
        cache(_identity),
    )  # the files of a lake have few directories above them
    for data in inputs:
        for place in _places(data, target):
            _check_one(out, target, data, place, option, identity)


def _check_one(
    out: str | os.PathLike[str],
    target: Path,
    data: str,
    place: Path,
    option: str,
    identity: Callable[[Path], Identity],
) -> None:
    shown = f"{option} {os.fspath(out)}", f"the data {shown_url(data)}"
    real = resolved(place)
    # The data lie in the target if the target is among the folders above them.
    if identity(target) in {identity(path) for path in (real, *real.parents)}:
        raise UsageError(f"{shown[0]} holds {shown[1]}: results would replace them; choose another place")
    directories, links = _below(real)
    lineage = {identity(path) for path in (target, *target.parents)}
    if any(_identity(path) in lineage for path in directories):
        raise UsageError(f"{shown[0]} is inside {shown[1]}: the next run would read it; choose another place")
    for link in map(resolved, links):
        if link == target or target in link.parents or link in target.parents:
            raise UsageError(f"{shown[0]} is where a link in {shown[1]} leads; choose another place")


def _places(data: str, target: Path) -> Iterator[Path]:
    """The paths that an input stands for: itself, or what a glob matches; an output that it would match is refused."""
    path = local_path(data, "read")
    if path.exists() or not _WILD.search(os.fspath(path)):
        yield path
        return
    for match in glob.iglob(os.fspath(path), recursive=True, include_hidden=True):
        yield Path(match)
    fixed = path
    while _WILD.search(os.fspath(fixed)):
        fixed = fixed.parent
    base = resolved(fixed)
    if target == base:
        raise UsageError(f"{target} holds the data {data}: results would replace them; choose another place")
    if target.is_relative_to(base) and _would_match(target.relative_to(base).parts, path.relative_to(fixed).parts):
        raise UsageError(f"{target} is inside the data {data}: the next run would read it; choose another place")


def _would_match(names: tuple[str, ...], patterns: tuple[str, ...]) -> bool:
    """Whether a glob matches the place itself, something above it or something that could lie in it."""
    for name, pattern in zip(names, patterns, strict=False):
        if pattern == "**":
            return True
        if not fnmatchcase(name, pattern):
            return False
    return True


def _identity(path: Path) -> Identity:
    try:
        status = os.stat(path)
    except OSError:
        return path
    return status.st_dev, status.st_ino


def _below(root: Path) -> tuple[list[Path], list[Path]]:
    """Directories from the root on down, links to directories among them, and all links; of a file there are none.

    What cannot be listed is passed by: the reading of the data says so.
    """
    directories: list[Path] = []
    links: list[Path] = []
    pending = [root] if root.is_dir() else []
    while pending:
        folder = pending.pop()
        directories.append(folder)
        try:
            with os.scandir(folder) as entries:
                inside = list(entries)
        except OSError:
            continue
        for entry in inside:
            if entry.is_symlink():
                links.append(Path(entry.path))
                directories += [Path(entry.path)] if os.path.isdir(entry.path) else []
            elif entry.is_dir(follow_symlinks=False):
                pending.append(Path(entry.path))
    return directories, links
