"""The terms of the fixed part and the hypotheses of type I, II and III about them.

Type I and II: rows of the triangular factor of X'WX, its columns in the order of the formula (type I), or with the
terms that do not contain the tested one first (type II): Goodnight (1978), SAS Technical Report R-101.
Type III: equal averages over the levels of the other factors, at zero of the other numeric columns. Where every cell
has rows, that is the hypothesis about the term's coefficients in a sum-to-zero coding, whatever coding the fit has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np

from bigmm.design.fixed_terms import ColumnProduct, FixedPart, Term

TYPES = ("I", "II", "III")


def type_three(part: FixedPart, term: Term) -> np.ndarray:
    """(r, p) the type III hypotheses about a term; rows may depend on each other."""
    p = len(part.columns)
    if term.reduced is None:
        return np.eye(p)[list(term.positions)]
    combinations = dict.fromkeys(part.columns[position].numeric for position in term.positions)
    averages = [_averages(part, term, factor) for factor in sorted(term.factors)]
    rows = []
    for numeric in combinations:
        for weights in product(*averages):
            row = np.zeros(p)
            chosen = dict(zip(sorted(term.factors), weights, strict=True))
            for position, column in enumerate(part.columns):
                if column.numeric == numeric:
                    row[position] = _weighted(column, chosen, part.levels)
            rows.append(row)
    return np.array(rows).reshape(-1, p)


def _averages(part: FixedPart, term: Term, factor: str) -> list[np.ndarray]:
    """Weights over a factor's levels: differences from the first level, or each level where no lower term has it."""
    levels = part.levels[factor]
    if term.reduced is not None and factor in term.reduced:
        return [row - np.eye(levels)[0] for row in np.eye(levels)[1:]]
    return list(np.eye(levels))


def _weighted(column: ColumnProduct, chosen: Mapping[str, np.ndarray], levels: Mapping[str, int]) -> float:
    value = 1.0
    for factor, weights in chosen.items():
        value *= float(weights @ column.codings[factor]) if factor in column.codings else float(weights.sum())
    for factor, coding in column.codings.items():
        if factor not in chosen:
            value *= float(coding.mean())
    return value


def sequential(root: np.ndarray, order: Sequence[int]) -> np.ndarray:
    """(p, p) rows of the triangular factor of X'WX with unit diagonal, for the columns of X in an order.

    Parameters
    ----------
    root : (m, p) with root'root = X'WX in the user's basis. order : (p,) positions; the first are adjusted for nothing.
    """
    # QR of a root, not Cholesky of X'WX: no digits are lost to squares.
    upper = np.linalg.qr(root[:, list(order)], mode="r")
    out = np.zeros_like(upper)
    out[:, list(order)] = upper / np.diagonal(upper)[:, None]
    return out


def type_one_or_two(part: FixedPart, term: Term, root: np.ndarray, positions: Sequence[int], kind: str) -> np.ndarray:
    """(r, p_estimable) hypotheses of type I or II about a term.

    Parameters
    ----------
    root : see `sequential`, of the estimable columns. positions : (p_estimable,) their coefficients.
    """
    place = {position: number for number, position in enumerate(positions)}
    tested = [place[position] for position in term.positions if position in place]
    if kind == "I":
        return sequential(root, range(len(positions)))[tested]
    after = {position for other in part.terms if other.holds(term) for position in other.positions}
    last = [place[position] for position in positions if position in after]
    first = [number for number in range(len(positions)) if number not in tested and number not in last]
    return sequential(root, [*first, *tested, *last])[len(first) : len(first) + len(tested)]
