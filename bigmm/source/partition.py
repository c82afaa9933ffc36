"""The values that cross the seam between `source` and everybody else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from bigmm.urls import shown_url


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What identifies the bytes behind a partition, so that a changed file is noticed.

    ``stamp`` is the modification time in nanoseconds or the object store's etag, "" for tables in memory.
    """

    path: str
    size: int
    stamp: str
    row_groups: tuple[int, ...]
    rows: int

    def __repr__(self) -> str:  # Dask writes the arguments of a task that fails into the workers' logs
        return f"Fingerprint({shown_url(self.path)!r}, {self.size} bytes, row groups {self.row_groups})"


@dataclass(frozen=True, slots=True)
class Partition:
    """One unit of reading: a run of row groups of one file (or a slice of a table in memory). Small and picklable.

    ``rows`` counts rows before any filter; ``nbytes`` is the uncompressed size from the footer (whole rows);
    ``where`` is how messages name it ("lake/part-7.parquet, row groups 0-3").
    """

    index: int
    fingerprint: Fingerprint
    rows: int
    nbytes: int
    where: str


class Source(Protocol):
    """Where rows are. Picklable; travels to workers inside a task, without ``partitions`` (a lane brings its own)."""

    @property
    def schema(self) -> pa.Schema:
        """What reads return, unified over the files, hive keys included; text is dictionary<int32, string>."""
        ...

    @property
    def partitions(self) -> tuple[Partition, ...]:
        """In the order of files; cut from the files alone, never from the number of workers."""
        ...

    @property
    def declared_levels(self) -> Mapping[str, tuple]:
        """Level order of columns whose type declares one (pandas Categorical, polars Enum, ordered dictionaries)."""
        ...

    @property
    def description(self) -> str:
        """How messages name the data."""
        ...

    @property
    def rows_total(self) -> int:
        """Rows before any filter; 0 when unknown (Dask DataFrame)."""
        ...

    def read(self, partition: Partition, columns: Sequence[str]) -> pa.Table:
        """The named columns of one partition, filter applied; DataError / ReadError name file and row group."""
        ...

    def head(self, columns: Sequence[str], rows: int) -> pa.Table:
        """The first rows (after the filter) of the first non-empty partition, at most `rows` of them."""
        ...
