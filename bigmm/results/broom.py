"""Tidy tables with broom.mixed's columns and names (https://bbolker.github.io/broom.mixed)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bigmm.errors import UsageError
from bigmm.results import effects, inference
from bigmm.results.estimated import Estimated
from bigmm.results.fitted import FittedModel
from bigmm.results.rows import ERROR

SCALES = {"sdcor": ("sd__", "cor__"), "vcov": ("var__", "cov__")}


def _fixed(fitted: FittedModel, scales: str, level: float, ddf: Any) -> pd.DataFrame:
    single = inference.coefficient_tests(fitted, ddf)
    low, high = inference.limits(single, level)
    columns = {
        "effect": "fixed",
        "term": list(fitted.fixed_names),
        "estimate": single.estimate,
        "std.error": single.error,
        "statistic": single.statistic,
        # broom.mixed has no df column for glmer, whose tests are normal.
        **({"df": single.df} if inference.is_linear(fitted) else {}),
        "p.value": single.p_value,
        "conf.low": low,
        "conf.high": high,
    }
    return pd.DataFrame(columns)


def _parameter_name(row: Mapping[Any, Any], scales: str) -> str:
    spread, together = SCALES[scales]
    # broom.mixed calls the residual row "sd__Observation".
    if row["name1"] is None:
        return f"{spread}Observation"
    if row["name2"] is None:
        return f"{spread}{row['name1']}"
    return f"{together}{row['name1']}.{row['name2']}"


def _parameters(fitted: FittedModel, scales: str, level: float, ddf: Any) -> pd.DataFrame:
    rows = effects.varcorr(fitted).to_dict("records")
    columns = {
        "effect": "ran_pars",
        "group": [row["group"] for row in rows],
        "term": [_parameter_name(row, scales) for row in rows],
        "estimate": [row[scales] for row in rows],
    }
    return pd.DataFrame(columns)


def _modes(fitted: FittedModel, scales: str, level: float, ddf: Any) -> pd.DataFrame:
    spread = effects.conditional_sd(fitted)
    parts = []
    for number, joint in effects.random_joints(fitted):
        index = effects.level_index(fitted, number, joint)
        for slot, name in effects.joint_names(fitted, number).items():
            columns = {
                "effect": "ran_vals",
                "group": index.name,
                # Text for every grouping, so that tables of several groupings have one type.
                "level": index.astype(str).to_numpy(),
                "term": name,
                "estimate": np.array(fitted.estimates.b[number][:, slot]),
                "std.error": spread[number].value[:, slot],
            }
            error = spread[number].error
            if error is not None:
                columns[f"std.error{ERROR}"] = error[:, slot]
            parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


EFFECTS: dict[str, Callable[[FittedModel, str, float, Any], pd.DataFrame]] = {
    "fixed": _fixed,
    "ran_pars": _parameters,
    "ran_vals": _modes,
}


LEADING = ("effect", "group", "level", "term")
"""Columns that come first, in broom.mixed's order, where tables of several kinds follow each other."""


def tidy(fitted: FittedModel, effects: str | Sequence[str], scales: str, level: float, ddf: Any) -> pd.DataFrame:
    """One row per coefficient, variance parameter or conditional mode; several kinds of effects one after the other."""
    kinds = [effects] if isinstance(effects, str) else effects
    if not isinstance(kinds, (list, tuple)) or not kinds or any(kind not in tuple(EFFECTS) for kind in kinds):
        raise UsageError(f"tidy(effects={effects!r}): choose one of {', '.join(EFFECTS)}, or a list of them")
    if scales not in SCALES:
        raise UsageError(f"tidy(scales={scales!r}): choose one of {', '.join(SCALES)}")
    # A kind that is named twice comes once.
    tables = [EFFECTS[kind](fitted, scales, level, ddf) for kind in dict.fromkeys(kinds)]
    if len(tables) == 1:
        return tables[0]
    table = pd.concat(tables, ignore_index=True)
    first = [name for name in LEADING if name in table]
    return table[[*first, *(name for name in table if name not in first)]]


def information(fitted: Estimated) -> dict[str, float]:
    """AIC, BIC and log likelihood as lme4 counts them, for REML too: objective + penalty * npar."""
    # lme4 counts the coefficients under REML too, although REML fits of other fixed effects are not comparable.
    objective, npar = float(fitted.estimates.objective), fitted.npar
    return {
        "AIC": objective + 2.0 * npar,
        "BIC": objective + float(np.log(fitted.nobs)) * npar,
        "logLik": -objective / 2.0,
        "deviance": objective,
        "df.residual": fitted.nobs - npar,
    }


def glance(fitted: Estimated) -> pd.DataFrame:
    """One row about the model: nobs, sigma, logLik, AIC, BIC, REMLcrit or deviance, df.residual."""
    numbers = information(fitted)
    criterion = "REMLcrit" if fitted.reml else "deviance"
    row = {
        "nobs": fitted.nobs,
        "sigma": fitted.sigma,
        "logLik": numbers["logLik"],
        "AIC": numbers["AIC"],
        "BIC": numbers["BIC"],
        criterion: numbers["deviance"],
        "df.residual": int(numbers["df.residual"]),
    }
    return pd.DataFrame([row])
