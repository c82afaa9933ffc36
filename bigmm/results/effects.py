"""Random effects as tables: variance components, conditional modes, numbers of levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bigmm.design.layout import JointTerm
from bigmm.errors import UsageError
from bigmm.objective.conditional import level_variances, selected_variances
from bigmm.objective.covariances import TermCovariance
from bigmm.objective.factorization import Variances
from bigmm.results.fitted import FittedModel
from bigmm.results.rows import ERROR

VARCORR_COLUMNS = ("group", "name1", "name2", "vcov", "sdcor")


def _term_rows(term: TermCovariance, cov: np.ndarray) -> list[tuple[Any, ...]]:
    """Variances first, then covariances down the columns of the lower triangle, as lme4 lists them."""
    group, names = term.group, term.names
    sd = np.sqrt(np.diag(cov))
    rows: list[tuple[Any, ...]] = [(group, name, None, cov[i, i], sd[i]) for i, name in enumerate(names)]
    # A variance of zero has no correlation: NaN, as lme4 prints it.
    with np.errstate(invalid="ignore", divide="ignore"):
        for j in range(len(names)) if term.covariance.is_correlated else ():
            for i in range(j + 1, len(names)):
                corr = cov[i, j] / (sd[i] * sd[j])
                rows.append((group, names[j], names[i], cov[i, j], corr))
    return rows


def term_covariances(fitted: FittedModel) -> tuple[np.ndarray, ...]:
    """(k, k) covariance matrix sigma^2 lambda lambda' of every term (sigma 1 in a generalized model)."""
    return tuple(fitted.estimates.sigma**2 * lam @ lam.T for lam in fitted.lambdas())


def varcorr(fitted: FittedModel) -> pd.DataFrame:
    """Variances and standard deviations (name2 None), covariances and correlations (both names), Residual
    last where the model has one."""
    rows: list[tuple[Any, ...]] = []
    for term, cov in zip(fitted.terms, term_covariances(fitted), strict=True):
        rows += _term_rows(term, cov)
    sigma = fitted.residual_sd
    if sigma is not None:
        rows.append(("Residual", None, None, sigma**2, sigma))
    frame = pd.DataFrame(rows, columns=list(VARCORR_COLUMNS))
    names = frame[["group", "name1", "name2"]].astype(object)
    # pandas turns a column of None alone into NaN, and callers compare with None.
    frame[["group", "name1", "name2"]] = names.where(names.notna(), None)
    return frame


def joint_names(fitted: FittedModel, number: int) -> dict[int, str]:
    """{slot of joint term `number`: covariate name}, in the order the user wrote them."""
    names: dict[int, str] = {}
    for term in fitted.terms:
        if term.joint == number:
            for slot, name in zip(term.slots, term.names, strict=True):
                # Two terms of one grouping may share a covariate, which is one column of the table.
                names.setdefault(slot, name)
    return names


def random_joints(fitted: FittedModel) -> list[tuple[int, JointTerm]]:
    """(number, joint term) of every joint term that holds random effects."""
    return [(number, joint) for number, joint in enumerate(fitted.joints) if joint.fixed_factor is None]


def level_index(fitted: FittedModel, number: int, joint: JointTerm) -> pd.Index:
    """(q,) labels of the levels that have rows, named after the grouping."""
    return pd.Index(joint.factor.labels[fitted.kept_levels(number)], name=joint.name)


def conditional_sd(fitted: FittedModel) -> tuple[Variances, ...]:
    """Per joint term (q, k) conditional standard deviations of the modes given theta, sigma and beta."""
    return tuple(variances.roots() for variances in level_variances(fitted.criterion, fitted.theta))


def ranef(
    fitted: FittedModel, condvar: bool = False, levels: Mapping[str, Sequence[Any]] | None = None
) -> dict[str, pd.DataFrame]:
    """{grouping: DataFrame by level, a column per covariate, `_sd` columns with condvar, `_sd_mcse` columns where those
    are estimated}; levels: {grouping: labels} of interest."""
    # All levels share one backward pass; a few chosen ones are solved for directly, which is exact.
    spread = conditional_sd(fitted) if condvar and levels is None else ()
    chosen = None if levels is None else _chosen(fitted, levels)
    frames = {}
    for number, joint in random_joints(fitted):
        name, index = joint.name, level_index(fitted, number, joint)
        if chosen is not None and name not in chosen:
            continue
        places = slice(None) if chosen is None else chosen[name]
        names = joint_names(fitted, number)
        modes = fitted.estimates.b[number][places]
        columns = {covariate: np.array(modes[:, slot]) for slot, covariate in names.items()}
        if condvar:
            columns |= _sd_columns(names, spread[number] if spread else _exact_sd(fitted, number, places))
        frames[name] = pd.DataFrame(columns, index=index[places])
    return frames


def _exact_sd(fitted: FittedModel, number: int, places: Any) -> Variances:
    return Variances(selected_variances(fitted.criterion, fitted.theta, number, places), None).roots()


def _sd_columns(names: dict[int, str], spread: Variances) -> dict[str, np.ndarray]:
    columns = {f"{name}_sd": spread.value[:, slot] for slot, name in names.items()}
    if spread.error is not None:
        columns |= {f"{name}_sd{ERROR}": spread.error[:, slot] for slot, name in names.items()}
    return columns


def _chosen(fitted: FittedModel, levels: Mapping[str, Sequence[Any]]) -> dict[str, np.ndarray]:
    """{grouping: positions of the labels among its levels with rows}; UsageError for what the fit does not have."""
    indices = {(index := level_index(fitted, n, joint)).name: index for n, joint in random_joints(fitted)}
    if not isinstance(levels, Mapping):
        raise UsageError(f"ranef(levels=...) must be a dict by grouping, such as {{'g': ['a']}}, got {levels!r}")
    chosen = {}
    for name, labels in levels.items():
        if name not in indices:
            raise UsageError(f"ranef(levels=...): no grouping {name!r}; there are {', '.join(map(str, indices))}")
        # get_indexer gives -1 for a label that is not there, and keeps the caller's order.
        chosen[name] = indices[name].get_indexer(pd.Index(labels))
        if (chosen[name] < 0).any():
            lost = next(label for label, place in zip(labels, chosen[name], strict=True) if place < 0)
            raise UsageError(f"ranef(levels=...): {name!r} has no level {lost!r} with rows")
    return chosen


def n_groups(fitted: FittedModel) -> dict[str, int]:
    """{grouping: number of levels that have rows}."""
    return {j.name: len(fitted.assembled.level_numbers[n]) for n, j in random_joints(fitted)}
