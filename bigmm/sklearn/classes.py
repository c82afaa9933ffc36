"""Class labels of any type as 0 and 1, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import column_or_1d

from bigmm.errors import UsageError
from bigmm.sklearn.tables import as_vector, is_dask


def _values(y: Any) -> np.ndarray:
    """(n,) labels of a vector of any library that is in memory."""
    if isinstance(y, (pa.Array, pa.ChunkedArray)):
        return y.to_numpy(zero_copy_only=False) if isinstance(y, pa.Array) else y.to_numpy()
    return column_or_1d(np.asarray(y), warn=True)


def distinct(y: Any, sample_weight: Any = None) -> np.ndarray:
    """(2,) the classes in order, missing labels and weights of zero left out; UsageError when there are not two."""
    if is_dask(y):
        values = np.asarray(y.unique().compute() if hasattr(y, "unique") else y.compute())
    else:
        values = _weighted(_values(y), sample_weight)
    values = values[~pd.isna(values)]
    # Continuous numbers get scikit-learn's own message about regression targets.
    if values.dtype.kind in "fc":
        check_classification_targets(values)
    classes = np.unique(values)
    if len(classes) != 2:
        shown = ", ".join(map(repr, classes[:5].tolist())) + (", ..." if len(classes) > 5 else "")
        kind = "class" if len(classes) == 1 else "classes"
        raise UsageError(
            f"Only binary classification is supported. The type of the target is {type_of_target(values)}. "
            f"y has {len(classes)} {kind} ({shown}): leave rows out, or group classes"
        )
    return classes


def _weighted(values: np.ndarray, sample_weight: Any) -> np.ndarray:
    """The values that count; weights of another length, or all zero, are the fit's complaint."""
    if sample_weight is None or is_dask(sample_weight):
        return values
    counts = as_vector(sample_weight) != 0.0
    return values[counts] if counts.shape == values.shape and counts.any() else values


def codes_of(y: Any, classes: np.ndarray) -> Any:
    """(n,) 1 for the second class, 0 for the first, NaN for missing and other labels; a Dask vector stays lazy."""
    if not is_dask(y):
        return _codes(_values(y), classes)
    if hasattr(y, "to_frame"):  # a Series, whose partitions are pandas'
        return y.map_partitions(_coded_series, classes, meta=(y.name, "f8"))
    return y.map_blocks(_codes, classes, dtype=np.float64)


def _codes(values: np.ndarray, classes: np.ndarray) -> np.ndarray:
    # NaN is equal to no class, and so missing labels stay missing.
    return np.where(values == classes[1], 1.0, np.where(values == classes[0], 0.0, np.nan))


def _coded_series(series: pd.Series, classes: np.ndarray) -> pd.Series:
    return pd.Series(_codes(np.asarray(series), classes), index=series.index, name=series.name)


def both(p: np.ndarray) -> np.ndarray:
    """(n, 2) probabilities of the first and the second class from those of the second."""
    return np.column_stack([1.0 - p, p])


def labels_of(p: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """(n,) the class of each probability of the second one; UsageError where there is none."""
    missing = np.isnan(p)
    if missing.any():
        row = int(np.argmax(missing))
        raise UsageError(
            f"row {row} has a missing value or level, so its class cannot be predicted: drop it, or use "
            "predict_proba, which gives NaN"
        )
    return classes[(p > 0.5).astype(np.int64)]
