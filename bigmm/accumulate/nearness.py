"""Columns that earlier columns nearly give: what to take off them, so that the rest can be summed without loss.

A QR factorization column by column (Gram-Schmidt, twice), in which such a column is replaced by its residual.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular

MIX = 1e-4
"""A column of whose sum of squares earlier columns leave less than this share is summed less what they give."""
NOTHING = 1e-26
"""Share of a sum of squares that rounding leaves of a column that depends on others."""
ROUNDED = 1e-14
"""The same where it is a difference of sums of squares."""


@dataclass(frozen=True, slots=True)
class Mixture:
    """The combinations of earlier columns that are taken off p columns.

    Attributes
    ----------
    weights: {column: {earlier column: its weight}}.
    residual: (p,) share of each column's sum of squares that earlier columns leave.
    dependent: (p,) whether they leave nothing.
    """

    weights: dict[int, dict[int, float]]
    residual: np.ndarray
    dependent: np.ndarray


def mixture_of(values: np.ndarray, sizes: np.ndarray, may: np.ndarray) -> Mixture:
    """What to take off columns so that each is what earlier ones leave of it.

    Parameters
    ----------
    values: (n, p) the columns, in their order. A column that earlier ones nearly give is replaced by its residual.
    sizes: (p,) sums of squares of the columns, about their means where a constant is among them.
    may: (p,) whether a column that depends on earlier ones exactly may be replaced too, by what rounding leaves of it.
        Columns of zeros and ones may not, so that their sums stay counts.

    Returns what is taken off, and how much each column keeps.
    """
    weights: dict[int, dict[int, float]] = {}
    p = values.shape[1]
    base: list[int] = []
    residual, dependent = np.ones(p), np.zeros(p, bool)
    q, r = np.zeros((len(values), 0)), np.zeros((0, 0))
    for number in range(p):
        if sizes[number] == 0.0 and not values[:, number].any():
            dependent[number] = True
            continue
        remainder, coefficients = values[:, number].copy(), np.zeros(len(base))
        # Twice is enough: the second step takes off what rounding has left of the first one's columns.
        for _ in range(2):
            step = solve_triangular(r, q.T @ remainder) if len(base) else coefficients
            coefficients, remainder = coefficients + step, remainder - values[:, np.array(base, int)] @ step
        residual[number] = float(remainder @ remainder) / sizes[number] if sizes[number] > 0.0 else 1.0
        if residual[number] < MIX and (may[number] or residual[number] > NOTHING):
            weights[number] = dict(zip(base, coefficients, strict=True))
            # Later columns meet the residual, since the sums have the column less what is taken off.
            values[:, number] = remainder
        dependent[number] = residual[number] <= NOTHING
        if not dependent[number]:
            q, r = _extended(q, r, values[:, number])
            base.append(number)
    return Mixture(weights, residual, dependent)


def _extended(q: np.ndarray, r: np.ndarray, column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Q R with one column more."""
    remainder, along = column, np.zeros(q.shape[1])
    for _ in range(2):
        step = q.T @ remainder
        along, remainder = along + step, remainder - q @ step
    size = float(np.linalg.norm(remainder))
    larger = np.zeros((len(r) + 1, len(r) + 1))
    larger[:-1, :-1], larger[:-1, -1], larger[-1, -1] = r, along, size
    return np.column_stack([q, remainder / (size if size > 0.0 else 1.0)]), larger
