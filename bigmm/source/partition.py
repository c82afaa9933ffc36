"""The values that cross the seam between `source` and everybody else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from bigmm.urls import shown_url


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What identifies the bytes behind a partition, so that a changed file is noticed.

    ``stamp`` has the times of writing and of change of a local file, and of writing of a remote one, in nanoseconds; it
    is "" for tables in memory. ``start`` is the first row in a row group that is read in parts. ``digest`` is that of
    the file's footer.
    """

    path: str
    size: int
    stamp: str
    row_groups: tuple[int, ...]
    rows: int
    start: int = 0
    digest: str = ""

    def __repr__(self) -> str:  # Dask writes the arguments of a task that fails into the workers' logs
        return f"Fingerprint({shown_url(self.path)!r}, {self.size} bytes, row groups {self.row_groups})"


@dataclass(frozen=True, slots=True)
class Inventory:
    """The files that a lake consists of, for summaries, records and plans.

    Attributes
    ----------
    n_files : int
        Number of files that are read.
    left_out : tuple of str
        Names of hidden files and folders, and of side files such as checksums.
    rows : int
        Number of rows in the files.
    rows_skipped : int
        Number of rows in row groups that the filter rules out unread.
    row_groups : int
        Number of row groups in the files.
    checked, without_checksums : int
        Number of row groups that were looked at for page checksums, and of those that have none.
    """

    n_files: int
    left_out: tuple[str, ...]
    rows: int
    rows_skipped: int
    row_groups: int
    checked: int
    without_checksums: int

    def as_record(self) -> dict[str, Any]:
        """A dict of plain values, for JSON; of the names left out the first hundred."""
        return {
            "taken": self.n_files,
            "left_out": len(self.left_out),
            # A lake may have a side file for every data file, and records must stay small.
            "left_out_names": list(self.left_out[:MOST_NAMES]),
            "rows": self.rows,
            "rows_skipped_by_filter": self.rows_skipped,
            "row_groups": self.row_groups,
            "row_groups_checked_for_page_checksums": self.checked,
            "row_groups_without_page_checksums": self.without_checksums,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Inventory:
        """The inverse of `as_record`; names beyond those kept are counted as "..."."""
        names = tuple(record["left_out_names"])
        names += ("...",) * (record["left_out"] - len(names))
        return cls(
            record["taken"],
            names,
            record["rows"],
            record["rows_skipped_by_filter"],
            record["row_groups"],
            record["row_groups_checked_for_page_checksums"],
            record["row_groups_without_page_checksums"],
        )

    def sentences(self) -> tuple[str, ...]:
        """What a user should know of the files, in words."""
        files = "1 file" if self.n_files == 1 else f"{self.n_files:,} files"
        out = f"; {len(self.left_out):,} left out ({self._examples()})" if self.left_out else ""
        skipped = f", {self.rows_skipped:,} of them skipped by the filter" if self.rows_skipped else ""
        return (f"read {files} with {self.rows:,} rows{skipped}{out}", *self._on_checksums())

    def _examples(self) -> str:
        more = ", ..." if len(self.left_out) > 2 else ""
        return ", ".join(self.left_out[:2]) + more

    def _on_checksums(self) -> tuple[str, ...]:
        if not self.without_checksums:
            return ()
        looked = "" if self.checked == self.row_groups else f" that were looked at ({self.row_groups:,} in all)"
        count = f"{self.without_checksums:,} of {self.checked:,} row groups{looked}"
        return (f"{count} have no page checksums: damage would go unnoticed",)


MOST_NAMES = 100
"""As many names of files left out are kept in a record."""


@dataclass(frozen=True, slots=True)
class Orders:
    """Orders of categories that the type of a column declares.

    ``levels`` has the levels in order, by column. ``lost`` says, by column, why its order cannot be known.
    """

    levels: Mapping[str, tuple[Any, ...]]
    lost: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Partition:
    """One unit of reading: a run of row groups of one file, a part of a large one, or a slice of a table in memory.

    Small and picklable. ``rows`` counts rows before any filter; ``nbytes`` is their size in memory (whole rows, as
    estimated from the footer); ``where`` is how messages name it ("lake/part-7.parquet, row groups 0-3").
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
    def inventory(self) -> Inventory | None:
        """Which files were taken; None for rows that do not come from files."""
        ...

    @property
    def text_bytes(self) -> Mapping[str, int]:
        """Bytes of the largest piece of each column of text that a file holds in one piece, where that is large."""
        ...

    def orders(self, columns: Iterable[str]) -> Orders:
        """Orders of those columns whose type declares one (pandas Categorical, polars Enum, ordered dictionaries)."""
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
