"""What bigmm wrote, and may therefore replace.

A directory carries the hidden file ``.bigmm``. It lists the files that were written, so that a file which somebody put
beside them is never deleted with them. In a data set the file is empty, because polars reads a directory only when all
files that are not empty are of one kind; there the names of the parts tell. Results of the versions before 0.4, which
have no such file, are told by their names and by what their record, manifest or columns say.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MARK = ".bigmm"
#: Key of the metadata of a Parquet file that bigmm wrote as a table of its own.
TABLE_MARK = b"bigmm"

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
#: The last columns of predictions, augmented rows and simulated responses.
_WRITTEN_COLUMNS = re.compile(r"prediction|se|se_mcse|\.offset|\.hat_mcse|sim_\d+|\.cooksd|\.sigma")
_RECORD_BYTES = 64 << 20


def write_mark(folder: Path) -> None:
    """List the files of a finished directory in its mark; a directory of numbered parts has an empty one."""
    names = sorted(name for name in files_below(folder) if name != MARK)
    plain = all(_PART.fullmatch(name) for name in names)
    text = "" if plain else json.dumps({"bigmm": 1, "files": names}, indent=1)
    (folder / MARK).write_bytes(text.encode())


def foreign_file(folder: Path) -> str | None:
    """A file in the directory that bigmm did not write, None when there is none: then it may be replaced.

    A directory that bigmm did not write has such a file, unless it is empty.
    """
    names = [name for name in files_below(folder) if not _LITTER.fullmatch(name.rpartition("/")[2])]
    known = _known(folder, names)
    return next((name for name in names if name != MARK and not known(name)), None)


def _known(folder: Path, names: list[str]) -> Any:
    """Tells of a name in the directory whether bigmm wrote it."""
    place = folder / MARK
    if place.is_file() and not place.is_symlink():
        if place.stat().st_size == 0:
            return _PART.fullmatch
        listed = _json_object(place).get("files")
        if isinstance(listed, list):
            return {name for name in listed if isinstance(name, str)}.__contains__
    if _is_written_record(folder / "fit.json") or _is_manifest(folder / "model" / "manifest.json"):
        return _RESULT_FILES.fullmatch
    if _is_manifest(folder / "manifest.json"):
        return _MODEL_FILES.fullmatch
    if names and "/" not in names[0] and _PART.fullmatch(names[0]) and _are_predictions(folder / names[0]):
        return _PART.fullmatch
    return lambda name: False


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


def is_table(path: Path) -> bool:
    """Whether a file is a Parquet table that bigmm wrote as one file, or empty."""
    if not path.is_file():
        return False
    if path.stat().st_size == 0:
        return True
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open(path, "rb") as stream:
            return TABLE_MARK in (pq.read_metadata(stream).metadata or {})
    except (OSError, pa.ArrowException):
        return False


def _is_written_record(path: Path) -> bool:
    keys = set(_json_object(path))
    return any(required <= keys for required in _RECORDS)


def _is_manifest(path: Path) -> bool:
    body = _json_object(path).get("body") if path.is_file() else None
    return isinstance(body, str) and '"format": "bigmm-fit"' in body


def _are_predictions(path: Path) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open(path, "rb") as stream:
            names = pq.read_schema(stream).names
    except (OSError, pa.ArrowException):
        return False
    return bool(names) and _WRITTEN_COLUMNS.fullmatch(names[-1]) is not None


def _json_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file, empty when it is none."""
    try:
        if path.stat().st_size > _RECORD_BYTES:
            return {}
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
