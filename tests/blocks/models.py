"""Dense matrices of a `tests.oracle.Rows`, in the order of its blocks."""

from __future__ import annotations

import numpy as np

from bigmm.blocks.exact.factor import Factor, factorize
from bigmm.blocks.numeric_update import NumericUpdate
from tests.oracle import SHAPES, Rows, Shape
from tests.results.oracle import indicator, relative_factor

#: Structures without unpenalized factors, dependent or shifted columns: what a generalized model refills.
GENERAL = {
    name: Shape(shape.terms, weighted=shape.weighted)
    for name, shape in SHAPES.items()
    if not shape.fixed and name not in ("unweighted", "one wide")
}


def dense_z(rows: Rows) -> np.ndarray:
    """(n, sum of levels times width)."""
    parts = [indicator(r, z, q) for (q, _, _), r, z in zip(rows.shape.terms, rows.refs, rows.z, strict=True)]
    return np.hstack(parts)


def dense_lambda(rows: Rows, theta: np.ndarray) -> np.ndarray:
    return relative_factor(list(rows.covariances.lambdas(theta)), [q for q, _, _ in rows.shape.terms])


def theta_of(rows: Rows, seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=rows.covariances.n_theta)


def factor_of(rows: Rows, theta: np.ndarray) -> Factor:
    gram = rows.gram
    return factorize(NumericUpdate(gram)(gram), rows.covariances.joint(theta))


def starts(rows: Rows) -> np.ndarray:
    """Where each term's random effects begin."""
    return np.concatenate([[0], np.cumsum([q * k for q, k, _ in rows.shape.terms])])
