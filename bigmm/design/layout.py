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
    """A factor whose level number is kept per row.

    ``name`` is lme4's label ("g", "cask:batch"); ``variables`` the columns behind it, in the label's order;
    ``labels`` (n_levels,) an array of level labels in R's factor order (components joined by ":" for interactions), or
    what makes such labels when they are asked for.
    """

    name: str
    variables: tuple[str, ...]
    labels: Any

    @property
    def n_levels(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True)
class RandomTerm:
    """One random-effects term as the user wrote it (after expanding ``/`` and ``||``), in lme4's order.

    ``group`` is the label shown ("g", and "g.1" for the second term of the same grouping); ``grouping`` indexes
    `Layout.groupings`; ``covariates`` (k,) index columns (0 = constant); ``names`` (k,) are the covariates' names;
    ``structure`` names the covariance of the columns (`bigmm.covariance`).
    """

    group: str
    grouping: int
    covariates: tuple[int, ...]
    names: tuple[str, ...]
    structure: str = "us"


@dataclass(frozen=True, slots=True)
class FixedFactor:
    """Columns of X that come from a factor with many levels: kept as level numbers, never expanded row by row.

    Column block = diag(covariate) onehot(refs) @ contrast; ``contrast`` is (n_levels, m); ``positions`` (m,) are the
    places of its columns in `Layout.fixed_names`.
    """

    grouping: int
    covariate: int
    contrast: np.ndarray
    positions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """How columns make X, Z and y.

    columns: names of all columns, columns[0] == "1";
    fixed_names: (p,) coefficient names in order;
    fixed_columns: (p,) for each coefficient the column it is, or -1 when a FixedFactor supplies it;
    fixed_factors: the factors with many levels; terms: random terms sorted by decreasing n_levels (stable, as lme4);
    groupings: the factors that terms and fixed factors refer to;
    one: (p,) weights c with X c = 1, or None when the constant is not in the span of X (known from the formula);
    response: name of the response;
    joint: the random terms joined by grouping, by decreasing number of levels, and the fixed factors after them.
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
        object.__setattr__(self, "joint", _joined(self.terms, self.groupings, self.fixed_factors))


@dataclass(frozen=True, slots=True)
class DesignChunk:
    """One partition encoded: rows with missing values are gone (and counted).

    columns: (c - 1, n) float64, C-contiguous, row i is layout column i + 1;
    y: (n,) float64 response (offset NOT subtracted); refs: per grouping (n,) int32 level numbers (-1 = unseen, only in
    prediction); w, offset: (n,) float64 or None; rows_read: rows before dropping;
    dropped: ((column name, rows dropped because of it), ...), a row counts under the first column that lacks a value.
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
        return len(self.y)


@dataclass(frozen=True, slots=True)
class JointTerm:
    """Random terms of one grouping, joined: the unit of accumulation and of elimination.

    grouping indexes `Layout.groupings`, and factor is that grouping; covariates (k,) are the union of the members'
    column indices, the constant first when present; members are indices into `Layout.terms`; slots[i] places member
    i's covariates among `covariates`. A joint term of a fixed factor has its index in `fixed_factor`, no members, and
    one covariate.
    """

    grouping: int
    factor: Grouping = field(repr=False, compare=False)
    covariates: tuple[int, ...]
    members: tuple[int, ...]
    slots: tuple[tuple[int, ...], ...]
    fixed_factor: int | None = None

    @property
    def name(self) -> str:
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
        covariates = tuple(sorted({c for n in numbers for c in terms[n].covariates}))
        slots = tuple(tuple(covariates.index(c) for c in terms[n].covariates) for n in numbers)
        joined.append(JointTerm(grouping, groupings[grouping], covariates, tuple(numbers), slots))
    for number, factor in enumerate(fixed_factors):
        joined.append(JointTerm(factor.grouping, groupings[factor.grouping], (factor.covariate,), (), (), number))
    return tuple(joined)
