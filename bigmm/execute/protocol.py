"""What every executor can do. `docs/extending/executor.md` shows how to write one for another cluster system."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

from bigmm.execute.lanes import Lane
from bigmm.execute.progress import ProgressCallback
from bigmm.execute.sharded import PieceStore, Sharded
from bigmm.execute.tasks import Capacity, Name, Task

T = TypeVar("T")


@runtime_checkable
class Executor(Protocol):
    """Runs pure, picklable tasks. Results have the same bits on every executor and any number of workers.

    Every method raises the first error of a task as it is, and TemporaryError when workers are lost too often.
    ``label`` names the work in progress reports and messages.
    """

    @property
    def n_workers(self) -> int:
        """Tasks that run side by side."""
        ...

    @property
    def shares_memory(self) -> bool:
        """True when tasks run in this process: they use its memory, its limit and its temporary directory."""
        ...

    def capacity(self) -> Capacity:
        """Room for the results of `run_graph`, now."""
        ...

    def map_reduce(
        self,
        fold: Callable[[Lane, Callable[[int], None]], T],
        lanes: Sequence[Lane],
        merge: Callable[[T, T], T],
        *,
        label: str,
        rows_total: int = 0,
        progress: ProgressCallback | None = None,
    ) -> T:
        """Fold every lane, merge the results as a fixed binary tree over lane numbers (`MergeTree`).

        ``fold(lane, tick)`` makes one accumulator from the lane's partitions in order and calls ``tick(rows)`` after
        each; ``merge(left, right)`` may be called in any thread. The first error of a lane stops the rest.
        """
        ...

    def map(
        self, task: Callable[[Any], T], items: Iterable[Any], *, label: str, progress: ProgressCallback | None = None
    ) -> Iterator[T]:
        """``task(item)`` of every item, in the order of items, a bounded number in flight."""
        ...

    def shuffle(
        self,
        split: Callable[[Any], Iterable[Any]],
        items: Sequence[Any],
        join: Callable[[int, list[Any]], Any],
        n_shards: int,
        *,
        files: Callable[[], PieceStore] | None = None,
        label: str = "shard",
        progress: ProgressCallback | None = None,
    ) -> Sharded:
        """Shards from rows in any order: ``split(item)`` gives one piece per shard, ``join(number, pieces)`` a shard.

        Parameters
        ----------
        items
            Partitions, or lanes of them. Each is split as a whole.
        files
            Makes a store of pieces and shards in temporary files, which has to give the same shards as ``join``. Used
            only by an executor that shares this process's memory.

        Raises
        ------
        BigmmError
            The error of ``split`` for the first bad item.
        OutputError
            When the disk is full.
        """
        ...

    def shuffle_once(
        self,
        split: Callable[[Any], Iterable[Any]],
        items: Sequence[Any],
        join: Callable[[int, list[Any]], Any],
        n_shards: int,
        *,
        label: str,
        progress: ProgressCallback | None = None,
    ) -> list[Any]:
        """The shards that `shuffle` would make, brought to this process one by one."""
        ...

    def shard_sorted(
        self,
        make: Callable[[Any], Any],
        items: Iterable[Any],
        *,
        in_files: bool = False,
        label: str = "shard",
        progress: ProgressCallback | None = None,
    ) -> Sharded:
        """Shards from rows that are in order: ``make(item)`` reads all rows of one shard.

        ``in_files``: an executor that shares this process's memory keeps the arrays of shards (frozen dataclasses) in
        a temporary file.
        """
        ...

    def run_graph(
        self,
        tasks: Sequence[Task],
        *,
        label: str,
        ahead: int,
        memory: int | None = None,
        progress: ProgressCallback | None = None,
    ) -> dict[Name, Any]:
        """Results of the tasks that are outputs, by name. A result is gone after its last use.

        Parameters
        ----------
        tasks
            In an order in which each could be done when it is its turn.
        ahead
            Number of tasks beyond the first unfinished one that may be started, so that memory is bounded.
        memory
            Bytes of arrays to keep in memory by an executor that shares this process's memory; the remainder waits in
            a temporary file. None keeps all in memory.

        Raises
        ------
        OutputError
            When the disk is full.
        """
        ...
