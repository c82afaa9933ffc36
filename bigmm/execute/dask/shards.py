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

from bigmm.errors import BigmmError, TemporaryError
from bigmm.execute.dask.flight import RETRIES, Flight, needed_futures, new_key, run_task, shared
from bigmm.execute.dask.watchdog import Watchdog, answer, scheduler_errors
from bigmm.execute.discipline import one_thread_each
from bigmm.execute.lanes import Lane
from bigmm.execute.progress import ProgressCallback, Reporter

if TYPE_CHECKING:
    from distributed import Client, Future

MAXIMUM_PIECES = 10_000  # tasks that pick a piece; partitions are split in groups so that there are no more


Again = Callable[[Sequence[int]], list["Future[Any]"]]
"""Makes the shards of these numbers anew, from the rows."""


class ClusterShards:
    """See `Sharded`; ``futures`` are the shards, in order.

    The scheduler makes lost shards again by itself, until it blames a task for the deaths of workers (Dask's
    allowed-failures, counted over the life of the task); then ``again`` replaces them.
    """

    def __init__(self, client: Client, no_worker_seconds: float, label: str, n_shards: int, again: Again):
        self.client, self.no_worker_seconds, self.label, self.n_shards = client, no_worker_seconds, label, n_shards
        self.again = again
        with scheduler_errors():
            self.futures = again(range(n_shards))

    def revive(self, more: Sequence[int] = ()) -> None:
        """Replace the shards that Dask has given up, and ``more``."""
        given_up = ("error", "lost", "cancelled")
        lost = [i for i, shard in enumerate(self.futures) if i in more or shard.status in given_up]
        if lost:
            with scheduler_errors():
                for number, shard in zip(lost, self.again(lost), strict=True):
                    self.futures[number] = shard

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

    def replaced(self, change: Callable[[Any], Any]) -> ClusterShards:
        """See `Sharded.replaced`; nothing is computed before somebody asks."""
        client, label, before = self.client, self.label, self.again
        payload = shared(client, change, label)
        first = list(self.futures)

        def again(numbers: Sequence[int]) -> list[Future[Any]]:
            # Later the originals may be gone: they are made again too, rather than kept.
            shards = [first[i] for i in numbers] if first else before(numbers)
            return [_submitted(client, label, "change", _ask, payload, shard, ()) for shard in shards]

        changed = ClusterShards(client, self.no_worker_seconds, label, self.n_shards, again)
        first.clear()
        return changed

    def _in_order(
        self, task: Callable[..., Any], args: tuple[Any, ...], per_shard: Sequence[Any] | None
    ) -> Iterator[Any]:
        return answers(self, partial(_with_arguments, task, args), per_shard)


def _with_arguments(task: Callable[..., Any], args: tuple[Any, ...], shard: Any, *extra: Any) -> Any:
    return task(shard, *extra, *args)


class ShardFlight(Flight):
    """Questions to futures under way: one task per future, which runs where the future is."""

    def __init__(self, shards: ClusterShards, work: Callable[..., Any], per_shard: Sequence[Any] | None):
        self.shards, self.per_shard = shards, per_shard
        super().__init__(shards.client, _ask, work, shards.futures, shards.label)

    def arguments(self, number: int) -> tuple[Any, ...]:
        """The shard, and the argument of this shard alone."""
        return self.items[number], () if self.per_shard is None else (self.per_shard[number],)

    def fill(self, n_workers: int) -> None:
        """Submit all: a worker without questions to its own shards would fetch other workers' shards."""
        super().fill(len(self.items))

    def _submit_again(self, number: int, reason: str, error: BaseException) -> None:
        self.shards.revive()
        super()._submit_again(number, reason, error)

    def rescue(self, watchdog: Watchdog) -> None:
        """Make again the shards that wait on paused workers, or for a task there, and ask them again."""
        stuck = watchdog.stuck()
        if stuck:
            missing = {number for number, shard in enumerate(self.shards.futures) if not shard.done()}
            self.shards.revive(sorted(missing))
            for number in [n for n, future in self.futures.items() if n in missing or future.key in stuck]:
                self.submit(number)

    def free(self) -> None:
        """Ask again what waits for a task that Dask has given up: it would for ever, and the client is not told."""
        numbers = {future.key: number for number, future in self.futures.items()}
        try:
            waiting = [
                numbers[key] for key in answer(self.client, self.client._run_on_scheduler, _held_up, list(numbers))
            ]
        except TimeoutError:  # the watchdog knows what to do
            return
        self.shards.revive(waiting)
        for number in waiting:
            reason = f"{self.label}: shard {number} lost its workers too often while it was made again. Try again."
            super()._submit_again(number, reason, TemporaryError(reason))


def answers(
    shards: ClusterShards,
    work: Callable[..., Any],
    per_shard: Sequence[Any] | None = None,
    reporter: Reporter | None = None,
    rows: Sequence[int] | None = None,
) -> Iterator[Any]:
    """``work(shard)`` of every shard in order; each is fetched and released on its worker as soon as it is there.

    ``rows`` are the rows of each shard, for the reporter. Raises the first BigmmError, in order, unchanged.
    """
    watchdog = Watchdog(shards.client, shards.no_worker_seconds, shards.label)
    with scheduler_errors():
        flight = ShardFlight(shards, work, per_shard)
    # Answers come in any order and go out in the order of shards, so that sums have the same bits.
    early: dict[int, Any] = {}
    position = 0
    try:
        flight.fill(shards.n_shards)
        while position < shards.n_shards:
            number = flight.landed(watchdog)
            if number is None:
                flight.free()
                continue
            early[number] = _taken(flight, number, watchdog)
            if reporter is not None:
                reporter.add(rows=0 if rows is None else rows[number], lanes=1)
            while position in early:
                answer = early.pop(position)
                if isinstance(answer, BigmmError):
                    raise answer
                position += 1
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
    client: Client,
    no_worker_seconds: float,
    split: Callable[[Any], Iterable[Any]],
    items: Sequence[Any],
    join: Callable[[int, list[Any]], Any],
    n_shards: int,
    label: str,
    progress: ProgressCallback | None,
) -> tuple[ClusterShards, Reporter]:
    """Shards that are being made, and who reports them."""
    groups = items if isinstance(items[0], Lane) else _groups(items, n_shards)
    with scheduler_errors():
        cut = partial(_split_lane, split) if groups is items else partial(_split_group, split, n_shards)
        splits, joins = shared(client, cut, label), shared(client, join, label)

    def pieces_of(numbers: Sequence[int]) -> list[Future[Any]]:
        return [
            _submitted(client, label, "split", run_task, splits, groups[i], needed_futures(groups[i])) for i in numbers
        ]

    def joined(pieces: list[Future[Any]], numbers: Sequence[int]) -> list[Future[Any]]:
        return [
            _submitted(
                client,
                label,
                "join",
                _join,
                joins,
                i,
                [_submitted(client, label, "piece", _pick, p, i) for p in pieces],
            )
            for i in numbers
        ]

    rows = [sum(getattr(part, "rows", 0) for part in group.partitions) for group in groups]
    reporter = Reporter(progress, label, sum(rows), len(groups) + n_shards)
    first = ClusterShards(client, no_worker_seconds, label, len(groups), pieces_of)
    for _ in answers(first, _nothing, None, reporter, rows):  # bad data stop here, before anything is moved
        pass
    pieces = list(first.futures)

    def again(numbers: Sequence[int]) -> list[Future[Any]]:
        return joined(pieces or pieces_of(range(len(groups))), numbers)

    shards = ClusterShards(client, no_worker_seconds, label, n_shards, again)
    pieces.clear()  # so that they leave the workers as shards are joined
    return shards, reporter


def left_there(shards: ClusterShards, reporter: Reporter) -> ClusterShards:
    """The shards once they are all made, where they were made."""
    for _ in answers(shards, _nothing, None, reporter):
        pass
    return shards


def fetched_from_there(shards: ClusterShards, reporter: Reporter) -> list[Any]:
    """The shards themselves, each fetched as soon as it is made."""
    return list(answers(shards, _itself, None, reporter))


def from_sorted(
    client: Client,
    no_worker_seconds: float,
    make: Callable[[Any], Any],
    items: Sequence[Any],
    label: str,
    progress: ProgressCallback | None,
) -> ClusterShards:
    """One task per shard, and the shard stays where it was made; a lost one is made again from its own rows alone."""
    with scheduler_errors():
        work = shared(client, make, label)

    def again(numbers: Sequence[int]) -> list[Future[Any]]:
        return [_submitted(client, label, "make", run_task, work, items[i], needed_futures(items[i])) for i in numbers]

    shards = ClusterShards(client, no_worker_seconds, label, len(items), again)
    return left_there(shards, Reporter(progress, label, 0, len(items)))


def _submitted(client: Client, label: str, name: str, *call: Any) -> Future[Any]:
    return client.submit(*call, key=new_key(label, name), pure=False, retries=RETRIES)


def _groups(items: Sequence[Any], n_shards: int) -> list[Lane]:
    # Groups are cut by numbers of items alone, so a shard has the same pieces on any cluster.
    size = max(1, -(-len(items) * n_shards // MAXIMUM_PIECES))
    return [Lane(i, tuple(items[start : start + size])) for i, start in enumerate(range(0, len(items), size))]


def _split_group(split: Callable[[Any], Iterable[Any]], n_shards: int, group: Lane) -> list[list[Any]]:
    """Runs on a worker: per shard the pieces of a group's partitions, in their order."""
    pieces: list[list[Any]] = [[] for _ in range(n_shards)]
    for item in group.partitions:
        for mine, piece in zip(pieces, split(item), strict=True):
            mine.append(piece)
    return pieces


def _split_lane(split: Callable[[Any], Iterable[Any]], lane: Lane) -> list[list[Any]]:
    """Runs on a worker: per shard the one piece of a lane that is split as a whole."""
    return [[piece] for piece in split(lane)]


def _pick(pieces: list[list[Any]] | BigmmError, number: int) -> list[Any] | BigmmError:
    return pieces if isinstance(pieces, BigmmError) else pieces[number]


def _join(payload: bytes, number: int, picked: list[list[Any] | BigmmError]) -> Any:
    parts: list[Any] = []
    for piece in picked:
        if isinstance(piece, BigmmError):
            return piece
        parts += piece
    with one_thread_each():
        try:
            return cloudpickle.loads(payload)(number, parts)
        except BigmmError as error:
            return error


def _ask(payload: bytes, shard: Any, extra: tuple[Any, ...]) -> Any:
    """Runs on a worker; errors in the data travel as values, so that they are not tried again."""
    if isinstance(shard, BigmmError):
        return shard
    with one_thread_each():
        try:
            return cloudpickle.loads(payload)(shard, *extra)
        except BigmmError as error:
            return error


def _held_up(keys: list[str], dask_scheduler: Any = None) -> list[str]:
    """Runs on the scheduler: those of the tasks that wait, at whatever remove, for one that was given up."""
    return [key for key in keys if key in dask_scheduler.tasks and _waits_in_vain(dask_scheduler.tasks[key])]


def _waits_in_vain(task: Any) -> bool:
    visited, stack = {task}, [task]
    while stack:
        for dependency in stack.pop().dependencies:
            if dependency.state == "erred":
                return True
            if dependency.state != "memory" and dependency not in visited:
                visited.add(dependency)
                stack.append(dependency)
    return False


def _nothing(shard: Any) -> None:
    """Asked only to learn that a shard is there."""


def _itself(shard: Any) -> Any:
    """Asked to have the shard."""
    return shard
