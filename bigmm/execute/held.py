"""Rows held for many looks: shards made once by a shuffle, then asked again and again.

Every question is a pure task of (shard, arguments), so a lost shard is made again and gives the same bits.
"""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from bigmm.execute.executor import Executor
from bigmm.execute.progress import ProgressCallback


class Held(Protocol):
    """Shards somewhere."""

    n_shards: int

    def map(self, task: Callable, *args: Any, per_shard: Sequence | None = None) -> list:
        """``task(shard, *args)`` (or ``task(shard, per_shard[i], *args)``) of every shard, in the shards' order."""
        ...

    def replaced(self, change: Callable[[Any], Any]) -> Held:
        """The same shards after ``change(shard)``."""
        ...


class HeldByThreads:
    """Shards in memory, or in memory-mapped files of a temporary directory that lives as long as they do."""

    def __init__(self, shards: list, n_workers: int, directory: tempfile.TemporaryDirectory | None = None):
        self.shards, self.n_shards, self.directory = shards, len(shards), directory
        self.n_workers = min(n_workers, len(shards))
        self._pool = ThreadPoolExecutor(self.n_workers, "bigmm-shards") if self.n_workers > 1 else None

    def map(self, task: Callable, *args: Any, per_shard: Sequence | None = None) -> list:
        """See `Held.map`."""
        own = [(shard,) if per_shard is None else (shard, per_shard[i]) for i, shard in enumerate(self.shards)]
        if self._pool is None:
            return [task(*first, *args) for first in own]
        futures = [self._pool.submit(task, *first, *args) for first in own]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()

    def replaced(self, change: Callable[[Any], Any]) -> HeldByThreads:
        """See `Held.replaced`."""
        return HeldByThreads(self.map(change), self.n_workers, self.directory)


def hold(
    executor: Executor,
    split: Callable[[Any], list],
    items: Iterable,
    join: Callable[[int, list], Any],
    n_shards: int,
    *,
    settle: Callable[[Any, Path], Any] | None = None,
    label: str = "shard",
    progress: ProgressCallback | None = None,
) -> Held:
    """Shuffle: ``split(item)`` gives one piece per shard, ``join(number, pieces)`` makes the shard from its pieces.

    ``settle(shard, directory)``: keep pieces and shards in files of a temporary directory (for data beyond memory).
    """
    if hasattr(executor, "hold"):
        return executor.hold(split, list(items), join, n_shards, label=label, progress=progress)
    if settle is None:
        pieces: list[list] = [[] for _ in range(n_shards)]
        for parts in executor.map(split, items, label=label, progress=progress):
            for number, part in enumerate(parts):
                pieces[number].append(part)
        shards = []
        for number in range(n_shards):
            shards.append(join(number, pieces[number]))
            pieces[number] = []
        return HeldByThreads(shards, executor.n_workers)
    directory = tempfile.TemporaryDirectory(prefix="bigmm-shards-")
    root = Path(directory.name)
    for parts in executor.map(split, items, label=label, progress=progress):
        for number, part in enumerate(parts):
            with open(root / f"pieces-{number}", "ab") as file:
                pickle.dump(part, file, protocol=5)
    return HeldByThreads([settle(_joined(root, number, join), root) for number in range(n_shards)], executor.n_workers, directory)


def _joined(root: Path, number: int, join: Callable[[int, list], Any]) -> Any:
    path, pieces = root / f"pieces-{number}", []
    with open(path, "rb") as file:
        while True:
            try:
                pieces.append(pickle.load(file))
            except EOFError:
                break
    path.unlink()
    return join(number, pieces)
