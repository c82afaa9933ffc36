"""What is computed per row of new data: one picklable class per kind, table in, named columns out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from bigmm.design.layout import DesignChunk
from bigmm.families import Family
from bigmm.results.draws import standard_normal
from bigmm.results.new_effects import NewEffects
from bigmm.results.predictor import ALL, Parts, Predictor, Variance, encode, parts_of_chunk, parts_of_table
from bigmm.results.scale import mean, mean_slope

ERROR = "_mcse"
"""Ending of the columns that hold the Monte Carlo standard error of an estimated one."""


class RowTask(Protocol):
    """Columns for the rows of a table; ``first`` is the number of its first row in the whole data set."""

    def __call__(self, table: pa.Table, first: int) -> dict[str, np.ndarray]: ...


class Noise(Protocol):
    """From the parts of the linear predictor to one simulated response per row; ``stream`` names the draws."""

    def __call__(self, parts: Parts, seed: int, stream: tuple[Any, ...], first: int) -> np.ndarray: ...


@dataclass(frozen=True, slots=True)
class Predict:
    """Prediction, and its standard error when a variance is given.

    family: for the scale of the response its inverse link (and the delta method for the standard error); None stays on
    the scale of the linear predictor.
    """

    model: Predictor
    new_levels: str
    variance: Variance | None
    family: Family | None = None

    def __call__(self, table: pa.Table, first: int) -> dict[str, np.ndarray]:
        chunk = encode(self.model, table, self.new_levels)
        parts = parts_of_chunk(self.model, chunk, self.new_levels)
        eta = parts.eta
        columns = {"prediction": eta if self.family is None else mean(self.family, eta)}
        if self.variance is not None:
            spread = self.variance.of(chunk).roots()
            # The delta method: sd(mu) is |d mu / d eta| sd(eta); some links fall, so the sign is dropped.
            slope = 1.0 if self.family is None else np.abs(mean_slope(self.family, eta))
            columns["se"] = np.where(np.isnan(eta), np.nan, spread.value * slope)
            if spread.error is not None:
                columns[f"se{ERROR}"] = np.where(np.isnan(eta), np.nan, spread.error * slope)
        return columns


def leverages(variance: Variance, chunk: DesignChunk, parts: Parts, weight: np.ndarray) -> dict[str, np.ndarray]:
    """(n,) .hat, weight (n,) times the variance of the prediction, NaN where that is not known; with its Monte Carlo
    error where it is estimated."""
    spread = variance.of(chunk)
    unknown = parts.unseen | np.isnan(parts.eta)
    columns = {".hat": spread.value} | ({} if spread.error is None else {f".hat{ERROR}": spread.error})
    return {name: np.where(unknown, np.nan, weight * values) for name, values in columns.items()}


@dataclass(frozen=True, slots=True)
class Augment:
    """broom.mixed's columns: fitted values, residuals, the fixed part, offset, hat values and Cook's distances; and the
    Monte Carlo error of hat values that are estimated."""

    model: Predictor
    variance: Variance
    sigma: float
    rank: int

    def __call__(self, table: pa.Table, first: int) -> dict[str, np.ndarray]:
        chunk, parts = parts_of_table(self.model, table)
        fitted = parts.eta
        resid = parts.y - fitted
        # Henderson: the prediction error variance over sigma^2 is the row's leverage, for rows the model was fitted to.
        hats = leverages(self.variance, chunk, parts, parts.w / self.sigma**2)
        hat = hats[".hat"]
        with np.errstate(divide="ignore", invalid="ignore"):
            # Cook's distance by leverage: r^2 h / (p (1 - h)^2), r the Pearson residual.
            pearson = resid * np.sqrt(parts.w) / self.sigma
            cooks = (pearson / (1.0 - hat)) ** 2 * hat / self.rank
        return {
            ".fitted": fitted,
            ".resid": resid,
            **hats,
            ".cooksd": cooks,
            ".fixed": parts.fixed + parts.offset,
            ".offset": parts.offset,
        }


@dataclass(frozen=True, slots=True)
class NormalNoise:
    """eta + sigma z / sqrt(w)."""

    sigma: float

    def __call__(self, parts: Parts, seed: int, stream: tuple[Any, ...], first: int) -> np.ndarray:
        noise = standard_normal(seed, stream, first, len(parts.y))
        with np.errstate(divide="ignore"):
            # The draw is taken for every row, a missing one too, so that row i always meets draw i.
            return parts.eta + self.sigma * noise / np.sqrt(parts.w)


@dataclass(frozen=True, slots=True)
class Simulate:
    """One simulated response per model in ``models`` (each with its own drawn modes); row i always meets draw i.

    new: what draws the effects of levels that the fit has not seen; None: they have none."""

    models: tuple[Predictor, ...]
    noise: Noise
    seed: int
    new_levels: str
    new: NewEffects | None = None

    def __call__(self, table: pa.Table, first: int) -> dict[str, np.ndarray]:
        # The models differ in their modes only, so rows are encoded once for all replicates.
        chunk = encode(replace(self.models[0], chosen=ALL), table, self.new_levels)
        columns = {}
        for number, model in enumerate(self.models):
            parts = parts_of_chunk(model, chunk, self.new_levels)
            if self.new is not None and parts.unseen.any():
                parts = replace(parts, random=parts.random + self.new(chunk, table, number))
            columns[f"sim_{number + 1}"] = self.noise(parts, self.seed, ("row", number), first)
        return columns
