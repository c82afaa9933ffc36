"""Footers of Parquet files: what there is to read, without reading it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bigmm.errors import DataError
from bigmm.source.faults import guarded
from bigmm.source.hive import Keys, hive_keys
from bigmm.source.listing import Entry
from bigmm.source.locations import Location
from bigmm.source.pages import counted_values, has_checksum
from bigmm.source.schema import holds_text, row_bytes

_FOOTER_THREADS = {False: 4, True: 16}

#: The end of a file that is read in one piece; nearly every footer lies in it.
_TAIL_BYTES = 1 << 16

#: A row group that claims more rows than this, and more than so many for each stored byte, has its pages counted.
_MANY_ROWS, _ROWS_PER_BYTE = 1 << 16, 4

#: Of remote files only so many are looked at for page checksums, because each look is a request.
_REMOTE_LOOKS = 8

#: First bytes of files that are not (whole) Parquet, and what they are.
_MAGIC = (
    (b"PAR1", "it begins like Parquet but its end is missing: the file is truncated"),
    (b"PARE", "it is encrypted Parquet, which bigmm does not read"),
    (b"ARROW1", "it is an Arrow/Feather file; read it with pyarrow and pass the table"),
    (b"\x1f\x8b", "it is gzip-compressed"),
    (b"PK\x03\x04", "it is a zip archive (a spreadsheet?)"),
    (b"ORC", "it is an ORC file"),
)
_ENDS = {b"PAR1", b"PARE"}
LARGE_TEXT = 1 << 20
"""Chunks of text up to so many bytes need no thought."""
INT96 = {"coerce_int96_timestamp_unit": "us"}  # nanoseconds end in 2262, and Spark writes 9999-12-31


@dataclass(frozen=True, slots=True)
class Footer:
    """What the footer of one file says, and the values of columns that the file does not hold itself.

    Attributes
    ----------
    digest : str
        Of the footer's bytes.
    rows, nbytes : tuple of int
        Rows and decoded bytes of each row group (`schema.row_bytes`).
    keys : tuple of (str, value)
        Columns that the names of folders, or a dataset, give.
    checksums : tuple of two int
        Number of row groups with page checksums, and number of those that were looked at.
    pandas : mapping of str to (int, bool)
        Number of categories of columns that were pandas categories, and whether they have an order.
    text : mapping of str to int
        Bytes of the largest chunk of each column of text whose chunks are large.
    """

    path: str
    size: int
    stamp: str
    digest: str
    schema: pa.Schema
    rows: tuple[int, ...]
    nbytes: tuple[int, ...]
    keys: Keys
    checksums: tuple[int, int]
    pandas: Mapping[str, tuple[int, bool]]
    text: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of a file: its footer, parsed; ``content`` are the bytes it was parsed from."""

    metadata: pq.FileMetaData
    digest: str
    content: bytes

    @property
    def encrypted(self) -> bool:
        """Whether columns are encrypted: the footer then carries a signature behind its own bytes.

        pyarrow ends the whole process when such a column chunk is asked for its sizes, so it must not be asked.
        """
        # The last 8 bytes are the length and the magic.
        return self.metadata.serialized_size != len(self.content) - 8

    def readable(self) -> pq.FileMetaData:
        """The footer, without Arrow's own notes on types where Arrow cannot read these."""
        try:
            self.metadata.schema.to_arrow_schema()
        except (pa.ArrowException, OSError):
            return self.without_arrow_schema()
        return self.metadata

    def without_arrow_schema(self) -> pq.FileMetaData:
        """The footer without Arrow's own notes on types, which can name types that Arrow cannot read."""
        return _parsed(_nameless(self.content))


class NotParquet(ValueError):
    """The end of a file is no Parquet footer."""


def read_tail(stream: Any, size: int) -> Tail:
    """Read and parse a footer, in one request unless it is very large. Raises `NotParquet` or an Arrow error."""
    count = min(size, _TAIL_BYTES)
    content = stream.read_at(count, size - count)
    # 12 bytes: two magics and the length, the least that a file can have.
    if len(content) < 12 or content[-4:] != b"PAR1":
        raise NotParquet(f"its last bytes are {content[-4:]!r}, not b'PAR1'")
    length = int.from_bytes(content[-8:-4], "little") + 8
    if length > size - 4:
        raise NotParquet(f"its footer claims {length:,} bytes of {size:,}")
    if length > count:
        content = stream.read_at(length, size - length)
    content = content[-length:]
    digest = hashlib.blake2b(content, digest_size=8).hexdigest()
    try:
        return Tail(_parsed(content), digest, content)
    except pa.ArrowException:
        return Tail(_parsed(_nameless(content)), digest, content)


def _nameless(content: bytes) -> bytes:
    """The footer with Arrow's notes under a name of the same length that nobody looks for."""
    # The same length, because every structure behind the name has its place in the bytes.
    return content.replace(b"ARROW:schema", b"-----:schema")


def _parsed(content: bytes) -> pq.FileMetaData:
    # A footer between two magics is a whole Parquet file to Arrow, so the file is not read a second time.
    return pq.read_metadata(pa.BufferReader(b"PAR1" + content))


def read_footers(location: Location, keys: Mapping[str, Keys] | None = None) -> tuple[Footer, ...]:
    """Footers in the order of files, read by a few threads. keys: by path, instead of the hive keys of folders.

    Raises `DataError` naming the file.
    """
    looks = set(location.files)
    if location.remote:
        # Evenly spread over the files, and the same ones on every run.
        looks = set(location.files[:: max(1, len(location.files) // _REMOTE_LOOKS)])

    def one(entry: Entry) -> Footer:
        file_keys = hive_keys(entry.path) if keys is None else keys[entry.path]
        return _read_footer(location, entry, file_keys, entry in looks)

    if len(location.files) == 1:
        return (one(location.files[0]),)
    with ThreadPoolExecutor(_FOOTER_THREADS[location.remote]) as pool:
        return tuple(pool.map(one, location.files))


def _read_footer(location: Location, entry: Entry, keys: Keys, look: bool) -> Footer:
    where = location.shown(entry.path)
    if entry.size == 0:
        raise DataError(f"{where} is empty (0 bytes): not a Parquet file. Remove it, or write it again.")

    def action() -> Footer:
        with location.filesystem.open_input_file(entry.path) as stream:
            try:
                tail = read_tail(stream, entry.size)
                schema = open_schema(stream, tail)
            except (pa.ArrowException, NotParquet) as error:
                reason = _diagnosis(stream, error)
                raise DataError(f"{where} is not a readable Parquet file: {reason}") from error
            rows, sizes = _row_groups(tail.metadata, where)
            if not tail.encrypted:
                _refuse_false_rows(stream, tail.metadata, rows, where)
            checksums = _checksums(stream, tail.metadata, location.remote) if look and not tail.encrypted else (0, 0)
        # The footer counts encoded bytes, of which a constant column has nearly none. Memory holds decoded ones.
        width = row_bytes(schema) + 8 * len(keys)
        nbytes = tuple(max(size, count * width) for size, count in zip(sizes, rows, strict=True))
        plain = schema.remove_metadata()
        size, stamp = entry.size, entry.stamp
        text = {} if tail.encrypted else _large_text(tail.metadata, schema)
        return Footer(
            entry.path, size, stamp, tail.digest, plain, rows, nbytes, keys, checksums, pandas_categories(schema), text
        )

    return guarded(action, where, location.remote)


def open_schema(stream: Any, tail: Tail) -> pa.Schema:
    """The Arrow schema of a file, timestamps of Spark to the microsecond."""
    return pq.ParquetFile(stream, metadata=tail.readable(), pre_buffer=False, **INT96).schema_arrow


def _row_groups(metadata: pq.FileMetaData, where: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Rows and uncompressed bytes of each row group, as the footer claims."""
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    rows, sizes = tuple(g.num_rows for g in groups), tuple(g.total_byte_size for g in groups)
    if min(rows, default=0) < 0 or sum(rows) != metadata.num_rows:
        raise DataError(
            f"{where} is damaged: its footer claims {metadata.num_rows:,} rows, its row groups {sum(rows):,}. "
            "Write the file again from its origin."
        )
    return rows, sizes


def _large_text(metadata: pq.FileMetaData, schema: pa.Schema) -> dict[str, int]:
    """Bytes of the largest chunk of each column of text, as the footer claims, where that is large. Rows tell the size
    of other columns."""
    columns = {metadata.schema.column(i).path: i for i in range(len(metadata.schema))}
    text_columns = [
        (field.name, columns[field.name]) for field in schema if holds_text(field.type) and field.name in columns
    ]
    largest: dict[str, int] = {}
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        if group.total_byte_size > LARGE_TEXT:
            for name, column in text_columns:
                nbytes = group.column(column).total_uncompressed_size
                if nbytes > max(LARGE_TEXT, largest.get(name, 0)):
                    largest[name] = nbytes
    return largest


def _refuse_false_rows(stream: Any, metadata: pq.FileMetaData, rows: Sequence[int], where: str) -> None:
    """A row group with very many rows for its bytes must have them in its pages too: constants are well compressed, but
    a footer can also lie, and columns that come from folders would be made of as many rows as it claims."""
    for number, count in enumerate(rows):
        if count < _MANY_ROWS:
            continue
        flat = _flat_columns(metadata, number)
        if not flat or count <= _ROWS_PER_BYTE * sum(column.total_compressed_size for column in flat):
            continue
        # All flat columns have one value per row, so the cheapest one to walk answers for all.
        smallest = min(flat, key=lambda column: column.total_compressed_size)
        try:
            counted = counted_values(stream.read_at, smallest)
        except ValueError as error:
            raise DataError(f"{where}, row group {number} is damaged: {error}") from error
        if counted != count:
            raise DataError(
                f"{where} is damaged: row group {number} claims {count:,} rows, but its pages hold {counted:,} values "
                f"of column {smallest.path_in_schema!r}. Write the file again from its origin."
            )


def _flat_columns(metadata: pq.FileMetaData, group: int) -> list[pq.ColumnChunkMetaData]:
    """Column chunks with one value per row."""
    columns = range(metadata.num_columns)
    flat = [number for number in columns if metadata.schema.column(number).max_repetition_level == 0]
    return [metadata.row_group(group).column(number) for number in flat]


def _checksums(stream: Any, metadata: pq.FileMetaData, remote: bool) -> tuple[int, int]:
    """(row groups whose first page has a checksum, row groups looked at): of remote files the first one only."""
    have = looked = 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        # An empty row group has no page to look at.
        if not group.num_rows or (remote and looked):
            continue
        try:
            have += has_checksum(stream.read_at, group.column(0))
            looked += 1
        except (ValueError, IndexError, pa.ArrowException, OSError):
            continue
    return have, looked


def pandas_categories(schema: pa.Schema) -> dict[str, tuple[int, bool]]:
    """{column: (number of categories, whether they are ordered)} of the categoricals that pandas noted in a schema."""
    try:
        # The notes are JSON of any writer, so nothing about their shape is certain.
        noted = (schema.pandas_metadata or {}).get("columns", ())
        entries = {entry.get("field_name") or entry.get("name"): entry for entry in noted}
        return {
            name: (int(entry["metadata"]["num_categories"]), bool(entry["metadata"]["ordered"]))
            for name, entry in entries.items()
            if entry.get("pandas_type") == "categorical" and entry.get("metadata")
        }
    except (ValueError, TypeError, KeyError, AttributeError):  # notes of another program
        return {}


def _diagnosis(stream: Any, error: Exception) -> str:
    size = stream.size()
    head, end = stream.read_at(min(64, size), 0), stream.read_at(4, size - 4) if size > 4 else b""
    if end == b"PARE":
        return _MAGIC[1][1]
    for magic, meaning in _MAGIC:
        if head.startswith(magic) and not (magic in _ENDS and end == magic):
            return f"{meaning} ({error})"
    if head.isascii() and not re.search(rb"[\x00-\x08\x0e-\x1f]", head):
        start = head.decode().splitlines()[0][:40] if head.strip() else ""
        return (
            f"it is text that begins with {start!r}. bigmm reads Parquet only: convert it (pyarrow.csv, pandas, "
            "duckdb), or take it out of the directory"
        )
    return str(error)
