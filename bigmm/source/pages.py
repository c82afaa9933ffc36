"""Page headers of Parquet files, which tell what footers do not: checksums, and how many values pages hold.

Headers are structures of Thrift's compact protocol (parquet.thrift, ``PageHeader``): field 2 is the size of the page
decompressed, 3 as it is stored, 4 the checksum, 5 and 8 the headers of data pages, whose field 1 counts values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

ReadAt = Callable[[int, int], bytes]
"""(number of bytes, offset in the file) -> bytes."""

_FIRST_LOOK = 64
# Headers carry statistics of any length. Most need 1 KB, and each further try is a request of its own.
_HEADER_BYTES = (1 << 10, 1 << 16, 1 << 22)
# This bounds the walk over a damaged chunk, whose headers could claim tiny pages.
_MOST_PAGES = 1 << 20


@dataclass(frozen=True, slots=True)
class PageHeader:
    """A page header of `nbytes` bytes, with `stored` bytes of page behind it.

    `values` counts the values of a data page, nulls included, and is 0 for other pages.
    """

    nbytes: int
    stored: int
    checksum: bool
    values: int


def has_checksum(read_at: ReadAt, column: pq.ColumnChunkMetaData) -> bool:
    """Whether the first page of a column chunk has a checksum. Raises ValueError when its header cannot be read."""
    # The checksum is among the first fields, so statistics behind it need not be read.
    fields = _Thrift(read_at(_FIRST_LOOK, first_page(column))).leading_integers()
    if 3 not in fields:
        raise ValueError("no page header")
    return 4 in fields


def counted_values(read_at: ReadAt, column: pq.ColumnChunkMetaData) -> int:
    """Number of values (nulls included) that the pages of a column chunk hold by their own headers.

    Raises ValueError when a header cannot be read.
    """
    place = first_page(column)
    end, total = place + column.total_compressed_size, 0
    for _ in range(_MOST_PAGES):
        if place >= end:
            break
        header = _header(read_at, place)
        total += header.values
        place += header.nbytes + header.stored
    return total


def first_page(column: pq.ColumnChunkMetaData) -> int:
    """Offset of the first page of a column chunk in the file."""
    dictionary = column.dictionary_page_offset
    return min(dictionary, column.data_page_offset) if dictionary else column.data_page_offset


def _header(read_at: ReadAt, place: int) -> PageHeader:
    for nbytes in _HEADER_BYTES:
        reader = _Thrift(read_at(nbytes, place))
        try:
            fields = reader.structure()
        except IndexError:
            continue
        stored, kind = fields.get(3), fields.get(5) or fields.get(8) or {}
        if not isinstance(stored, int) or stored < 0 or not isinstance(kind, dict):
            break
        return PageHeader(reader.place, stored, 4 in fields, int(kind.get(1, 0)))
    raise ValueError(f"no page header at byte {place}")


class _Thrift:
    """Reads values of the compact protocol from bytes; IndexError where the bytes end."""

    def __init__(self, content: bytes):
        self.content, self.place = content, 0

    def structure(self, depth: int = 0) -> dict[int, Any]:
        """{field: value} of a structure; values of collections are skipped."""
        if depth > 8:
            raise ValueError("structures are nested too deeply for a page header")
        fields: dict[int, Any] = {}
        number = 0
        while True:
            head = self._byte()
            if head == 0:
                return fields
            number = number + (head >> 4) if head >> 4 else self._zigzag()
            fields[number] = self._value(head & 15, depth)

    def leading_integers(self) -> dict[int, int]:
        """The fields of a structure up to the first that is no integer."""
        fields: dict[int, int] = {}
        number = 0
        try:
            while True:
                head = self._byte()
                if head & 15 not in (4, 5, 6):
                    return fields
                number = number + (head >> 4) if head >> 4 else self._zigzag()
                fields[number] = self._zigzag()
        except IndexError:
            return fields

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (1, 2):
            return kind == 1
        if kind == 3:
            return self._byte()
        if kind in (4, 5, 6):
            return self._zigzag()
        if kind == 7:
            return self._skip(8)
        if kind == 8:
            return self._skip(self._unsigned())
        if kind == 12:
            return self.structure(depth + 1)
        raise ValueError(f"type {kind} has no place in a page header")

    def _skip(self, nbytes: int) -> None:
        # The bytes are passed over, because no field of text or doubles is needed here.
        self.place += nbytes
        if self.place > len(self.content):
            raise IndexError

    def _byte(self) -> int:
        self.place += 1
        return self.content[self.place - 1]

    def _unsigned(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            # Varints: seven bits a byte, least first, the high bit says that more follow (Thrift, compact protocol).
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("an integer is longer than 64 bits")

    def _zigzag(self) -> int:
        value = self._unsigned()
        # Zigzag: 0, -1, 1, -2, ... are 0, 1, 2, 3, ...
        return (value >> 1) ^ -(value & 1)
