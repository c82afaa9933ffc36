"""Tables of tests: which method gives the degrees of freedom of a fit, and what `bigmm.inference` says."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
from scipy import stats

from bigmm.errors import UsageError
from bigmm.inference import hypotheses as hypothesis_text
from bigmm.inference import terms, tests
from bigmm.inference.coefficients import coefficients
from bigmm.inference.model import LinearInference
from bigmm.results.estimated import Estimated

MOST_PARAMETERS = 30
"""Covariance parameters up to which ddf="auto" is Satterthwaite. It evaluates the criterion twice for each one; a fit
needs about as many evaluations."""

_models: WeakKeyDictionary[Any, tuple[Any, LinearInference]] = WeakKeyDictionary()
# A fit is frozen, and what is differentiated at its optimum costs evaluations: it is kept beside the criterion.


def linear_inference(fitted: Estimated) -> LinearInference:
    """The derivatives behind the tests of a linear mixed model; made once for a fit."""
    # A criterion may serve two fits, so the estimates have to be the very same object.
    estimates, model = _models.get(fitted.criterion, (None, None))
    if model is None or estimates is not fitted.estimates:
        model = _normal(fitted)
        if fitted.curvature is not None:
            model.__dict__["curvature"] = fitted.curvature  # a pickled fit keeps it, not the user's Lambda(theta)
        _models[fitted.criterion] = fitted.estimates, model
    return model


def is_linear(fitted: Estimated) -> bool:
    """Is the fit a linear mixed model?"""
    return fitted.kind == "lmm"


def has_degrees_of_freedom(fitted: Estimated) -> bool:
    """Is the fit one whose tests use t and F: a linear mixed model, evaluated exactly?"""
    return is_linear(fitted) and fitted.solver != "iterative"


def method(fitted: Estimated, ddf: Any = "auto") -> str:
    """The method that a call means: "satterthwaite", "kenward-roger" or "normal".

    Raises
    ------
    UsageError
        The method is unknown, or the fit has none such.
    """
    ddf = tests.method_of(ddf)
    if ddf == "auto":
        few = len(fitted.theta) <= MOST_PARAMETERS
        return "satterthwaite" if has_degrees_of_freedom(fitted) and few else "normal"
    if ddf != "normal" and not has_degrees_of_freedom(fitted):
        raise UsageError(f"ddf={ddf!r} is not available for this fit ({_why(fitted)}): use ddf='normal'")
    return ddf


def _why(fitted: Estimated) -> str:
    if not is_linear(fitted):
        return "degrees of freedom are defined for linear mixed models"
    return "the iterative solver has estimates of the criterion, whose curvature is not known well enough"


NAMES = {"satterthwaite": "Satterthwaite's method", "kenward-roger": "Kenward and Roger's method"}


def method_notes(fitted: Estimated, ddf: Any = "auto") -> tuple[str, ...]:
    """Lines under the table of coefficients: where its p values come from, and what a singular fit means for them."""
    name = method(fitted, ddf)
    if name == "normal":
        if not is_linear(fitted):
            return ()
        return (f" p values from the normal distribution: {_why_normal(fitted, ddf)}",)
    lines = [f" t tests with degrees of freedom by {NAMES[name]}"]
    if fitted.outcome.at_boundary.any():
        lines.append(" variance parameters at zero are treated as known in the degrees of freedom")
    return tuple(lines)


def _why_normal(fitted: Estimated, ddf: Any) -> str:
    if ddf == "normal":
        return "as tested for"
    if not has_degrees_of_freedom(fitted):
        return _why(fitted)
    return f"{len(fitted.theta)} covariance parameters; ddf='satterthwaite' gives degrees of freedom"


def coefficient_tests(fitted: Estimated, ddf: Any = "auto") -> tests.Contrasts:
    """The t tests of all coefficients, (p,) arrays with NaN for coefficients that are not estimable."""
    ddf = method(fitted, ddf)
    beta, vcov = np.asarray(fitted.estimates.beta), np.asarray(fitted.estimates.vcov)
    if ddf == "normal":
        error = np.sqrt(np.diag(vcov))
        # A standard error of zero gives an infinite statistic, and dropped columns give NaN.
        with np.errstate(divide="ignore", invalid="ignore"):
            statistic = beta / error
        df = np.where(np.isfinite(beta), np.inf, np.nan)
        # The upper tail twice: 1 - cdf would be zero from a statistic of about 8 on.
        return tests.Contrasts(beta, error, statistic, df, 2.0 * stats.norm.sf(np.abs(statistic)))
    model = linear_inference(fitted)
    positions = model.coefficients.positions
    single = tests.contrasts(model, np.eye(len(beta))[positions], 0.0, ddf)
    columns = (single.estimate, single.error, single.statistic, single.df, single.p_value)
    out = []
    for values in columns:
        column = np.full(len(beta), np.nan)
        column[positions] = values
        out.append(column)
    return tests.Contrasts(*out)


def limits(single: tests.Contrasts, level: float) -> tuple[np.ndarray, np.ndarray]:
    """(lower, upper) confidence limits of estimates, each with its degrees of freedom."""
    half = (
        # Infinite degrees of freedom mean the normal distribution.
        np.where(np.isinf(single.df), stats.norm.ppf(0.5 + level / 2.0), stats.t.ppf(0.5 + level / 2.0, single.df))
        * single.error
    )
    return single.estimate - half, single.estimate + half


def contrast_table(names: Any, single: tests.Contrasts, level: float) -> pd.DataFrame:
    """Broom's columns for single hypotheses."""
    low, high = limits(single, level)
    return pd.DataFrame(
        {
            "term": list(names),
            "estimate": single.estimate,
            "std.error": single.error,
            "statistic": single.statistic,
            "df": single.df,
            "p.value": single.p_value,
            "conf.low": low,
            "conf.high": high,
        }
    )


def t_test(fitted: Estimated, specification: Any, ddf: Any, level: float) -> pd.DataFrame:
    """One row for each hypothesis; limits are those of L beta."""
    tested = hypothesis_text.hypotheses(specification, fitted.fixed_names)
    return contrast_table(tested.names, _single(fitted, tested, method(fitted, ddf)), level)


def _single(fitted: Estimated, tested: hypothesis_text.Hypotheses, ddf: str) -> tests.Contrasts:
    if ddf != "normal":
        return tests.contrasts(linear_inference(fitted), tested.matrix, tested.values, ddf)
    return tests.contrasts(_normal(fitted), tested.matrix, tested.values, "normal")


def _normal(fitted: Estimated) -> LinearInference:
    """The same for a fit of any kind, as long as only its coefficients are tested for."""
    estimates = fitted.estimates
    values = coefficients(fitted.fixed_names, np.asarray(estimates.beta), np.asarray(estimates.vcov))
    return LinearInference(fitted.criterion, np.asarray(fitted.theta), values)


def joint_test(fitted: Estimated, matrix: np.ndarray, values: Any, ddf: str) -> tests.Joint:
    """The F test (or Wald test, ddf="normal") of all rows."""
    model = _normal(fitted) if ddf == "normal" else linear_inference(fitted)
    return tests.joint(model, matrix, values, ddf)


def f_test(fitted: Estimated, specification: Any, ddf: Any) -> pd.DataFrame:
    """One row: numdf, dendf, F, p.value."""
    tested = hypothesis_text.hypotheses(specification, fitted.fixed_names)
    test = joint_test(fitted, tested.matrix, tested.values, method(fitted, ddf))
    return pd.DataFrame([_f_row(test)], index=[", ".join(tested.names)])


def wald_test(fitted: Estimated, specification: Any) -> pd.DataFrame:
    """One row: df, statistic (chi-square), p.value, without denominator degrees of freedom."""
    tested = hypothesis_text.hypotheses(specification, fitted.fixed_names)
    test = joint_test(fitted, tested.matrix, tested.values, "normal")
    return pd.DataFrame([_chi_row(test)], index=[", ".join(tested.names)])


def _f_row(test: tests.Joint) -> dict[str, float]:
    return {"numdf": test.numerator_df, "dendf": test.denominator_df, "F": test.statistic, "p.value": test.p_value}


def _chi_row(test: tests.Joint) -> dict[str, float]:
    # Wald's chi-square is F times its numerator degrees of freedom.
    return {"df": test.numerator_df, "statistic": test.statistic * test.numerator_df, "p.value": test.p_value}


def anova_table(fitted: Any, kind: str, ddf: Any) -> pd.DataFrame:
    """Tests of the terms of the fixed part, the intercept left out.

    Returns
    -------
    Index: terms. A linear model has numdf, dendf, F, p.value; a generalized one a Wald chi-square: df, statistic,
    p.value.
    """
    if kind not in terms.TYPES:
        raise UsageError(f"anova(type={kind!r}): choose one of {', '.join(terms.TYPES)}")
    ddf = method(fitted, ddf)
    part = fitted.spec.fixed_part
    model = _normal(fitted) if ddf == "normal" else linear_inference(fitted)
    linear = is_linear(fitted)
    tested = [term for term in part.terms if term.name != "Intercept"]
    rows = []
    for term in tested:
        test = tests.joint(model, _term_hypotheses(fitted, model, part, term, kind), 0.0, ddf)
        rows.append(_f_row(test) if linear else _chi_row(test))
    columns = list(_f_row(tests.Joint(0, 0.0, 0.0, 0.0)) if linear else _chi_row(tests.Joint(0, 0.0, 0.0, 0.0)))
    return pd.DataFrame(rows, index=pd.Index([term.name for term in tested], name="term"), columns=columns)


def _term_hypotheses(fitted: Any, model: LinearInference, part: Any, term: Any, kind: str) -> np.ndarray:
    """(r, p_all) the hypotheses about a term, of its estimable coefficients."""
    positions = model.coefficients.positions
    if kind == "III":
        matrix = terms.type_three(part, term)
        dropped = np.setdiff1d(np.arange(matrix.shape[1]), positions)
        # A hypothesis with weight on a dropped coefficient is not estimable.
        return matrix[~(matrix[:, dropped] != 0.0).any(axis=1)] if len(dropped) else matrix
    rows = terms.type_one_or_two(part, term, model.root(), list(positions), kind)
    matrix = np.zeros((len(rows), len(fitted.fixed_names)))
    matrix[:, positions] = rows
    return matrix


def covariance(fitted: Estimated, ddf: Any = None) -> pd.DataFrame:
    """(p, p) covariance of the coefficients; Kenward and Roger's with ddf="kenward-roger"."""
    names = list(fitted.fixed_names)
    if ddf is None or method(fitted, ddf) != "kenward-roger":
        return pd.DataFrame(np.array(fitted.estimates.vcov), index=names, columns=names)
    model = linear_inference(fitted)
    out = np.full((len(names), len(names)), np.nan)
    out[np.ix_(model.coefficients.positions, model.coefficients.positions)] = model.kenward_roger.adjusted
    return pd.DataFrame(out, index=names, columns=names)
