"""Starting values: iteratively reweighted least squares without random effects, as a map-reduce over shards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bigmm.families import Family, start_eta
from bigmm.families import rows as columnwise
from bigmm.laplace.shards import Shard

BLOCK = 65_536
STEPS = 25
SETTLED = 1e-3
"""A start need not be a maximum: a gain below this share of the log-likelihood is not worth a pass (measured)."""


@dataclass(frozen=True, slots=True)
class Start:
    """beta (p,), phi, information X'WX (p, p) at beta, log-likelihood without random effects, passes used,
    eta: mean size of the linear predictor; spread (p,): standard errors of beta at the family's starting means."""

    beta: np.ndarray
    phi: float
    information: np.ndarray
    ll: float
    passes: int
    eta: float
    spread: np.ndarray


def fixed_sums(shard: Shard, family: Family, xc: np.ndarray, beta: np.ndarray | None, phi: float) -> tuple:
    """(X'WX, X'(W eta + s) with eta free of the offset, (sum ll, Pearson's statistic, NB's two moments, sum |eta|));
    pure.

    beta None: at the family's starting means.
    """
    p = len(xc)
    xwx, xwz, totals = np.zeros((p, p)), np.zeros(p), np.zeros(5)
    for lo in range(0, shard.rows, BLOCK):
        part = slice(lo, min(lo + BLOCK, shard.rows))
        y = shard.y[part]
        w = shard.w[part] if len(shard.w) else np.ones(len(y))
        offset = shard.offset[part] if len(shard.offset) else 0.0
        x = np.column_stack(
            [np.ones(len(y)) if c == 0 else shard.columns[c - 1, part] for c in xc] or [np.empty((len(y), 0))]
        )
        eta = start_eta(family, y, w) if beta is None else x @ beta + offset
        ll, d1, weight = columnwise.score_full(family, y, w, eta, phi)[:3]
        xwx += x.T @ (weight[:, None] * x)
        xwz += x.T @ (weight * (eta - offset) + d1)
        mu = columnwise.mean(family, eta)
        error = (y - mu) ** 2
        with np.errstate(divide="ignore", invalid="ignore"):  # means at the edge have no variance
            pearson = (w * error / columnwise.variance(family, mu, 1.0)).sum()
        totals += [ll.sum(), pearson, (error - mu).sum(), (mu**2).sum(), np.abs(eta).sum()]
    return xwx, xwz, totals


def glm_start(map_shards: Callable[..., list], family: Family, xc: np.ndarray, rows: int) -> Start:
    """Maximum likelihood of the model without random effects (or close to it)."""
    beta: np.ndarray | None = None
    old, spread, phi, ll = np.zeros(len(xc)), np.zeros(len(xc)), 1.0, -np.inf
    for step in range(STEPS):
        xwx, xwz, totals = _added(map_shards(fixed_sums, family, xc, beta, phi))
        if beta is not None and not totals[0] >= ll - 1e-8 * (1.0 + abs(ll)):
            beta = 0.5 * (beta + old)  # overshot, or left the domain
            continue
        if np.isfinite(ll) and totals[0] - ll <= SETTLED * (1.0 + abs(ll)):
            break
        ll = float(totals[0]) if beta is not None else -np.inf
        old = beta if beta is not None else old
        beta = _least_squares(xwx, xwz)
        if step == 0:
            spread = _standard_errors(xwx)
        if step == 0 and family.name == "negative_binomial":
            phi = _dispersion(family, totals, rows - len(xc))
    assert beta is not None
    return Start(
        beta,
        _dispersion(family, totals, rows - len(xc)),
        xwx,
        float(totals[0]),
        step + 1,
        float(totals[4]) / max(rows, 1),
        spread,
    )


def _least_squares(xwx: np.ndarray, xwz: np.ndarray) -> np.ndarray:
    """(X'WX)^-1 X'Wz in units where the diagonal is 1: columns may be on any scale."""
    scale = np.sqrt(np.maximum(np.diagonal(xwx), 1e-300))
    return np.linalg.lstsq(xwx / scale[:, None] / scale, xwz / scale, rcond=None)[0] / scale


def _standard_errors(xwx: np.ndarray) -> np.ndarray:
    scale = np.sqrt(np.maximum(np.diagonal(xwx), 1e-300))
    return np.sqrt(np.abs(np.diagonal(np.linalg.pinv(xwx / scale[:, None] / scale)))) / scale


def _added(parts: list) -> tuple:
    return tuple(sum(values) for values in zip(*parts, strict=True))


def _dispersion(family: Family, totals: np.ndarray, dof: int) -> float:
    """Pearson's estimate; for the negative binomial the moment estimate of its shape."""
    if not family.has_dispersion:
        return 1.0
    if family.name == "negative_binomial":
        return float(np.clip(totals[3] / max(totals[2], 1e-8 * totals[3]), 0.05, 1e4))
    return float(max(totals[1] / max(dof, 1), 1e-10))
