"""A fit that several programs do, and what they report."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


class Missing(Exception):
    """The program is not installed, or cannot fit this model; the message says which."""


@dataclass(frozen=True)
class Task:
    """A linear mixed model fitted by maximum likelihood to one Parquet file.

    formula: lme4's language; response, fixed: its fixed part ("Days"); intercepts: columns with a random intercept;
    slope: (grouping column, covariate) with a random intercept and slope, or None; factors: columns that are factors.
    """

    name: str
    path: Path
    formula: str
    response: str
    fixed: tuple[str, ...]
    factors: tuple[str, ...]
    intercepts: tuple[str, ...] = ()
    slope: tuple[str, str] | None = None


@dataclass(frozen=True)
class PeerFit:
    """program: with version; seconds: best of the repeats; timed: what they cover; llf: log-likelihood.

    fixed: coefficients in the formula's order, intercept first; sds: standard deviations by name, sigma last.
    """

    program: str
    seconds: float
    timed: str
    llf: float
    fixed: tuple[float, ...]
    sds: dict[str, float] = field(default_factory=dict)
    note: str = ""
