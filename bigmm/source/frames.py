"""Tables and frames as a `Source`. None of their libraries is imported before an object of it is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from bigmm.errors import UsageError
from bigmm.source.categories import table_orders
from bigmm.source.footers import pandas_categories
from bigmm.source.in_memory import InMemoryPartition, InMemorySource, in_memory_table
from bigmm.source.partition import Fingerprint
from bigmm.source.predicate import make_predicate
from bigmm.source.schema import Unified, duplicates, unify


def open_table(
    table: pa.Table, given_filter: Any, partition_bytes: int, description: str = "pyarrow table"
) -> InMemorySource:
    """A pyarrow Table; ordered dictionaries, and categoricals that pandas noted, declare the order of their levels."""
    orders = table_orders(table, pandas_categories(table.schema), description)
    # The orders were read from pandas' notes above; nothing later may depend on these.
    table = table.replace_schema_metadata(None)
    unified = unify([(description, table.schema)])
    return in_memory_table(table, unified, orders.levels, description, given_filter, partition_bytes, orders.lost)


def open_pandas(frame: Any, given_filter: Any, partition_bytes: int) -> InMemorySource:
    """A pandas DataFrame; Categoricals declare their levels. A column Arrow cannot hold is refused when it is read."""
    names = [str(name) for name in frame.columns]
    columns, refused, levels = {}, duplicates(names, "pandas DataFrame"), {}
    for name, series in zip(names, (frame.iloc[:, i] for i in range(len(names))), strict=True):
        columns[name], problem = _pandas_column(series)
        if problem:
            refused[name] = f"column {name!r} of the pandas DataFrame cannot be used: {problem}"
        if str(series.dtype) == "category":
            levels[name] = tuple(series.cat.categories.tolist())
    table = pa.table(columns)
    unified = Unified(unify([("pandas DataFrame", table.schema)]).schema, refused)
    return in_memory_table(table, unified, levels, "pandas DataFrame", given_filter, partition_bytes)


def _pandas_column(series: Any) -> tuple[pa.Array | pa.ChunkedArray, str]:
    try:
        return pa.Array.from_pandas(series), ""
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        # Only a column that the formula uses has to be readable. The message waits until it is read.
        return pa.nulls(len(series)), " ".join(str(error).split())


def open_polars(frame: Any, given_filter: Any, partition_bytes: int) -> InMemorySource:
    """A polars DataFrame or LazyFrame (collected); Enum columns declare their levels."""
    import polars as pl

    frame = frame.lazy().collect()
    # The oldest level gives large_string in place of views, which some kernels of Arrow do not know.
    oldest, refused, columns = pl.CompatLevel.oldest(), {}, {}
    for series in frame.get_columns():
        try:
            columns[series.name] = series.to_arrow(compat_level=oldest)
        except Exception as error:  # polars raises its own panics as well as Arrow's errors
            columns[series.name] = pa.nulls(len(series))
            reason = " ".join(str(error).split())
            refused[series.name] = f"column {series.name!r} of the polars DataFrame cannot be used: {reason}"
    table = pa.table(columns).replace_schema_metadata(None)
    unified = Unified(unify([("polars DataFrame", table.schema)]).schema, refused)
    enums = {name: kind for name, kind in frame.schema.items() if isinstance(kind, pl.Enum)}
    levels = {name: tuple(kind.categories.to_list()) for name, kind in enums.items()}
    return in_memory_table(table, unified, levels, "polars DataFrame", given_filter, partition_bytes)


@dataclass(frozen=True, slots=True)
class Persisted:
    """A result on a cluster, in its place in a graph. Its future is left behind when pickled: it cannot travel."""

    future: Any

    def __reduce__(self) -> tuple[Any, ...]:
        return Persisted, (None,)


@dataclass(frozen=True, slots=True)
class DaskPart:
    """One partition of a Dask DataFrame: the part of the graph it needs, computed in the thread that reads it.

    On a cluster the executor hands ``futures`` to the scheduler as dependencies of the task, and the worker calls
    ``supplied`` with their results.
    """

    graph: dict[str, Any]
    key: Any

    @property
    def futures(self) -> tuple[Any, ...]:
        """Persisted results that this partition needs."""
        return tuple(task.future for task in self.graph.values() if isinstance(task, Persisted))

    def supplied(self, results: Sequence[Any]) -> DaskPart:
        """The same part with the results of ``futures`` in place."""
        following = iter(results)
        graph = {key: next(following) if isinstance(task, Persisted) else task for key, task in self.graph.items()}
        return DaskPart(graph, self.key)

    def __call__(self, columns: Sequence[str]) -> pa.Table:
        """Compute the pandas partition and convert the named columns."""
        from dask.local import get_sync

        ready = self.supplied([future.result() for future in self.futures])
        frame = get_sync(ready.graph, ready.key)
        named = dict(zip(map(str, frame.columns), range(frame.shape[1]), strict=True))
        # By position, since column labels of pandas need not be text.
        chosen = frame.iloc[:, [named[name] for name in columns]].set_axis(list(columns), axis=1)
        return pa.Table.from_pandas(chosen, preserve_index=False).replace_schema_metadata(None)


def open_dask(frame: Any, given_filter: Any, partition_bytes: int) -> InMemorySource:
    """A Dask DataFrame: its partitions stay as they are; their rows are unknown (0) until they are read."""
    # The empty meta has no types for object columns; this one holds made-up rows of the real types.
    meta = frame._meta_nonempty
    names = [str(name) for name in meta.columns]
    refused, columns = duplicates(names, "Dask DataFrame"), {}
    for name, series in zip(names, (meta.iloc[:, i] for i in range(len(names))), strict=True):
        columns[name], problem = _pandas_column(series)
        if problem:
            refused[name] = f"column {name!r} of the Dask DataFrame cannot be used: {problem}"
    unified = Unified(unify([("Dask DataFrame", pa.table(columns).schema)]).schema, refused)
    predicate = make_predicate(given_filter, unified.schema)
    levels = {
        name: tuple(meta[name].cat.categories.tolist())
        for name in meta.columns
        if name not in refused and str(meta[name].dtype) == "category" and frame[name].cat.known
    }
    parts, name = _dask_parts(frame), "Dask DataFrame"
    if not parts:
        raise UsageError("the Dask DataFrame has no partitions")
    partitions = tuple(
        InMemoryPartition(i, Fingerprint(name, 0, "", (i,), 0), 0, partition_bytes, f"{name}, partition {i}", part)
        for i, part in enumerate(parts)
    )
    return InMemorySource(unified, predicate, partitions, name, levels)


def is_future(task: Any) -> bool:
    """Whether a value in a graph is a `distributed.Future`, told without importing distributed."""
    return (type(task).__module__.partition(".")[0], type(task).__name__) == ("distributed", "Future")


def _dask_parts(frame: Any) -> list[DaskPart]:
    from dask.optimization import cull

    # Optimized once here: workers then get graphs that are fused, and cut to what one partition needs.
    best = frame.optimize()
    tasks = dict(best.__dask_graph__())
    graph = {key: Persisted(task) if is_future(task) else task for key, task in tasks.items()}
    return [DaskPart(dict(cull(graph, [key])[0]), key) for key in best.__dask_keys__()]
