"""Partitions of Parquet files: runs of small row groups, and parts of large ones. Cut from the files alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bigmm.errors import MemoryLimitError
from bigmm.source.footers import Footer
from bigmm.source.hive import Keys
from bigmm.source.partition import Fingerprint, Partition
from bigmm.source.rows import BATCH_ROWS

#: A row group is read in parts when it is larger than this many partitions: each part of a group that is read out of
#: order costs decoding the rows before it.
_WHOLE = 2


@dataclass(frozen=True, slots=True)
class FilePartition(Partition):
    """A partition of one file.

    ``keys`` has the values of columns that the file does not hold itself. ``group_rows`` has the rows of each of its
    row groups; they are more than ``rows`` where the partition is a part of one.
    """

    keys: Keys
    group_rows: tuple[int, ...]


def cut(footer: Footer, groups: Sequence[int], name: str, partition_bytes: int) -> Iterator[FilePartition]:
    """Partitions of about ``partition_bytes`` decoded bytes: runs of row groups, or parts of a large row group.

    A part has at least `BATCH_ROWS` rows. Indices are all 0.
    """
    run: list[int] = []
    for group in groups:
        parts = _parts(footer, group, partition_bytes)
        # Row groups stay in the order of the file, which is the order of the sums.
        if run and (len(parts) > 1 or _size(footer, [*run, group]) > partition_bytes):
            yield _run(footer, run, name)
            run = []
        if len(parts) > 1:
            yield from (_part(footer, group, start, rows, name) for start, rows in parts)
        else:
            run.append(group)
    if run:
        yield _run(footer, run, name)


def check_memory(partitions: Sequence[FilePartition], memory_limit: int | None) -> None:
    """Raise `MemoryLimitError` for a row group, or a part of a large one, that cannot be read within the limit."""
    for partition in partitions:
        # Row groups of a run are decoded one after another, so the largest of them decides.
        share = max(partition.group_rows) / sum(partition.group_rows)
        largest = int(partition.nbytes * share) if len(partition.group_rows) > 1 else partition.nbytes
        if memory_limit is not None and largest > memory_limit:
            raise MemoryLimitError(
                f"{partition.where} is {largest:,} bytes uncompressed at a time, more than memory_limit = "
                f"{memory_limit:,}. Read smaller pieces (partition_bytes=), write the file with smaller row groups "
                "(row_group_size=), or raise memory_limit."
            )


def _size(footer: Footer, groups: Sequence[int]) -> int:
    return sum(footer.nbytes[group] for group in groups)


def _parts(footer: Footer, group: int, partition_bytes: int) -> list[tuple[int, int]]:
    """(first row, rows) of the parts in which a row group is read."""
    rows, nbytes = footer.rows[group], footer.nbytes[group]
    # A part below one decoded batch would only be cut from the same batch again.
    step = rows if nbytes <= _WHOLE * partition_bytes else max(BATCH_ROWS, rows * partition_bytes // nbytes)
    return [(start, min(step, rows - start)) for start in range(0, rows, step)]


def _run(footer: Footer, run: Sequence[int], name: str) -> FilePartition:
    rows, nbytes = sum(footer.rows[i] for i in run), _size(footer, run)
    span = f"row group {run[0]}" if len(run) == 1 else f"row groups {run[0]}-{run[-1]}"
    mark = Fingerprint(footer.path, footer.size, footer.stamp, tuple(run), rows, 0, footer.digest)
    return FilePartition(
        0, mark, rows, nbytes, f"{name}, {span}", footer.keys, tuple(footer.rows[group] for group in run)
    )


def _part(footer: Footer, group: int, start: int, rows: int, name: str) -> FilePartition:
    nbytes = footer.nbytes[group] * rows // footer.rows[group]
    mark = Fingerprint(footer.path, footer.size, footer.stamp, (group,), rows, start, footer.digest)
    where = f"{name}, row group {group}, rows {start:,}-{start + rows - 1:,}"
    return FilePartition(0, mark, rows, nbytes, where, footer.keys, (footer.rows[group],))
