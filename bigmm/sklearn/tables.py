"""Tables of any library as the columns that a formula names: what X, y and sample_weight may be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from sklearn.utils.validation import check_array, column_or_1d

from bigmm.design import parse
from bigmm.errors import UsageError


def response_name(formula: str) -> str | None:
    """The column that is the response, None when the left-hand side is more than a name."""
    response = parse(formula).response
    return str(response.value) if response.kind == "name" else None


def settable(response: str | None, formula: str) -> str:
    """The plain column that y becomes; raises UsageError where the formula transforms its response."""
    if response is None:
        raise UsageError(
            f"y cannot be given with a response that is transformed in the formula ({formula!r}): name a plain column "
            "and transform y with sklearn.compose.TransformedTargetRegressor, or put the column into X and leave y out"
        )
    return response


def kind_of(value: Any) -> str:
    """The library a table or vector comes from."""
    return type(value).__module__.partition(".")[0]


def is_dask(value: Any) -> bool:
    """Is it a Dask collection?"""
    return kind_of(value) == "dask"


def as_frame(X: Any, estimator: str) -> Any:
    """A table with named columns; raises UsageError for what cannot be one. estimator: its name, for messages."""
    if kind_of(X) in _APPEND and hasattr(X, "columns"):
        return X
    if is_dask(X) or not (isinstance(X, list) or hasattr(X, "__array__")):
        raise UsageError(
            f"X is a {type(X).__module__}.{type(X).__qualname__}: give a pandas, polars or Dask DataFrame or a pyarrow "
            "Table, so that the formula finds its columns by name (in a pipeline: set_output(transform='pandas'))"
        )
    # dtype=None keeps text columns; missing values are the fit's to drop.
    array = check_array(X, dtype=None, ensure_all_finite=False, estimator=estimator)
    return pd.DataFrame(array, columns=[f"x{i}" for i in range(array.shape[1])])


def column_names(frame: Any) -> list[Any]:
    """Names of the columns of any table."""
    return list(frame.column_names if isinstance(frame, pa.Table) else frame.columns)


def as_vector(values: Any) -> np.ndarray:
    """(n,) float64 of a vector of any library; a Dask one is computed."""
    values = values.compute() if is_dask(values) else values
    values = values.to_numpy(zero_copy_only=False) if isinstance(values, pa.Array) else np.asarray(values)
    values = column_or_1d(values, warn=True)
    try:
        return values.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError(f"a vector of numbers is needed: {error}") from error


def with_column(frame: Any, name: str, values: Any, argument: str) -> Any:
    """The table with a column more (or replaced); raises UsageError when the lengths differ."""
    if is_dask(frame):
        if not is_dask(values):
            raise UsageError(
                f"for a Dask DataFrame X, {argument} must be a Dask Series or Array cut like X, or a column"
            )
        return _APPEND["dask"](frame, name, values)
    vector = as_vector(values)
    if vector.shape != (len(frame),):
        raise UsageError(f"{argument} must have one value per row: shape {vector.shape} for {len(frame)} rows")
    return _APPEND[kind_of(frame)](frame, name, vector)


def with_columns(frame: Any, names: list[str]) -> Any:
    """The table with these columns only."""
    return frame.select(names) if isinstance(frame, pa.Table) else frame[names]


def _append_polars(frame: Any, name: str, values: Any) -> Any:
    import polars as pl

    return frame.with_columns(pl.Series(name, values))


def _append_arrow(frame: Any, name: str, values: Any) -> Any:
    # Arrow would take a second column of the same name.
    others = frame.drop_columns([name]) if name in frame.column_names else frame
    return others.append_column(name, pa.array(values))


#: library of a table -> how it gets a column
_APPEND: dict[str, Callable[[Any, str, Any], Any]] = {
    "pandas": lambda frame, name, values: frame.assign(**{name: values}),
    "dask": lambda frame, name, values: frame.assign(**{name: values}),
    "polars": _append_polars,
    "pyarrow": _append_arrow,
}
