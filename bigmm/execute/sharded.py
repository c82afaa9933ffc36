"""Rows or sums in shards: made once, then asked again and again, wherever they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from bigmm.execute.spill import SpillFile


class Sharded(Protocol):
    """Shards in memory, in a temporary file, or on workers.

    Every question is a pure task of (shard, arguments), so a lost shard is made again and gives the same bits.
    """

    n_shards: int

    def map(self, task: Callable[..., Any], *args: Any, per_shard: Sequence[Any] | None = None) -> list[Any]:
        """``task(shard, *args)`` (or ``task(shard, per_shard[i], *args)``) of every shard, in the shards' order."""
        ...

    def fold(
        self,
        merge: Callable[[Any, Any], Any],
        task: Callable[..., Any],
        *args: Any,
        per_shard: Sequence[Any] | None = None,
    ) -> Any:
        """``reduce(merge, map(...))``, in the shards' order, with few results alive at a time."""
        ...

    def replaced(self, change: Callable[[Any], Any]) -> Sharded:
        """The same shards after ``change(shard)``."""
        ...


class PieceStore(Protocol):
    """Pieces on their way to shards through files, for data beyond memory."""

    def add(self, item: int, pieces: Iterable[Any]) -> None:
        """Keep the pieces of one item; called from many threads, items in any order."""
        ...

    def joined(self, number: int, file: SpillFile) -> Any:
        """One shard from its pieces in the order of items, its arrays in ``file`` as `Placed`; each number once."""
        ...
