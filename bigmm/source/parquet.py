"""Parquet files as a `Source`: planning partitions, and reading them fast and suspiciously."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from bigmm.errors import DataError
from bigmm.source.categories import FileOrders
from bigmm.source.cutting import FilePartition, check_memory, cut
from bigmm.source.faults import guarded
from bigmm.source.footers import INT96, Footer, read_footers
from bigmm.source.hive import Keys, key_types
from bigmm.source.listing import Entry, look_up
from bigmm.source.locations import Location, shown_path
from bigmm.source.partition import Inventory, Orders, Partition
from bigmm.source.predicate import Predicate, make_predicate, plain_schema
from bigmm.source.rows import BATCH_ROWS, FileReader, part_of_group
from bigmm.source.schema import TEXT, Unified, conform, declared, unify

_SMALL_BATCH = 1 << 12
"""The first rows are read so many at a time at least: a filter may keep few of them."""


@dataclass(frozen=True, slots=True)
class ParquetSource:
    """Rows of Parquet files.

    Pickles without ``partitions``, ``inventory``, ``categories`` and ``text_bytes``: a lane brings its own partitions,
    so tasks stay small.
    """

    reader: FileReader
    unified: Unified
    predicate: Predicate | None
    description: str
    partitions: tuple[FilePartition, ...] = ()
    inventory: Inventory | None = None
    categories: FileOrders | None = None
    text_bytes: Mapping[str, int] = field(default_factory=dict)

    @property
    def schema(self) -> pa.Schema:
        """What reads return, hive keys included."""
        return self.unified.schema

    @property
    def rows_total(self) -> int:
        """Rows before any filter."""
        return sum(partition.rows for partition in self.partitions)

    def __reduce__(self) -> tuple[Any, ...]:
        return ParquetSource, (self.reader, self.unified, self.predicate, self.description)

    def orders(self, columns: Iterable[str]) -> Orders:
        """See `Source.orders`; reads the dictionaries of columns that have an order."""
        return Orders({}, {}) if self.categories is None else self.categories.orders(columns)

    def read(self, partition: Partition, columns: Sequence[str]) -> pa.Table:
        """See `Source.read`. Raises `DataError` also when the file is not the one that was planned with."""
        assert isinstance(partition, FilePartition)
        names = self._columns_read(columns)
        try:
            table = guarded(lambda: self._decode(partition, names), partition.where, self.reader.remote)
        except DataError as error:
            # A file that was replaced during the fit often looks damaged: say that it changed, if it did.
            self._ensure_unchanged(partition)
            raise self._pinpointed(partition, names, error) from error
        # Rows that were decoded while the file was replaced may be a mixture, so the look comes after reading.
        self._ensure_unchanged(partition)
        return self._finish(table, partition, columns)

    def head(self, columns: Sequence[str], rows: int) -> pa.Table:
        """See `Source.head`; reads no more than the batches it needs."""
        for partition in self.partitions:
            first = guarded(
                lambda: self._first_rows(partition, columns, rows),  # noqa: B023
                partition.where,
                self.reader.remote,
            )
            if first is not None:
                return first
        reason = f" passes the filter {self.predicate.text}" if self.predicate else ""
        raise DataError(f"no row of {self.description}{reason or ' can be read'}")

    def _columns_read(self, columns: Sequence[str]) -> list[str]:
        self.unified.check(columns)
        return list(dict.fromkeys([*columns, *(self.predicate.columns if self.predicate else ())]))

    def _own(self, partition: FilePartition, names: Sequence[str]) -> tuple[list[str], list[str]]:
        """The columns to be read from the file itself, and those of them that are text."""
        elsewhere = dict(partition.keys)
        stored = [name for name in names if name not in elsewhere]
        return stored, [name for name in stored if self.schema.field(name).type.equals(TEXT)]

    def _decode(self, partition: FilePartition, names: Sequence[str]) -> pa.Table:
        stored, text = self._own(partition, names)
        mark, table = partition.fingerprint, pa.table({})
        if stored:
            whole = partition.rows == sum(partition.group_rows)
            if whole:
                # `groups` checks the number of rows against the footer's.
                table = self.reader.groups(mark, stored, text)
            else:
                table = part_of_group(self.reader, mark, stored, text, sum(partition.group_rows))
        return with_keys(table, partition.rows, partition.keys, names, self.schema)

    def _first_rows(self, partition: FilePartition, columns: Sequence[str], rows: int) -> pa.Table | None:
        if partition.rows < sum(partition.group_rows):  # a part, which has a cursor of its own
            table = self._finish(self._decode(partition, self._columns_read(columns)), partition, columns)
            return table.slice(0, rows) if table.num_rows else None
        names, tables, count = self._columns_read(columns), [], 0
        with self.reader.filesystem.open_input_file(partition.fingerprint.path) as stream:
            for table in self._batches(stream, partition, names, rows):
                tables.append(self._finish(table, partition, columns))
                count += tables[-1].num_rows
                if count >= rows:
                    break
        return pa.concat_tables(tables).slice(0, rows) if count else None

    def _batches(self, stream: Any, partition: FilePartition, names: Sequence[str], rows: int) -> Iterator[pa.Table]:
        """The rows of whole row groups in small tables."""
        stored, text = self._own(partition, names)
        # Columns of hive keys alone need no byte of the file.
        if not stored:
            for start in range(0, partition.rows, BATCH_ROWS):
                count = min(BATCH_ROWS, partition.rows - start)
                yield with_keys(pa.table({}), count, partition.keys, names, self.schema)
            return
        # Decoding a whole row group for a few first rows would take its full memory.
        size = min(max(rows, _SMALL_BATCH), BATCH_ROWS)
        for table in self.reader.batches(stream, partition.fingerprint, stored, text, size):
            yield with_keys(table, table.num_rows, partition.keys, names, self.schema)

    def _finish(self, table: pa.Table, partition: Partition, columns: Sequence[str]) -> pa.Table:
        table = conform(table, self.schema, partition.where)
        if self.predicate is not None:
            table = self.predicate.apply(table, partition.where)
        return table.select(list(columns))

    def _ensure_unchanged(self, partition: Partition) -> None:
        planned = partition.fingerprint
        shown = shown_path(planned.path, self.reader.prefix)
        entry = look_up(self.reader.filesystem, planned.path, shown, self.reader.remote)
        if entry is None:
            raise DataError(f"{shown} changed during the fit: it is gone. Keep the files in place until the fit ends.")
        if entry.size != planned.size or entry.stamp != planned.stamp:
            raise DataError(
                f"{shown} changed during the fit (it had {planned.size} bytes, now {entry.size}; or another time of "
                "writing). Fit again on files that stay as they are."
            )

    def _pinpointed(self, partition: FilePartition, names: Sequence[str], error: DataError) -> DataError:
        """The same error for the first row group that cannot be read by itself."""
        mark, remote = partition.fingerprint, self.reader.remote
        if len(mark.row_groups) == 1:
            return error
        for group, rows in zip(mark.row_groups, partition.group_rows, strict=True):
            where = f"{shown_path(mark.path, self.reader.prefix)}, row group {group}"
            one_group = replace(mark, row_groups=(group,), rows=rows)
            single = replace(partition, fingerprint=one_group, rows=rows, group_rows=(rows,))
            try:
                guarded(lambda: self._decode(single, names), where, remote)  # noqa: B023
            except DataError as one:
                return one
        return error


def with_keys(table: pa.Table, rows: int, keys: Keys, names: Sequence[str], schema: pa.Schema) -> pa.Table:
    """Add the columns that the file does not hold itself, in the order asked for."""
    values = dict(keys)
    columns = {
        name: _constant(values[name], rows, schema.field(name).type) if name in values else table.column(name)
        for name in names
    }
    return pa.table(columns)


def _constant(value: Any, rows: int, kind: pa.DataType) -> pa.ChunkedArray:
    if value is None:
        return pa.chunked_array([pa.nulls(rows, kind)])
    if kind.equals(TEXT):
        # One dictionary entry for all rows, as a file with a constant text would have it.
        codes = pa.repeat(pa.scalar(0, pa.int32()), rows)
        return pa.chunked_array([pa.DictionaryArray.from_arrays(codes, pa.array([str(value)], pa.string()))])
    return pa.chunked_array([pa.repeat(pa.scalar(value).cast(kind), rows)])


def open_parquet(
    location: Location,
    given_filter: Any,
    partition_bytes: int,
    memory_limit: int | None,
    schema: pa.Schema | None = None,
    keys: Mapping[str, Keys] | None = None,
) -> ParquetSource:
    """Plan the reading of files: read all footers, unify schemas, cut partitions (from the files alone).

    `schema` has the types that a dataset declares, which are obeyed. `keys` has, by path, its values of columns that
    files do not hold; without them, folders named ``key=value`` tell.
    """
    footers = read_footers(location, keys)
    # Writers such as Spark leave files without rows, whose types may say nothing (null).
    filled = [footer for footer in footers if sum(footer.rows)]
    if not filled:
        raise DataError(f"no rows at all in {location.description} ({len(footers)} files with zero rows)")
    _refuse_links(location, filled)
    names = [location.shown(footer.path) for footer in filled]
    # Schemas are compared before the filter prunes: a type that changes is an error with any filter.
    unified, filled = _typed(filled, names, schema)
    predicate = make_predicate(given_filter, unified.schema)
    if predicate is not None:
        unified.check(predicate.columns)
    partitions: list[FilePartition] = []
    for footer, name in zip(filled, names, strict=True):
        groups = _row_groups(footer, predicate, unified.schema, location)
        partitions.extend(cut(footer, groups, name, partition_bytes))
    if not partitions:
        assert predicate is not None
        raise DataError(f"no row of {location.description} passes the filter {predicate.text}")
    check_memory(partitions, memory_limit)
    numbered = tuple(replace(partition, index=i) for i, partition in enumerate(partitions))
    reader = FileReader(location.filesystem, location.remote, location.prefix)
    inventory = _inventory(location, footers, numbered)
    orders = FileOrders(reader, tuple(filled))
    return ParquetSource(
        reader, unified, predicate, location.description, numbered, inventory, orders, _text_bytes(filled)
    )


def _text_bytes(footers: Iterable[Footer]) -> dict[str, int]:
    """See `Source.text_bytes`."""
    largest: dict[str, int] = {}
    for footer in footers:
        for name, nbytes in footer.text.items():
            largest[name] = max(nbytes, largest.get(name, 0))
    return largest


def _typed(footers: Sequence[Footer], names: Sequence[str], schema: pa.Schema | None) -> tuple[Unified, list[Footer]]:
    """The schema of all files, and footers whose keys are the columns that files do not hold.

    A column that the file itself has wins over a key of the same name. A column that a dataset declares, and a file
    lacks, is missing in its rows.
    """
    used_keys = [[(key, value) for key, value in f.keys if key not in f.schema.names] for f in footers]
    if schema is not None:
        absent = [
            [(name, None) for name in schema.names if name not in f.schema.names and name not in dict(keys)]
            for f, keys in zip(footers, used_keys, strict=True)
        ]
        full = [replace(f, keys=(*keys, *gone)) for f, keys, gone in zip(footers, used_keys, absent, strict=True)]
        return declared(schema), full
    # One type over all files: 1 in one folder and 01 in another make the key text.
    types = key_types(footer.keys for footer in footers)
    schemas = [
        pa.schema([*f.schema, *(pa.field(key, types[key]) for key, _ in keys)]) if keys else f.schema
        for f, keys in zip(footers, used_keys, strict=True)
    ]
    full = [replace(footer, keys=tuple(keys)) for footer, keys in zip(footers, used_keys, strict=True)]
    return unify(list(zip(names, schemas, strict=True))), full


def _refuse_links(location: Location, footers: Sequence[Footer]) -> None:
    """Two names of one file would count its rows twice; files without rows may have many names."""
    filled = {footer.path for footer in footers}
    first: dict[tuple[int, int], Entry] = {}
    for entry in location.files:
        # Remote stores have no inodes and no links.
        if entry.inode is None or entry.path not in filled:
            continue
        other = first.setdefault(entry.inode, entry)
        if other is not entry:
            raise DataError(
                f"{location.shown(other.path)} and {location.shown(entry.path)} are two names (links) of one file, so "
                "its rows would count twice. Name the files to read, or replace the link by a copy if that is meant."
            )


def _inventory(location: Location, footers: Sequence[Footer], partitions: Sequence[Partition]) -> Inventory:
    rows = sum(sum(footer.rows) for footer in footers)
    have, looked = (sum(footer.checksums[i] for footer in footers) for i in (0, 1))
    return Inventory(
        len(footers),
        location.left_out,
        rows,
        rows - sum(partition.rows for partition in partitions),
        sum(sum(map(bool, footer.rows)) for footer in footers),
        looked,
        looked - have,
    )


def _row_groups(footer: Footer, predicate: Predicate | None, schema: pa.Schema, location: Location) -> list[int]:
    """Row groups with rows that the filter may keep, by hive keys and row-group statistics."""
    groups = [i for i, rows in enumerate(footer.rows) if rows]
    if predicate is None:
        return groups
    # The same schema as the filter's expression was bound to.
    plain, form, system = plain_schema(schema), ds.ParquetFileFormat(**INT96), location.filesystem
    try:
        # The partition expression lets Arrow decide a filter of keys without opening the file.
        part = form.make_fragment(footer.path, system, partition_expression=_keys_expression(footer, schema))
        if not list(ds.FileSystemDataset([part], plain, form, system).get_fragments(filter=predicate.expression)):
            return []
        if predicate.bounds is None:
            return groups
        numbers = {group.id for group in part.subset(predicate.bounds, schema=plain).row_groups}
    except pa.ArrowException:
        return groups  # pruning only saves time: types that statistics cannot be compared with are read and filtered
    return [i for i in groups if i in numbers]


def _keys_expression(footer: Footer, schema: pa.Schema) -> ds.Expression:
    expression = ds.scalar(True)
    for key, value in footer.keys:
        # A missing key gives no guarantee, so such a file is read and filtered.
        if key not in footer.schema.names and value is not None:
            kind = schema.field(key).type
            plain = pa.string() if kind.equals(TEXT) else kind
            expression = expression & (ds.field(key) == pa.scalar(value).cast(plain))
    return expression
