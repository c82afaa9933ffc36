"""Is the response one the family can give, and from which mean to start."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bigmm.families.family import Family
from bigmm.families.rows import eta_of

COUNT_TOLERANCE = 1e-7
"""How far from an integer a count may be, relative to max(1, count): R's dpois."""
TRIALS_TOLERANCE = 1e-3
"""How far from an integer trials * proportion may be without a warning: R's binomial()."""

Fault = tuple[int, str]


def check_response(family: Family, y: np.ndarray, w: np.ndarray | None) -> Fault | None:
    """(row, message) of the first response or weight the family cannot have, None when all are fine.

    y: (n,); w: (n,) prior weights, the trials of a binomial, or None. The caller adds file and row group.
    """
    if w is not None:
        fault = _first(~((w >= 0.0) & np.isfinite(w)), w, "weight {value} is not a non-negative number")
        if fault:
            return fault
    fault = _first(~np.isfinite(y), y, "response {value} is not a finite number: drop or mend the row")
    if fault:
        return fault
    outside, message = OUTSIDE_RANGE[family.name]
    return _first(outside(y), y, f"response {{value}}: {message}")


def doubt_response(family: Family, y: np.ndarray, w: np.ndarray | None) -> Fault | None:
    """(row, message) of the first binomial proportion that is no number of successes: a BigmmWarning, as in R."""
    if family.name != "binomial":
        return None
    successes = y if w is None else w * y
    message = "proportion {value} times its number of trials is not an integer: are the weights the numbers of trials?"
    if w is None:
        message = "proportion {value} needs its number of trials: give weights=, or successes / trials in the formula"
    return _first(np.abs(successes - np.round(successes)) > TRIALS_TOLERANCE, y, message)


def _first(bad: np.ndarray, values: np.ndarray, message: str) -> Fault | None:
    if not bad.any():
        return None
    row = int(np.argmax(bad))
    return row, message.format(value=f"{values[row]:.15g}")


def _not_binary(y: np.ndarray) -> np.ndarray:
    return (y != 0.0) & (y != 1.0)


def _not_proportion(y: np.ndarray) -> np.ndarray:
    return (y < 0.0) | (y > 1.0)


def _not_count(y: np.ndarray) -> np.ndarray:
    return (y < 0.0) | (np.abs(y - np.round(y)) > COUNT_TOLERANCE * np.maximum(1.0, y))


def _not_positive(y: np.ndarray) -> np.ndarray:
    return y <= 0.0


def _never(y: np.ndarray) -> np.ndarray:
    return np.zeros(y.shape, dtype=bool)


_BINARY = (
    "a bernoulli response is 0 or 1; recode it, or use family='binomial' with weights= the numbers of trials, or name "
    "the value that counts as 1 with success="
)
_PROPORTION = "a binomial response is a proportion from 0 to 1; write cbind(successes, failures) for counts"
_COUNT = "a {} response is a count 0, 1, 2, ...; give an exposure as offset, not as divisor of the response"
_POSITIVE = "{} response is greater than 0; drop the row, or model the zeros apart"

OUTSIDE_RANGE: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "bernoulli": (_not_binary, _BINARY),
    "binomial": (_not_proportion, _PROPORTION),
    "poisson": (_not_count, _COUNT.format("poisson")),
    "negative_binomial": (_not_count, _COUNT.format("negative_binomial")),
    "gaussian": (_never, ""),
    "gamma": (_not_positive, _POSITIVE.format("a gamma")),
    "inverse_gaussian": (_not_positive, _POSITIVE.format("an inverse_gaussian")),
}


def _shrunk_to_half(y: np.ndarray, w: np.ndarray) -> np.ndarray:
    return (w * y + 0.5) / (w + 1.0)


def _unchanged(y: np.ndarray, w: np.ndarray) -> np.ndarray:
    return y


START_MEANS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "bernoulli": _shrunk_to_half,
    "binomial": _shrunk_to_half,
    "poisson": lambda y, w: y + 0.1,
    "negative_binomial": lambda y, w: np.where(y == 0.0, 1.0 / 6.0, y),
    "gaussian": _unchanged,
    "gamma": _unchanged,
    "inverse_gaussian": _unchanged,
}
"""R's mustart; one row at a time, so that it does not matter how rows are cut into chunks."""


def start_mean(family: Family, y: np.ndarray, w: np.ndarray | None) -> np.ndarray:
    """(n,) means to start PIRLS from, inside the family's range."""
    trials = np.ones_like(y) if w is None else w
    mu = START_MEANS[family.name](y, trials)
    if family.name == "gaussian" and family.link != "identity":
        mu = np.where(mu == 0.0, 1.0, mu if family.link == "inverse" else np.abs(mu))
    return mu


def start_eta(family: Family, y: np.ndarray, w: np.ndarray | None = None) -> np.ndarray:
    """(n,) linear predictors to start PIRLS from: the link of `start_mean`."""
    return eta_of(family, start_mean(family, y, w))
