"""Rows that are held rather than read: tables in memory, and partitions that Dask computes when asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from bigmm.errors import DataError
from bigmm.source.partition import Fingerprint, Orders, Partition
from bigmm.source.predicate import Predicate, make_predicate
from bigmm.source.schema import Unified, conform


@dataclass(frozen=True, slots=True)
class InMemoryPartition(Partition):
    """A partition that brings its rows along: ``load(columns)`` is picklable and returns a pyarrow Table."""

    load: Callable[[Sequence[str]], pa.Table]

    @property
    def futures(self) -> tuple[Any, ...]:
        """Results on a cluster that must be there before `load` can run on a worker."""
        return getattr(self.load, "futures", ())

    def supplied(self, results: Sequence[Any]) -> InMemoryPartition:
        """The same partition with the results of ``futures`` in place."""
        return replace(self, load=self.load.supplied(results))  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class TableSlice:
    """Rows of a table in memory; pickles the slice alone, not the buffers it was cut from."""

    table: pa.Table

    def __call__(self, columns: Sequence[str]) -> pa.Table:
        """The named columns."""
        return self.table.select(list(columns))

    def __reduce__(self) -> tuple[Any, ...]:
        sink = pa.BufferOutputStream()
        # Pickling a slice of Arrow writes the whole buffers behind it; a stream writes the rows of the slice.
        with pa.ipc.new_stream(sink, self.table.schema) as writer:
            writer.write_table(self.table)
        return _unpickle_slice, (sink.getvalue().to_pybytes(),)


def _unpickle_slice(content: bytes) -> TableSlice:
    return TableSlice(pa.ipc.open_stream(content).read_all())


@dataclass(frozen=True, slots=True)
class InMemorySource:
    """Rows brought by `InMemoryPartition`s. Pickles without its partitions: a lane brings its own."""

    unified: Unified
    predicate: Predicate | None
    partitions: tuple[InMemoryPartition, ...]
    description: str
    declared_levels: Mapping[str, tuple[Any, ...]]
    lost_orders: Mapping[str, str] = field(default_factory=dict)

    @property
    def inventory(self) -> None:
        """None: there are no files."""
        return None

    @property
    def text_bytes(self) -> Mapping[str, int]:
        """Nothing: all text is in memory already."""
        return {}

    def orders(self, columns: Iterable[str]) -> Orders:
        """See `Source.orders`."""
        names = set(columns)
        return Orders(
            {name: levels for name, levels in self.declared_levels.items() if name in names},
            {name: reason for name, reason in self.lost_orders.items() if name in names},
        )

    @property
    def schema(self) -> pa.Schema:
        """What reads return."""
        return self.unified.schema

    @property
    def rows_total(self) -> int:
        """Rows before any filter; 0 when unknown (Dask)."""
        return sum(partition.rows for partition in self.partitions)

    def __reduce__(self) -> tuple[Any, ...]:
        # lost_orders stay behind: only the driver asks for orders.
        return InMemorySource, (self.unified, self.predicate, (), self.description, dict(self.declared_levels))

    def read(self, partition: Partition, columns: Sequence[str]) -> pa.Table:
        """See `Source.read`."""
        assert isinstance(partition, InMemoryPartition)
        self.unified.check(columns)
        names = list(dict.fromkeys([*columns, *(self.predicate.columns if self.predicate else ())]))
        table = conform(partition.load(names), self.schema, partition.where)
        if self.predicate is not None:
            table = self.predicate.apply(table, partition.where)
        return table.select(list(columns))

    def head(self, columns: Sequence[str], rows: int) -> pa.Table:
        """See `Source.head`."""
        for partition in self.partitions:
            table = self.read(partition, columns)
            # A filter may leave nothing of the first partitions.
            if table.num_rows:
                return table.slice(0, rows)
        if self.predicate is not None:
            raise DataError(f"no row of {self.description} passes the filter {self.predicate.text}")
        raise DataError(f"no rows at all in {self.description}")


def in_memory_table(
    table: pa.Table,
    unified: Unified,
    levels: Mapping[str, tuple[Any, ...]],
    description: str,
    given_filter: Any,
    partition_bytes: int,
    lost: Mapping[str, str] | None = None,
) -> InMemorySource:
    """Slice a table by rows into partitions of about ``partition_bytes``."""
    if table.num_rows == 0:
        raise DataError(f"no rows at all in {description}")
    predicate = make_predicate(given_filter, unified.schema)
    if predicate is not None:
        unified.check(predicate.columns)
    size = max(1, table.nbytes)
    # Cuts follow the table alone, so sums have the same bits on any number of workers.
    step = max(1, partition_bytes * table.num_rows // size)
    partitions = []
    for index, start in enumerate(range(0, table.num_rows, step)):
        part = table.slice(start, step)
        where = f"{description}, rows {start}-{start + part.num_rows - 1}"
        nbytes = max(1, size * part.num_rows // table.num_rows)
        mark = Fingerprint(description, size, "", (index,), part.num_rows)
        partitions.append(InMemoryPartition(index, mark, part.num_rows, nbytes, where, TableSlice(part)))
    return InMemorySource(unified, predicate, tuple(partitions), description, levels, lost or {})
