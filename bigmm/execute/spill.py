"""Arrays in one temporary file without a name: mapped when they are looked at, gone when the process is."""

from __future__ import annotations

import mmap
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from threading import Lock
from typing import Any

import numpy as np

from bigmm.errors import OutputError

SMALLEST = 4096  # bytes; smaller arrays stay in memory
_ALIGNED = 64  # bytes; a cache line, so mapped arrays are aligned as arrays in memory are


@dataclass(frozen=True, slots=True)
class Placed:
    """An array in a file: its first byte, its shape and type."""

    start: int
    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Bytes of the array, in int64 also where a C long has 32 bits."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


class SpillFile:
    """Grows by whole arrays, from any thread. In the directory that ``TMPDIR`` names, else the system's.

    The file is unlinked as soon as it is there, so neither an error nor Ctrl-C nor SIGKILL leaves anything behind.
    Raises OutputError when the disk is full.
    """

    def __init__(self) -> None:
        try:
            self.file = tempfile.TemporaryFile(prefix="bigmm-", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise _failed(error) from error
        self.size, self._lock = 0, Lock()
        self._map: mmap.mmap | None = None

    def room(self, nbytes: int) -> int:
        """Reserve the next ``nbytes`` bytes; returns where they start."""
        with self._lock:
            start = self.size
            self.size += -(-nbytes // _ALIGNED) * _ALIGNED
        return start

    def write(self, array: np.ndarray) -> Placed:
        """Append an array."""
        start = self.room(array.nbytes)
        self.write_at(start, array)
        return Placed(start, array.shape, array.dtype.str)

    def write_at(self, start: int, array: np.ndarray) -> None:
        """Write a contiguous array into room that was reserved."""
        if not array.size:
            return
        content = np.ascontiguousarray(array).data.cast("B")
        # pwrite has a position of its own, so threads need no lock. It may write less than it was asked to.
        done = 0
        try:
            while done < len(content):
                done += os.pwrite(self.file.fileno(), content[done:], start + done)
        except OSError as error:
            raise _failed(error) from error

    def read_into(self, start: int, out: np.ndarray) -> None:
        """Fill a contiguous array with what is at ``start``; not through the map, so no page stays with the process."""
        if not out.size:
            return
        content, done = out.data.cast("B"), 0
        while done < len(content):
            got = os.preadv(self.file.fileno(), [content[done:]], start + done)
            if got <= 0:
                raise OutputError(f"a temporary file in {tempfile.gettempdir()} lost its content: try again")
            done += got

    def mapped(self, placed: Placed) -> np.ndarray:
        """The array, mapped. Only when all is written."""
        if self._map is None:
            # Room is rounded up, so the file may be shorter, and mmap refuses a length beyond its end.
            os.truncate(self.file.fileno(), self.size)
            # Private and writable, as arrays in memory are: kernels are compiled once per kind of array.
            self._map = mmap.mmap(self.file.fileno(), self.size, access=mmap.ACCESS_COPY)
            self.close()
        flat = np.frombuffer(self._map, placed.dtype, placed.nbytes // np.dtype(placed.dtype).itemsize, placed.start)
        return flat.reshape(placed.shape)

    def close(self) -> None:
        """Give the disk back, as soon as nothing is mapped any more."""
        self.file.close()

    def __del__(self) -> None:
        if hasattr(self, "file"):
            self.file.close()


def check_disk(nbytes: int, what: str = "the rows") -> None:
    """OutputError when the temporary directory has no room for so much of what does not fit in memory."""
    folder, free = tempfile.gettempdir(), free_disk()
    if nbytes > free:
        raise OutputError(
            f"{what} do not fit memory_limit and need {nbytes / 2**30:.1f} GiB of temporary files, but {folder} has "
            f"{free / 2**30:.1f} GiB free: set the environment variable TMPDIR to a larger disk, raise memory_limit, "
            "or use a cluster"
        )


def free_disk() -> int:
    """Bytes that the temporary directory has room for."""
    return shutil.disk_usage(tempfile.gettempdir()).free


def _failed(error: OSError) -> OutputError:
    return OutputError(
        f"cannot write temporary files in {tempfile.gettempdir()} ({error.strerror or error}): set the environment "
        "variable TMPDIR to a disk with room, raise memory_limit, or use a cluster. Nothing was left behind."
    )


def moved(value: Any, file: SpillFile, but: Sequence[np.ndarray] = ()) -> Any:
    """A frozen dataclass with its large arrays in the file (as `Placed`), except those in ``but``."""
    # By identity: these arrays are in the file already, and equal arrays are not the same one.
    unmoved = {id(array) for array in but}
    changes = {
        name: file.write(array)
        for name, array in arrays_of(value).items()
        if array.nbytes >= SMALLEST and id(array) not in unmoved
    }
    return replace(value, **changes) if changes else value


def looked_up(value: Any, file: SpillFile) -> Any:
    """The dataclass with its `Placed` arrays mapped."""
    placed = {f.name: getattr(value, f.name) for f in fields(value) if isinstance(getattr(value, f.name), Placed)}
    return replace(value, **{name: file.mapped(place) for name, place in placed.items()}) if placed else value


def arrays_of(value: Any) -> dict[str, np.ndarray]:
    """The fields of a dataclass that are arrays."""
    if not is_dataclass(value):
        return {}
    values = {f.name: getattr(value, f.name) for f in fields(value)}
    return {name: array for name, array in values.items() if isinstance(array, np.ndarray)}
