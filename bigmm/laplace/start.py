"""Starting values: iteratively reweighted least squares without random effects, as a map-reduce over shards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from functools import reduce
from operator import add
from typing import Any

import numpy as np

from bigmm.families import Family, start_eta
from bigmm.families import rows as columnwise
from bigmm.shards.shard import Shard

# Rows at a time: temporaries of a task stay small beside its shard.
BLOCK = 65_536
STEPS = 25
SETTLED = 1e-3
"""A start need not be a maximum: a gain below this share of the log-likelihood is not worth a pass (measured)."""


@dataclass(frozen=True, slots=True)
class Start:
    """Where the search starts: the model without random effects.

    Attributes
    ----------
    beta : (p,) coefficients.
    phi : dispersion, 1 without.
    information : (p, p) X'WX at beta.
    ll : log-likelihood.
    passes : looks at all rows.
    eta : mean size of the linear predictor.
    spread : (p,) standard errors of beta at the family's starting means.
    constant : (p,) coefficients nearest to one mean for all rows.
    ones : (p,) coefficients nearest to a linear predictor of 1.
    """

    beta: np.ndarray
    phi: float
    information: np.ndarray
    ll: float
    passes: int
    eta: float
    spread: np.ndarray
    constant: np.ndarray = field(default_factory=lambda: np.zeros(0))
    ones: np.ndarray = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True, slots=True)
class ScoringSums:
    """Sums over rows of one step of iteratively reweighted least squares.

    Attributes
    ----------
    xwx : (p, p) X'WX.
    xwz : (p,) X'(W eta + s), eta without the offset and s the slopes of the log-likelihood.
    totals : (5,) log-likelihood, Pearson's statistic, the two moments of a shape, sum of |eta|.
    """

    xwx: np.ndarray
    xwz: np.ndarray
    totals: np.ndarray

    @property
    def ll(self) -> float:
        """Log-likelihood without constants."""
        return float(self.totals[0])

    def __add__(self, other: ScoringSums) -> ScoringSums:
        return ScoringSums(self.xwx + other.xwx, self.xwz + other.xwz, self.totals + other.totals)


@dataclass(frozen=True, slots=True)
class Level:
    """Sums over rows for one mean of all rows.

    Attributes
    ----------
    squares : (p, p) X'wX.
    ones : (p,) X'w.
    offset : (p,) X'w offset.
    response, weight : sums of w y and of w.
    """

    squares: np.ndarray
    ones: np.ndarray
    offset: np.ndarray
    response: float
    weight: float

    def __add__(self, other: Level) -> Level:
        return Level(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


def _blocks(shard: Shard, xc: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """(x, y, w, offset) of the rows, some at a time."""
    for lo in range(0, shard.rows, BLOCK):
        part = slice(lo, min(lo + BLOCK, shard.rows))
        y = shard.y[part]
        columns = [np.ones(len(y)) if c == 0 else shard.columns[c - 1, part] for c in xc]
        yield (
            np.column_stack(columns or [np.empty((len(y), 0))]),
            y,
            shard.w[part] if len(shard.w) else np.ones(len(y)),
            shard.offset[part] if len(shard.offset) else np.zeros(len(y)),
        )


def fixed_sums(shard: Shard, family: Family, xc: np.ndarray, betas: tuple[np.ndarray, ...], phi: float) -> tuple:
    """`ScoringSums` at every beta (p,); a pure task."""
    out = [_empty(len(xc)) for _ in betas]
    for x, y, w, offset in _blocks(shard, xc):
        out = [sums + _sums_of(family, x, y, w, offset, x @ beta + offset, phi) for sums, beta in zip(out, betas)]
    return tuple(out)


def first_sums(shard: Shard, family: Family, xc: np.ndarray) -> tuple[ScoringSums, Level]:
    """`ScoringSums` at the family's starting means, and the sums for one mean of all rows; a pure task."""
    p = len(xc)
    sums, level = _empty(p), Level(np.zeros((p, p)), np.zeros(p), np.zeros(p), 0.0, 0.0)
    for x, y, w, offset in _blocks(shard, xc):
        sums += _sums_of(family, x, y, w, offset, start_eta(family, y, w), 1.0)
        wx = w[:, None] * x
        level += Level(x.T @ wx, wx.sum(axis=0), wx.T @ offset, float(w @ y), float(w.sum()))
    return sums, level


def _empty(p: int) -> ScoringSums:
    return ScoringSums(np.zeros((p, p)), np.zeros(p), np.zeros(5))


def _sums_of(family: Family, x, y, w, offset, eta, phi: float) -> ScoringSums:
    ll, d1, weight = columnwise.score_full(family, y, w, eta, phi)[:3]
    mu = columnwise.mean(family, eta)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # means at the edge have no variance
        error = (y - mu) ** 2
        pearson = (w * error / columnwise.variance(family, mu, 1.0)).sum()
        moments = family.distribution.moments(y, mu)
        totals = np.array([ll.sum(), pearson, *moments, np.abs(eta).sum()])
        return ScoringSums(x.T @ (weight[:, None] * x), x.T @ (weight * (eta - offset) + d1), totals)


def glm_start(map_shards: Callable[..., list], family: Family, xc: np.ndarray, rows: int) -> Start:
    """Maximum likelihood of the model without random effects (or close to it).

    The first coefficients come from the family's starting means, which are about the responses, or from one mean for
    all rows, whichever is more likely: responses next to zero have no link, and a line through the links of responses
    may leave the domain. From there on, what is less likely or out of the domain is halved.
    """
    parts = map_shards(first_sums, family, xc)
    first, level = (_added([part[i] for part in parts]) for i in range(2))
    shaped = family.distribution.dispersion == "shape"
    # A scale cancels in the steps of beta, a shape does not.
    phi = _dispersion(family, first.totals, rows - len(xc)) if shaped else 1.0

    def sums_at(*betas: np.ndarray) -> list[ScoringSums]:
        return [_added(list(parts)) for parts in zip(*map_shards(fixed_sums, family, xc, betas, phi), strict=True)]

    candidates = (_least_squares(first.xwx, first.xwz), _constant(family, level))
    # One pass serves both candidates.
    both = list(zip(candidates, sums_at(*candidates), strict=True))
    # NaN compares with nothing, so a likelihood that is not finite has to lose by a key of its own.
    beta, sums = max(both, key=lambda one: (np.isfinite(one[1].ll), np.nan_to_num(one[1].ll, nan=-np.inf)))
    passes, settled = 2, not np.isfinite(sums.ll)
    while passes < STEPS and not settled:
        trial = _least_squares(sums.xwx, sums.xwz)
        trial_sums = sums_at(trial)[0]
        passes += 1
        while passes < STEPS and not trial_sums.ll >= sums.ll - 1e-8 * (1.0 + abs(sums.ll)):
            trial = 0.5 * (trial + beta)  # overshot, or left the domain
            trial_sums = sums_at(trial)[0]
            passes += 1
        if not trial_sums.ll >= sums.ll - 1e-8 * (1.0 + abs(sums.ll)):
            break
        settled = trial_sums.ll - sums.ll <= SETTLED * (1.0 + abs(trial_sums.ll))
        beta, sums = trial, trial_sums
    return Start(
        beta,
        _dispersion(family, sums.totals, rows - len(xc)),
        sums.xwx,
        sums.ll,
        passes,
        float(sums.totals[4]) / max(rows, 1),
        _standard_errors(first.xwx),
        candidates[1],
        _least_squares(level.squares, level.ones),
    )


def _constant(family: Family, level: Level) -> np.ndarray:
    """(p,) coefficients nearest to one mean for all rows, that of the responses."""
    mean = family.distribution.common_mean(level.response, level.weight, family.link)
    eta = float(columnwise.eta_of(family, np.array([mean]))[0])
    return _least_squares(level.squares, eta * level.ones - level.offset)


def _least_squares(xwx: np.ndarray, xwz: np.ndarray) -> np.ndarray:
    """(X'WX)^-1 X'Wz in units where the diagonal is 1: columns may be on any scale; NaN where that overflows."""
    if not (np.all(np.isfinite(xwx)) and np.all(np.isfinite(xwz))):
        return np.full(len(xwz), np.nan)
    scale = np.sqrt(np.maximum(np.diagonal(xwx), 1e-300))
    return np.linalg.lstsq(xwx / scale[:, None] / scale, xwz / scale, rcond=None)[0] / scale


def _standard_errors(xwx: np.ndarray) -> np.ndarray:
    if not np.all(np.isfinite(xwx)):
        return np.full(len(xwx), np.nan)
    scale = np.sqrt(np.maximum(np.diagonal(xwx), 1e-300))
    # Rounding may leave a small negative diagonal where X'WX is singular.
    return np.sqrt(np.abs(np.diagonal(np.linalg.pinv(xwx / scale[:, None] / scale)))) / scale


def _added(parts: list[Any]) -> Any:
    return reduce(add, parts)


def _dispersion(family: Family, totals: np.ndarray, dof: int) -> float:
    """Pearson's estimate of a scale, the family's moment estimate of a shape, else 1."""
    if not family.has_dispersion:
        return 1.0
    if family.distribution.dispersion == "shape":
        return family.distribution.start_dispersion(float(totals[2]), float(totals[3]))
    # A fit without error has a dispersion of 0, and no logarithm to start from.
    return float(max(totals[1] / max(dof, 1), 1e-10))
