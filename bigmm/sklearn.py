"""A linear mixed model as a scikit-learn regressor, for pipelines, cross-validation and dask-ml's wrappers.

    from bigmm.sklearn import LMMRegressor
    model = LMMRegressor("y ~ x + (1 | g)").fit(frame, frame["y"])

The only module of bigmm that imports scikit-learn; dask-ml is never imported. See docs/sklearn.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from bigmm.design import parse
from bigmm.errors import UsageError
from bigmm.fit import lmm
from bigmm.results import LmmResults

try:
    from sklearn.base import BaseEstimator, RegressorMixin
    from sklearn.metrics import r2_score
    from sklearn.utils.validation import check_array, check_is_fitted, column_or_1d
except ImportError as error:
    raise ImportError("bigmm.sklearn needs scikit-learn: pip install 'bigmm[ml]'") from error

__all__ = ["LMMRegressor"]

SAMPLE_WEIGHT = "(sample_weight)"


class LMMRegressor(RegressorMixin, BaseEstimator):
    """Linear mixed model regressor: fixed effects and random effects of grouping columns.

    Parameters
    ----------
    formula: lme4's language, for example ``"y ~ x + (1 + x | g)"``; names are columns of X. An array without names has
        columns x0, x1, ...
    reml: REML (True) or maximum likelihood. random: predictions include the conditional modes of levels that were seen.
    new_levels: levels that were not seen count as an average level ("population"), are an error ("raise") or give NaN
        ("missing"). Cross-validation over groups needs "population".
    weights, offset: names of columns of X. contrasts, categories, optimizer, drop_missing, n_workers, partition_bytes,
        memory_limit: as in `bigmm.lmm`.

    Attributes
    ----------
    result_: the fitted `LmmResults` (without its rows: pass data to its predict and augment);
    n_features_in_, feature_names_in_: columns of X at fit, without the response.
    """

    def __init__(
        self,
        formula: str | None = None,
        *,
        reml: bool = True,
        random: bool = True,
        new_levels: str = "population",
        weights: str | None = None,
        offset: str | None = None,
        contrasts: Mapping[str, str] | None = None,
        categories: Mapping[str, list] | None = None,
        optimizer: str = "auto",
        drop_missing: bool = True,
        n_workers: int | None = None,
        partition_bytes: int = 64 << 20,
        memory_limit: Any = None,
    ):
        self.formula = formula
        self.reml = reml
        self.random = random
        self.new_levels = new_levels
        self.weights = weights
        self.offset = offset
        self.contrasts = contrasts
        self.categories = categories
        self.optimizer = optimizer
        self.drop_missing = drop_missing
        self.n_workers = n_workers
        self.partition_bytes = partition_bytes
        self.memory_limit = memory_limit

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> LMMRegressor:
        """Fit to a pandas, polars or Dask DataFrame, a pyarrow Table or an array.

        y: (n,) response, which becomes the column the formula names (and wins over one of that name in X); None when X
        has it. For a Dask DataFrame y is a Dask Series or Array. sample_weight: (n,) prior weights, as `weights`.
        Raises UsageError, FormulaError, DataError.
        """
        if self.formula is None:
            raise UsageError("LMMRegressor needs a formula, for example LMMRegressor('y ~ x + (1 | group)')")
        frame = as_frame(X)
        names = [str(name) for name in column_names(frame)]
        response = response_name(self.formula)
        features = [name for name in names if name != response]
        if y is not None:
            frame = with_column(frame, _settable(response, self.formula), y, "y")
        weights = self.weights
        if sample_weight is not None:
            if weights is not None:
                raise UsageError(f"give either weights={weights!r} (a column) or sample_weight, not both")
            frame, weights = with_column(frame, SAMPLE_WEIGHT, sample_weight, "sample_weight"), SAMPLE_WEIGHT
        result = lmm(
            self.formula,
            frame,
            reml=self.reml,
            weights=weights,
            offset=self.offset,
            contrasts=None if self.contrasts is None else dict(self.contrasts),
            categories=None if self.categories is None else dict(self.categories),
            optimizer=self.optimizer,
            drop_missing=self.drop_missing,
            n_workers=self.n_workers,
            partition_bytes=self.partition_bytes,
            memory_limit=self.memory_limit,
        )
        # the rows are let go, as scikit-learn's estimators do: a search keeps many of them
        self.result_ = LmmResults(replace(result.fitted, source=None))
        self.n_features_in_ = len(features)
        self.feature_names_in_ = np.array(features, dtype=object)
        return self

    def predict(self, X: Any) -> Any:
        """(n,) predictions, NaN where a used column is missing; a lazy Dask Array for a Dask DataFrame."""
        check_is_fitted(self, "result_")
        frame = as_frame(X)
        if frame is not X and frame.shape[1] != self.n_features_in_:
            raise UsageError(
                f"X has {frame.shape[1]} features, but LMMRegressor is expecting {self.n_features_in_} features "
                "as input"
            )
        self._check_columns(frame)
        if not is_dask(frame) and len(frame) == 0:
            return np.empty(0)
        values = self.result_.predict(frame, random=self.random, new_levels=self.new_levels)
        return values.to_dask_array() if is_dask(frame) else values

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """R^2 of the predictions; y None when X has the response. Rows with missing values are left out."""
        check_is_fitted(self, "result_")
        if y is None:
            frame, response = as_frame(X), response_name(str(self.formula))
            if response not in column_names(frame):
                raise UsageError("score() needs y, or a plain column of X as response of the formula")
            y = frame[response]
        truth, predicted = as_vector(y), as_vector(self.predict(X))
        there = np.isfinite(truth) & np.isfinite(predicted)
        weight = None if sample_weight is None else as_vector(sample_weight)[there]
        return float(r2_score(truth[there], predicted[there], sample_weight=weight))

    def _check_columns(self, frame: Any) -> None:
        names = set(map(str, column_names(frame)))
        missing = [name for name in self._needed() if name not in names]
        if missing:
            raise UsageError(f"X lacks the columns {', '.join(missing)} that the formula {self.formula!r} uses")

    def _needed(self) -> list[str]:
        """Columns without which nothing can be predicted."""
        spec = self.result_.fitted.spec
        unused = {response_name(str(self.formula)), self.weights, SAMPLE_WEIGHT}
        features = set(self.feature_names_in_)
        return [name for name in spec.used_columns if name not in unused and name in features]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = False
        tags.input_tags.allow_nan = self.drop_missing
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        return tags


def response_name(formula: str) -> str | None:
    """The column that is the response, None when the left-hand side is more than a name."""
    response = parse(formula).response
    return str(response.value) if response.kind == "name" else None


def _settable(response: str | None, formula: str) -> str:
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


def as_frame(X: Any) -> Any:
    """A table with named columns; raises UsageError for what cannot be one."""
    if kind_of(X) in _APPEND and hasattr(X, "columns"):
        return X
    if is_dask(X) or not (isinstance(X, list) or hasattr(X, "__array__")):
        raise UsageError(
            f"X is a {type(X).__module__}.{type(X).__qualname__}: give a pandas, polars or Dask DataFrame or a pyarrow "
            "Table, so that the formula finds its columns by name (in a pipeline: set_output(transform='pandas'))"
        )
    array = check_array(X, dtype=None, ensure_all_finite=False, estimator="LMMRegressor")
    return pd.DataFrame(array, columns=[f"x{i}" for i in range(array.shape[1])])


def column_names(frame: Any) -> list:
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


def _append_polars(frame: Any, name: str, values: Any) -> Any:
    import polars as pl

    return frame.with_columns(pl.Series(name, values))


def _append_arrow(frame: Any, name: str, values: Any) -> Any:
    kept = frame.drop_columns([name]) if name in frame.column_names else frame
    return kept.append_column(name, pa.array(values))


#: library of a table -> how it gets a column
_APPEND: dict[str, Callable[[Any, str, Any], Any]] = {
    "pandas": lambda frame, name, values: frame.assign(**{name: values}),
    "dask": lambda frame, name, values: frame.assign(**{name: values}),
    "polars": _append_polars,
    "pyarrow": _append_arrow,
}
