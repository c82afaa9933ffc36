"""Rows of one Parquet file: opening it as its footer asks for, whole row groups, and parts of large ones in order."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from bigmm.errors import DataError
from bigmm.source.footers import INT96, NotParquet, read_tail
from bigmm.source.locations import shown_path
from bigmm.source.partition import Fingerprint
from bigmm.source.schema import holds_text

#: Local files are read in pieces that stay in the cache until they are decompressed: a tenth faster than in one piece.
_BUFFER_BYTES = 1 << 18

#: Rows that are decoded at a time when a row group is read in parts.
BATCH_ROWS = 1 << 16

#: Encodings of text whose dictionaries Arrow can hand over as they are stored.
_DICTIONARIES = {"PLAIN", "PLAIN_DICTIONARY", "RLE_DICTIONARY", "RLE", "BIT_PACKED"}


@dataclass(frozen=True, slots=True)
class FileReader:
    """Opens one file of a lake, suspiciously."""

    filesystem: fs.FileSystem
    remote: bool
    prefix: str

    def groups(self, mark: Fingerprint, names: Sequence[str], text: Sequence[str]) -> pa.Table:
        """The named columns of whole row groups; an Arrow error when another number of rows is there."""
        with self.filesystem.open_input_file(mark.path) as stream:
            file, stored = self.opened(stream, mark, names, text)
            table = file.read_row_groups(list(mark.row_groups), columns=stored, use_threads=False)
        # A damaged page may end early and leave fewer rows without an error of Arrow's.
        if stored and table.num_rows != mark.rows:
            raise pa.ArrowInvalid(f"its footer claims {mark.rows:,} rows but its pages hold {table.num_rows:,}")
        return checked(table)

    def batches(
        self, stream: Any, mark: Fingerprint, names: Sequence[str], text: Sequence[str], size: int
    ) -> Iterator[pa.Table]:
        """The named columns of the row groups, from their first row on, in small tables of at most ``size`` rows."""
        file, stored = self.opened(stream, mark, names, text)
        for batch in file.iter_batches(size, row_groups=list(mark.row_groups), columns=stored, use_threads=False):
            yield checked(pa.Table.from_batches([batch]))

    def opened(
        self, stream: Any, mark: Fingerprint, names: Sequence[str], text: Sequence[str]
    ) -> tuple[pq.ParquetFile, list[str]]:
        """The file and those of the named columns that it holds; ``text``: columns wanted as dictionaries.

        Raises `DataError` when its footer is not the one that was planned with.
        """
        try:
            tail = read_tail(stream, stream.size())
        except NotParquet as error:
            raise pa.ArrowInvalid(str(error)) from error
        if tail.digest != mark.digest:
            raise DataError(
                f"{shown_path(mark.path, self.prefix)} changed during the fit: its footer is another one. Fit again on "
                "files that stay as they are."
            )
        options = INT96 | {
            # Remote reads are joined into few requests. A local disk needs no such copy.
            "pre_buffer": self.remote,
            "buffer_size": 0 if self.remote else _BUFFER_BYTES,
            # Checksums that are there are verified; files without them are named in the summary.
            "page_checksum_verification": True,
        }
        metadata = tail.readable()
        schema = metadata.schema.to_arrow_schema()
        stored = [name for name in names if name in schema.names]
        written = set() if tail.encrypted else {n for n in stored if holds_text(schema.field(n).type)}
        # Encrypted chunks are not asked: pyarrow would end the process (`Tail.encrypted`).
        broken = _not_dictionaries(metadata, mark.row_groups, written)
        if any(pa.types.is_dictionary(field.type) and field.name in broken for field in schema):
            metadata = tail.without_arrow_schema()  # it asks for dictionaries, which Arrow cannot make of these pages
        as_dictionary = [n for n in stored if n in text and n not in broken and holds_text(schema.field(n).type)]
        return pq.ParquetFile(stream, metadata=metadata, read_dictionary=as_dictionary, **options), stored


def _not_dictionaries(metadata: pq.FileMetaData, groups: Sequence[int], names: set[str]) -> set[str]:
    """Those of the columns with pages (delta encodings) of which Arrow cannot make dictionaries."""
    columns = range(metadata.num_columns) if names else ()
    numbers = [number for number in columns if metadata.schema.column(number).path in names]
    chunks = [metadata.row_group(group).column(number) for group in groups for number in numbers]
    return {chunk.path_in_schema for chunk in chunks if not _DICTIONARIES.issuperset(chunk.encodings)}


def checked(table: pa.Table) -> pa.Table:
    """The table; raises an Arrow error where text is not UTF-8 or an index points outside of its dictionary.

    Flipped bits in pages without a checksum do that, and Arrow trusts what it has decoded.
    """
    for column in table.columns:
        if holds_text(column.type):
            for chunk in column.chunks:
                chunk.validate(full=True)
    return table


@dataclass(slots=True)
class Cursor:
    """A row group that is being read in parts: the stream, what is still to come, and the number of the next row."""

    key: tuple[Any, ...]
    stream: Any
    following: Iterator[pa.Table]
    row: int = 0
    remainder: pa.Table | None = None

    def skip_to(self, row: int) -> None:
        """Decode and forget rows before ``row``."""
        while self.row < row:
            self._take(row - self.row)

    def take(self, rows: int) -> pa.Table:
        """The next ``rows`` rows."""
        tables, end = [], self.row + rows
        while self.row < end:
            tables.append(self._take(end - self.row))
        return pa.concat_tables(tables)

    def _take(self, most: int) -> pa.Table:
        table = self.remainder if self.remainder is not None else next(self.following, None)
        if table is None:
            raise pa.ArrowInvalid(f"its footer claims more than the {self.row:,} rows that its pages hold")
        head = table.slice(0, most)
        self.remainder = table.slice(most) if table.num_rows > most else None
        self.row += head.num_rows
        return head


_cursors = threading.local()
_MOST_CURSORS = 2
"""Places that a thread keeps: the look for levels reads factors of a part, and then all its columns."""


def part_of_group(
    reader: FileReader, mark: Fingerprint, names: Sequence[str], text: Sequence[str], rows: int
) -> pa.Table:
    """The rows from ``mark.start`` on of one large row group; rows: of the whole group.

    Rows of a row group can only be decoded from its first on. A thread therefore keeps its place: parts that are asked
    for in order, as a lane does, are decoded once. The last part lets the file go.
    """
    key = (mark.path, mark.stamp, mark.digest, mark.row_groups, tuple(names), tuple(text))
    # Thread-local, so no lock: a stream and its decoder belong to the thread that reads the lane.
    cursors: list[Cursor] = _cursors.__dict__.setdefault("kept", [])
    cursor = next((place for place in cursors if place.key == key), None)
    if cursor is not None:
        cursors.remove(cursor)
    # Decoders only go forward. A part before the cursor begins again at the first row.
    if cursor is not None and cursor.row > mark.start:
        cursor.stream.close()
        cursor = None
    if cursor is None:
        stream = reader.filesystem.open_input_file(mark.path)
        cursor = Cursor(key, stream, reader.batches(stream, mark, names, text, BATCH_ROWS))
    try:
        cursor.skip_to(mark.start)
        table = cursor.take(mark.rows)
    except BaseException:
        # A cursor that failed in the middle has lost its place, and interrupts count too.
        cursor.stream.close()
        raise
    if cursor.row < rows:
        cursors.append(cursor)
    else:
        cursor.stream.close()
    while len(cursors) > _MOST_CURSORS:
        # The oldest goes first: cursors in use were appended last.
        cursors.pop(0).stream.close()
    return table
