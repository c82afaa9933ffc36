"""An output never is, holds or lies in what a run reads: data, or a saved model.

Paths are compared as the file system sees them, by device and inode, so that links, ``file://``, ``~`` and a directory
mounted a second time make no difference; what does not exist yet is compared by its resolved path.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from bigmm.atomic.places import is_url, local_path, resolved, without_secrets
from bigmm.errors import UsageError

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
    if hasattr(data, "partitions") and hasattr(data, "read"):  # a Source
        system = getattr(getattr(data, "reader", None), "filesystem", None)
        prints = (getattr(partition, "fingerprint", None) for partition in data.partitions)
        paths = [path for each in prints if (path := getattr(each, "path", ""))]
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
    target = resolved(local_path(out))
    lineage = [_identity(path) for path in (target, *target.parents)]
    for given in inputs:
        for place in _places(given, target):
            _check_one(out, target, lineage, given, place, option)


def _check_one(
    out: str | os.PathLike[str], target: Path, lineage: list[Identity], given: str, place: Path, option: str
) -> None:
    shown = f"{option} {os.fspath(out)}", f"the data {without_secrets(given)}"
    real = resolved(place)
    if lineage[0] in {_identity(path) for path in (real, *real.parents)}:
        raise UsageError(f"{shown[0]} holds {shown[1]}: results would replace them; choose another place")
    if real.is_dir() and any(identity in set(lineage) for identity in _directories(real)):
        raise UsageError(f"{shown[0]} is inside {shown[1]}: the next run would read it; choose another place")
    for link in _links(real):
        if link == target or target in link.parents or link in target.parents:
            raise UsageError(f"{shown[0]} is where a link in {shown[1]} leads; choose another place")


def _places(given: str, target: Path) -> Iterator[Path]:
    """The paths that an input stands for: itself, or what a glob matches; an output that it would match is refused."""
    path = local_path(given, "read")
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
        raise UsageError(f"{target} holds the data {given}: results would replace them; choose another place")
    if target.is_relative_to(base) and _would_match(target.relative_to(base).parts, path.relative_to(fixed).parts):
        raise UsageError(f"{target} is inside the data {given}: the next run would read it; choose another place")


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
        found = os.stat(path)
    except OSError:
        return path
    return found.st_dev, found.st_ino


def _directories(root: Path) -> Iterator[Identity]:
    yield _identity(root)
    for folder, names, _ in os.walk(root):
        for name in names:
            yield _identity(Path(folder, name))


def _links(root: Path) -> Iterator[Path]:
    """Where links in a directory of data lead."""
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            if os.path.islink(path):
                yield Path(os.path.realpath(path))
