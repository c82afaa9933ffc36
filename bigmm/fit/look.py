"""Memory of reading partitions at all, before the first of them is read."""

from __future__ import annotations

from collections.abc import Collection

from bigmm.errors import MemoryLimitError
from bigmm.execute import Executor
from bigmm.execute.memory import in_units
from bigmm.execute.threads import ThreadExecutor
from bigmm.source import Source


def check_look_memory(source: Source, columns: Collection[str], workers: Executor, limit: int) -> None:
    """Check that a partition for each thread fits, before levels are learnt.

    Parameters
    ----------
    source: where the rows are; only rows in files are checked, because tables in memory are there already.
    columns: those that the model uses. Learning reads some of them and keeps their distinct values beside them.
    workers: threads of this process are checked; workers of a cluster have limits of their own.
    limit: bytes.

    Raises MemoryLimitError, which names what to change.
    """
    if source.inventory is None or not isinstance(workers, ThreadExecutor):
        return
    share = len(columns) / max(len(source.schema), 1)
    largest = max(partition.nbytes for partition in source.partitions)
    at_once = min(workers.n_workers, len(source.partitions))
    needed = at_once * int(largest * share)
    if needed > limit:
        raise MemoryLimitError(
            f"reading partitions needs about {in_units(needed)} with {at_once} at once but the memory limit is "
            f"{in_units(limit)}: raise memory_limit, use fewer workers (n_workers=1), or smaller partitions "
            "(partition_bytes=)"
        )
