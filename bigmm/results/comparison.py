"""Likelihood-ratio tests between nested fits of the same rows; REML fits are refitted by ML from the same Gram."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy import stats

from bigmm.errors import UsageError
from bigmm.results.broom import information
from bigmm.results.fitted import FittedLmm
from bigmm.solver import solve_model

SAME_RESPONSE = 1e-8


def ml_fit(fitted: FittedLmm) -> FittedLmm:
    """The same model by maximum likelihood, started at the REML estimate; no pass over the rows."""
    if not fitted.reml:
        return fitted
    gram, templates = fitted.criterion.gram, fitted.criterion.templates
    solved = solve_model(gram, templates, False, fitted.solver, theta0=fitted.theta)
    return replace(
        fitted,
        reml=False,
        criterion=solved.criterion,
        theta=solved.outcome.theta,
        outcome=solved.outcome,
        estimates=solved.criterion.estimates(solved.outcome.theta),
        monte_carlo_error=None if solved.error is None else solved.error.as_record(),
    )


def check_comparable(fits: Sequence[FittedLmm]) -> None:
    """Raise UsageError unless all fits are of the same rows of the same response by the same kind of likelihood."""
    first = fits[0]
    for other in fits[1:]:
        if other.nobs != first.nobs:
            raise UsageError(
                f"the models were fitted to {first.nobs:,} and {other.nobs:,} rows: "
                f"a likelihood-ratio test needs the same rows; rows with missing values may differ between formulas"
            )
        if other.layout.response != first.layout.response or not _same_response(first, other):
            raise UsageError(
                f"the models have different responses ({first.layout.response} and {other.layout.response}, "
                f"or other values of it): a likelihood-ratio test needs the same data"
            )
        _check_likelihoods(first, other)


def _check_likelihoods(a: FittedLmm, b: FittedLmm) -> None:
    """Likelihoods of other families or links are not nested, and other approximations of the integral not
    comparable."""
    if a.kind != b.kind:
        raise UsageError(
            f"a {a.title.lower()} and a {b.title.lower()} were given: fit both with lmm(), or both with glmm()"
        )
    if a.family != b.family:
        raise UsageError(
            f"the models have different families ({a.family} and {b.family}): they are not nested; "
            "compare their AIC instead"
        )
    if (a.nagq, a.weighting) != (b.nagq, b.weighting):
        raise UsageError(
            f"the likelihoods were approximated differently ({a.approximation} and {b.approximation}): "
            "their difference is no likelihood ratio; fit both with the same nagq and laplace"
        )


def _same_response(a: FittedLmm, b: FittedLmm) -> bool:
    """Compare y'Wy about the mean and the weights; a different offset makes them incomparable by this means."""
    if a.offset != b.offset:
        return True
    first, second = a.criterion.gram, b.criterion.gram
    squares = math.isclose(first.y_sum_squares_total, second.y_sum_squares_total, rel_tol=SAME_RESPONSE)
    weights = math.isclose(first.sum_log_w, second.sum_log_w, rel_tol=SAME_RESPONSE, abs_tol=SAME_RESPONSE)
    return squares and weights


def lrt_table(fits: Sequence[FittedLmm]) -> pd.DataFrame:
    """npar, AIC, BIC, logLik, deviance, Chisq, Df, Pr(>Chisq), by increasing number of parameters (lme4's anova)."""
    if len(fits) < 2:
        raise UsageError("a likelihood-ratio test compares at least two models")
    check_comparable(fits)
    ordered = sorted((ml_fit(fit) for fit in fits), key=lambda fit: fit.npar)
    rows = [{"npar": fit.npar} | information(fit) for fit in ordered]
    frame = pd.DataFrame(rows, index=[fit.formula for fit in ordered]).drop(columns="df.residual")
    chisq = -np.diff(frame["deviance"].to_numpy(), prepend=np.nan)
    df = np.diff(frame["npar"].to_numpy().astype(float), prepend=np.nan)
    frame["Chisq"] = np.where(np.isnan(chisq), np.nan, np.maximum(chisq, 0.0))
    frame["Df"] = df
    if any(fit.monte_carlo_error for fit in ordered):
        frame["MC error"] = _monte_carlo_errors(ordered)
    frame["Pr(>Chisq)"] = np.where(df > 0, stats.chi2.sf(frame["Chisq"], np.maximum(np.nan_to_num(df), 1.0)), np.nan)
    return frame


def _monte_carlo_errors(fits: Sequence[FittedLmm]) -> np.ndarray:
    """(n,) bound on the standard error of Chisq that the probes cause: with common probes the difference errs less."""
    each = [float((fit.monte_carlo_error or {}).get("objective", 0.0)) for fit in fits]
    return np.array([np.nan, *np.hypot(each[1:], each[:-1])])
