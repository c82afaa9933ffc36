"""One pass over a few columns, folding many summaries side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

import pyarrow as pa

from bigmm.design.encoding.completeness import Completeness
from bigmm.execute import Executor, Lane, cut_lanes
from bigmm.source.partition import Source


class ColumnSummary(Protocol):
    """What can be folded over partitions and merged over lanes, without changing itself."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns to be read."""
        ...

    def update(self, table: pa.Table, where: str) -> Any:
        """The summary with the rows of a table."""
        ...

    def merge(self, other: Any) -> Any:
        """The summary of the rows of both."""
        ...


Requests = Mapping[Any, Any]


def fold_summaries(
    source: Source,
    requests: Requests,
    lane: Lane,
    tick: Callable[[int], None],
    complete: Completeness | None = None,
) -> dict[str, Any]:
    """Fold the partitions of a lane, in order, into every requested summary.

    complete: leaves out rows that do not count, for which all used columns are read; None: all rows.
    """
    columns = list(dict.fromkeys(column for request in requests.values() for column in request.columns))
    if complete is not None:
        # Whether a row counts can depend on any used column, so all of them are read.
        columns = list(complete.columns)
    state = dict(requests)
    for partition in lane.partitions:
        table = source.read(partition, columns)
        if complete is not None:
            table = complete(table, partition.where)
        state = {key: summary.update(table, partition.where) for key, summary in state.items()}
        tick(partition.rows)
    return state


def merge_summaries(first: dict[Any, Any], second: dict[Any, Any]) -> dict[Any, Any]:
    """Merge the summaries of two lanes key by key."""
    return {key: summary.merge(second[key]) for key, summary in first.items()}


def summarize(
    source: Source,
    executor: Executor,
    requests: Requests,
    progress: Any = None,
    complete: Completeness | None = None,
) -> dict[str, Any]:
    """One pass over the columns that the requests name, or with `complete` over all used columns of the rows that
    count; no pass when there is no request."""
    if not requests:
        return {}
    return executor.map_reduce(
        partial(fold_summaries, source, requests, complete=complete),
        # Lanes depend on the partitions and not on the number of workers, and so do the bits of the merged sums.
        cut_lanes(source.partitions),
        merge_summaries,
        label="levels",
        rows_total=sum(partition.rows for partition in source.partitions),
        progress=progress,
    )
