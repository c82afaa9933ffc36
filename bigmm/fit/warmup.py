"""Compile the kernels that fits need by fitting small models, for container images and CI."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bigmm.accumulate import pair_kernels
from bigmm.families import NAMES
from bigmm.fit.glmm import glmm
from bigmm.fit.lmm import lmm

LINEAR = (
    "y ~ x + (1 | g)",
    "y ~ x + (1 + x | g)",
    "y ~ x + (1 | g) + (1 | h)",
    "y ~ x + (1 + x | g) + (1 | h)",
    "y ~ x + (1 + x | g) + (1 + x | h)",
    "y ~ x + (1 | g / inner)",
    "y ~ x + (1 + x | g / inner) + (1 | h)",
)
"""One factor, crossed and nested ones, with constants alone and with slopes."""
ITERATIVE = ("y ~ x + (1 | g) + (1 | h)", "y ~ x + (1 + x | g) + (1 | h)", "y ~ x + (1 | g / inner) + (1 | h)")
GENERALIZED = (
    "{} ~ x + (1 | g)",
    "{} ~ x + (1 + x | g)",
    "{} ~ x + (1 | g) + (1 | h)",
    "{} ~ x + (1 | g / inner)",
)


def small_table(rows: int = 400) -> pd.DataFrame:
    """Rows of two crossed factors g and h, and one within g; responses of every family."""
    rng = np.random.default_rng(0)
    g, h, x = rng.integers(0, 12, rows), rng.integers(0, 9, rows), rng.normal(size=rows)
    inner = rng.integers(0, 3, rows)
    eta = (
        0.3 * x + 0.5 * rng.normal(size=(12, 3))[g, inner] + 0.6 * rng.normal(size=12)[g] + 0.4 * rng.normal(size=9)[h]
    )
    positive = np.exp(0.2 * eta) * rng.gamma(5.0, 0.2, rows)
    unit = 1.0 / (1.0 + np.exp(-eta - 0.5 * rng.normal(size=rows)))
    counts = rng.poisson(np.exp(0.5 + 0.5 * eta)).astype(float)
    return pd.DataFrame(
        {
            "x": x,
            "g": g,
            "h": h,
            "inner": inner,
            "w": rng.uniform(0.5, 2.0, rows),
            "y": eta + rng.normal(size=rows),
            "yes": (rng.uniform(size=rows) < unit).astype(float),
            "count": counts,
            "natural": counts + 1.0,
            "positive": positive,
            "unit": np.clip(unit, 0.01, 0.99),
        }
    )


RESPONSES = {
    "bernoulli": "yes",
    "binomial": "yes",
    "poisson": "count",
    "negative_binomial": "count",
    "truncated_poisson": "natural",
    "gamma": "positive",
    "inverse_gaussian": "positive",
    "beta": "unit",
}


def warm_up(families: Sequence[str] = (), linear: bool = True, generalized: bool = True) -> Iterator[str]:
    """Fit small models one after the other, and name each before it is fitted.

    Parameters
    ----------
    families: families of the generalized models; all without any.
    linear, generalized: kinds of model.
    """
    table = small_table()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a small model converges to is of no interest
        if linear:
            yield from _linear(table)
        for family in families or [name for name in NAMES if name != "gaussian"] if generalized else ():
            yield from _generalized(table, family)


def _linear(table: pd.DataFrame) -> Iterator[str]:
    for formula in LINEAR:
        yield formula
        model: Any = lmm(formula, table)
        model.summary()
        model.ranef(condvar=True)
    yield "weights"
    lmm(LINEAR[2], table, weights="w")
    for formula in ITERATIVE:
        yield f"{formula}, iteratively"
        lmm(formula, table, solver="iterative", mc_tol=(1.0, 10.0))
    yield "many pairs of levels"
    _sort_pairs()


def _generalized(table: pd.DataFrame, family: str) -> Iterator[str]:
    response = RESPONSES.get(family, "positive")
    for formula in GENERALIZED:
        yield f"{formula.format(response)}, {family}"
        glmm(formula.format(response), table, family=family)
    yield f"nagq=0 and 5, {family}"
    glmm(GENERALIZED[0].format(response), table, family=family, nagq=0)
    glmm(GENERALIZED[0].format(response), table, family=family, nagq=5)


def _sort_pairs() -> None:
    """The kernels that replace a table of all pairs of levels where that would be too large."""
    first = np.array([0, 1, 1, 0], np.int32)
    first.flags.writeable = False
    keys = pair_kernels.pair_keys(first, first, 2)
    pair_kernels.collapse_counts(pair_kernels.radix_sort_keys(keys, 2))
    ordered, rows = pair_kernels.radix_sort(keys, 2)
    _, data = pair_kernels.collapse(ordered, rows, np.ones((1, 4)), np.ones((1, 4)))
    pair_kernels.collapse_blocks(ordered[: len(data)], rows[: len(data)], data)
