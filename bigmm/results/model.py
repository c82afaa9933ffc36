"""What every fitted mixed model answers; the numbers happen in this room's functions."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bigmm.arguments import strict, true_or_false
from bigmm.errors import UsageError
from bigmm.results import broom, coefficients, comparison, effects, inference, record, save, simulation, stream
from bigmm.results.fit_results import FitResults
from bigmm.results.fitted import FittedLmm
from bigmm.results.predictor import Variance, check_new_levels, predictor, variance
from bigmm.results.rows import ERROR, Noise, Predict, RowTask
from bigmm.results.rows_generalized import Residuals
from bigmm.results.scale import RESIDUALS
from bigmm.results.selection import selection
from bigmm.results.summary import Summary, summarize

TYPES = ("response", "link")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class MixedModelResults(FitResults):
    """What `LmmResults` and `GlmmResults` share; the kinds differ in `fitted` and in two hooks at the end.

    Coefficients come in the order of the formula, theta in lme4's order (lower triangles column by column, terms by
    decreasing number of levels). Rows are never read again but by predict, augment, residuals and simulate.
    """

    fitted: FittedLmm

    def __reduce__(self) -> tuple:
        return type(self), (replace(self.fitted, source=None),)

    # Random effects

    @property
    def u(self) -> np.ndarray:
        """Spherical random effects, grouping after grouping, level after level."""
        numbers = [number for number, _ in effects.random_joints(self.fitted)]
        return np.concatenate([np.ravel(self.fitted.estimates.u[n]) for n in numbers]) if numbers else np.empty(0)

    @property
    def varcorr(self) -> pd.DataFrame:
        """Variance components: group, name1, name2, vcov, sdcor; Residual last, in families that have a scale."""
        return effects.varcorr(self.fitted)

    def VarCorr(self) -> pd.DataFrame:
        """lme4's name for `varcorr`."""
        return self.varcorr

    @strict
    def ranef(self, condvar: bool = False, levels: Mapping[str, Sequence] | None = None) -> dict[str, pd.DataFrame]:
        """Conditional modes by grouping and level; with condvar also their standard deviations (`_sd` columns).

        levels: {grouping: labels}, of which alone there is to be news: their standard deviations are exact whatever the
        solver. Under the iterative one those of all levels are exact where that takes no more than ten seconds,
        else estimated, and `_sd_mcse` columns have their Monte Carlo standard errors.
        """
        return effects.ranef(self.fitted, true_or_false("condvar", condvar), levels)

    @property
    def n_groups(self) -> dict[str, int]:
        """Number of levels with rows, by grouping."""
        return effects.n_groups(self.fitted)

    # Criterion and fit

    @property
    def formula(self) -> str:
        """The formula as given."""
        return self.fitted.formula

    @property
    def is_singular(self) -> bool:
        """Whether a variance is estimated as zero or a correlation as 1 (lme4's isSingular)."""
        return bool(self.fitted.is_singular)

    @property
    def monte_carlo_error(self) -> Any:
        """None for the exact solver; else standard errors of objective and theta."""
        return self.fitted.monte_carlo_error

    @property
    def passes(self) -> int:
        """How many times all rows were looked at."""
        return self.fitted.passes

    # Tables

    @strict
    def summary(self, ddf: str = "auto") -> Summary:
        """Printable (text and HTML), laid out like lme4's.

        ddf: where the degrees of freedom of the table of coefficients come from, see `t_test`.
        """
        return summarize(self.fitted, ddf)

    @strict
    def tidy(
        self,
        effects: str | Sequence[str] = "fixed",
        scales: str = "sdcor",
        *,
        level: float | None = None,
        alpha: float | None = None,
        ddf: str = "auto",
    ) -> pd.DataFrame:
        """One row per coefficient ("fixed"), variance parameter ("ran_pars") or conditional mode ("ran_vals").

        effects may be a list of these, whose tables follow each other. Confidence limits are at ``level=0.95`` or
        ``alpha=0.05``.
        """
        return broom.tidy(self.fitted, effects, scales, coefficients.confidence_level(level=level, alpha=alpha), ddf)

    def as_record(self) -> dict[str, Any]:
        """JSON-able: what `bigmm fit --json` writes; NaN is null."""
        return record.as_record(self.fitted)

    @strict
    def anova(self, *others: MixedModelResults, type: str = "III", ddf: str = "auto") -> pd.DataFrame:
        """Tests of the terms of this model, or a likelihood-ratio table against nested fits of the same rows.

        Parameters
        ----------
        others : fits to compare with; without any, the terms of the fixed part are tested.
        type : "I" (terms in order), "II" (adjusted for terms that do not contain them) or "III" (equal averages over
            the levels of other factors).
        ddf : see `t_test`.

        Returns
        -------
        DataFrame indexed by term with numdf, dendf, F, p.value (generalized models: df, statistic, p.value of a Wald
        chi-square test).
        """
        if others:
            return likelihood_ratio(self, *others)
        return inference.anova_table(self.fitted, type, ddf)

    # Rows

    @strict
    def predict(
        self,
        newdata: Any = None,
        random: bool | Sequence[str] = True,
        new_levels: str = "population",
        type: str = "response",
        se: bool = False,
        *,
        out: str | os.PathLike | None = None,
        keep: Sequence[str] | None = None,
        overwrite: bool = False,
        client: Any = None,
        progress: Any = None,
    ) -> Any:
        """Predictions for new rows: the inverse link of x'beta (+ z'b) + offset, or with type="link" that itself. For a
        linear mixed model they agree. None means the rows of the fit, with NaN for those that have a missing value.

        random: True for all random effects, False for none, or a list of groups and terms of the fit, such as ``["g"]``
        or ``["(1 | h)"]``, whose random effects alone count, in the standard error too (lme4's re.form); a column that
        only the others use may be absent.

        Returns an array (n,), or with se a DataFrame with columns prediction, se (standard error of the mean, not of a
        new observation; on the scale of the response by the delta method); a row with a missing value gives NaN. Under
        the iterative solver the standard errors of many rows (what would take over ten seconds) are estimated, and a
        column se_mcse has their Monte Carlo errors. A Dask DataFrame gives a lazy Dask series or frame. With `out` a
        directory of Parquet files is written, one per partition, holding the columns `keep` of the data (None: all)
        beside prediction and se, and its path is returned. new_levels: levels that the fit has not seen count as an
        average level ("population"), are an error ("raise") or give NaN ("missing"); an unseen level within a known
        parent still uses the parent's mode.
        """
        if type not in TYPES:
            raise UsageError(f"type={type!r}: choose one of {', '.join(TYPES)}")
        check_new_levels(new_levels)
        chosen, se = selection(self.fitted, random), true_or_false("se", se)
        data = self._data(newdata)
        to = stream.destination(out, _columns_kept(keep), true_or_false("overwrite", overwrite), data, self._reads)
        spread = variance(self.fitted, self._row_count(data), chosen) if se else None
        family = self.fitted.family
        transform = None if type == "link" or family.link == "identity" else family
        task = Predict(predictor(self.fitted, chosen, newdata is None), new_levels, spread, transform)
        if to is not None:
            return stream.write(task, data, self._columns, to, client=client, progress=progress)
        finish = pd.DataFrame if se else _prediction_series
        if stream.is_dask(data):
            return stream.lazily(task, data, self._columns, finish, _meta(spread))
        columns = stream.compute(task, data, self._columns, client=client)
        return pd.DataFrame(columns) if se else columns.get("prediction", np.empty(0))

    @strict
    def augment(
        self,
        data: Any = None,
        out: str | os.PathLike | None = None,
        *,
        keep: Sequence[str] | None = None,
        overwrite: bool = False,
        client: Any = None,
        progress: Any = None,
    ) -> Any:
        """The data with .fitted, .resid, .hat, .cooksd, .fixed, .offset: a DataFrame, or with `out` Parquet files.

        Under the iterative solver .hat of many rows is estimated, and .hat_mcse is its Monte Carlo standard error.

        A generalized model has broom.mixed's further columns, and .fitted, .fixed on the scale of the linear predictor,
        .resid as deviance residuals; see `AugmentGeneralized`.
        """
        source = self._data(data)
        to = stream.destination(out, _columns_kept(keep), true_or_false("overwrite", overwrite), source, self._reads)
        task = self._augmenter(self._row_count(source), data is None)
        if to is not None:
            return stream.write(task, source, self._columns, to, client=client, progress=progress)
        return stream.augmented(task, source, self._columns, _columns_kept(keep), client=client)

    @strict
    def simulate(
        self,
        newdata: Any = None,
        seed: int = 0,
        nsim: int = 1,
        *,
        use_modes: bool = False,
        new_levels: str = "population",
        out: str | os.PathLike | None = None,
        keep: Sequence[str] | None = None,
        overwrite: bool = False,
        client: Any = None,
        progress: Any = None,
    ) -> Any:
        """Simulated responses: new random effects (or the estimated ones, use_modes) and new noise.

        Returns (n,), or (n, nsim) for nsim > 1; with `out` Parquet files with columns sim_1, sim_2, ... The draws
        depend on the seed, the level and the row's number, not on partitions or workers. Levels that the fit has not
        seen get new random effects too, by their label (none with use_modes). Bernoulli responses are 0 and 1 (1: the
        modelled level of a factor), binomial ones proportions of the row's trials, also for cbind(): times the trials
        they are counts.
        """
        data = self._data(newdata)
        to = stream.destination(out, _columns_kept(keep), true_or_false("overwrite", overwrite), data, self._reads)
        task = simulation.simulation(self.fitted, self._noise(), seed, nsim, use_modes, new_levels, newdata is None)
        if to is not None:
            return stream.write(task, data, self._columns, to, client=client, progress=progress)
        values = list(stream.compute(task, data, self._columns, client=client).values())
        return values[0] if nsim == 1 else np.column_stack(values)

    @strict
    def residuals(self, type: str = "response", data: Any = None, *, client: Any = None) -> np.ndarray:
        """(n,) residuals of the rows of the fit (or of `data`), NaN for rows with a missing value; reads these rows.

        type: "response" (y - mu), "pearson", "deviance" or "working", as R defines them; weights count in the two
        middle ones, the dispersion in none.
        """
        if not isinstance(type, str) or type not in RESIDUALS:
            raise UsageError(f"residuals(type={type!r}): choose one of {', '.join(RESIDUALS)}")
        task = Residuals(predictor(self.fitted, of_fit=data is None), self.fitted.family, self.fitted.dispersion, type)
        columns = stream.compute(task, self._data(data), self._columns, client=client)
        return columns.get("resid", np.empty(0))

    @property
    def fittedvalues(self) -> np.ndarray:
        """(n,) fitted means of the rows of the fit, NaN for rows with a missing value; reads the rows again.

        A row with a missing response has NaN too, as under R's na.exclude. A row of weight zero has a fitted mean.
        """
        return self.predict()

    @property
    def resid(self) -> np.ndarray:
        """(n,) response minus fitted mean: `residuals("response")`."""
        return self.residuals()

    @property
    def _columns(self) -> tuple[str, ...]:
        return tuple(self.fitted.spec.used_columns)

    def _data(self, data: Any) -> Any:
        if data is None and self.fitted.source is None:
            raise UsageError("this fit was saved or pickled and no longer knows its data; pass newdata")
        return self.fitted.source if data is None else data

    @property
    def _reads(self) -> list[str]:
        """Places of this machine that no output may replace: the saved fit that this one was loaded from."""
        return [] if self.fitted.saved_at is None else [self.fitted.saved_at]

    def _row_count(self, data: Any) -> int | None:
        """Rows of the data, where a row costs a solve and their number decides; else nobody asks."""
        return stream.row_count(data) if self.solver == "iterative" else None

    # Disk, and what is to come

    @strict
    def save(self, path: str | os.PathLike, overwrite: bool = False) -> Path:
        """Write the fit as a versioned directory without pickle; `bigmm.load` reads it.

        overwrite: replace a directory that bigmm wrote; no other is replaced. Raises UsageError for a place that is,
        holds or lies in the data, OutputError for one that cannot be written, TemporaryError while another run writes.
        """
        return save.save_fit(self.fitted, path, true_or_false("overwrite", overwrite))

    @strict
    def bootstrap(self, n: int = 1000, seed: int = 0) -> None:
        """Not available yet: raises UsageError."""
        raise UsageError("bootstrap() is not available in this version; use conf_int(method='wald') or simulate()")

    @strict
    def refit(self, formula: str | None = None, reml: bool | None = None) -> None:
        """Not available yet: raises UsageError."""
        raise UsageError("refit() is not available in this version; call bigmm.lmm() or glmm() with the other formula")

    # What the kinds of model differ in

    def _augmenter(self, rows: int | None, of_fit: bool) -> RowTask:
        raise NotImplementedError

    def _noise(self) -> Noise:
        raise NotImplementedError


def _columns_kept(keep: Sequence[str] | None) -> Sequence[str] | None:
    """``keep=`` as a list of columns: of a text each letter would be one."""
    if isinstance(keep, str):
        raise UsageError(f"keep must be a list of columns, such as keep=[{keep!r}], got {keep!r}")
    return keep


def _prediction_series(columns: dict[str, np.ndarray]) -> pd.Series:
    return pd.Series(columns["prediction"], name="prediction")


def _meta(spread: Variance | None) -> pd.DataFrame | pd.Series:
    if spread is None:
        return _prediction_series({"prediction": np.empty(0)})
    names = ["prediction", "se"] + [f"se{ERROR}"] * (spread.rows.estimator is not None)
    return pd.DataFrame({name: np.empty(0) for name in names})


@strict
def likelihood_ratio(*models: MixedModelResults) -> pd.DataFrame:
    """Likelihood-ratio table of fits of the same rows, by number of parameters; REML fits are refitted by ML.

    Raises UsageError where two models have the same number of parameters, so that neither is nested in the other.
    """
    for model in models:
        if not isinstance(model, MixedModelResults):
            raise UsageError(f"lrt() compares fitted mixed models of lmm() or glmm(), got {type(model).__name__}")
    return comparison.lrt_table([model.fitted for model in models])
