"""A linear mixed model as a scikit-learn regressor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils.validation import check_is_fitted

from bigmm.arguments import strict_class
from bigmm.fit import lmm
from bigmm.sklearn.base import FormulaEstimator, comparable


@strict_class
@dataclass(eq=False, repr=False, kw_only=True)
class LMMRegressor(FormulaEstimator, RegressorMixin, BaseEstimator):
    """Linear mixed model regressor: fixed effects and random effects of grouping columns.

    Parameters
    ----------
    formula: lme4's language, for example ``"y ~ x + (1 + x | g)"``; names are columns of X. An array without names has
        columns x0, x1, ...
    reml: REML (True) or maximum likelihood. random: predictions include the conditional modes of levels that were seen
        (True), of some groups or terms (a list of them), or none (False).
    new_levels: levels that were not seen count as an average level ("population"), are an error ("raise") or give NaN
        ("missing"). Cross-validation over groups needs "population".
    weights, offset: names of columns of X. contrasts, categories, optimizer, drop_missing, n_workers, partition_bytes,
        memory_limit: as in `bigmm.lmm`.

    Attributes
    ----------
    result_: the fitted `LmmResults` (without its rows: pass data to its predict and augment);
    n_features_in_, feature_names_in_: columns of X at fit, without the response.
    """

    reml: bool = True

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> LMMRegressor:
        """Fit to a pandas, polars or Dask DataFrame, a pyarrow Table or an array.

        y: (n,) response, which becomes the column the formula names (and wins over one of that name in X); None when X
        has it. For a Dask DataFrame y is a Dask Series or Array. sample_weight: (n,) prior weights, as `weights`.
        Raises UsageError, FormulaError, DataError.
        """
        self._fit(lmm, X, y, sample_weight, reml=self.reml)
        return self

    def predict(self, X: Any) -> Any:
        """(n,) predictions, NaN where a used column is missing; a lazy Dask Array for a Dask DataFrame."""
        return self._predicted(X, "response")

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """R^2 of the predictions; y None when X has the response. Rows with missing values are left out."""
        check_is_fitted(self, "result_")
        truth = self._response_of(X) if y is None else y
        truth, predicted, weight = comparable(truth, self.predict(X), sample_weight)
        return float(r2_score(truth, predicted, sample_weight=weight))
