"""Memory of reading partitions at all, before the first of them is read."""

from __future__ import annotations

from collections.abc import Collection

from bigmm.errors import MemoryLimitError
from bigmm.execute import Executor
from bigmm.execute.memory import in_units
from bigmm.source import Source

SMALL_BYTES = 8 << 20
"""What is read at once is never refused below this: it is a small part of what the program itself takes."""


def look_bytes(source: Source, columns: Collection[str], workers: Executor) -> int:
    """Bytes of the named columns of a partition for each thread.

    0 for tables, which are in memory already, and for workers of a cluster, which have limits of their own.
    """
    if source.inventory is None or not workers.shares_memory:
        return 0
    share = len(columns) / max(len(source.schema), 1)
    largest = max(partition.nbytes for partition in source.partitions)
    return min(workers.n_workers, len(source.partitions)) * int(largest * share)


def check_look_memory(source: Source, columns: Collection[str], workers: Executor, limit: int) -> None:
    """Check that a partition for each thread fits, before levels are learnt.

    Parameters
    ----------
    source: where the rows are.
    columns: those that the model uses. Learning reads some of them and keeps their distinct values beside them.
    workers: threads of this process, or a cluster.
    limit: bytes.

    Raises MemoryLimitError, which names what to change.
    """
    needed = look_bytes(source, columns, workers)
    if needed > max(limit, SMALL_BYTES):
        raise MemoryLimitError(
            f"reading partitions needs about {in_units(needed)} with {workers.n_workers} threads but the memory limit "
            f"is {in_units(limit)}: raise memory_limit, use fewer workers (n_workers=1), or smaller partitions "
            "(partition_bytes=)"
        )
