"""Shards that stay with the workers of a cluster, as futures of pure tasks: a lost shard is made again from its rows.

The shuffle is a graph of three kinds of tasks: a group of partitions is split into pieces, a piece is picked for one
shard, the pieces of a shard are joined. The scheduler keeps that graph as long as a shard is held, so whatever a dead
worker took with it is computed again, with the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial, reduce
from typing import TYPE_CHECKING, Any

import cloudpickle

from bigmm.errors import BigmmError
from bigmm.execute.cluster import RETRIES, Flight, Watchdog, needed_futures, new_key, run_task, scheduler_errors, shared
from bigmm.execute.discipline import one_thread_each
from bigmm.execute.lanes import Lane
from bigmm.execute.progress import ProgressCallback, Reporter

if TYPE_CHECKING:
    from distributed import Client, Future

    from bigmm.execute.cluster import ClusterExecutor

MAXIMUM_PIECES = 10_000  # tasks that pick a piece; partitions are split in groups so that there are no more


class HeldByCluster:
    """See `held.Held`; ``shards`` are futures, in order."""

    def __init__(self, client: Client, no_worker_seconds: float, shards: Sequence[Future], label: str):
        self.client, self.no_worker_seconds, self.shards, self.label = client, no_worker_seconds, shards, label
        self.n_shards = len(shards)

    def map(self, task: Callable, *args: Any, per_shard: Sequence | None = None) -> list:
        """See `Held.map`."""
        return list(self._in_order(task, args, per_shard))

    def fold(
        self, merge: Callable[[Any, Any], Any], task: Callable, *args: Any, per_shard: Sequence | None = None
    ) -> Any:
        """See `Held.fold`."""
        return reduce(merge, self._in_order(task, args, per_shard))

    def replaced(self, change: Callable[[Any], Any]) -> HeldByCluster:
        """See `Held.replaced`; nothing is computed before somebody asks."""
        with scheduler_errors():
            payload = shared(self.client, change, self.label)
            futures = [
                self.client.submit(
                    _ask, payload, shard, (), key=new_key(self.label, f"change-{i}"), pure=False, retries=RETRIES
                )
                for i, shard in enumerate(self.shards)
            ]
        return HeldByCluster(self.client, self.no_worker_seconds, futures, self.label)

    def _in_order(self, task: Callable, args: tuple, per_shard: Sequence | None) -> Iterator:
        return answers(self, self.shards, partial(_with_arguments, task, args), per_shard, None)


def _with_arguments(task: Callable, args: tuple, shard: Any, *own: Any) -> Any:
    return task(shard, *own, *args)


class ShardFlight(Flight):
    """Questions to futures under way: one task per future, which runs where the future is."""

    def __init__(self, client: Client, work: Callable, shards: Sequence[Future], own: Sequence | None, label: str):
        self.own = own
        super().__init__(client, _ask, work, shards, label)

    def arguments(self, number: int) -> tuple:
        """The shard, and what only this shard is told."""
        return self.items[number], () if self.own is None else (self.own[number],)

    def fill(self, n_workers: int) -> None:
        """Submit all: a worker without questions to its own shards would fetch other workers' shards."""
        super().fill(len(self.items))

    def _submit_again(self, number: int, reason: str, error: BaseException) -> None:
        shard = self.items[number]
        if shard.status in ("error", "lost", "cancelled"):
            with scheduler_errors():
                self.client.retry([shard])
        super()._submit_again(number, reason, error)


def answers(
    where: Any, shards: Sequence[Future], work: Callable, own: Sequence | None, reporter: Reporter | None
) -> Iterator:
    """``work(shard)`` of every future in order; each is pulled and released on its worker as soon as it is there.

    where: something with client, no_worker_seconds and label. Raises the first BigmmError, in order, unchanged.
    """
    watchdog = Watchdog(where.client, where.no_worker_seconds, where.label)
    with scheduler_errors():
        flight = ShardFlight(where.client, work, shards, own, where.label)
    early: dict[int, Any] = {}
    wanted = 0
    try:
        flight.fill(len(shards))
        while wanted < len(shards):
            number = flight.landed(watchdog)
            if number is None:
                continue
            early[number] = _taken(flight, number, watchdog)
            if reporter is not None:
                reporter.add(lanes=1)
            while wanted in early:
                answer = early.pop(wanted)
                if isinstance(answer, BigmmError):
                    raise answer
                wanted += 1
                yield answer
    finally:
        flight.cancel()


def _taken(flight: Flight, number: int, watchdog: Watchdog) -> Any:
    # The error of the first shard is the one to raise, whichever came first.
    try:
        return flight.take(number, watchdog)
    except BigmmError as error:
        if error.exit_code == 75:
            raise
        return error


def shuffle(
    executor: ClusterExecutor,
    split: Callable[[Any], Iterable],
    items: Sequence,
    join: Callable[[int, list], Any],
    n_shards: int,
    label: str,
    progress: ProgressCallback | None,
) -> HeldByCluster:
    """Make the shards and leave them where they were made."""
    client, seconds = executor.client, executor.no_worker_seconds
    with scheduler_errors():
        groups = _groups(items, n_shards)
        work = shared(client, partial(_split_group, split, n_shards), label)
        pieces = [_submitted(client, label, "split", run_task, work, g, needed_futures(g)) for g in groups]
    reporter = Reporter(progress, label, 0, len(groups) + n_shards)
    # Bad data stop here, before anything is moved.
    for _ in answers(HeldByCluster(client, seconds, pieces, label), pieces, _nothing, None, reporter):
        pass
    with scheduler_errors():
        work = shared(client, join, label)
        shards = []
        for number in range(n_shards):
            picked = [_submitted(client, label, "piece", _pick, piece, number) for piece in pieces]
            shards.append(_submitted(client, label, "join", _join, work, number, picked))
    del pieces, picked  # so that they leave the workers as shards are joined
    held = HeldByCluster(client, seconds, shards, label)
    for _ in answers(held, shards, _nothing, None, reporter):
        pass
    return held


def made(
    executor: ClusterExecutor,
    make: Callable[[Any], Any],
    items: Sequence,
    label: str,
    progress: ProgressCallback | None,
) -> HeldByCluster:
    """One task per shard, and the shard stays where it was made; a lost one is made again from its own rows alone."""
    client = executor.client
    with scheduler_errors():
        work = shared(client, make, label)
        shards = [_submitted(client, label, "make", run_task, work, item, needed_futures(item)) for item in items]
    held = HeldByCluster(client, executor.no_worker_seconds, shards, label)
    for _ in answers(held, shards, _nothing, None, Reporter(progress, label, 0, len(items))):
        pass
    return held


def _submitted(client: Client, label: str, name: str, *call: Any) -> Future:
    return client.submit(*call, key=new_key(label, name), pure=False, retries=RETRIES)


def _groups(items: Sequence, n_shards: int) -> list[Lane]:
    size = max(1, -(-len(items) * n_shards // MAXIMUM_PIECES))
    return [Lane(i, tuple(items[at : at + size])) for i, at in enumerate(range(0, len(items), size))]


def _split_group(split: Callable[[Any], Iterable], n_shards: int, group: Lane) -> list[list]:
    """Runs on a worker: per shard the pieces of a group's partitions, in their order."""
    pieces: list[list] = [[] for _ in range(n_shards)]
    for item in group.partitions:
        for mine, piece in zip(pieces, split(item), strict=True):
            mine.append(piece)
    return pieces


def _pick(pieces: list[list] | BigmmError, number: int) -> list | BigmmError:
    return pieces if isinstance(pieces, BigmmError) else pieces[number]


def _join(payload: bytes, number: int, picked: list[list | BigmmError]) -> Any:
    parts: list = []
    for piece in picked:
        if isinstance(piece, BigmmError):
            return piece
        parts += piece
    with one_thread_each():
        try:
            return cloudpickle.loads(payload)(number, parts)
        except BigmmError as error:
            return error


def _ask(payload: bytes, shard: Any, own: tuple) -> Any:
    """Runs on a worker; errors in the data travel as values, so that they are not tried again."""
    if isinstance(shard, BigmmError):
        return shard
    with one_thread_each():
        try:
            return cloudpickle.loads(payload)(shard, *own)
        except BigmmError as error:
            return error


def _nothing(shard: Any) -> None:
    """Asked only to learn that a shard is there."""
