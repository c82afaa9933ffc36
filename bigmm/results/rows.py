"""What is computed per row of new data: one picklable class per kind, table in, named columns out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa

from bigmm.families import Family
from bigmm.results.draws import standard_normal
from bigmm.results.predictor import Parts, Predictor, Variance, encode, parts_of_chunk
from bigmm.results.scale import mean, mean_slope


class RowTask(Protocol):
    """Columns for the rows of a table; ``first`` is the number of its first row in the whole data set."""

    def __call__(self, table: pa.Table, first: int) -> dict[str, np.ndarray]: ...


class Noise(Protocol):
    """From the parts of the linear predictor to one simulated response per row; ``stream`` names the draws."""

    def __call__(self, parts: Parts, seed: int, stream: tuple, first: int) -> np.ndarray: ...


@dataclass(frozen=True, slots=True)
class Predict:
    """Prediction, and its standard error when a variance is given.

    family: for the scale of the response its inverse link (and the delta method for the standard error); None stays on
    the scale of the linear predictor.
    """

    model: Predictor
    random: bool
    new_levels: str
    variance: Variance | None
    family: Family | None = None

    def __call__(self, table: pa.Table, first: int) -> dict[str, np.ndarray]:
        chunk = encode(self.model.spec, table, self.random, self.new_levels)
        parts = parts_of_chunk(self.model, chunk, self.random, self.new_levels)
        eta = parts.eta
        columns = {"prediction": eta if self.family is None else mean(self.family, eta)}
        if self.variance is not None:
            spread = np.sqrt(np.maximum(self.variance.of(chunk, self.random), 0.0))
            if self.family is not None:
                spread = spread * np.abs(mean_slope(self.family, eta))
            columns["se"] = np.where(np.isnan(eta), np.nan, spread)
        return columns


@dataclass(frozen=True, slots=True)
class Augment:
    """broom.mixed's columns: fitted values, residuals, the fixed part, offset, hat values and Cook's distances."""

    model: Predictor
    variance: Variance
    sigma: float
    rank: int

    def __call__(self, table: pa.Table, first: int) -> dict[str, np.ndarray]:
        chunk = encode(self.model.spec, table, True, "population")
        parts = parts_of_chunk(self.model, chunk, True, "population")
        fitted = parts.eta
        resid = parts.y - fitted
        # Henderson: the prediction error variance over sigma^2 is the row's leverage, for rows the model was fitted to.
        hat = parts.w * self.variance.of(chunk, True) / self.sigma**2
        hat = np.where(parts.unseen | np.isnan(fitted), np.nan, hat)
        with np.errstate(divide="ignore", invalid="ignore"):
            pearson = resid * np.sqrt(parts.w) / self.sigma
            cooks = (pearson / (1.0 - hat)) ** 2 * hat / self.rank
        return {
            ".fitted": fitted,
            ".resid": resid,
            ".hat": hat,
            ".cooksd": cooks,
            ".fixed": parts.fixed + parts.offset,
            ".offset": parts.offset,
        }


@dataclass(frozen=True, slots=True)
class NormalNoise:
    """eta + sigma z / sqrt(w)."""

    sigma: float

    def __call__(self, parts: Parts, seed: int, stream: tuple, first: int) -> np.ndarray:
        noise = standard_normal(seed, stream, first, len(parts.y))
        with np.errstate(divide="ignore"):
            return parts.eta + self.sigma * noise / np.sqrt(parts.w)


@dataclass(frozen=True, slots=True)
class Simulate:
    """One simulated response per model in ``models`` (each with its own drawn modes); row i always meets draw i."""

    models: tuple[Predictor, ...]
    noise: Noise
    seed: int
    new_levels: str
    random: bool = True

    def __call__(self, table: pa.Table, first: int) -> dict[str, np.ndarray]:
        chunk = encode(self.models[0].spec, table, self.random, self.new_levels)
        columns = {}
        for number, model in enumerate(self.models):
            parts = parts_of_chunk(model, chunk, self.random, self.new_levels)
            columns[f"sim_{number + 1}"] = self.noise(parts, self.seed, ("row", number), first)
        return columns
