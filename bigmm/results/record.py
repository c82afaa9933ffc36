"""A fit as one JSON-able record: what `bigmm fit --json` writes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from bigmm.results import broom, coefficients, effects, inference
from bigmm.results.fitted import FittedModel


def plain(value: Any) -> Any:
    """Python scalars, lists and dicts only; NaN and infinities become None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    # JSON has no NaN, and Python's NaN literal breaks other readers.
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def optimizer_record(fitted: FittedModel) -> dict[str, Any]:
    """How the optimum was found and what certifies it."""
    outcome = fitted.outcome
    names = (
        "method",
        "status",
        "evaluations",
        "gradient_evaluations",
        "expected_decrease",
        "max_abs_gradient",
        "starts",
        "advice",
    )
    return {name: getattr(outcome, name) for name in names}


def files_record(fitted: FittedModel) -> dict[str, Any] | None:
    """Which files the rows came from, and how many of their rows the filter left out; None for tables in memory."""
    if fitted.inventory is None:
        return None
    filtered = fitted.inventory.rows - fitted.rows_read
    return fitted.inventory.as_record() | {"rows_left_out_by_filter": filtered}


def as_record(fitted: FittedModel) -> dict[str, Any]:
    """The fields of the command line's --json, ready for json.dumps."""
    names, single = fitted.fixed_names, inference.coefficient_tests(fitted)
    numbers = broom.information(fitted)
    record = {
        "formula": fitted.formula,
        "family": fitted.family.name,
        "link": fitted.family.link,
        "reml": fitted.reml,
        "nagq": fitted.nagq,
        "nobs": fitted.nobs,
        "n_groups": effects.n_groups(fitted),
        "objective": float(fitted.estimates.objective),
        "llf": numbers["logLik"],
        "aic": numbers["AIC"],
        "bic": numbers["BIC"],
        "df_resid": numbers["df.residual"],
        "theta": fitted.theta,
        "sigma": fitted.sigma,
        "fixef": dict(zip(names, fitted.estimates.beta, strict=True)),
        "se": dict(zip(names, coefficients.standard_errors(fitted), strict=True)),
        "ddf": inference.method(fitted),
        "df": dict(zip(names, single.df, strict=True)),
        "p_values": dict(zip(names, single.p_value, strict=True)),
        "varcorr": effects.varcorr(fitted).to_dict("records"),
        "converged": bool(fitted.outcome.converged),
        "is_singular": bool(fitted.is_singular),
        "optimizer": optimizer_record(fitted),
        "passes": fitted.passes,
        "seconds": dict(fitted.seconds),
        "peak_rss_bytes": fitted.peak_rss_bytes,
        "rows_read": fitted.rows_read,
        "dropped_rows": sum(count for _, count in fitted.dropped),
        "dropped_rows_by_column": dict(fitted.dropped),
        "dropped_columns": fitted.lost_names,
        "solver": fitted.solver,
        "monte_carlo_error": fitted.monte_carlo_error,
        "data": fitted.data_description,
        "files": files_record(fitted),
        "bigmm_version": fitted.bigmm_version,
    }
    return plain(record | fitted.particulars)
