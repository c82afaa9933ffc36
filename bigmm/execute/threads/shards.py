"""Shards in the memory of this process, or in a temporary file."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial, reduce
from typing import Any, Protocol

from bigmm.execute.discipline import one_thread_each
from bigmm.execute.progress import ProgressCallback
from bigmm.execute.sharded import PieceStore
from bigmm.execute.spill import SpillFile, arrays_of, looked_up, moved


class Map(Protocol):
    """`Executor.map`."""

    def __call__(
        self, task: Callable[..., Any], items: Iterable[Any], *, label: str, progress: ProgressCallback | None = None
    ) -> Iterator[Any]:
        """``task(item)`` of every item, in the order of items."""
        ...


class ThreadShards:
    """Shards in memory, or frozen dataclasses whose arrays are mapped from a temporary file (``file`` is not None)."""

    def __init__(self, shards: list[Any], n_workers: int, file: SpillFile | None = None):
        self.shards, self.n_shards, self.file = shards, len(shards), file
        self.n_workers = min(n_workers, len(shards))
        self._pool = ThreadPoolExecutor(self.n_workers, "bigmm-shards") if self.n_workers > 1 else None

    def map(self, task: Callable[..., Any], *args: Any, per_shard: Sequence[Any] | None = None) -> list[Any]:
        """See `Sharded.map`."""
        return list(self._in_order(task, args, per_shard))

    def fold(
        self,
        merge: Callable[[Any, Any], Any],
        task: Callable[..., Any],
        *args: Any,
        per_shard: Sequence[Any] | None = None,
    ) -> Any:
        """See `Sharded.fold`."""
        return reduce(merge, self._in_order(task, args, per_shard))

    def _in_order(
        self, task: Callable[..., Any], args: tuple[Any, ...], per_shard: Sequence[Any] | None
    ) -> Iterator[Any]:
        arguments = [(s,) if per_shard is None else (s, per_shard[i]) for i, s in enumerate(self.shards)]
        # Always: a BLAS with many threads may round otherwise.
        with one_thread_each():
            if self._pool is None:
                yield from (task(*first, *args) for first in arguments)
                return
            flying: deque[Future[Any]] = deque()
            try:
                for first in arguments:
                    flying.append(self._pool.submit(task, *first, *args))
                    if len(flying) >= 2 * self.n_workers:
                        yield flying.popleft().result()
                while flying:
                    yield flying.popleft().result()
            finally:
                for future in flying:
                    future.cancel()

    def replaced(self, change: Callable[[Any], Any]) -> ThreadShards:
        """See `Sharded.replaced`."""
        if self.file is None:
            return ThreadShards(self.map(change), self.n_workers)
        file = SpillFile()
        changed = self.map(partial(_changed, change, file))
        return ThreadShards([looked_up(shard, file) for shard in changed], self.n_workers, file)


def _changed(change: Callable[[Any], Any], file: SpillFile, shard: Any) -> Any:
    return moved(change(shard), file, list(arrays_of(shard).values()))


def in_memory(
    map_items: Map,
    split: Callable[[Any], Iterable[Any]],
    items: Iterable[Any],
    join: Callable[[int, list[Any]], Any],
    n_shards: int,
    label: str,
    progress: ProgressCallback | None,
) -> list[Any]:
    """The shards of `Executor.shuffle`; pieces are given back as they are joined."""
    # map_items keeps the order of items, so every shard has its rows in the same order on any number of threads.
    pieces: list[list[Any]] = [[] for _ in range(n_shards)]
    for parts in map_items(partial(_listed, split), items, label=label, progress=progress):
        for number, part in enumerate(parts):
            pieces[number].append(part)
        del parts
    shards = []
    for number in range(n_shards):
        shards.append(join(number, pieces[number]))
        pieces[number] = []
    return shards


def _listed(split: Callable[[Any], Iterable[Any]], item: Any) -> list[Any]:
    return list(split(item))


def in_file(
    map_items: Map,
    split: Callable[[Any], Iterable[Any]],
    items: Iterable[Any],
    store: PieceStore,
    n_shards: int,
    label: str,
    progress: ProgressCallback | None,
) -> tuple[list[Any], SpillFile]:
    """The shards of `Executor.shuffle` with their arrays mapped from a temporary file."""

    def add(numbered: tuple[int, Any]) -> None:
        store.add(numbered[0], split(numbered[1]))

    for _ in map_items(add, enumerate(items), label=label, progress=progress):
        pass
    file = SpillFile()
    shards = list(map_items(lambda number: store.joined(number, file), range(n_shards), label=label))
    return [looked_up(shard, file) for shard in shards], file


def sorted_in_file(
    map_items: Map, make: Callable[[Any], Any], items: Iterable[Any], label: str, progress: ProgressCallback | None
) -> tuple[list[Any], SpillFile]:
    """The shards of `Executor.shard_sorted` with their arrays mapped from a temporary file."""
    file = SpillFile()
    shards = list(map_items(lambda item: moved(make(item), file), items, label=label, progress=progress))
    return [looked_up(shard, file) for shard in shards], file
