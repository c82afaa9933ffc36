"""Parameters without a finite estimate: separation, variances and dispersions that run away. Each is named.

Albert and Anderson (1984): with complete separation no coefficient has a maximum likelihood estimate, with
quasi-complete separation some have none, but the others and the likelihood are fine.
"""

from __future__ import annotations

import numpy as np

from bigmm.errors import DataError
from bigmm.families import Family
from bigmm.families.links import SIGMOID_LINKS
from bigmm.laplace.start import Start
from bigmm.shards.shard import Shard

SEPARATED = 0.01
"""-log-likelihood: one row on the wrong side costs at least its weight times log 2."""
LOST = 300.0
"""A coefficient lost its information when its standard error grew by so much since the starting means, ..."""
FLAT = 100.0
"""... is larger than this in units of the linear predictor, ..."""
INSIGNIFICANT = 0.05
"""... and its z value is smaller than this."""
LARGEST_EFFECT = 25.0
"""Standard deviation of random effects on the scale of a unit link: means are then 0 or 1 to ten digits."""
# In log phi: 13 decimal digits on each side of the start.
DISPERSION_RANGE = 30.0


def check_separation(family: Family, start: Start, response: str, names: np.ndarray) -> None:
    """Raises DataError when the fixed effects alone predict every response: the likelihood has no maximum."""
    if not family.distribution.two_outcomes or not len(start.beta) or start.ll < -SEPARATED:
        return
    # In units of its own error, since covariates have any scale.
    worst = names[int(np.argmax(np.abs(start.beta) / start.spread))]
    raise DataError(
        f"complete separation: the fixed effects predict every {response!r} without error (coefficient {str(worst)!r} "
        f"grows "
        "without limit), so the likelihood has no maximum: drop or merge that covariate, or check that it is not made "
        "from the response"
    )


def check_dispersion(family: Family, levels: dict[str, int], rows: int) -> None:
    """Raises DataError where a factor with one row per level meets a dispersion; levels: by name of the factor."""
    for name, count in levels.items():
        if family.has_dispersion and count >= rows:
            raise DataError(
                f"grouping factor {name!r} has {count} levels for {rows} rows: with one row per level its variance "
                f"cannot be told apart from the dispersion of {family.name}; remove the term, use a coarser factor, "
                f"or a family without "
                "dispersion (poisson, binomial)"
            )


def largest_values(shard: Shard, xc: np.ndarray) -> np.ndarray:
    """(p,) largest absolute value of each fixed-effects column; a pure task."""
    rows = [np.ones(1) if c == 0 else np.abs(shard.columns[c - 1]) for c in xc]
    return np.array([row.max(initial=0.0) for row in rows])


def lost_coefficients(family: Family, beta: np.ndarray, error: np.ndarray, start: Start) -> np.ndarray:
    """(p,) coefficients that may have run away: to be looked at with `without_estimate`."""
    if not family.distribution.separable:
        return np.zeros(len(beta), bool)
    return np.asarray((error > LOST * start.spread) & (np.abs(beta) < INSIGNIFICANT * error))


def without_estimate(lost: np.ndarray, error: np.ndarray, largest: np.ndarray, names: np.ndarray) -> str:
    """Advice on quasi-complete separation, "" when there is none."""
    # The largest value of the column turns a coefficient's error into one of the linear predictor.
    separated = lost & (error * largest > FLAT)
    if not separated.any():
        return ""
    listed = ", ".join(repr(str(name)) for name in names[separated])
    return (
        f"quasi-complete separation: {listed} can grow without limit, because some values of the covariate go with one "
        "response only; the other coefficients and the likelihood are good, this estimate and its standard error are "
        "not: drop or merge the covariate"
    )


def runaway_variance(family: Family, scales: np.ndarray, names: tuple[str, ...]) -> str:
    """Advice where levels predict the response without error; scales (n_theta,): standard deviations of each diagonal
    element's effect on the linear predictor, 0 elsewhere."""
    if not family.distribution.two_outcomes or family.link not in SIGMOID_LINKS or not len(scales):
        return ""
    worst = int(np.argmax(scales))
    if scales[worst] < LARGEST_EFFECT:
        return ""
    return (
        f"the standard deviation of {names[worst]} runs away ({scales[worst]:.3g} on the scale of the linear "
        f"predictor): its "
        "levels predict the response without error; drop the term, or check that the factor is not made from the "
        "response"
    )


def dispersion_bounds(family: Family, phi: float) -> tuple[float, float]:
    """Range of log phi outside of which the likelihood is taken as flat."""
    middle = float(np.log(phi))
    largest = family.distribution.largest_dispersion
    return middle - DISPERSION_RANGE, middle + DISPERSION_RANGE if largest is None else float(np.log(largest))


def runaway_dispersion(family: Family, log_phi: float, bounds: tuple[float, float]) -> str:
    """Advice where the dispersion has no finite estimate."""
    if not family.has_dispersion or bounds[0] < log_phi < bounds[1]:
        return ""
    if family.distribution.flat_dispersion and log_phi >= bounds[1]:
        return family.distribution.flat_dispersion
    return (
        f"the dispersion of {family.name} is not identified: it {'falls to 0' if log_phi <= bounds[0] else 'grows'} "
        f"without "
        "limit; check for levels or covariates that predict the response without error, and for outliers"
    )
