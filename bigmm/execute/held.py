"""Rows held for many looks: shards made once by a shuffle, then asked again and again.

Every question is a pure task of (shard, arguments), so a lost shard is made again and gives the same bits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial, reduce
from typing import Any, Protocol

from bigmm.execute.discipline import one_thread_each
from bigmm.execute.executor import Executor
from bigmm.execute.progress import ProgressCallback
from bigmm.execute.spill import SpillFile, arrays_of, looked_up, moved


class Held(Protocol):
    """Shards somewhere."""

    n_shards: int

    def map(self, task: Callable, *args: Any, per_shard: Sequence | None = None) -> list:
        """``task(shard, *args)`` (or ``task(shard, per_shard[i], *args)``) of every shard, in the shards' order."""
        ...

    def fold(
        self, merge: Callable[[Any, Any], Any], task: Callable, *args: Any, per_shard: Sequence | None = None
    ) -> Any:
        """``reduce(merge, map(...))``, in the shards' order, with few results alive at a time."""
        ...

    def replaced(self, change: Callable[[Any], Any]) -> Held:
        """The same shards after ``change(shard)``."""
        ...


class Shuffle(Protocol):
    """Pieces on their way to shards through files, for data beyond memory."""

    def add(self, item: int, pieces: Iterable) -> None:
        """Keep the pieces of one item; called from many threads, items in any order."""
        ...

    def joined(self, number: int, file: SpillFile) -> Any:
        """One shard from its pieces in the order of items, its arrays in ``file`` as `Placed`; each number once."""
        ...


class HeldByThreads:
    """Shards in memory, or frozen dataclasses whose arrays are mapped from a temporary file (``file`` is not None)."""

    def __init__(self, shards: list, n_workers: int, file: SpillFile | None = None):
        self.shards, self.n_shards, self.file = shards, len(shards), file
        self.n_workers = min(n_workers, len(shards))
        self._pool = ThreadPoolExecutor(self.n_workers, "bigmm-shards") if self.n_workers > 1 else None

    def map(self, task: Callable, *args: Any, per_shard: Sequence | None = None) -> list:
        """See `Held.map`."""
        return list(self._in_order(task, args, per_shard))

    def fold(
        self, merge: Callable[[Any, Any], Any], task: Callable, *args: Any, per_shard: Sequence | None = None
    ) -> Any:
        """See `Held.fold`."""
        return reduce(merge, self._in_order(task, args, per_shard))

    def _in_order(self, task: Callable, args: tuple, per_shard: Sequence | None) -> Iterator:
        own = [(shard,) if per_shard is None else (shard, per_shard[i]) for i, shard in enumerate(self.shards)]
        # Always: a BLAS with many threads may round otherwise.
        with one_thread_each():
            if self._pool is None:
                yield from (task(*first, *args) for first in own)
                return
            flying: deque[Future] = deque()
            try:
                for first in own:
                    flying.append(self._pool.submit(task, *first, *args))
                    if len(flying) >= 2 * self.n_workers:
                        yield flying.popleft().result()
                while flying:
                    yield flying.popleft().result()
            finally:
                for future in flying:
                    future.cancel()

    def replaced(self, change: Callable[[Any], Any]) -> HeldByThreads:
        """See `Held.replaced`."""
        if self.file is None:
            return HeldByThreads(self.map(change), self.n_workers)
        file = SpillFile()
        changed = self.map(partial(_changed, change, file))
        return HeldByThreads([looked_up(shard, file) for shard in changed], self.n_workers, file)


def _changed(change: Callable[[Any], Any], file: SpillFile, shard: Any) -> Any:
    return moved(change(shard), file, list(arrays_of(shard).values()))


def hold(
    executor: Executor,
    split: Callable[[Any], Iterable],
    items: Iterable,
    join: Callable[[int, list], Any],
    n_shards: int,
    *,
    through: Callable[[], Shuffle] | None = None,
    label: str = "shard",
    progress: ProgressCallback | None = None,
) -> Held:
    """Shuffle: ``split(item)`` gives one piece per shard, ``join(number, pieces)`` makes the shard from its pieces.

    items: partitions, or lanes of them, each split as a whole.
    through: makes what keeps pieces and shards in temporary files instead, on threads (for data beyond memory); it
    has to give the same shards as ``join``. On a cluster shards stay with the workers. Raises what split raises for the
    first bad item, OutputError when the disk is full.
    """
    hold_elsewhere = getattr(executor, "hold", None)
    if hold_elsewhere is not None:
        return hold_elsewhere(split, list(items), join, n_shards, label=label, progress=progress)
    if through is not None:
        return _held_in_files(executor, split, items, through(), n_shards, label, progress)
    pieces: list[list] = [[] for _ in range(n_shards)]
    for parts in executor.map(partial(_listed, split), items, label=label, progress=progress):
        for number, part in enumerate(parts):
            pieces[number].append(part)
        del parts
    shards = []
    for number in range(n_shards):
        shards.append(join(number, pieces[number]))
        pieces[number] = []
    return HeldByThreads(shards, executor.n_workers)


def exchange(
    executor: Executor,
    split: Callable[[Any], Iterable],
    items: Sequence,
    join: Callable[[int, list], Any],
    n_shards: int,
    *,
    label: str,
    progress: ProgressCallback | None = None,
) -> list | None:
    """The shards that `hold` would make, fetched from the workers that made them; None where work is done in this
    process, and nothing would be gained."""
    exchange_elsewhere = getattr(executor, "exchange", None)
    if exchange_elsewhere is None:
        return None
    return exchange_elsewhere(split, items, join, n_shards, label=label, progress=progress)


def hold_each(
    executor: Executor,
    make: Callable[[Any], Any],
    items: Iterable,
    *,
    in_files: bool = False,
    label: str = "shard",
    progress: ProgressCallback | None = None,
) -> Held:
    """No shuffle: ``make(item)`` reads all that belongs to one shard and makes it.

    in_files: on threads keep the arrays of shards (frozen dataclasses) in a temporary file.
    """
    elsewhere = getattr(executor, "hold_each", None)
    if elsewhere is not None:
        return elsewhere(make, list(items), label=label, progress=progress)
    if not in_files:
        return HeldByThreads(list(executor.map(make, items, label=label, progress=progress)), executor.n_workers)
    file = SpillFile()
    placed = executor.map(lambda item: moved(make(item), file), items, label=label, progress=progress)
    return HeldByThreads([looked_up(shard, file) for shard in list(placed)], executor.n_workers, file)


def _listed(split: Callable[[Any], Iterable], item: Any) -> list:
    return list(split(item))


def _held_in_files(
    executor: Executor,
    split: Callable[[Any], Iterable],
    items: Iterable,
    shuffle: Shuffle,
    n_shards: int,
    label: str,
    progress: ProgressCallback | None,
) -> HeldByThreads:
    def add(numbered: tuple[int, Any]) -> None:
        shuffle.add(numbered[0], split(numbered[1]))

    for _ in executor.map(add, enumerate(items), label=label, progress=progress):
        pass
    file = SpillFile()
    shards = list(executor.map(lambda number: shuffle.joined(number, file), range(n_shards), label=label))
    return HeldByThreads([looked_up(shard, file) for shard in shards], executor.n_workers, file)
