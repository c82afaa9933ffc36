"""What is computed per row of new data: one picklable class per kind, table in, named columns out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa

from bigmm.results.draws import standard_normal
from bigmm.results.predictor import Predictor, Variance, encode, parts_of_chunk


class RowTask(Protocol):
    """Columns for the rows of a table; ``first`` is the number of its first row in the whole data set."""

    def __call__(self, table: pa.Table, first: int) -> dict[str, np.ndarray]: ...


@dataclass(frozen=True, slots=True)
class Predict:
    """Prediction, and its standard error when a variance is given."""

    model: Predictor
    random: bool
    new_levels: str
    variance: Variance | None

    def __call__(self, table: pa.Table, first: int) -> dict[str, np.ndarray]:
        chunk = encode(self.model.spec, table, self.random, self.new_levels)
        parts = parts_of_chunk(self.model, chunk, self.random, self.new_levels)
        columns = {"prediction": parts.eta}
        if self.variance is not None:
            spread = np.sqrt(np.maximum(self.variance.of(chunk, self.random), 0.0))
            columns["se"] = np.where(np.isnan(parts.eta), np.nan, spread)
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
class Simulate:
    """One simulated response per model in ``models`` (each with its own drawn modes); row i always meets draw i."""

    models: tuple[Predictor, ...]
    sigma: float
    seed: int
    new_levels: str
    random: bool = True

    def __call__(self, table: pa.Table, first: int) -> dict[str, np.ndarray]:
        chunk = encode(self.models[0].spec, table, self.random, self.new_levels)
        columns = {}
        for number, model in enumerate(self.models):
            parts = parts_of_chunk(model, chunk, self.random, self.new_levels)
            noise = standard_normal(self.seed, ("row", number), first, chunk.rows)
            with np.errstate(divide="ignore"):
                columns[f"sim_{number + 1}"] = parts.eta + self.sigma * noise / np.sqrt(parts.w)
        return columns
