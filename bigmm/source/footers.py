"""Footers of Parquet files: what there is to read, without reading it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from bigmm.errors import DataError
from bigmm.source.faults import guarded
from bigmm.source.locations import Location

_FOOTER_THREADS = {False: 4, True: 16}
_NULL_KEY = "__HIVE_DEFAULT_PARTITION__"

#: First bytes of files that are not (whole) Parquet, and what they are.
_MAGIC = (
    (b"PAR1", "it begins like Parquet but its end is missing: the file is truncated"),
    (b"PARE", "it is encrypted Parquet, which bigmm does not read"),
    (b"ARROW1", "it is an Arrow/Feather file; read it with pyarrow and pass the table"),
    (b"\x1f\x8b", "it is gzip-compressed"),
    (b"PK\x03\x04", "it is a zip archive (a spreadsheet?)"),
    (b"ORC", "it is an ORC file"),
)


@dataclass(frozen=True, slots=True)
class Footer:
    """One file: rows and uncompressed bytes of each row group; ``keys`` are the hive keys of its directories."""

    path: str
    size: int
    stamp: str
    schema: pa.Schema
    rows: tuple[int, ...]
    nbytes: tuple[int, ...]
    keys: tuple[tuple[str, str | None], ...]


def stamp_of(info: fs.FileInfo) -> str:
    """Modification time in nanoseconds as text, "" when the filesystem does not tell."""
    return "" if info.mtime_ns is None else str(info.mtime_ns)


def read_footers(location: Location) -> tuple[Footer, ...]:
    """Footers in the order of files, read by a few threads. Raises `DataError` naming the file."""
    if len(location.files) == 1:
        return (_read_footer(location, location.files[0]),)
    with ThreadPoolExecutor(_FOOTER_THREADS[location.remote]) as pool:
        return tuple(pool.map(lambda info: _read_footer(location, info), location.files))


def _read_footer(location: Location, info: fs.FileInfo) -> Footer:
    where = location.shown(info.path)
    if info.size == 0:
        raise DataError(f"{where} is empty (0 bytes): not a Parquet file")

    def action() -> tuple[pq.FileMetaData, pa.Schema]:
        try:
            with location.filesystem.open_input_file(info.path) as stream:
                file = pq.ParquetFile(stream, pre_buffer=False)
                return file.metadata, file.schema_arrow
        except pa.ArrowInvalid as error:
            reason = _diagnosis(location, info.path, error)
            raise DataError(f"{where} is not a readable Parquet file: {reason}") from error

    metadata, schema = guarded(action, where, location.remote)
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    rows, nbytes = tuple(g.num_rows for g in groups), tuple(g.total_byte_size for g in groups)
    return Footer(info.path, info.size, stamp_of(info), schema.remove_metadata(), rows, nbytes, hive_keys(info.path))


def _diagnosis(location: Location, path: str, error: Exception) -> str:
    with location.filesystem.open_input_file(path) as stream:
        head = stream.read(64)
    for magic, meaning in _MAGIC:
        if head.startswith(magic):
            return f"{meaning} ({error})"
    if head.isascii() and not re.search(rb"[\x00-\x08\x0e-\x1f]", head):
        start = head.decode().splitlines()[0][:40]
        return (
            f"it is text that begins with {start!r}. bigmm reads Parquet only: convert it (pyarrow.csv, pandas, duckdb)"
        )
    return str(error)


def hive_keys(path: str) -> tuple[tuple[str, str | None], ...]:
    """(key, value) of the run of ``key=value`` directories right above the file; value None for hive's null."""
    keys: list[tuple[str, str | None]] = []
    for folder in reversed(path.split("/")[:-1]):
        key, equals, value = folder.partition("=")
        if not (key and equals):
            break
        keys.append((unquote(key), None if value == _NULL_KEY else unquote(value)))
    return tuple(reversed(keys))


def with_hive_columns(footers: Sequence[Footer]) -> list[pa.Schema]:
    """Every file's schema with its hive keys as columns: int64 if all values of a key are integers, else text.

    A column that the file itself has wins over a key of the same name.
    """
    values: dict[str, set[str]] = {}
    for footer in footers:
        for key, value in footer.keys:
            values.setdefault(key, set()).update({value} if value is not None else set())
    types = {key: pa.int64() if all(map(_is_int64, seen)) and seen else pa.string() for key, seen in values.items()}
    schemas = []
    for footer in footers:
        own = set(footer.schema.names)
        fields = [pa.field(key, types[key]) for key, _ in footer.keys if key not in own]
        schemas.append(pa.schema([*footer.schema, *fields]) if fields else footer.schema)
    return schemas


def _is_int64(text: str) -> bool:
    return re.fullmatch(r"-?[0-9]{1,19}", text) is not None and -(2**63) <= int(text) < 2**63
