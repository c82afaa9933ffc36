"""Row tasks over new data: frames in memory, lakes to memory, lakes to lakes, Dask frames lazily."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from bigmm.atomic import check_apart, check_destination, local_inputs, marked_table, output_error, whole_directory
from bigmm.design.spec import NEW_DATA
from bigmm.errors import DataError, UsageError
from bigmm.execute import executor
from bigmm.results.rows import RowTask
from bigmm.source import open_source
from bigmm.source.partition import Partition, Source

ROWS_PER_GROUP = 1_000_000
# Draw numbers of partitions must not overlap: no partition has a trillion rows.
UNCOUNTED = 2**40
PATH_TYPES = (str, os.PathLike, list)


@dataclass(frozen=True, slots=True)
class Item:
    """One partition to work on, and the number of its first row in the data set."""

    partition: Partition
    first: int


def items_of(source: Source) -> list[Item]:
    """The partitions with the running count of rows before them (rows before any filter).

    Partitions whose rows nobody has counted yet (Dask's) are numbered far apart instead.
    """
    counts = [p.rows if p.rows else UNCOUNTED for p in source.partitions]
    starts = np.cumsum([0, *counts])
    return [Item(p, int(s)) for p, s in zip(source.partitions, starts[:-1], strict=True)]


def is_dask(data: Any) -> bool:
    """Whether data is a Dask DataFrame, told without importing dask."""
    return hasattr(data, "map_partitions") and hasattr(data, "to_delayed")


def in_memory(data: Any) -> Any:
    """Records and dicts of columns become a pandas frame; everything else is left to `open_source`."""
    if isinstance(data, dict):
        return pd.DataFrame(data)
    if isinstance(data, list) and data and isinstance(data[0], dict):
        return pd.DataFrame(data)
    if isinstance(data, pd.DataFrame):
        # An index of labels would become a column of the Arrow table.
        return data.reset_index(drop=True)
    return data


def is_empty(data: Any) -> bool:
    """Whether data is a table in memory without rows: nothing to predict, which is no error."""
    if isinstance(data, PATH_TYPES) or is_dask(data) or hasattr(data, "read"):
        return False
    frame = in_memory(data)
    return hasattr(frame, "__len__") and len(frame) == 0


def present(source: Source, columns: Iterable[str]) -> list[str]:
    """The columns, of those wanted, that the source has; the design complains about what it cannot do without.

    Never none: a table without columns has no rows to count.
    """
    names = set(source.schema.names)
    return [column for column in columns if column in names] or list(source.schema.names[:1])


def source_of(data: Any) -> Source:
    """The source behind new data; a source, like the one a fit remembers, is itself."""
    if hasattr(data, "partitions") and hasattr(data, "read"):
        return data
    return open_source(in_memory(data))


def row_count(data: Any) -> int | None:
    """Rows of new data, None where nobody has counted them (a Dask DataFrame's)."""
    if is_dask(data):
        return None
    if is_empty(data):
        return 0
    counts = [partition.rows for partition in source_of(data).partitions]
    return sum(counts) if all(counts) else None


def compute(task: RowTask, data: Any, columns: Sequence[str], *, client: Any = None) -> dict[str, np.ndarray]:
    """Run a row task and gather its columns: data in memory in this thread, files through the executor."""
    if is_empty(data):
        return task(pa.table(in_memory(data)), 0)
    source = source_of(data)
    fold = partial(_columns_of, source, task, present(source, columns))
    return concatenated(_run(fold, source, data, client))


def _run(fold: Callable[[Item], Any], source: Source, data: Any, client: Any) -> list[Any]:
    """One result per partition: files through the executor, tables already in memory in this thread."""
    # Sending slices of a table in memory to workers may cost more than the task.
    if isinstance(data, PATH_TYPES) or source is data:
        return list(executor(client).map(fold, items_of(source), label="rows"))
    return [fold(item) for item in items_of(source)]


def concatenated(parts: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Columns of the partitions one after the other."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}


def augmented(
    task: RowTask, data: Any, columns: Sequence[str], keep: Sequence[str] | None, *, client: Any
) -> pd.DataFrame:
    """The data, or its columns `keep`, with a row task's columns beside them, as a pandas frame."""
    if is_empty(data):
        table = pa.table(in_memory(data))
        carried = table.column_names if keep is None else list(keep)
        return with_columns(table.select(carried), task(table, 0)).to_pandas()
    source = source_of(data)
    carried = carried_columns(source, keep)
    names = list(dict.fromkeys([*carried, *present(source, columns)]))
    tables = _run(partial(_table_of, source, task, names, carried), source, data, client)
    frame = pa.concat_tables(tables, promote_options="permissive").to_pandas()
    # The caller's index comes back, so that columns can be assigned to the frame by it.
    return frame.set_index(data.index) if isinstance(data, pd.DataFrame) else frame


def carried_columns(source: Source, keep: Sequence[str] | None) -> list[str]:
    """The columns to carry along: those named, or all."""
    carried = list(source.schema.names) if keep is None else list(keep)
    missing = [name for name in carried if name not in source.schema.names]
    if missing:
        raise UsageError(f"keep names columns that the data do not have: {', '.join(missing)}")
    return carried


def _table_of(source: Source, task: RowTask, names: list[str], carried: list[str], item: Item) -> pa.Table:
    table = source.read(item.partition, names)
    return with_columns(table.select(carried), _done(task, table, item))


def _columns_of(source: Source, task: RowTask, columns: list[str], item: Item) -> dict[str, np.ndarray]:
    return _done(task, source.read(item.partition, columns), item)


def _done(task: RowTask, table: pa.Table, item: Item) -> dict[str, np.ndarray]:
    """The task's columns; errors in the data say in which file."""
    try:
        return task(table, item.first)
    except DataError as error:
        raise DataError(f"{item.partition.where}: {str(error).removeprefix(f'{NEW_DATA}: ')}") from error


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a row task's columns go on disk: `path` is what `out` means, checked.

    keep: columns of the data carried along (None: all).
    """

    out: str | os.PathLike[str]
    path: Path
    keep: Sequence[str] | None
    overwrite: bool


def write(
    task: RowTask, data: Any, columns: Sequence[str], to: Destination, *, client: Any = None, progress: Any = None
) -> Path:
    """Run a row task over every partition into a Parquet directory, one part each; the directory appears when complete.

    Parts have page checksums; the order of parts is the order of the data.
    """
    source = source_of(data)
    carried = carried_columns(source, to.keep)
    names = list(dict.fromkeys([*carried, *present(source, columns)]))
    with whole_directory(to.out, overwrite=to.overwrite) as folder:
        job = partial(_write_part, source, task, names, carried, folder)
        # Parts are written by the workers; only counts of rows come back.
        for _ in executor(client).map(
            job, items_of(source), label="write", progress=progress if callable(progress) else None
        ):
            pass
        for stray in folder.glob(".part-*"):  # of a worker that was killed while it wrote
            stray.unlink()
    return to.path


def destination(
    out: str | os.PathLike[str] | None,
    keep: Sequence[str] | None,
    overwrite: bool,
    data: Any,
    reads: Sequence[str] = (),
) -> Destination | None:
    """Refuse `out` early, before anything is computed; None without `out`.

    data: the rows that will be read. reads: further places that the output may not be, hold or lie in.

    Raises UsageError for an output that is, holds or lies in an input and for a URL of an object store, OutputError for
    a place that cannot be written.
    """
    if out is None:
        return None
    check_apart(out, [*local_inputs(data), *reads])
    return Destination(out, check_destination(out, overwrite=overwrite), keep, overwrite)


def _write_part(source: Source, task: RowTask, names: list[str], carried: list[str], folder: Path, item: Item) -> int:
    """Write one part by temporary name and rename, so that a task that runs twice is harmless."""
    # The mark says that bigmm wrote the file, so that overwrite= may replace it and nothing else.
    result = marked_table(_table_of(source, task, names, carried, item))
    part = folder / f"part-{item.partition.index:05d}.parquet"
    temporary = part.with_name(f".{part.name}.{secrets.token_hex(6)}")
    try:
        with open(temporary, "wb") as stream:  # a path that is no UTF-8 is not for pyarrow
            pq.write_table(result, stream, row_group_size=ROWS_PER_GROUP, write_page_checksum=True, compression="zstd")
        os.replace(temporary, part)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise output_error(folder, error) from error
    return result.num_rows


def with_columns(table: pa.Table, columns: dict[str, np.ndarray]) -> pa.Table:
    """Append columns; a name that is taken is an error, never a silent replacement."""
    clashes = [name for name in columns if name in table.column_names]
    if clashes:
        raise UsageError(f"the data already have a column {clashes[0]!r}; rename it, or leave it out with keep=[...]")
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values))
    return table


def lazily(task: RowTask, data: Any, columns: Sequence[str], finish: Callable[[dict[str, Any]], Any], meta: Any) -> Any:
    """A Dask frame or series with a row task mapped over the partitions of a Dask DataFrame; nothing is computed."""
    names = [name for name in columns if name in data.columns]
    return data[names].map_partitions(_frame_task, task, columns, finish, meta, meta=meta)


def _frame_task(
    frame: pd.DataFrame, task: RowTask, columns: Sequence[str], finish: Callable[..., Any], meta: Any
) -> Any:
    # Dask calls this with empty frames to learn types, and an empty partition has no rows to encode.
    if not len(frame):
        return meta
    return finish(compute(task, frame, columns)).set_axis(frame.index)
