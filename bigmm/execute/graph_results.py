"""Results of tasks that others wait for: in memory while they fit, else in a temporary file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np

from bigmm.execute.spill import SMALLEST, Placed, SpillFile

Name = tuple


@dataclass(slots=True)
class _Kept:
    """value: None while it is in the file only; placed: where in the file it is, None before it ever was; pins: tasks
    that work with it now."""

    value: Any
    placed: Placed | None = None
    pins: int = 0

    @property
    def nbytes(self) -> int:
        """Of an array in memory that could be moved."""
        large = isinstance(self.value, np.ndarray) and self.value.nbytes >= SMALLEST
        return self.value.nbytes if large else 0


class Results:
    """From each result's making to its last use. Out of memory goes the array whose next use is farthest away (Belady
    1966), which is known because the order of the tasks is.

    users: per name the numbers of the tasks to come that take it, in order (struck out here as they are done); keep:
    names that stay; memory: bytes of arrays in memory, None for no limit. What running tasks work with always stays.
    """

    def __init__(self, users: dict[Name, list[int]], keep: Iterable[Name], memory: int | None):
        self.users, self.keep, self.memory = users, frozenset(keep), memory
        self.kept: dict[Name, _Kept] = {}
        self.held = 0
        self.file: SpillFile | None = None
        self.free: dict[int, list[int]] = {}
        self.lock = Lock()  # also while the disk works: threads that compute do not ask

    def take(self, number: int, needs: Sequence[Name]) -> list[Any]:
        """What the task works with; an array that only this task still needs is writeable."""
        with self.lock:
            found = [self.kept[name] for name in needs]
            for kept in found:
                kept.pins += 1
            for name, kept in zip(needs, found, strict=True):
                if kept.value is None and kept.placed is not None:
                    self._read(kept)
                if isinstance(kept.value, np.ndarray) and kept.value.flags.owndata:
                    kept.value.flags.writeable = self.users[name] == [number] and name not in self.keep
            return [kept.value for kept in found]

    def done(self, number: int, needs: Sequence[Name]) -> None:
        """The task needs them no more."""
        with self.lock:
            for name in needs:
                self.kept[name].pins -= 1
            for name in set(needs):
                self.users[name].remove(number)
                if not self.users[name] and name not in self.keep:
                    self._drop(self.kept.pop(name))

    def put(self, name: Name, value: Any) -> None:
        """A new result."""
        if isinstance(value, np.ndarray):
            value.flags.writeable = False
        with self.lock:
            if self.users[name] or name in self.keep:
                kept = _Kept(value)
                self._make_room(kept.nbytes)
                self.kept[name] = kept
                self.held += kept.nbytes

    def wanted(self) -> dict[Name, Any]:
        """The results that were to stay, all in memory."""
        with self.lock:
            self.memory = None
            for kept in self.kept.values():
                if kept.value is None and kept.placed is not None:
                    self._read(kept)
            return {name: self.kept[name].value for name in self.keep}

    def _make_room(self, nbytes: int) -> None:
        if self.memory is None:
            return
        while self.held + nbytes > self.memory:
            movable = [
                (self._next_use(name), name) for name, kept in self.kept.items() if not kept.pins and kept.nbytes
            ]
            if not movable:
                return
            kept = self.kept[max(movable)[1]]
            if kept.placed is None:
                kept.placed = self._write(kept.value)
            self.held -= kept.nbytes
            kept.value = None

    def _next_use(self, name: Name) -> float:
        return self.users[name][0] if self.users[name] else float("inf")

    def _write(self, array: np.ndarray) -> Placed:
        if self.file is None:
            self.file = SpillFile()
        rooms = self.free.get(array.nbytes)
        start = rooms.pop() if rooms else self.file.room(array.nbytes)
        self.file.write_at(start, array)
        return Placed(start, array.shape, array.dtype.str)

    def _read(self, kept: _Kept) -> None:
        assert self.file is not None and kept.placed is not None
        self._make_room(kept.placed.nbytes)
        value = np.empty(kept.placed.shape, kept.placed.dtype)
        self.file.read_into(kept.placed.start, value)
        kept.value = value
        self.held += kept.nbytes

    def _drop(self, kept: _Kept) -> None:
        self.held -= kept.nbytes
        if kept.placed is not None:
            self.free.setdefault(kept.placed.nbytes, []).append(kept.placed.start)
