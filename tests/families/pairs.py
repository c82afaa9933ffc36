"""Every family with every link it takes, and rows inside its range."""

from __future__ import annotations

import numpy as np

from bigmm.families import FAMILIES, Family, family, rows, simulate

PAIRS = [family(name, link) for name, kind in FAMILIES.items() for link in kind.links]
DISPERSED = [f for f in PAIRS if f.has_dispersion]
PHI = 1.7
UNIT = ("bernoulli", "binomial", "beta")
ETA_RANGES = {"log": (-3.0, -0.3), "identity": (0.1, 0.9)}


def sample_rows(kind: Family, n: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(y, w, eta), each (n,): responses drawn from the family at these eta, weights 1 to 5."""
    rng = np.random.default_rng(20)
    low, high = ETA_RANGES.get(kind.link, (-2.5, 2.0)) if kind.name in UNIT else (0.4, 2.0)
    eta, w = rng.uniform(low, high, n), rng.integers(1, 6, n).astype(float)
    y = simulate(kind, rng, rows.mean(kind, eta), w, PHI)
    return (np.maximum(y, 0.05) if kind.name in ("gamma", "inverse_gaussian") else y), w, eta


def slope(function, at, step=2e-4):
    """Central difference of fourth order."""
    near = function(at + step) - function(at - step)
    return (8.0 * near - (function(at + 2.0 * step) - function(at - 2.0 * step))) / (12.0 * step)
