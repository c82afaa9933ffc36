"""What bigmm wrote, and may therefore replace.

A directory carries the hidden file ``.bigmm``. It lists the files that were written, each with a digest of its size,
beginning and end. A damaged model can be saved again, because the names in it are nobody else's. So a file which
somebody put beside them or wrote over them is never deleted with them, nor is what lies in a directory to which
somebody copied the mark. In a data set the mark is empty, because polars reads a directory only when all files that are
not empty are of one kind; there the name of each part and the metadata in its footer tell.
Results and models of the versions before 0.4, which have no such file, are told by their names and by what their record
or manifest says. Predictions of these versions look like anybody's Parquet files, and are not replaced.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigmm.version import __version__

if TYPE_CHECKING:
    import pyarrow as pa

MARK = ".bigmm"
#: Keys of the metadata of a Parquet file that bigmm wrote alone, or as a part of a data set.
TABLE_MARK, PART_MARK = b"bigmm", b"bigmm_part"

#: What file managers and NFS leave in any directory.
_LITTER = re.compile(r"\.DS_Store|Thumbs\.db|desktop\.ini|\.nfs[0-9a-f]+|\._\..*")
_PART = re.compile(r"([^/=]+=[^/]*/)*part-\d{5,}\.parquet")
_MODEL = r"(manifest\.json|arrays/.+)"
_MODEL_FILES = re.compile(_MODEL)
_RESULT_FILES = re.compile(
    rf"summary\.txt|fit\.json|coefficients\.parquet|varcorr\.parquet|ranef/[^/]+\.parquet|model/{_MODEL}"
)
#: Keys that together only bigmm's records have: of a fit, a plan, a certificate.
_RECORDS = (
    {"bigmm_version"},
    {"formula", "lanes", "partitions", "solver_reason"},
    {"formula", "objective_fit", "objective_exact", "allowed"},
)
_RECORD_BYTES = 64 << 20
#: Bytes at either end of a file that its digest covers.
_END_BYTES = 1 << 16


def mark_draft(folder: Path) -> None:
    """Say in the mark that the directory is unfinished, or on its way out: all of it may be removed."""
    (folder / MARK).write_bytes(json.dumps({"bigmm": 1, "draft": True}).encode())


def is_draft(folder: Path) -> bool:
    """Whether the mark says so."""
    return _json_object(folder / MARK).get("draft") is True


def write_mark(folder: Path) -> None:
    """List the files of a finished directory in its mark; a directory of numbered parts has an empty one."""
    # Sorted, so that equal results have equal marks.
    names = sorted(name for name in files_below(folder) if name != MARK)
    plain = all(_PART.fullmatch(name) for name in names)
    files = {name: _digest(folder / name) for name in names} if not plain else {}
    (folder / MARK).write_bytes(b"" if plain else json.dumps({"bigmm": 1, "files": files}, indent=1).encode())


def foreign_file(folder: Path) -> str | None:
    """A file in the directory that bigmm did not write, None when there is none: then it may be replaced.

    A directory that bigmm did not write has such a file, unless it is empty. A directory inside that carries a mark of
    its own, such as a model in a directory of results, is judged by that: it may have been replaced since.
    """
    inner: list[str] = []
    names = []
    for name in files_below(folder):
        inside, _, last = name.rpartition("/")
        if last == MARK and inside:
            inner.append(inside)
        elif not _LITTER.fullmatch(last) and name != MARK:
            names.append(name)
    for inside in inner:
        foreign = foreign_file(folder / inside)
        if foreign is not None:
            return f"{inside}/{foreign}"
    names = [name for name in names if not name.startswith(tuple(f"{inside}/" for inside in inner))]
    is_ours = _authorship(folder)
    return next((name for name in names if not is_ours(name)), None)


def _authorship(folder: Path) -> Callable[[str], bool]:
    """Tells of a name in the directory whether bigmm wrote it."""
    place = folder / MARK
    if place.is_file() and not place.is_symlink():
        if place.stat().st_size == 0:
            return lambda name: _PART.fullmatch(name) is not None and is_table(folder / name, PART_MARK)
        listed = _json_object(place).get("files")
        if isinstance(listed, dict):
            return lambda name: (
                name in listed
                and (
                    _MODEL_FILES.fullmatch(name.removeprefix("model/")) is not None
                    or listed[name] == _digest(folder / name)
                )
            )
    if _is_written_record(folder / "fit.json") or _is_manifest(folder / "model" / "manifest.json"):
        return lambda name: _RESULT_FILES.fullmatch(name) is not None
    if _is_manifest(folder / "manifest.json"):
        return lambda name: _MODEL_FILES.fullmatch(name) is not None
    return lambda name: False


def _digest(path: Path) -> str | None:
    """Of a file's size, its beginning and its end; None for a link, and for what cannot be read."""
    try:
        # O_NONBLOCK: opening a pipe that somebody put there would wait for a writer.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with open(handle, "rb") as stream:
        size = os.fstat(handle).st_size
        # Both ends and the size: Parquet's footer and zip's directory lie at the end, and large files cost no more.
        digest = hashlib.sha256(b"%d " % size)
        digest.update(stream.read(_END_BYTES))
        stream.seek(max(size - _END_BYTES, 0))
        digest.update(stream.read(_END_BYTES))
    return digest.hexdigest()[:32]


def files_below(folder: Path) -> Iterator[str]:
    """Relative paths of all files under a directory; a link is a file, whatever it leads to."""
    pending = [""]
    while pending:
        inside = pending.pop()
        with os.scandir(folder / inside) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(f"{inside}{entry.name}/")
                else:
                    yield inside + entry.name


def is_record(path: Path) -> bool:
    """Whether a file is a JSON record that bigmm wrote, or empty."""
    if not path.is_file():
        return False
    return path.stat().st_size == 0 or _is_written_record(path)


def marked_table(table: pa.Table, key: bytes = PART_MARK) -> pa.Table:
    """The table with the metadata by which `is_table` knows its file."""
    return table.replace_schema_metadata({**(table.schema.metadata or {}), key: __version__.encode()})


def is_table(path: Path, key: bytes = TABLE_MARK) -> bool:
    """Whether a file is a Parquet table that bigmm wrote alone (or, by its key, as a part of a data set), or empty."""
    if path.is_symlink() or not path.is_file():
        return False
    if path.stat().st_size == 0:
        return True
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open(path, "rb") as stream:
            return key in (pq.read_metadata(stream).metadata or {})
    except (OSError, pa.ArrowException):
        return False


def _is_written_record(path: Path) -> bool:
    keys = set(_json_object(path))
    return any(required <= keys for required in _RECORDS)


def _is_manifest(path: Path) -> bool:
    body = _json_object(path).get("body") if path.is_file() else None
    return isinstance(body, str) and '"format": "bigmm-fit"' in body


def _json_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file, empty when it is none."""
    try:
        # A file of another program under this name may be of any size.
        if path.stat().st_size > _RECORD_BYTES:
            return {}
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
