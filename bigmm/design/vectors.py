"""Weights and offsets given as vectors beside a table in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from bigmm.design.settings import VECTOR_OFFSET, VECTOR_WEIGHTS
from bigmm.errors import UsageError


def with_vectors(data: Any, weights: Any, offset: Any) -> tuple[Any, str | None, str | None]:
    """(data, weights column, offset column): a vector becomes a column of the table in memory.

    Raises UsageError when the data are not in memory or the lengths differ.
    """
    data, weights = _with_vector(data, weights, VECTOR_WEIGHTS, "weights")
    data, offset = _with_vector(data, offset, VECTOR_OFFSET, "offset")
    return data, weights, offset


def _with_vector(data: Any, values: Any, name: str, argument: str) -> tuple[Any, str | None]:
    if values is None or isinstance(values, str):
        return data, values
    _check_index(data, values, argument)
    try:
        values = np.asarray(values, float)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{argument} must be the name of a column, or one number per row: {error}") from None
    if isinstance(data, pa.Table):
        _check_length(values, data.num_rows, argument)
        return data.append_column(name, pa.array(values)), name
    kind = type(data).__module__.partition(".")[0]
    if kind == "pandas":
        _check_length(values, len(data), argument)
        return data.assign(**{name: values}), name
    if kind == "polars":
        import polars as pl

        _check_length(values, len(data), argument)
        return data.with_columns(pl.Series(name, values)), name
    raise UsageError(f"{argument} must be the name of a column when the data are not a table in memory")


def _check_index(data: Any, values: Any, argument: str) -> None:
    """A pandas Series beside a DataFrame has the same index: pandas would align by it, and rows are taken in order."""
    index, other_index = getattr(data, "index", None), getattr(values, "index", None)
    if not (isinstance(index, pd.Index) and isinstance(other_index, pd.Index)):
        return
    # Different lengths get their own message from `_check_length`.
    if len(index) == len(other_index) and not index.equals(other_index):
        raise UsageError(
            f"{argument} is a Series whose index is not that of the data: align it by {argument}.reindex(data.index), "
            f"or give {argument}.to_numpy() where its rows are in the order of the data"
        )


def _check_length(values: np.ndarray, rows: int, argument: str) -> None:
    if values.shape != (rows,):
        raise UsageError(f"{argument} must have one value per row: shape {values.shape} for {rows} rows")
