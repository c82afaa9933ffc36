"""Fixed effects: standard errors, Wald statistics and intervals, correlations. Numbers only, no tables but pandas'."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from bigmm.errors import UsageError
from bigmm.results.estimated import Estimated
from bigmm.results.inference import coefficient_tests, limits, method

INTERVAL_METHODS = ("wald", "profile")


def named(fitted: Estimated, values: np.ndarray, name: str) -> pd.Series:
    """(p,) values as a Series over the coefficient names."""
    return pd.Series(np.array(values, dtype=float), index=list(fitted.fixed_names), name=name)


def standard_errors(fitted: Estimated) -> np.ndarray:
    """(p,) square roots of the diagonal of the covariance matrix."""
    return np.sqrt(np.diag(fitted.estimates.vcov))


def z_values(fitted: Estimated) -> np.ndarray:
    """(p,) estimate / standard error."""
    return fitted.estimates.beta / standard_errors(fitted)


def confidence_level(bare: Any = None, *, level: Any = None, alpha: Any = None) -> float:
    """The confidence level that a call means, wherever one is taken.

    Parameters
    ----------
    bare: the value given without a name. It is read as a level; below 0.5 it is refused, since in statsmodels a bare
        number is 1 - level.
    level: the value given as ``level=``, R's habit. alpha: the value given as ``alpha=``, that is, 1 - level.

    Returns a number between 0 and 1, `USUAL_LEVEL` when nothing was given. Raises UsageError.
    """
    choices = {"": bare, "level=": level, "alpha=": alpha}
    choices = {name: value for name, value in choices.items() if value is not None}
    if len(choices) > 1:
        shown = " and ".join(f"{name}{value!r}" for name, value in choices.items())
        raise UsageError(f"give the confidence level once: level=0.95 and alpha=0.05 mean the same, got {shown}")
    for name, value in choices.items():
        number = _share(name or "level=", value)
        # 0.05 as a level would give an interval that misses the value 95 times in 100, without any error.
        if not name and number < LEAST_BARE:
            raise UsageError(
                f"a bare {value!r} could be alpha or a confidence level: write alpha={value!r} for the interval that "
                f"covers {1.0 - number:.6g}, or level={value!r} for the one that covers {number:.6g}"
            )
        return 1.0 - number if name == "alpha=" else number
    return USUAL_LEVEL


USUAL_LEVEL, LEAST_BARE = 0.95, 0.5


def _share(name: str, value: Any) -> float:
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not number or not 0.0 < float(value) < 1.0:
        usual = "0.05 means a 95% interval" if name == "alpha=" else "0.95 means a 95% interval"
        raise UsageError(f"{name.rstrip('=')} must lie between 0 and 1, got {value!r}; {usual}")
    return float(value)


def intervals(fitted: Estimated, level: float, kind: str, ddf: Any = "auto") -> pd.DataFrame:
    """Confidence limits of the coefficients at a level of `confidence_level`: columns lower, upper."""
    if kind != "wald":
        raise UsageError(f"conf_int(method={kind!r}) is not available; available: {', '.join(INTERVAL_METHODS)}")
    low, high = limits(coefficient_tests(fitted, ddf), level)
    return pd.DataFrame({"lower": low, "upper": high}, index=list(fitted.fixed_names))


def table(fitted: Estimated, ddf: Any = "auto") -> pd.DataFrame:
    """The coefficient table of the summary: Estimate, Std. Error, df, t value, Pr(>|t|), or z value and Pr(>|z|)."""
    single = coefficient_tests(fitted, ddf)
    columns = {"Estimate": single.estimate, "Std. Error": single.error}
    if method(fitted, ddf) == "normal":
        columns |= {fitted.statistic: single.statistic, "Pr(>|z|)": single.p_value}
    else:
        columns |= {"df": single.df, fitted.statistic: single.statistic, "Pr(>|t|)": single.p_value}
    return pd.DataFrame(columns, index=list(fitted.fixed_names))


def correlations(fitted: Estimated) -> pd.DataFrame:
    """Correlation matrix of the estimable coefficients."""
    # NaN rows of dropped columns would spread over the whole matrix.
    estimated = np.isfinite(fitted.estimates.beta)
    names = [name for name, keep in zip(fitted.fixed_names, estimated, strict=True) if keep]
    vcov = fitted.estimates.vcov[np.ix_(estimated, estimated)]
    scale = np.sqrt(np.diag(vcov))
    return pd.DataFrame(vcov / np.outer(scale, scale), index=names, columns=names)
