"""Generalized linear mixed models as a scikit-learn classifier and regressor."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.metrics import accuracy_score
from sklearn.utils.validation import check_is_fitted

from bigmm.arguments import strict_class
from bigmm.errors import UsageError
from bigmm.families import FAMILIES
from bigmm.families.rows import deviance_row
from bigmm.fit import glmm
from bigmm.results import GlmmResults
from bigmm.sklearn.base import FormulaEstimator, comparable
from bigmm.sklearn.classes import both, codes_of, distinct, labels_of
from bigmm.sklearn.tables import is_dask


@strict_class
@dataclass(eq=False, repr=False, kw_only=True)
class GLMMClassifier(FormulaEstimator, ClassifierMixin, BaseEstimator):
    """Bernoulli mixed model as a classifier of two classes of any type.

    Parameters
    ----------
    formula, random, new_levels, weights, offset, contrasts, categories
        As in `LMMRegressor`.
    optimizer, drop_missing, n_workers, partition_bytes, memory_limit
        As in `bigmm.glmm`.
    link : str, optional
        "logit" (the default), "probit", "cloglog" or "cauchit".
    nagq : int
        0: fast; 1: the Laplace approximation; k: quadrature points for one scalar random effect.
    se : {"rx", "hessian"}
        Standard errors from the working model (quick), or from the Hessian.

    Attributes
    ----------
    classes_ : array (2,)
        The classes, sorted. The model gives the probability of the second one.
    result_ : GlmmResults
        The fit, without its rows.
    n_features_in_, feature_names_in_
        The columns of X at fit.
    """

    link: str | None = None
    nagq: int = 1
    se: str = "rx"
    result_: GlmmResults = field(init=False)

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> GLMMClassifier:
        """Fit to X, y and sample_weight as `LMMRegressor.fit` takes them, where y has two classes of any type.

        Raises UsageError where there are not two classes, and what `bigmm.glmm` raises.
        """
        self._frame(X, None)  # a formula and a table, before y is looked at
        truth = self._response_of(X, "fit") if y is None else y
        self.classes_ = distinct(truth, sample_weight)
        codes = codes_of(truth, self.classes_)
        self._fit(glmm, X, codes, sample_weight, family="bernoulli", link=self.link, nagq=self.nagq, se=self.se)
        zero, one = map(repr, self.classes_.tolist())
        # The fit saw 0 and 1. Its summary should name the classes.
        self.result_ = with_meanings(self.result_, zero, one)
        return self

    def decision_function(self, X: Any) -> Any:
        """(n,) linear predictor: positive values speak for the second class (with symmetric links)."""
        return self._predicted(X, "link")

    def predict_proba(self, X: Any) -> Any:
        """(n, 2) probabilities of `classes_`, NaN where a used column is missing; lazy for a Dask DataFrame."""
        p = self._predicted(X, "response")
        if is_dask(p):
            return p.map_blocks(both, new_axis=1, chunks=(p.chunks[0], (2,)), dtype=np.float64)
        return both(p)

    def predict(self, X: Any) -> Any:
        """(n,) the more probable class; UsageError for rows that cannot be predicted, see `predict_proba`."""
        p = self._predicted(X, "response")
        if is_dask(p):
            return p.map_blocks(labels_of, self.classes_, dtype=self.classes_.dtype)
        return labels_of(p, self.classes_)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Accuracy; y None when X has the response. Rows with missing values are left out."""
        check_is_fitted(self, "result_")
        truth = codes_of(self._response_of(X) if y is None else y, self.classes_)
        truth, predicted, weight = comparable(truth, self._predicted(X, "response"), sample_weight)
        return float(accuracy_score(truth > 0.5, predicted > 0.5, sample_weight=weight))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags


def with_meanings(result: GlmmResults, zero: str, one: str) -> GlmmResults:
    """The result, whose summary says what the numbers 0 and 1 of its response stand for."""
    spec = result.fitted.spec
    named = replace(spec, settings=replace(spec.settings, meanings=(zero, one)))
    return GlmmResults(replace(result.fitted, spec=named))


@strict_class
@dataclass(eq=False, repr=False, kw_only=True)
class GLMMRegressor(FormulaEstimator, RegressorMixin, BaseEstimator):
    """Mixed model for counts, proportions and positive responses.

    Parameters
    ----------
    formula, random, new_levels, weights, offset, contrasts, categories
        As in `LMMRegressor`.
    optimizer, drop_missing, n_workers, partition_bytes, memory_limit
        As in `bigmm.glmm`.
    family : str
        One of `bigmm.families.NAMES`, such as "poisson", "gamma", "beta", or "binomial" for proportions with the
        trials as weights.
    link : str, optional
        None takes the family's default.
    nagq, se
        As in `GLMMClassifier`.

    Attributes
    ----------
    result_ : GlmmResults
        The fit, without its rows.
    n_features_in_, feature_names_in_
        The columns of X at fit.
    """

    family: str = "poisson"
    link: str | None = None
    nagq: int = 1
    se: str = "rx"
    result_: GlmmResults = field(init=False)

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> GLMMRegressor:
        """Fit; X, y and sample_weight are those of `LMMRegressor.fit`. Raises what `bigmm.glmm` raises."""
        self._fit(glmm, X, y, sample_weight, family=self.family, link=self.link, nagq=self.nagq, se=self.se)
        return self

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.positive_only = FAMILIES[self.family].positive if self.family in FAMILIES else True
        return tags

    def predict(self, X: Any) -> Any:
        """(n,) means, NaN where a used column is missing; a lazy Dask Array for a Dask DataFrame."""
        return self._predicted(X, "response")

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """D^2, the part of the family's deviance that is explained (R^2 for the gaussian), as scikit-learn's GLMs
        score.

        y None when X has the response. Rows with missing values are left out.
        """
        check_is_fitted(self, "result_")
        truth = self._response_of(X) if y is None else y
        truth, predicted, weight = comparable(truth, self.predict(X), sample_weight)
        w = np.ones(len(truth)) if weight is None else weight
        family, phi = self.result_.family, self.result_.dispersion
        # The deviance of the null model, a weighted mean for all rows.
        average = np.full(len(truth), np.average(truth, weights=w))
        unexplained, total = (deviance_row(family, truth, w, mu, phi).sum() for mu in (predicted, average))
        if not total > 0.0:
            raise UsageError("score() needs responses that are not all equal")
        return float(1.0 - unexplained / total)
