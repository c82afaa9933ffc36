"""Likelihood-ratio tests between nested fits of the same rows; REML fits are refitted by ML from the same Gram."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
from scipy import stats

from bigmm.arguments import strict
from bigmm.design.formula.expression import unparse
from bigmm.design.settings import VECTOR_OFFSET
from bigmm.errors import UsageError
from bigmm.objective.criterion import Criterion
from bigmm.objective.montecarlo import (
    TOLERANCE,
    DifferenceError,
    difference_error,
    objective_record,
    probing_of,
    reordered,
)
from bigmm.results.broom import information
from bigmm.results.doubts import warn_of
from bigmm.results.fit_results import FitResults
from bigmm.results.fitted import FittedModel
from bigmm.results.nesting import check_numbers_of_parameters, warn_unless_nested
from bigmm.search.linear import solve_model
from bigmm.search.options import SearchOptions

SAME_RESPONSE = 1e-8
LEVEL = 0.05
UNDECIDED = 2.0
"""A test is undecided when Chisq is within so many Monte Carlo errors of the critical value at `LEVEL`."""


def ml_fit(fitted: FittedModel) -> FittedModel:
    """The same model by maximum likelihood, started at the REML estimate; no pass over the rows."""
    if not fitted.reml:
        return fitted
    gram, covariances = fitted.criterion.gram, fitted.criterion.covariances
    # the same probes as the fits it is compared with, to the same precision
    mc_tol = tuple((fitted.monte_carlo_error or {}).get("mc_tol", TOLERANCE))
    options = SearchOptions(fitted.theta, solver=fitted.solver, seed=_seed(fitted), mc_tol=mc_tol)
    # The solver of the REML fit goes along, since the blocks are the same.
    solved = solve_model(gram, covariances, False, options, fitted.criterion.solver)
    refitted = replace(
        fitted,
        reml=False,
        criterion=solved.criterion,
        theta=solved.outcome.theta,
        outcome=solved.outcome,
        is_singular=bool(solved.outcome.at_boundary.any()),
        estimates=solved.criterion.estimates(solved.outcome.theta),
        monte_carlo_error=None if solved.error is None else solved.error.as_record(),
    )
    # The user asked for a comparison, so only doubts that the refit adds are told.
    warn_of(refitted, before=fitted)
    return refitted


def on_common_probes(fits: Sequence[FittedModel]) -> list[FittedModel]:
    """The same fits, but each iterative one with its objective estimated as that with most grouping factors has it: the
    same factors eliminated and probed, with the most probes that any of them has. theta stays; the objective moves
    within its Monte Carlo error."""
    chains = [fit.criterion.solver.eliminated if fit.kind == "lmm" else () for fit in fits]
    probed = [fit for fit, chain in zip(fits, chains, strict=True) if chain]
    # One estimated objective has no common error that could cancel.
    if len(probed) < 2:
        return list(fits)
    # Common random numbers: with the same probes, most of the errors of two objectives cancels in Chisq.
    largest = max(probed, key=lambda fit: len(fit.criterion.gram.terms))
    sizes = tuple(max(size) for size in zip(*(_sizes(fit) for fit in probed), strict=True))
    out = []
    for fit, chain in zip(fits, chains, strict=True):
        shared = [term.name for term in fit.criterion.gram.terms if term.name in largest.criterion.solver.eliminated]
        comparable = chain and shared and _seed(fit) == _seed(largest)
        if comparable and (set(shared) != set(chain) or _sizes(fit) != sizes):
            fit = _estimated_again(fit, reordered(fit.criterion, shared, *sizes))
        out.append(fit)
    return out


def _sizes(fit: FittedModel) -> tuple[int, int]:
    probing = probing_of(fit.criterion)
    return probing.probes, probing.deflation


def _seed(fit: FittedModel) -> int:
    return int((fit.monte_carlo_error or {}).get("seed", 0))


def _estimated_again(fit: FittedModel, criterion: Criterion) -> FittedModel:
    now = replace(fit.estimates, objective=criterion.value(fit.theta))
    error = dict(fit.monte_carlo_error or {}) | objective_record(criterion, fit.theta)
    return replace(fit, criterion=criterion, estimates=now, monte_carlo_error=error)


def check_comparable(fits: Sequence[FittedModel]) -> None:
    """Raise UsageError unless all fits are of the same rows of the same response by the same kind of likelihood."""
    first = fits[0]
    for other in fits[1:]:
        _check_likelihoods(first, other)
        if other.nobs != first.nobs:
            raise UsageError(
                f"the models were fitted to {first.nobs:,} and {other.nobs:,} rows: "
                "a likelihood-ratio test needs the same rows, and each formula drops rows where its own columns are "
                "missing; fit both with a filter= that leaves these rows out (in pandas: data.dropna(subset=[...]) "
                "with the columns of both formulas)"
            )
        if not _same_weights(first, other):
            what = "weights" if first.kind == "lmm" else "weights or numbers of trials"
            raise UsageError(
                f"the models have different {what} ({_weights_of(first)} and {_weights_of(other)}, or other values of "
                "them): a likelihood-ratio test needs the same; fit both with the same weights="
            )
        if other.layout.response != first.layout.response or not _same_response(first, other):
            raise UsageError(
                f"the models have different responses ({first.layout.response} and {other.layout.response}, "
                f"or other values of it): a likelihood-ratio test needs the same data"
            )


def _check_likelihoods(a: FittedModel, b: FittedModel) -> None:
    """Likelihoods of other families or links are not nested, and other approximations of the integral not
    comparable."""
    # A linear model's likelihood is a density of y on another scale than that of a generalized one.
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


def _same_response(a: FittedModel, b: FittedModel) -> bool:
    """Compare y'Wy about the mean of y less the offset, which tells two responses apart only under one offset.

    Models with different offsets are nested too, as a slope of one written offset(x) in a free slope of x.
    """
    # A vector has no name to compare by, so two vectors may be different.
    if _offsets(a) != _offsets(b) or VECTOR_OFFSET in _offsets(a):
        return True
    first, second = a.criterion.gram, b.criterion.gram
    # A tolerance: the sums of two fits may be taken about other shifts, and in other orders.
    return math.isclose(first.y_sum_squares_total, second.y_sum_squares_total, rel_tol=SAME_RESPONSE)


def _offsets(fit: FittedModel) -> list[str]:
    """Texts of the offset's parts, however they were given: offset="x" is offset(x)."""
    spec = fit.spec
    column = [] if spec.settings.offset is None else [spec.settings.offset]
    return sorted([unparse(node) for node in spec.parsed.offsets] + column)


def _same_weights(a: FittedModel, b: FittedModel) -> bool:
    """Compare sums of log weights, whatever the columns are called."""
    # The sum of log weights is in the likelihood itself, and it tells two columns of weights apart.
    first, second = a.criterion.gram.sum_log_w, b.criterion.gram.sum_log_w
    return math.isclose(first, second, rel_tol=SAME_RESPONSE, abs_tol=SAME_RESPONSE)


def _weights_of(fit: FittedModel) -> str:
    return "none" if fit.weights is None else repr(fit.weights)


@strict
def likelihood_ratio(*models: FitResults) -> pd.DataFrame:
    """Compare fits of the same rows by likelihood-ratio tests.

    Parameters
    ----------
    *models : MixedModelResults
        Two or more fits of nested models, in any order. REML fits are refitted by maximum likelihood.

    Returns
    -------
    DataFrame
        A row for each model, by number of parameters: npar, AIC, BIC, logLik, deviance, Chisq, Df and its p value. Fits
        by the iterative solver have columns with the Monte Carlo error of Chisq.

    Raises
    ------
    UsageError
        If two models have the same number of parameters, so that neither is nested in the other, or the rows differ.

    Examples
    --------
    >>> data = bigmm.datasets.sleepstudy()
    >>> small = bigmm.lmm("Reaction ~ Days + (Days || Subject)", data, reml=False)
    >>> large = bigmm.lmm("Reaction ~ Days + (Days | Subject)", data, reml=False)
    >>> print(f"{bigmm.lrt(small, large)['Chisq'].iloc[1]:.4f}")
    0.0639
    """
    fits = []
    for model in models:
        fitted = model.fitted if isinstance(model, FitResults) else None
        if not isinstance(fitted, FittedModel):
            raise UsageError(f"lrt() compares fitted mixed models of lmm() or glmm(), got {type(model).__name__}")
        fits.append(fitted)
    return lrt_table(fits)


def lrt_table(fits: Sequence[FittedModel]) -> pd.DataFrame:
    """npar, AIC, BIC, logLik, deviance, Chisq, Df, Pr(>Chisq), by increasing number of parameters (lme4's anova).

    Where a fit is iterative also MC error, what the probes make Chisq err by, and Probes: whether the two fits have
    common ones, and whether the decision at `LEVEL` could be another without them.
    """
    if len(fits) < 2:
        raise UsageError("a likelihood-ratio test compares at least two models")
    check_comparable(fits)
    check_numbers_of_parameters(fits)
    # REML criteria of other fixed effects are densities of other contrasts, so they have no ratio.
    ordered = on_common_probes(sorted((ml_fit(fit) for fit in fits), key=lambda fit: fit.npar))
    rows = [{"npar": fit.npar} | information(fit) for fit in ordered]
    frame = pd.DataFrame(rows, index=[fit.formula for fit in ordered]).drop(columns="df.residual")
    chisq = -np.diff(frame["deviance"].to_numpy(), prepend=np.nan)
    df = np.diff(frame["npar"].to_numpy().astype(float), prepend=np.nan)
    warn_unless_nested(ordered, chisq)
    # Two searches may end 1e-9 apart on the wrong side. A real fall was warned of above.
    frame["Chisq"] = np.where(np.isnan(chisq), np.nan, np.maximum(chisq, 0.0))
    frame["Df"] = df
    # chi2 has no distribution for df = 0 or NaN; the placeholder 1 keeps scipy quiet.
    tail = np.where(df > 0, stats.chi2.sf(frame["Chisq"], np.maximum(np.nan_to_num(df), 1.0)), np.nan)
    if any(fit.monte_carlo_error for fit in ordered):
        errors = [difference_error(a.monte_carlo_error, b.monte_carlo_error) for a, b in pairwise(ordered)]
        frame["MC error"] = [np.nan, *(error.value for error in errors)]
        frame["Pr(>Chisq)"] = tail
        pairs = zip(errors, chisq[1:], df[1:], strict=True)
        frame["Probes"] = ["", *(_probes_note(error, x, k) for error, x, k in pairs)]
    else:
        frame["Pr(>Chisq)"] = tail
    return frame


def _probes_note(error: DifferenceError, chisq: float, df: float) -> str:
    """How the error was found, and whether the decision at the usual level hangs on it."""
    critical = stats.chi2.isf(LEVEL, df) if df > 0 else np.inf
    close = abs(chisq - critical) < UNDECIDED * error.value
    return (f"could flip at {LEVEL:.2g}: lower mc_tol; " if close else "") + error.how
