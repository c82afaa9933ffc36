"""open_source(): whatever users have rows in, as a `Source`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import PurePath
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from bigmm.atomic import is_url
from bigmm.errors import DataError, UsageError
from bigmm.source.formats import refuse_whole_folders
from bigmm.source.frames import open_dask, open_pandas, open_polars, open_table
from bigmm.source.hive import Keys
from bigmm.source.listing import Entry, look_up
from bigmm.source.locations import Location, is_remote, locate, refuse_tables_at, shown_path
from bigmm.source.parquet import open_parquet
from bigmm.source.partition import Source

Options = tuple[Any, int, int | None]


def open_source(
    data: Any, *, filter: Any = None, partition_bytes: int = 64 << 20, memory_limit: int | None = None
) -> Source:
    """Make a `Source` of Parquet (path, list, glob, directory, URL), a table or frame in memory, or a Dask DataFrame.

    ``filter`` keeps rows: a text like "x > 3 and g == 'a'", a list of tuples like [("x", ">", 3)], or a pyarrow
    expression. ``partition_bytes``: size of a partition in memory: small row groups are read together, large ones in
    parts. ``memory_limit`` (bytes): a partition above it is refused. Options of a URL go into its query
    (``s3://bucket/lake?endpoint_override=host:9000&scheme=http``). Raises `DataError`, `UsageError`, `ReadError`,
    `MemoryLimitError`; messages name file, row group and column.
    """
    if partition_bytes < 1:
        raise UsageError(f"partition_bytes must be positive, got {partition_bytes}")
    options = (filter, partition_bytes, memory_limit)
    # Names of classes instead of the classes: no frame library is imported for somebody else's data.
    for cls in type(data).__mro__:
        open_kind = _KINDS.get((cls.__module__.partition(".")[0], cls.__name__))
        if open_kind is not None:
            return open_kind(data, options)
    raise UsageError(
        f"cannot read rows from {type(data).__module__}.{type(data).__qualname__}: give a path, list of paths, glob, "
        "directory or URL of Parquet, a pyarrow Table or Dataset, a pandas or polars DataFrame, or a Dask DataFrame"
    )


def _open_places(places: Sequence[Any], options: Options) -> Source:
    wrong = [place for place in places if not isinstance(place, str) and not hasattr(place, "__fspath__")]
    if wrong:
        raise UsageError(f"a list of data must hold paths, but one is a {type(wrong[0]).__name__}")
    return open_parquet(locate(places), *options)


def _open_dataset(dataset: Any, options: Options) -> Source:
    """Parquet files are read by the fast path when nothing but files and partition keys is behind the dataset.

    The types that the dataset declares are obeyed, and so are its values of partition keys.
    """
    for part in _file_datasets(dataset):
        refuse_whole_folders(part.filesystem, part.files, partial(shown_path, prefix=_prefix(part.filesystem)))
    # Datasets of other formats, or with a filter of their own, are read into memory whole.
    if not _is_plain_parquet(dataset):
        return open_table(dataset.to_table(), *options[:2], "pyarrow dataset")
    system, prefix = dataset.filesystem, _prefix(dataset.filesystem)
    keys = {part.path: _keys(part, dataset.schema) for part in dataset.get_fragments()}
    files = tuple(_entry(system, path, prefix) for path in sorted(keys))
    location = Location(system, is_remote(system), files, "pyarrow dataset", prefix)
    return open_parquet(location, *options, dataset.schema, keys)


def _file_datasets(dataset: Any) -> list[ds.FileSystemDataset]:
    """The datasets of files that a dataset is, or consists of."""
    if isinstance(dataset, ds.UnionDataset):
        return [part for child in dataset.children for part in _file_datasets(child)]
    return [dataset] if isinstance(dataset, ds.FileSystemDataset) and dataset.files else []


def _prefix(system: Any) -> str:
    """What messages put before a path of the file system."""
    return f"{system.type_name}://" if is_remote(system) else ""


def _open_dask(frame: Any, options: Options) -> Source:
    refuse_tables_at(_local_places(frame))
    return open_dask(frame, *options[:2])


def _local_places(frame: Any) -> list[str]:
    """The local paths that a Dask DataFrame reads Parquet from, as far as its expression tells them."""
    places: list[str] = []
    for part in frame.expr.walk():
        if type(part).__name__.startswith("ReadParquet"):
            # Dask lists a Delta folder as plain Parquet and would count deleted rows too.
            paths = part.path if isinstance(part.path, (list, tuple)) else [part.path]
            places += [str(path) for path in paths if isinstance(path, (str, PurePath)) and not is_url(str(path))]
    return places


def _entry(system: Any, path: str, prefix: str) -> Entry:
    entry = look_up(system, path, prefix + path, is_remote(system))
    if entry is None or entry.problem:
        reason = "" if entry is None else f" ({entry.problem})"
        raise DataError(f"the pyarrow dataset names a file that cannot be read: {prefix + path}{reason}")
    return entry


def _keys(part: Any, schema: pa.Schema) -> Keys:
    """The values of partition columns in the declared types; text where the type is text."""
    values = ds.get_partition_keys(part.partition_expression)
    return tuple((name, value) for name, value in values.items() if name in schema.names)


def _is_plain_parquet(dataset: Any) -> bool:
    if not isinstance(dataset, ds.FileSystemDataset) or not isinstance(dataset.format, ds.ParquetFileFormat):
        return False
    if not dataset.files or getattr(dataset, "_scan_options", {}).get("filter") is not None:
        return False
    return all(map(_is_whole, dataset.get_fragments()))


def _is_whole(part: Any) -> bool:
    """Whether a fragment has all row groups of its file."""
    _, (*_, chosen) = part.__reduce__()  # None for all. `part.row_groups` would read the footer, which is read later
    return chosen is None or len(chosen) == part.metadata.num_row_groups


#: (top package, class name) of data -> how it is opened; looked up along the class's ancestors.
_KINDS: dict[tuple[str, str], Callable[[Any, Options], Source]] = {
    ("builtins", "str"): lambda data, options: _open_places([data], options),
    ("pathlib", "PurePath"): lambda data, options: _open_places([data], options),
    ("builtins", "list"): _open_places,
    ("builtins", "tuple"): _open_places,
    ("pyarrow", "Table"): lambda data, options: open_table(data, *options[:2]),
    ("pyarrow", "RecordBatch"): lambda data, options: open_table(pa.Table.from_batches([data]), *options[:2]),
    ("pyarrow", "RecordBatchReader"): lambda data, options: open_table(data.read_all(), *options[:2]),
    ("pyarrow", "Dataset"): _open_dataset,
    ("pandas", "DataFrame"): lambda data, options: open_pandas(data, *options[:2]),
    ("polars", "DataFrame"): lambda data, options: open_polars(data, *options[:2]),
    ("polars", "LazyFrame"): lambda data, options: open_polars(data, *options[:2]),
    ("dask", "DataFrame"): _open_dask,
}
