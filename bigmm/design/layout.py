"""The values that cross the seam between `design` and `accumulate`, `glmm`, `results`.

Distinct numeric columns are stored once, whether X, some Z_j or both use them. Column 0 is the constant 1 and is never
stored; column i >= 1 is row i - 1 of `DesignChunk.columns`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Grouping:
    """A factor for which each row has a level number.

    Attributes
    ----------
    name : str
        lme4's label, such as "g" or "cask:batch".
    variables : tuple of str
        The columns behind it, in the label's order.
    labels : array (n_levels,)
        Labels of the levels in R's order of factors, where ":" joins the parts of an interaction; or an object that
        makes such an array when it is needed.
    """

    name: str
    variables: tuple[str, ...]
    labels: Any

    @property
    def n_levels(self) -> int:
        """Number of levels."""
        return len(self.labels)


@dataclass(frozen=True, slots=True)
class RandomTerm:
    """One random-effects term of the formula, after ``/`` and ``||`` are expanded, in lme4's order.

    Attributes
    ----------
    group : str
        The label that users see: "g", and "g.1" for the second term of the same grouping.
    grouping : int
        Index in `Layout.groupings`.
    covariates : tuple of int (k,)
        Indices of columns; 0 is the constant.
    names : tuple of str (k,)
        Names of the covariates.
    structure : str
        Name of the covariance of the covariates (`bigmm.covariance`).
    """

    group: str
    grouping: int
    covariates: tuple[int, ...]
    names: tuple[str, ...]
    structure: str = "us"


@dataclass(frozen=True, slots=True)
class FixedFactor:
    """Columns of X that come from a factor with many levels. Rows have level numbers; the columns are never expanded.

    Attributes
    ----------
    grouping : int
        Index in `Layout.groupings`.
    covariate : int
        Index of a column. The block of X is diag(covariate) onehot(refs) contrast.
    contrast : array (n_levels, m)
        Coding of the levels.
    positions : tuple of int (m,)
        Indices of its columns in `Layout.fixed_names`.
    """

    grouping: int
    covariate: int
    contrast: np.ndarray
    positions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """How columns make X, Z and y.

    Attributes
    ----------
    columns : tuple of str
        Names of all columns; the first is "1".
    fixed_names : tuple of str (p,)
        Names of the coefficients in order.
    fixed_columns : tuple of int (p,)
        The column of each coefficient, or -1 where a fixed factor has it.
    fixed_factors : tuple of FixedFactor
        The factors with many levels.
    terms : tuple of RandomTerm
        Random terms by decreasing number of levels (stable, as in lme4).
    groupings : tuple of Grouping
        The factors that terms and fixed factors refer to.
    one : array (p,) or None
        Weights c with X c = 1; None when the formula says that the constant is not in the span of X.
    response : str
        Name of the response.
    joint : tuple of JointTerm
        The random terms joined by grouping, by decreasing number of levels, and the fixed factors after them.
    """

    columns: tuple[str, ...]
    fixed_names: tuple[str, ...]
    fixed_columns: tuple[int, ...]
    fixed_factors: tuple[FixedFactor, ...]
    terms: tuple[RandomTerm, ...]
    groupings: tuple[Grouping, ...]
    one: np.ndarray | None
    response: str
    joint: tuple[JointTerm, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # The class is frozen, and `joint` follows from the other fields, so it is set once here and never compared.
        object.__setattr__(self, "joint", _joined(self.terms, self.groupings, self.fixed_factors))


@dataclass(frozen=True, slots=True)
class DesignChunk:
    """The rows of one partition that count, as numbers.

    Attributes
    ----------
    columns : array (n, c - 1)
        float64, C-contiguous. Column i of the layout is column i - 1 here, because the constant is left out.
    y : array (n,)
        The response. The offset is not subtracted.
    refs : tuple of array (n,)
        int32 level numbers by grouping. -1 is a level without a number, which only prediction meets.
    w, offset : array (n,) or None
        Weights, and the known part of the linear predictor.
    rows_read : int
        Number of rows before any is dropped.
    dropped : tuple of (str, int)
        Numbers of rows dropped, by the first column that lacks a value.
    """

    columns: np.ndarray
    y: np.ndarray
    refs: tuple[np.ndarray, ...]
    w: np.ndarray | None
    offset: np.ndarray | None
    rows_read: int
    dropped: tuple[tuple[str, int], ...]

    @property
    def rows(self) -> int:
        """Number of rows that count."""
        return len(self.y)


@dataclass(frozen=True, slots=True)
class JointTerm:
    """Random terms of one grouping, joined: the unit of accumulation and of elimination.

    Attributes
    ----------
    grouping : int
        Index in `Layout.groupings`.
    factor : Grouping
        That grouping.
    covariates : tuple of int (k,)
        Union of the members' columns, the constant first when it is among them.
    members : tuple of int
        Indices in `Layout.terms`.
    slots : tuple of tuple of int
        For each member the positions of its covariates among `covariates`.
    fixed_factor : int or None
        Index of a fixed factor. Such a joint term has one covariate and no members.
    """

    grouping: int
    factor: Grouping = field(repr=False, compare=False)
    covariates: tuple[int, ...]
    members: tuple[int, ...]
    slots: tuple[tuple[int, ...], ...]
    fixed_factor: int | None = None

    @property
    def name(self) -> str:
        """Name of the grouping factor."""
        return self.factor.name

    @property
    def n_levels(self) -> int:
        """Number of levels of the term's grouping factor."""
        return self.factor.n_levels

    @property
    def width(self) -> int:
        """Number of covariates, k."""
        return len(self.covariates)


def _joined(
    terms: Sequence[RandomTerm], groupings: Sequence[Grouping], fixed_factors: Sequence[FixedFactor]
) -> tuple[JointTerm, ...]:
    members: dict[int, list[int]] = {}
    for number, term in enumerate(terms):
        members.setdefault(term.grouping, []).append(number)
    joined = []
    for grouping, numbers in members.items():
        # The constant is column 0, so sorting puts it first.
        covariates = tuple(sorted({c for n in numbers for c in terms[n].covariates}))
        slots = tuple(tuple(covariates.index(c) for c in terms[n].covariates) for n in numbers)
        joined.append(JointTerm(grouping, groupings[grouping], covariates, tuple(numbers), slots))
    # Fixed factors come last, so that the numbers of the random terms do not depend on them.
    for number, factor in enumerate(fixed_factors):
        joined.append(JointTerm(factor.grouping, groupings[factor.grouping], (factor.covariate,), (), (), number))
    return tuple(joined)
