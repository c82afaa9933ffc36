"""Fixed effects: standard errors, Wald statistics and intervals, correlations. Numbers only, no tables but pandas'."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from bigmm.errors import UsageError
from bigmm.results.estimated import Estimated

INTERVAL_METHODS = ("wald",)


def named(fitted: Estimated, values: np.ndarray, name: str) -> pd.Series:
    """(p,) values as a Series over the coefficient names."""
    return pd.Series(np.array(values, dtype=float), index=list(fitted.fixed_names), name=name)


def covariance(fitted: Estimated) -> pd.DataFrame:
    """(p, p) covariance matrix of the coefficients; NaN for dropped columns."""
    names = list(fitted.fixed_names)
    return pd.DataFrame(np.array(fitted.estimates.vcov), index=names, columns=names)


def standard_errors(fitted: Estimated) -> np.ndarray:
    """(p,) square roots of the diagonal of the covariance matrix."""
    return np.sqrt(np.diag(fitted.estimates.vcov))


def z_values(fitted: Estimated) -> np.ndarray:
    """(p,) estimate / standard error."""
    return fitted.estimates.beta / standard_errors(fitted)


def p_values(fitted: Estimated) -> np.ndarray:
    """(p,) two-sided, from the normal distribution."""
    return 2.0 * stats.norm.sf(np.abs(z_values(fitted)))


def check_level(level: float) -> float:
    """The confidence level as a float, or UsageError."""
    if not 0.0 < float(level) < 1.0:
        raise UsageError(f"level must lie between 0 and 1, got {level!r}; 0.95 means a 95% interval")
    return float(level)


def intervals(fitted: Estimated, level: float, method: str) -> pd.DataFrame:
    """Confidence limits of the coefficients: columns lower, upper."""
    if method not in INTERVAL_METHODS:
        raise UsageError(f"conf_int(method={method!r}) is not available; available: {', '.join(INTERVAL_METHODS)}")
    half = stats.norm.ppf(0.5 + check_level(level) / 2.0) * standard_errors(fitted)
    beta = fitted.estimates.beta
    return pd.DataFrame({"lower": beta - half, "upper": beta + half}, index=list(fitted.fixed_names))


def table(fitted: Estimated) -> pd.DataFrame:
    """The coefficient table of the summary: Estimate, Std. Error, t value (z value), Pr(>|z|)."""
    columns = {
        "Estimate": fitted.estimates.beta,
        "Std. Error": standard_errors(fitted),
        fitted.statistic: z_values(fitted),
        "Pr(>|z|)": p_values(fitted),
    }
    return pd.DataFrame(columns, index=list(fitted.fixed_names))


def correlations(fitted: Estimated) -> pd.DataFrame:
    """Correlation matrix of the estimable coefficients."""
    kept = np.isfinite(fitted.estimates.beta)
    names = [name for name, keep in zip(fitted.fixed_names, kept, strict=True) if keep]
    vcov = fitted.estimates.vcov[np.ix_(kept, kept)]
    scale = np.sqrt(np.diag(vcov))
    return pd.DataFrame(vcov / np.outer(scale, scale), index=names, columns=names)
