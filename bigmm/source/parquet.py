"""Parquet files as a `Source`: planning runs of row groups, and reading them fast and suspiciously."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow import fs

from bigmm.errors import DataError, MemoryLimitError
from bigmm.source.faults import guarded
from bigmm.source.footers import Footer, hive_keys, read_footers, stamp_of, with_hive_columns
from bigmm.source.locations import Location, shown_path
from bigmm.source.partition import Fingerprint, Partition
from bigmm.source.predicate import Predicate, make_predicate, plain_schema
from bigmm.source.schema import TEXT, Unified, conform, unify

#: Local files are read in pieces that stay in the cache until they are decompressed: a tenth faster than in one piece.
_BUFFER_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class ParquetSource:
    """Rows of Parquet files. Pickles without ``partitions``: a lane brings its own, so tasks stay small."""

    filesystem: fs.FileSystem
    remote: bool
    prefix: str
    unified: Unified
    predicate: Predicate | None
    partitions: tuple[Partition, ...]
    description: str
    declared_levels: Mapping[str, tuple] = field(default_factory=dict)

    @property
    def schema(self) -> pa.Schema:
        """What reads return, hive keys included."""
        return self.unified.schema

    @property
    def rows_total(self) -> int:
        """Rows before any filter."""
        return sum(partition.rows for partition in self.partitions)

    def __reduce__(self) -> tuple:
        light = (self.filesystem, self.remote, self.prefix, self.unified, self.predicate, (), self.description)
        return ParquetSource, light

    def read(self, partition: Partition, columns: Sequence[str]) -> pa.Table:
        """See `Source.read`. Raises `DataError` also when the file is not the one that was planned with."""
        needed = self._needed(columns)
        groups = partition.fingerprint.row_groups
        try:
            table = guarded(lambda: self._decode(partition, groups, needed), partition.where, self.remote)
        except DataError as error:
            self._ensure_unchanged(partition)
            raise self._pinpointed(partition, needed, error) from error
        self._ensure_unchanged(partition)
        return self._finish(table, partition, columns)

    def head(self, columns: Sequence[str], rows: int) -> pa.Table:
        """See `Source.head`; reads no more than the batches it needs."""
        for partition in self.partitions:
            found = guarded(lambda: self._first_rows(partition, columns, rows), partition.where, self.remote)  # noqa: B023
            if found is not None:
                return found
        kept = f" passes the filter {self.predicate.text}" if self.predicate else ""
        raise DataError(f"no row of {self.description}{kept or ' can be read'}")

    def _needed(self, columns: Sequence[str]) -> list[str]:
        self.unified.check(columns)
        return list(dict.fromkeys([*columns, *(self.predicate.columns if self.predicate else ())]))

    def _open(self, stream: Any, needed: Sequence[str]) -> pq.ParquetFile:
        metadata = pq.read_metadata(stream)
        stored = set(metadata.schema.to_arrow_schema().names)
        text = [name for name in needed if name in stored and self.schema.field(name).type.equals(TEXT)]
        return pq.ParquetFile(
            stream,
            metadata=metadata,
            read_dictionary=text,
            pre_buffer=self.remote,
            buffer_size=0 if self.remote else _BUFFER_BYTES,
            page_checksum_verification=True,
        )

    def _decode(self, partition: Partition, groups: Sequence[int], needed: Sequence[str]) -> pa.Table:
        with self.filesystem.open_input_file(partition.fingerprint.path) as stream:
            file = self._open(stream, needed)
            stored = [name for name in needed if name in file.schema_arrow.names]
            table = file.read_row_groups(list(groups), columns=stored, use_threads=False)
            rows = sum(file.metadata.row_group(i).num_rows for i in groups)
        return _with_keys(table, rows, partition.fingerprint.path, needed, self.schema)

    def _first_rows(self, partition: Partition, columns: Sequence[str], rows: int) -> pa.Table | None:
        needed, found, count = self._needed(columns), [], 0
        with self.filesystem.open_input_file(partition.fingerprint.path) as stream:
            for table in self._batches(stream, partition, needed, rows):
                found.append(self._finish(table, partition, columns))
                count += found[-1].num_rows
                if count >= rows:
                    break
        return pa.concat_tables(found).slice(0, rows) if count else None

    def _batches(self, stream: Any, partition: Partition, needed: Sequence[str], rows: int) -> Iterator[pa.Table]:
        file = self._open(stream, needed)
        stored = [name for name in needed if name in file.schema_arrow.names]
        groups = list(partition.fingerprint.row_groups)
        if not stored:
            yield _with_keys(pa.table({}), partition.rows, partition.fingerprint.path, needed, self.schema)
            return
        size = max(1, min(rows, 1 << 16))
        for batch in file.iter_batches(size, row_groups=groups, columns=stored, use_threads=False):
            table = pa.Table.from_batches([batch])
            yield _with_keys(table, table.num_rows, partition.fingerprint.path, needed, self.schema)

    def _finish(self, table: pa.Table, partition: Partition, columns: Sequence[str]) -> pa.Table:
        table = conform(table, self.schema, partition.where)
        if self.predicate is not None:
            table = self.predicate.apply(table, partition.where)
        return table.select(list(columns))

    def _ensure_unchanged(self, partition: Partition) -> None:
        planned = partition.fingerprint
        shown = shown_path(planned.path, self.prefix)
        info = guarded(lambda: self.filesystem.get_file_info(planned.path), shown, self.remote)
        if info.type == fs.FileType.NotFound:
            raise DataError(f"{shown} changed during the fit: it is gone. Keep the files in place until the fit ends.")
        if info.size != planned.size or stamp_of(info) != planned.stamp:
            raise DataError(
                f"{shown} changed during the fit (it had {planned.size} bytes, now {info.size}; or another time of "
                "writing). Fit again on files that stay as they are."
            )

    def _pinpointed(self, partition: Partition, needed: Sequence[str], error: DataError) -> DataError:
        """The same error for the first row group that cannot be read by itself."""
        shown = shown_path(partition.fingerprint.path, self.prefix)
        for group in partition.fingerprint.row_groups:
            try:
                where = f"{shown}, row group {group}"
                guarded(lambda: self._decode(partition, [group], needed), where, self.remote)  # noqa: B023
            except DataError as single:
                return single
        return error


def _with_keys(table: pa.Table, rows: int, path: str, needed: Sequence[str], schema: pa.Schema) -> pa.Table:
    """Add the hive columns that the file does not hold itself, in the order asked for."""
    keys = dict(hive_keys(path))
    columns = {name: table.column(name) for name in table.column_names}
    for name in needed:
        if name not in columns:
            columns[name] = _constant(keys[name], rows, schema.field(name).type)
    return pa.table({name: columns[name] for name in needed})


def _constant(value: str | None, rows: int, kind: pa.DataType) -> pa.ChunkedArray:
    plain = pa.string() if kind.equals(TEXT) else kind
    if value is None:
        return pa.chunked_array([pa.nulls(rows, kind)])
    if kind.equals(TEXT):
        codes = pa.repeat(pa.scalar(0, pa.int32()), rows)
        return pa.chunked_array([pa.DictionaryArray.from_arrays(codes, pa.array([value], pa.string()))])
    return pa.chunked_array([pa.repeat(pa.scalar(value).cast(plain), rows)])


def open_parquet(
    location: Location, given_filter: Any, partition_bytes: int, memory_limit: int | None
) -> ParquetSource:
    """Plan the reading of files: read all footers, unify schemas, cut runs of row groups (from the files alone)."""
    footers = read_footers(location)
    filled = [footer for footer in footers if sum(footer.rows)]
    if not filled:
        raise DataError(f"no rows at all in {location.description} ({len(footers)} files with zero rows)")
    schemas = with_hive_columns(filled)
    names = [location.shown(footer.path) for footer in filled]
    unified = unify(list(zip(names, schemas, strict=True)))
    predicate = make_predicate(given_filter, unified.schema)
    if predicate is not None:
        unified.check(predicate.columns)
    partitions: list[Partition] = []
    for footer, name in zip(filled, names, strict=True):
        kept = _kept_groups(footer, predicate, unified.schema, location)
        _check_memory(footer, kept, name, memory_limit)
        partitions.extend(_cut(footer, kept, name, partition_bytes))
    if not partitions:
        assert predicate is not None
        raise DataError(f"no row of {location.description} passes the filter {predicate.text}")
    numbered = tuple(replace(partition, index=i) for i, partition in enumerate(partitions))
    return ParquetSource(
        location.filesystem, location.remote, location.prefix, unified, predicate, numbered, location.description
    )


def _kept_groups(footer: Footer, predicate: Predicate | None, schema: pa.Schema, location: Location) -> list[int]:
    """Row groups with rows that the filter may keep, by hive keys and row-group statistics."""
    groups = [i for i, rows in enumerate(footer.rows) if rows]
    if predicate is None:
        return groups
    plain, form, system = plain_schema(schema), ds.ParquetFileFormat(), location.filesystem
    try:
        part = form.make_fragment(footer.path, system, partition_expression=_keys_expression(footer, schema))
        if not list(ds.FileSystemDataset([part], plain, form, system).get_fragments(filter=predicate.expression)):
            return []
        if predicate.bounds is None:
            return groups
        kept = {group.id for group in part.subset(predicate.bounds, schema=plain).row_groups}
    except pa.ArrowException:
        return groups  # pruning only saves time: types that statistics cannot be compared with are read and filtered
    return [i for i in groups if i in kept]


def _keys_expression(footer: Footer, schema: pa.Schema) -> ds.Expression:
    expression = ds.scalar(True)
    for key, value in footer.keys:
        if key not in footer.schema.names and value is not None:
            kind = schema.field(key).type
            plain = pa.string() if kind.equals(TEXT) else kind
            expression = expression & (ds.field(key) == pa.scalar(value).cast(plain))
    return expression


def _check_memory(footer: Footer, groups: Sequence[int], name: str, memory_limit: int | None) -> None:
    for group in groups:
        if memory_limit is not None and footer.nbytes[group] > memory_limit:
            raise MemoryLimitError(
                f"{name}, row group {group} is {footer.nbytes[group]:,} bytes uncompressed, more than memory_limit = "
                f"{memory_limit:,}, and a row group cannot be read in parts. Write the file with smaller row groups "
                "(row_group_size=) or raise memory_limit."
            )


def _cut(footer: Footer, groups: Sequence[int], name: str, partition_bytes: int) -> Iterator[Partition]:
    """Runs of row groups of about ``partition_bytes``, never less than one row group."""
    run: list[int] = []
    for group in groups:
        if run and sum(footer.nbytes[i] for i in run) + footer.nbytes[group] > partition_bytes:
            yield _partition(footer, run, name)
            run = []
        run.append(group)
    if run:
        yield _partition(footer, run, name)


def _partition(footer: Footer, run: Sequence[int], name: str) -> Partition:
    rows, nbytes = sum(footer.rows[i] for i in run), sum(footer.nbytes[i] for i in run)
    span = f"row group {run[0]}" if len(run) == 1 else f"row groups {run[0]}-{run[-1]}"
    mark = Fingerprint(footer.path, footer.size, footer.stamp, tuple(run), rows)
    return Partition(0, mark, rows, nbytes, f"{name}, {span}")
