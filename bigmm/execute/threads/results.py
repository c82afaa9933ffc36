"""Results of tasks that others wait for: in memory while they fit, else in a temporary file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np

from bigmm.execute.spill import SMALLEST, Placed, SpillFile
from bigmm.execute.tasks import Name


@dataclass(slots=True)
class _Entry:
    """A result.

    Attributes
    ----------
    value : None while the result is in the file only.
    placed : where in the file it is, None before it ever was.
    pins : number of tasks that work with it now.
    """

    value: Any
    placed: Placed | None = None
    pins: int = 0

    @property
    def nbytes(self) -> int:
        """Of an array in memory that could be moved."""
        large = isinstance(self.value, np.ndarray) and self.value.nbytes >= SMALLEST
        return self.value.nbytes if large else 0


class Results:
    """Results of tasks, from their making to their last use.

    The array whose next use is farthest away goes out of memory first (Belady 1966). That is known, because the order
    of the tasks is. What running tasks work with always stays.

    Parameters
    ----------
    users : per name the numbers of the tasks to come that take it, in order. They are struck out here as they are done.
    keep : names of the results that stay.
    memory : bytes of arrays in memory, None for no limit.
    """

    def __init__(self, users: dict[Name, list[int]], keep: Iterable[Name], memory: int | None):
        self.users, self.keep, self.memory = users, frozenset(keep), memory
        self.entries: dict[Name, _Entry] = {}
        self.nbytes = 0
        self.file: SpillFile | None = None
        self.free: dict[int, list[int]] = {}
        self.lock = Lock()  # also while the disk works: threads that compute do not ask

    def take(self, number: int, needs: Sequence[Name]) -> list[Any]:
        """What the task works with; an array that only this task still needs is writeable."""
        with self.lock:
            entries = [self.entries[name] for name in needs]
            for entry in entries:
                entry.pins += 1
            for name, entry in zip(needs, entries, strict=True):
                if entry.value is None and entry.placed is not None:
                    self._read(entry)
                # A view stays read-only: its memory may be part of another task's result.
                if isinstance(entry.value, np.ndarray) and entry.value.flags.owndata:
                    entry.value.flags.writeable = self.users[name] == [number] and name not in self.keep
            return [entry.value for entry in entries]

    def done(self, number: int, needs: Sequence[Name]) -> None:
        """The task needs them no more."""
        with self.lock:
            for name in needs:
                self.entries[name].pins -= 1
            for name in set(needs):
                self.users[name].remove(number)
                if not self.users[name] and name not in self.keep:
                    self._drop(self.entries.pop(name))

    def put(self, name: Name, value: Any) -> None:
        """A new result."""
        if isinstance(value, np.ndarray):
            value.flags.writeable = False
        with self.lock:
            if self.users[name] or name in self.keep:
                entry = _Entry(value)
                self._make_room(entry.nbytes)
                self.entries[name] = entry
                self.nbytes += entry.nbytes

    def outputs(self) -> dict[Name, Any]:
        """The results that were to stay, all in memory."""
        with self.lock:
            self.memory = None
            for entry in self.entries.values():
                if entry.value is None and entry.placed is not None:
                    self._read(entry)
            return {name: self.entries[name].value for name in self.keep}

    def _make_room(self, nbytes: int) -> None:
        if self.memory is None:
            return
        while self.nbytes + nbytes > self.memory:
            movable = [
                (self._next_use(name), name) for name, entry in self.entries.items() if not entry.pins and entry.nbytes
            ]
            if not movable:
                return
            entry = self.entries[max(movable)[1]]
            # What was in the file once is there still, and a result does not change before its last use.
            if entry.placed is None:
                entry.placed = self._write(entry.value)
            self.nbytes -= entry.nbytes
            entry.value = None

    def _next_use(self, name: Name) -> float:
        return self.users[name][0] if self.users[name] else float("inf")

    def _write(self, array: np.ndarray) -> Placed:
        if self.file is None:
            self.file = SpillFile()
        rooms = self.free.get(array.nbytes)
        start = rooms.pop() if rooms else self.file.room(array.nbytes)
        self.file.write_at(start, array)
        return Placed(start, array.shape, array.dtype.str)

    def _read(self, entry: _Entry) -> None:
        assert self.file is not None and entry.placed is not None
        self._make_room(entry.placed.nbytes)
        value = np.empty(entry.placed.shape, entry.placed.dtype)
        self.file.read_into(entry.placed.start, value)
        entry.value = value
        self.nbytes += entry.nbytes

    def _drop(self, entry: _Entry) -> None:
        self.nbytes -= entry.nbytes
        if entry.placed is not None:
            # Results of one size take each other's room, so the file stays as small as what it holds at once.
            self.free.setdefault(entry.placed.nbytes, []).append(entry.placed.start)
