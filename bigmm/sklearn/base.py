"""What the estimators share: from X and y to a table with a response, from a result to predictions of any library."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from bigmm.errors import UsageError
from bigmm.results import MixedModelResults
from bigmm.results.selection import selection
from bigmm.sklearn.tables import (
    as_frame,
    as_vector,
    column_names,
    is_dask,
    response_name,
    settable,
    with_column,
    with_columns,
)

SAMPLE_WEIGHT = "(sample_weight)"

FIT_OPTIONS = ("offset", "optimizer", "drop_missing", "n_workers", "partition_bytes", "memory_limit")
"""Parameters that go to the fit as they are."""


@dataclass(eq=False, repr=False)
class FormulaEstimator:
    """An estimator whose formula names columns of X; `result_` is the fit without its rows.

    Goes before scikit-learn's mixins among the bases: y may be a column of X, which they forbid. Its fields are the
    parameters that all estimators have (see `LMMRegressor`): dataclass writes the __init__ that scikit-learn inspects.
    """

    formula: str | None = None
    _: KW_ONLY
    random: bool | Sequence[str] = True
    new_levels: str = "population"
    weights: str | None = None
    offset: str | None = None
    contrasts: Mapping[str, str] | None = None
    categories: Mapping[str, list[Any]] | None = None
    optimizer: str = "auto"
    drop_missing: bool = True
    n_workers: int | None = None
    partition_bytes: int = 64 << 20
    memory_limit: Any = None
    result_: MixedModelResults = field(init=False)

    def _fit(
        self, model: Callable[..., MixedModelResults], X: Any, y: Any, sample_weight: Any, **particular: Any
    ) -> None:
        """Fit `model` (`bigmm.lmm` or `glmm`) and keep what scikit-learn expects of a fitted estimator."""
        frame, features = self._frame(X, y)
        weights = self.weights
        if sample_weight is not None:
            if weights is not None:
                raise UsageError(f"give either weights={weights!r} (a column) or sample_weight, not both")
            frame, weights = with_column(frame, SAMPLE_WEIGHT, sample_weight, "sample_weight"), SAMPLE_WEIGHT
        result = model(
            self.formula,
            frame,
            weights=weights,
            contrasts=None if self.contrasts is None else dict(self.contrasts),
            categories=None if self.categories is None else dict(self.categories),
            **{name: getattr(self, name) for name in FIT_OPTIONS},
            **particular,
        )
        selection(result.fitted, self.random)  # what predictions will not take is refused here
        # the rows are let go, as scikit-learn's estimators do: a search keeps many of them
        self.result_ = type(result)(replace(result.fitted, source=None))
        self.n_features_in_ = len(features)
        self.feature_names_in_ = np.array(features, dtype=object)

    def _frame(self, X: Any, y: Any) -> tuple[Any, list[str]]:
        """(X with the response as a column, names of the other columns)."""
        name = type(self).__name__
        if self.formula is None:
            raise UsageError(f"{name} needs a formula, for example {name}('y ~ x + (1 | group)')")
        frame = as_frame(X, name)
        response = response_name(self.formula)
        features = [str(column) for column in column_names(frame) if str(column) != response]
        if y is not None:
            frame = with_column(frame, settable(response, self.formula), y, "y")
        return frame, features

    def _predicted(self, X: Any, type: str) -> Any:
        """(n,) predictions, NaN where a used column is missing; a lazy Dask Array for a Dask DataFrame."""
        # scikit-learn's own NotFittedError, which its tools expect.
        check_is_fitted(self, "result_")
        frame = self._features(X)
        # No rows, no predictions: scikit-learn's splitters may give such a part.
        if not is_dask(frame) and len(frame) == 0:
            return np.empty(0)
        values = self.result_.predict(frame, random=self.random, new_levels=self.new_levels, type=type)
        return values.to_dask_array() if is_dask(frame) else values

    def _features(self, X: Any) -> Any:
        name = type(self).__name__
        frame = as_frame(X, name)
        # Arrays are matched by position, so their width has to be the same; tables are matched by name.
        if frame is not X and frame.shape[1] != self.n_features_in_:
            raise UsageError(
                f"X has {frame.shape[1]} features, but {name} is expecting {self.n_features_in_} features as input"
            )
        names = set(map(str, column_names(frame)))
        missing = [column for column in self._predictors() if column not in names]
        if missing:
            raise UsageError(f"X lacks the columns {', '.join(missing)} that the formula {self.formula!r} uses")
        # the response may be among the others, with labels in place of the numbers that the fit had
        return with_columns(frame, self._predictors())

    def _predictors(self) -> list[str]:
        """Columns without which nothing can be predicted."""
        spec = self.result_.fitted.spec
        unused = {response_name(str(self.formula)), self.weights, SAMPLE_WEIGHT}
        features = set(self.feature_names_in_)
        return [name for name in spec.used_columns if name not in unused and name in features]

    def _response_of(self, X: Any, method: str = "score") -> Any:
        """The response as a column of X, when y is not given."""
        frame, response = as_frame(X, type(self).__name__), response_name(str(self.formula))
        if response not in column_names(frame):
            raise UsageError(f"{method}() needs y, or a plain column of X as response of the formula")
        return frame[response]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()  # type: ignore[misc]
        tags.target_tags.required = False
        tags.input_tags.allow_nan = self.drop_missing
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        return tags


def comparable(truth: Any, predicted: Any, sample_weight: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """(truth, predictions, weights) of the rows that have the two first."""
    truth, predicted = as_vector(truth), as_vector(predicted)
    # Rows that the fit would drop have no part in a score.
    there = np.isfinite(truth) & np.isfinite(predicted)
    weight = None if sample_weight is None else as_vector(sample_weight)[there]
    return truth[there], predicted[there], weight
