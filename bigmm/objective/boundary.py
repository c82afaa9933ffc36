"""Traces at a nearly singular Lambda, from two that are not: extrapolated.

Estimates of (Z'PZ)_ll are read off Lambda M^-1 Lambda', which says nothing about directions that Lambda does not have,
and little about those of a small scale s: the errors of solving are divided by s^2, and those of probes by s. But
(Z'PZ)_ll is smooth in s^2, and its value decides whether a variance of zero is a minimum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Matrices = tuple[np.ndarray, ...]

RAISED = (0.05, 0.1)
"""Scales where a level of average information shrinks its effect to a 400th and to a hundredth."""
ROUNDING = 1e-13
"""Share of a scaled matrix of squares below which an eigenvalue is rounding."""


def square_root(square: np.ndarray) -> np.ndarray:
    """(k, k) B with B'B = square, in which rounding is no direction."""
    # A column is compared with itself, so that rounding is judged in the column's own unit.
    scale = np.sqrt(np.maximum(np.diagonal(square), 0.0))
    scale[scale == 0.0] = 1.0
    values, vectors = np.linalg.eigh(square / scale[:, None] / scale)
    root: np.ndarray = np.sqrt(np.where(values > ROUNDING * len(values), values, 0.0))[:, None] * vectors.T * scale
    return root


@dataclass(frozen=True, slots=True)
class Raised:
    """A lambda with its small scales raised.

    Attributes
    ----------
    lams : per size of `RAISED` (k, k).
    weight : of the second one in the straight line through both, at the scales of lambda itself.
    """

    lams: tuple[np.ndarray, np.ndarray]
    weight: float


def raised(lam: np.ndarray, square: np.ndarray) -> Raised | None:
    """lam (k, k) with the scales raised that are small, in units in which a level of average information has 1; None
    where none is. square (k, k): Z'WZ of an average level, whose null directions have no scale."""
    root = square_root(square)
    basis, scales, right = np.linalg.svd(root @ lam)
    rank = int(np.linalg.matrix_rank(root))
    # Scales are in descending order. Those beyond the rank are null directions of the data, not of lambda.
    if np.count_nonzero(scales >= RAISED[0]) >= rank:
        return None
    if np.linalg.det(basis) * np.linalg.det(right) * np.linalg.det(root) < 0.0:
        basis[:, -1] *= -1.0  # as in the limit of positive scales: probes see it
    # root may be singular: a direction that the data leave out has no scale to raise.
    back = np.linalg.pinv(root)
    lams = [back @ (basis * np.maximum(scales, size)) @ right for size in RAISED]
    # Never empty: fewer than rank scales are large.
    small = scales[:rank][scales[:rank] < RAISED[0]]
    # The traces are smooth in s^2, so the straight line is in s^2. The weight is negative: this is no interpolation.
    weight = (float(np.mean(small**2)) - RAISED[0] ** 2) / (RAISED[1] ** 2 - RAISED[0] ** 2)
    return Raised((lams[0], lams[1]), weight)


@dataclass(frozen=True, slots=True)
class Projections:
    """Per term (k, k) estimated sums over levels of (Z'PZ)_ll, and the same by each single probe (spread)."""

    sums: Matrices
    spread: Sequence[Matrices]


def extrapolated(
    projections: Projections,
    lams: Matrices,
    squares: Sequence[np.ndarray | None],
    project: Callable[[Matrices], Projections],
) -> Projections:
    """Projections with those of terms with small scales extrapolated.

    Parameters
    ----------
    projections : at lams.
    lams : per term (k, k).
    squares : per term (k, k) that of `raised`, None for one without scales.
    project : the projections at other lams, with the same probes.
    """
    higher = [None if square is None else raised(lam, square) for lam, square in zip(lams, squares, strict=True)]
    if not any(higher):
        return projections
    # The probes are the same at both points, so that their errors cancel in the slope of the line.
    near, far = (
        project(
            tuple(lam if matrices is None else matrices.lams[size] for lam, matrices in zip(lams, higher, strict=True))
        )
        for size in range(len(RAISED))
    )

    def chosen(matrices: Matrices, first: Matrices, second: Matrices) -> Matrices:
        parts = zip(matrices, first, second, higher, strict=True)
        return tuple(a if on is None else b + on.weight * (c - b) for a, b, c, on in parts)

    every = zip(projections.spread, near.spread, far.spread, strict=True)
    return Projections(chosen(projections.sums, near.sums, far.sums), [chosen(*parts) for parts in every])
