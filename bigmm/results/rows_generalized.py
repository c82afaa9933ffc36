"""What is computed per row where the response has a distribution: residuals, broom.mixed's columns, simulated
responses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from bigmm.errors import UsageError
from bigmm.families import Family
from bigmm.families import rows as columnwise
from bigmm.results.draws import uniform
from bigmm.results.predictor import Parts, Predictor, Variance, parts_of_table
from bigmm.results.rows import leverages
from bigmm.results.scale import mean, mean_slope, residuals

UNWEIGHTED = ("response", "working")
"""Residuals that need no weights."""


def check_trials(family: Family, parts: Parts, what: str) -> None:
    """A binomial's variance needs the numbers of trials; UsageError when the rows do not say them."""
    if family.distribution.weights_are_trials and not parts.has_weights:
        raise UsageError(
            f"{what} needs the numbers of trials of the {family.name} response: "
            "give the rows the weights column of the fit, or the columns of its response"
        )


@dataclass(frozen=True, slots=True)
class Residuals:
    """Residuals of one kind of `scale.RESIDUALS`; phi is the dispersion."""

    model: Predictor
    family: Family
    phi: float
    kind: str

    def __call__(self, table: pa.Table, first: int) -> dict[str, np.ndarray]:
        _, parts = parts_of_table(self.model, table)
        if self.kind not in UNWEIGHTED:
            check_trials(self.family, parts, f"residuals({self.kind!r})")
        return {"resid": residuals(self.family, self.kind, parts.y, parts.w, parts.eta, self.phi)}


@dataclass(frozen=True, slots=True)
class AugmentGeneralized:
    """broom.mixed's columns for a glmer fit.

    .fitted and .fixed: linear predictor with and without random effects; .resid: deviance residuals; .mu: fitted means;
    .hat, .cooksd: leverages in the working model and Cook's distances; .sqrtrwt, .sqrtXwt: square roots of weight over
    variance function, and that times d mu / d eta; .weights; .wtres: Pearson residuals.
    """

    model: Predictor
    variance: Variance
    family: Family
    phi: float
    sigma: float
    rank: int
    observed: bool

    def __call__(self, table: pa.Table, first: int) -> dict[str, np.ndarray]:
        chunk, parts = parts_of_table(self.model, table)
        check_trials(self.family, parts, "augment()")
        eta, family = parts.eta, self.family
        mu, shape = mean(family, eta), self.phi if family.distribution.dispersion == "shape" else 1.0
        pearson = residuals(family, "pearson", parts.y, parts.w, eta, self.phi)
        hats = leverages(self.variance, chunk, parts, self._working_weights(parts))
        hat = hats[".hat"]
        with np.errstate(divide="ignore", invalid="ignore"):
            # Division by the dispersion, sigma^2: Pearson residuals do not contain it.
            cooks = (pearson / (1.0 - hat)) ** 2 * hat / (self.sigma**2 * self.rank)
            root = np.sqrt(parts.w / columnwise.variance(family, mu, shape))
        return {
            ".fitted": eta,
            ".resid": residuals(family, "deviance", parts.y, parts.w, eta, self.phi),
            **hats,
            ".cooksd": cooks,
            ".fixed": parts.fixed + parts.offset,
            ".mu": mu,
            ".offset": parts.offset,
            ".sqrtXwt": mean_slope(family, eta) * root,
            ".sqrtrwt": root,
            ".weights": parts.w,
            ".wtres": pearson,
        }

    def _working_weights(self, parts: Parts) -> np.ndarray:
        """(n,) the weights of the working model that the fit holds; NaN without a response where those need one."""
        # expected weights do not depend on y, but y outside the family's range would spoil them
        y = parts.y if self.observed else np.where(np.isnan(parts.y), 1.0, parts.y)
        finite = ~(np.isnan(y) | np.isnan(parts.w) | np.isnan(parts.eta))
        out = np.full(len(y), np.nan)
        scores = columnwise.score_full(self.family, y[finite], parts.w[finite], parts.eta[finite], self.phi)
        # Rows 2 and 3 of the scores are the expected and the observed weights.
        out[finite] = scores[3 if self.observed else 2]
        return out


@dataclass(frozen=True, slots=True)
class FamilyNoise:
    """A draw from the family at each row's mean: 0 or 1, a proportion of the row's trials, a count, a positive
    number."""

    family: Family
    phi: float

    def __call__(self, parts: Parts, seed: int, stream: tuple[Any, ...], first: int) -> np.ndarray:
        check_trials(self.family, parts, "simulate()")
        # One uniform for each row and inversion, for discrete distributions too.
        u = uniform(seed, stream, first, len(parts.y))
        return self.family.distribution.quantile(u, mean(self.family, parts.eta), parts.w, self.phi)
