"""Model matrices as partitions of rows: NumPy, scipy.sparse, Dask and zarr arrays (and frames, as arrays)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any, Protocol

import numpy as np
import scipy.sparse as sp

from bigmm.errors import DataError, UsageError
from bigmm.source.frames import Persisted, is_future

Load = Callable[[], Any]


class MatrixRows(Protocol):
    """One array, opened: its shape, the row cuts that suit it (None: any), bytes, column names or None."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows, and columns where there are two dimensions."""
        ...

    @property
    def chunks(self) -> tuple[int, ...] | None:
        """Rows of each chunk along the first axis; None where any cut suits."""
        ...

    @property
    def nbytes(self) -> int:
        """Size in bytes as dense values."""
        ...

    @property
    def names(self) -> tuple[str, ...] | None:
        """Names of the columns, if there are any."""
        ...

    def parts(self, cuts: Sequence[int]) -> list[Load]:
        """Per pair of neighbouring cuts something picklable that returns those rows."""
        ...


@dataclass(frozen=True, slots=True)
class ArrayRows:
    """An array in memory: ndarray or csr_array."""

    values: Any
    nbytes: int
    names: tuple[str, ...] | None = None
    chunks: tuple[int, ...] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows, and columns where there are two dimensions."""
        return self.values.shape

    def parts(self, cuts: Sequence[int]) -> list[Load]:
        """Slices of the array; each pickles its own rows alone."""
        return [Slice(self.values, a, b) for a, b in pairwise(cuts)]


@dataclass(frozen=True, slots=True)
class Slice:
    """Rows start..stop of an array in memory; pickles those rows alone."""

    values: Any
    start: int
    stop: int

    def __call__(self) -> Any:
        return self.values[self.start : self.stop]

    def __reduce__(self) -> tuple[Any, ...]:
        return Slice, (self(), 0, self.stop - self.start)


@dataclass(frozen=True, slots=True)
class ZarrRows:
    """A zarr array: rows are read when asked for, whole chunks (or shards) at a time."""

    array: Any
    names: tuple[str, ...] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows, and columns where there are two dimensions."""
        return self.array.shape

    @property
    def nbytes(self) -> int:
        """Size in bytes as dense values."""
        return int(np.prod(self.array.shape)) * self.array.dtype.itemsize

    @property
    def chunks(self) -> tuple[int, ...]:
        """Rows of each chunk, or of each shard, which is the smallest part that can be read."""
        rows = self.array.shape[0]
        # Reading part of a chunk decompresses all of it.
        step = (getattr(self.array, "shards", None) or self.array.chunks)[0]
        return tuple(min(step, rows - start) for start in range(0, rows, step))

    def parts(self, cuts: Sequence[int]) -> list[Load]:
        """Slices that are read when they are called."""
        return [ZarrSlice(self.array, a, b) for a, b in pairwise(cuts)]


@dataclass(frozen=True, slots=True)
class ZarrSlice:
    """Rows start..stop of a zarr array."""

    array: Any
    start: int
    stop: int

    def __call__(self) -> Any:
        return self.array[self.start : self.stop]


@dataclass(frozen=True, slots=True)
class DaskRows:
    """A Dask array; cuts other than its own chunks are made by Dask's rechunk."""

    array: Any
    names: tuple[str, ...] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows, and columns where there are two dimensions."""
        return self.array.shape

    @property
    def nbytes(self) -> int:
        """Size in bytes as dense values."""
        return int(np.prod(self.array.shape)) * self.array.dtype.itemsize

    @property
    def chunks(self) -> tuple[int, ...]:
        """Rows of each chunk along the first axis; None where any cut suits."""
        return self.array.chunks[0]

    def parts(self, cuts: Sequence[int]) -> list[Load]:
        """The part of Dask's graph behind each cut."""
        from dask.optimization import cull

        rows = tuple(b - a for a, b in pairwise(cuts))
        # All columns of a row come together: -1 joins the chunks of every other axis.
        array = self.array.rechunk({0: rows} | dict.fromkeys(range(1, self.array.ndim), -1))
        keys = [(array.name, number, *(0,) * (array.ndim - 1)) for number in range(len(rows))]
        whole = dict(array.__dask_graph__())
        # what a cluster already holds (of a persisted array) would be left out by optimizing
        tasks = {key: Persisted(task) for key, task in whole.items() if is_future(task)}
        graph = dict(array.__dask_optimize__(whole, keys)) | tasks
        return [DaskChunk(dict(cull(graph, [key])[0]), key) for key in keys]


@dataclass(frozen=True, slots=True)
class DaskChunk:
    """One chunk: the part of the graph it needs, computed in the thread that reads it; see `frames.DaskPart`."""

    graph: dict[str, Any]
    key: Any

    @property
    def futures(self) -> tuple[Any, ...]:
        """Persisted results that this chunk needs."""
        return tuple(task.future for task in self.graph.values() if isinstance(task, Persisted))

    def supplied(self, results: Sequence[Any]) -> DaskChunk:
        """The same chunk with the results of ``futures`` in place."""
        following = iter(results)
        graph = {key: next(following) if isinstance(task, Persisted) else task for key, task in self.graph.items()}
        return DaskChunk(graph, self.key)

    def __call__(self) -> Any:
        from dask.local import get_sync

        ready = self.supplied([future.result() for future in self.futures])
        return get_sync(ready.graph, ready.key)


@dataclass(frozen=True, slots=True)
class MatrixPartition:
    """Rows start..start + rows of every array; ``nbytes`` is their size as dense float64 or as stored when sparse."""

    index: int
    start: int
    rows: int
    nbytes: int
    where: str
    loads: Mapping[str, Load]

    @property
    def futures(self) -> tuple[Any, ...]:
        """Results on a cluster that must be there before the rows can be read on a worker."""
        return tuple(future for load in self.loads.values() for future in getattr(load, "futures", ()))

    def supplied(self, results: Sequence[Any]) -> MatrixPartition:
        """The same partition with the results of ``futures`` in place."""
        following = iter(results)
        loads = {}
        for name, load in self.loads.items():
            values = [next(following) for _ in getattr(load, "futures", ())]
            loads[name] = load.supplied(values) if isinstance(load, DaskChunk) else load
        return replace(self, loads=loads)

    def read(self, name: str) -> Any:
        """The rows of one array: float64 ndarray or csr_array; DataError when they are not as many as announced."""
        values = as_matrix(self.loads[name](), name)
        if values.shape[0] != self.rows:
            raise DataError(f"{name} has {values.shape[0]} rows where {self.rows} were announced ({self.where})")
        return values


def is_sparse(values: Any) -> bool:
    """Is this one of scipy's sparse arrays?"""
    return sp.issparse(values)


def as_matrix(values: Any, name: str) -> Any:
    """A float64 ndarray, or a csr_array for anything sparse; DataError when the values are not numbers."""
    try:
        # pydata/sparse has the method too, and needs no import here.
        if hasattr(values, "tocsr"):
            return sp.csr_array(values.tocsr(), dtype=np.float64)
        return np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} does not hold numbers: {error}") from error


def open_matrix(values: Any, name: str) -> MatrixRows:
    """Open one array; raises UsageError for kinds that are not known and for Dask arrays of unknown length."""
    # Classes are known by name, so that Dask, zarr and polars are imported by those who use them.
    for cls in type(values).__mro__:
        open_kind = _KINDS.get((cls.__module__.partition(".")[0], cls.__name__))
        if open_kind is not None:
            return open_kind(values, name)
    raise UsageError(
        f"{name} is a {type(values).__module__}.{type(values).__qualname__}: give a NumPy, Dask or zarr array, a "
        "scipy.sparse matrix or a data frame"
    )


def _array_rows(values: Any, name: str) -> ArrayRows:
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise UsageError(f"{name} has type {array.dtype}: numbers are needed (encode text as columns first)")
    names = getattr(values, "columns", None)
    # 8 bytes a value, whatever the type: reading converts to float64.
    return ArrayRows(array, array.size * 8, None if names is None else tuple(map(str, names)))


def _sparse(values: Any, name: str) -> ArrayRows:
    array = as_matrix(values, name)
    return ArrayRows(array, array.data.nbytes + array.indices.nbytes + array.indptr.nbytes)


def _dask(values: Any, name: str) -> DaskRows:
    if any(np.isnan(size) for size in values.shape):
        raise UsageError(
            f"{name} is a Dask array of unknown length: call {name}.compute_chunk_sizes(), or make it with "
            "to_dask_array(lengths=True)"
        )
    return DaskRows(values)


def _dask_frame(values: Any, name: str) -> DaskRows:
    names = tuple(map(str, values.columns)) if values.ndim == 2 else None
    return DaskRows(values.to_dask_array(lengths=True), names)


#: (top package, class name) -> how it is opened; looked up along the class's ancestors.
_KINDS: dict[tuple[str, str], Callable[[Any, str], MatrixRows]] = {
    ("builtins", "list"): _array_rows,
    ("builtins", "tuple"): _array_rows,
    ("numpy", "ndarray"): _array_rows,
    ("pandas", "DataFrame"): _array_rows,
    ("pandas", "Series"): _array_rows,
    ("polars", "DataFrame"): _array_rows,
    ("polars", "Series"): _array_rows,
    ("scipy", "_spbase"): _sparse,
    ("sparse", "SparseArray"): _sparse,
    ("dask", "Array"): _dask,
    ("dask", "DataFrame"): _dask_frame,
    ("dask", "Series"): _dask_frame,
    ("zarr", "Array"): lambda values, name: ZarrRows(values),
}


def cut_rows(arrays: Mapping[str, MatrixRows], partition_bytes: int, chunk_rows: int | None) -> tuple[int, ...]:
    """Row numbers at which partitions begin, and n: every ``chunk_rows``, else the chunks of the first chunked array
    (neighbours joined up to ``partition_bytes``), else by size. A function of the arrays alone, not of the workers."""
    n = next(iter(arrays.values())).shape[0]
    row_bytes = sum(a.nbytes for a in arrays.values()) / max(n, 1)
    limit = chunk_rows or max(1, int(partition_bytes / max(row_bytes, 1.0)))
    chunked = [a.chunks for a in arrays.values() if a.chunks is not None]
    if chunk_rows or not chunked:
        return (*range(0, n, limit), n)
    cuts = [0]
    for start, stop in pairwise(accumulate(chunked[0], initial=0)):
        # Cuts only where chunks end, so that no chunk is read by two partitions.
        if start > cuts[-1] and stop - cuts[-1] > limit:
            cuts.append(start)
    return (*cuts, n)


def partition_matrices(
    arrays: Mapping[str, MatrixRows], *, partition_bytes: int = 64 << 20, chunk_rows: int | None = None
) -> tuple[MatrixPartition, ...]:
    """The rows of all arrays, cut alike. Lengths must agree (checked by the caller, who knows what they are)."""
    cuts = cut_rows(arrays, partition_bytes, chunk_rows)
    loads = {name: array.parts(cuts) for name, array in arrays.items()}
    n = max(cuts[-1], 1)
    size = sum(a.nbytes for a in arrays.values())
    return tuple(
        MatrixPartition(
            i,
            a,
            b - a,
            max(1, size * (b - a) // n),
            f"rows {a}-{b - 1}",
            {name: parts[i] for name, parts in loads.items()},
        )
        for i, (a, b) in enumerate(pairwise(cuts))
    )
