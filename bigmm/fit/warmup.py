"""Compile the kernels that fits need by fitting small models, for container images and CI."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bigmm.accumulate import pair_kernels
from bigmm.families import FAMILIES, NAMES, rows, simulate
from bigmm.families import family as family_named
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


def small_table(n: int = 400) -> pd.DataFrame:
    """Rows of two crossed factors g and h, and one within g; a response of a linear model."""
    rng = np.random.default_rng(0)
    g, h, x = rng.integers(0, 12, n), rng.integers(0, 9, n), rng.normal(size=n)
    inner = rng.integers(0, 3, n)
    eta = (
        0.3 * x + 0.5 * rng.normal(size=(12, 3))[g, inner] + 0.6 * rng.normal(size=12)[g] + 0.4 * rng.normal(size=9)[h]
    )
    return pd.DataFrame(
        {
            "x": x,
            "g": g,
            "h": h,
            "inner": inner,
            "w": rng.uniform(0.5, 2.0, n),
            "y": eta + rng.normal(size=n),
        }
    )


def _equal_levels() -> pd.DataFrame:
    """Levels with the same rows of x each, whose blocks are kept once."""
    g, x = np.repeat(np.arange(20), 6), np.tile(np.arange(6.0), 20)
    return pd.DataFrame({"g": g, "x": x, "y": np.random.default_rng(2).normal(size=120) + g % 3 + x * (g % 4)})


def _responses(name: str, eta: np.ndarray) -> np.ndarray:
    """(n,) responses of the family with that name, whose linear predictor is about eta."""
    phi = 0.1 if FAMILIES[name].dispersion == "scale" else 5.0
    # A mild predictor on a link that every family has keeps means off the ends of their range.
    kind = family_named(name, "logit" if "logit" in FAMILIES[name].links else "log")
    return simulate(kind, np.random.default_rng(1), rows.mean(kind, 0.5 + 0.3 * eta), phi=phi)


def warm_up(families: Sequence[str] = (), linear: bool = True, generalized: bool = True) -> Iterator[str]:
    """Fit small models one after the other, and name each before it is fitted.

    Parameters
    ----------
    families: families of the generalized models; all without any.
    linear, generalized: kinds of model.
    """
    # Small tables: compilation takes seconds and each fit milliseconds.
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
        # Conditional variances have kernels of their own, which a fit does not touch.
        model.ranef(condvar=True)
    # A weighted pass compiles kernels of its own.
    yield "equal levels"
    lmm(LINEAR[1], _equal_levels())
    yield "weights"
    lmm(LINEAR[2], table, weights="w")
    for formula in ITERATIVE:
        yield f"{formula}, iteratively"
        # A loose tolerance: more probes would compile nothing more.
        lmm(formula, table, solver="iterative", mc_tol=(1.0, 10.0))
    # Small tables never have so many pairs, so these kernels are called by hand.
    yield "many pairs of levels"
    _sort_pairs()


def _generalized(table: pd.DataFrame, family: str) -> Iterator[str]:
    table = table.assign(**{family: _responses(family, table["y"].to_numpy())})
    for formula in GENERALIZED:
        yield f"{formula.format(family)}, {family}"
        glmm(formula.format(family), table, family=family)
    yield f"nagq=0 and 5, {family}"
    glmm(GENERALIZED[0].format(family), table, family=family, nagq=0)
    glmm(GENERALIZED[0].format(family), table, family=family, nagq=5)


def _sort_pairs() -> None:
    """The kernels that replace a table of all pairs of levels where that would be too large."""
    first = np.array([0, 1, 1, 0], np.int32)
    # numba compiles for read-only arrays apart, and level numbers arrive read-only.
    first.flags.writeable = False
    keys = pair_kernels.pair_keys(first, first, 2)
    pair_kernels.collapse_counts(pair_kernels.radix_sort_keys(keys, 2))
    ordered, rows = pair_kernels.radix_sort(keys, 2)
    _, data = pair_kernels.collapse(ordered, rows, np.ones((1, 4)), np.ones((1, 4)))
    pair_kernels.collapse_blocks(ordered[: len(data)], rows[: len(data)], data)
