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
    """Linear mixed model as a regressor: fixed effects, and random effects of grouping columns.

    Parameters
    ----------
    formula : str
        In lme4's language, for example ``"y ~ x + (1 + x | g)"``. Names are columns of X. An array without names has
        the columns x0, x1, ...
    reml : bool
        REML, or maximum likelihood.
    random : bool or sequence of str
        Predictions include the conditional modes of levels that the fit has met (True), those of some groups or terms
        (a list of them), or none (False).
    new_levels : {"population", "raise", "missing"}
        Levels that the fit has not met count as an average level, are an error, or give NaN. Cross-validation over
        groups needs "population".
    weights, offset : str, optional
        Columns of X: prior weights, and a known part of the linear predictor.
    contrasts, categories, optimizer, drop_missing, n_workers, partition_bytes, memory_limit
        As in `bigmm.lmm`.

    Attributes
    ----------
    result_ : LmmResults
        The fit, without its rows: pass data to its `predict` and `augment`.
    n_features_in_, feature_names_in_
        The columns of X at fit, without the response.

    Examples
    --------
    >>> from bigmm.sklearn import LMMRegressor
    >>> data = bigmm.datasets.sleepstudy()
    >>> model = LMMRegressor("Reaction ~ Days + (Days | Subject)").fit(data)
    >>> print(round(model.score(data), 3))
    0.826
    """

    reml: bool = True

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> LMMRegressor:
        """Fit to a table or an array.

        Parameters
        ----------
        X : pandas, polars or Dask DataFrame, pyarrow Table or array
            Features, and grouping columns.
        y : array (n,), optional
            The response, which becomes the column that the formula names, and wins over a column of that name in X.
            None when X has it. For a Dask DataFrame a Dask Series or Array.
        sample_weight : array (n,), optional
            Prior weights, instead of the column `weights`.

        Returns
        -------
        LMMRegressor
            The estimator itself.

        Raises
        ------
        UsageError, FormulaError, DataError
        """
        self._fit(lmm, X, y, sample_weight, reml=self.reml)
        return self

    def predict(self, X: Any) -> Any:
        """Return predictions (n,), NaN where a used column is missing; a lazy Dask Array for a Dask DataFrame."""
        return self._predicted(X, "response")

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return R^2 of the predictions. `y` is None when X has the response. Rows with missing values are left out."""
        check_is_fitted(self, "result_")
        truth = self._response_of(X) if y is None else y
        truth, predicted, weight = comparable(truth, self.predict(X), sample_weight)
        return float(r2_score(truth, predicted, sample_weight=weight))
