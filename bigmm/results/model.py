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
from bigmm.results.fitted import FittedModel
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

    fitted: FittedModel

    def __reduce__(self) -> tuple[Any, ...]:
        # A source may hold a whole table, or paths that mean nothing on another machine.
        return type(self), (replace(self.fitted, source=None),)

    # Random effects

    @property
    def u(self) -> np.ndarray:
        """Spherical random effects (q,), grouping after grouping, level after level."""
        numbers = [number for number, _ in effects.random_joints(self.fitted)]
        return np.concatenate([np.ravel(self.fitted.estimates.u[n]) for n in numbers]) if numbers else np.empty(0)

    @property
    def varcorr(self) -> pd.DataFrame:
        """Variance components: a frame with columns group, name1, name2, vcov, sdcor.

        The row of the residual comes last, in families that have a scale.
        """
        return effects.varcorr(self.fitted)

    def VarCorr(self) -> pd.DataFrame:
        """lme4's name for `varcorr`."""
        return self.varcorr

    @strict
    def ranef(
        self, condvar: bool = False, levels: Mapping[str, Sequence[Any]] | None = None
    ) -> dict[str, pd.DataFrame]:
        """Return the conditional modes of the random effects, level by level.

        Parameters
        ----------
        condvar : bool
            Add columns ``<name>_sd`` with conditional standard deviations, given theta and sigma.
        levels : dict of str to sequence, optional
            Labels to return, by grouping factor. Only these levels are returned, and their standard deviations are
            exact under any solver.

        Returns
        -------
        dict of str to DataFrame
            A frame for each grouping factor, with a row for each level and a column for each covariate.

        Notes
        -----
        Under the iterative solver the standard deviations of all levels are exact where that takes no more than ten
        seconds. Otherwise they are estimated, and columns ``<name>_sd_mcse`` have their Monte Carlo standard errors.
        """
        return effects.ranef(self.fitted, true_or_false("condvar", condvar), levels)

    @property
    def n_groups(self) -> dict[str, int]:
        """Number of levels with rows, by grouping."""
        return effects.n_groups(self.fitted)

    # Criterion and fit

    @property
    def formula(self) -> str:
        """The formula of the call."""
        return self.fitted.formula

    @property
    def is_singular(self) -> bool:
        """Whether a variance is estimated as zero or a correlation as 1 (lme4's isSingular)."""
        return bool(self.fitted.is_singular)

    @property
    def monte_carlo_error(self) -> Any:
        """Monte Carlo standard errors of objective and theta; None under the exact solver (docs/iterative.md)."""
        return self.fitted.monte_carlo_error

    @property
    def passes(self) -> int:
        """Number of passes over all rows."""
        return self.fitted.passes

    # Tables

    @strict
    def summary(self, ddf: str = "auto") -> Summary:
        """Return the summary, laid out like lme4's; it prints as text, and as HTML in a notebook.

        Parameters
        ----------
        ddf : {"auto", "satterthwaite", "kenward-roger", "normal"}
            Where the degrees of freedom come from. "kenward-roger" is for REML fits. "auto" is Satterthwaite's method
            where the model has degrees of freedom, else the normal distribution.

        Returns
        -------
        Summary
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
        """Return one row for each coefficient, variance parameter or conditional mode, as R's broom.mixed does.

        Parameters
        ----------
        effects : str or sequence of str
            "fixed" (coefficients), "ran_pars" (variance parameters), "ran_vals" (conditional modes), or a list of
            these, whose tables follow each other.
        scales : {"sdcor", "vcov"}
            Variance parameters as standard deviations and correlations, or as variances and covariances.
        level : float, optional
            Confidence level, 0.95 if neither `level` nor `alpha` is there.
        alpha : float, optional
            1 - level.
        ddf : {"auto", "satterthwaite", "kenward-roger", "normal"}
            Where the degrees of freedom come from. "kenward-roger" is for REML fits. "auto" is Satterthwaite's method
            where the model has degrees of freedom, else the normal distribution.

        Returns
        -------
        DataFrame

        Raises
        ------
        UsageError
            If `effects` or `scales` has another value.
        """
        return broom.tidy(self.fitted, effects, scales, coefficients.confidence_level(level=level, alpha=alpha), ddf)

    def as_record(self) -> dict[str, Any]:
        """Return plain values for JSON, those that ``bigmm fit --json`` writes. NaN is None."""
        return record.as_record(self.fitted)

    @strict
    def anova(self, *others: MixedModelResults, type: str = "III", ddf: str = "auto") -> pd.DataFrame:
        """Test the terms of this model, or compare it with others of the same rows.

        Parameters
        ----------
        *others : MixedModelResults
            Fits of models that are nested in this one, or that contain it. Without any, the terms of the fixed part
            are tested.
        type : {"I", "II", "III"}
            Terms in order; adjusted for the terms that do not contain them; or with equal averages over the levels of
            other factors.
        ddf : {"auto", "satterthwaite", "kenward-roger", "normal"}
            Where the degrees of freedom come from. "kenward-roger" is for REML fits. "auto" is Satterthwaite's method
            where the model has degrees of freedom, else the normal distribution.

        Returns
        -------
        DataFrame
            With others the likelihood-ratio table of `bigmm.lrt`. Else a row for each term: numdf, dendf, F, p.value;
            for a generalized model df, statistic, p.value of Wald's chi-square test.
        """
        if others:
            return comparison.likelihood_ratio(self, *others)
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
        out: str | os.PathLike[str] | None = None,
        keep: Sequence[str] | None = None,
        overwrite: bool = False,
        client: Any = None,
        progress: Any = None,
    ) -> Any:
        """Predict for new rows, or for the rows of the fit.

        Parameters
        ----------
        newdata : table, path or Dask DataFrame, optional
            Rows, in any form that `bigmm.lmm` takes. None means the rows of the fit.
        random : bool or sequence of str
            True adds all random effects, False none. A list of groups and terms of the fit, such as ``["g"]`` or
            ``["(1 | h)"]``, adds those alone, in the standard error too (lme4's re.form). A column that only the others
            use may then be absent.
        new_levels : {"population", "raise", "missing"}
            Levels that the fit has not met count as an average level, are an error, or give NaN. A new level within a
            level that the fit has met still uses the mode of the latter.
        type : {"response", "link"}
            The mean of the response, or the linear predictor. They are the same for a linear mixed model.
        se : bool
            Add standard errors of the mean (not of a new observation), on the scale of the response by the delta
            method.
        out : path, optional
            Write a directory of Parquet files there, a file for each partition, instead of an array.
        keep : sequence of str, optional
            Columns of the data that the files of `out` hold beside the predictions. None means all.
        overwrite : bool
            Replace a directory that bigmm wrote.
        client : distributed.Client, optional
            Read the rows on the workers of this cluster.
        progress : bool or callable, optional
            True for a bar, or a function that takes `bigmm.execute.Progress` events.

        Returns
        -------
        ndarray (n,), DataFrame, Series or Path
            An array. With `se` a DataFrame with columns prediction and se, and se_mcse where se is estimated (under the
            iterative solver, where exact ones would take more than ten seconds). A lazy series or frame for a Dask
            DataFrame. The path with `out`. A row with a missing value has NaN.

        Raises
        ------
        UsageError
            If an option has no meaning, or the fit was loaded or pickled and no longer has its rows.
        DataError
            If a column is missing or of another type, or a level is new and `new_levels` is "raise".
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
        out: str | os.PathLike[str] | None = None,
        *,
        keep: Sequence[str] | None = None,
        overwrite: bool = False,
        client: Any = None,
        progress: Any = None,
    ) -> Any:
        """Return the data with fitted values, residuals, leverages and Cook's distances, as R's broom.mixed does.

        Parameters
        ----------
        data : table, path or Dask DataFrame, optional
            Rows with a response. None means the rows of the fit.
        out, keep, overwrite, client, progress
            As in `predict`.

        Returns
        -------
        DataFrame or Path
            Columns .fitted, .resid, .hat, .cooksd, .fixed and .offset beside those of the data; the path with `out`.
            Under the iterative solver .hat of many rows is estimated, and .hat_mcse is its Monte Carlo standard error.

        Notes
        -----
        A generalized model has further columns. Its .fitted and .fixed are on the scale of the linear predictor, and
        .resid are deviance residuals.
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
        out: str | os.PathLike[str] | None = None,
        keep: Sequence[str] | None = None,
        overwrite: bool = False,
        client: Any = None,
        progress: Any = None,
    ) -> Any:
        """Simulate responses for new rows, or for the rows of the fit.

        Parameters
        ----------
        newdata : table, path or Dask DataFrame, optional
            Rows to simulate for. None means the rows of the fit.
        seed : int
            The draws depend on the seed, the level and the number of the row. They do not depend on partitions or
            workers.
        nsim : int
            Number of simulations.
        use_modes : bool
            Use the conditional modes of the fit. Otherwise random effects are drawn, for levels that the fit has not
            met too, by their label.
        new_levels : {"population", "raise", "missing"}
            As in `predict`.
        out, keep, overwrite, client, progress
            As in `predict`; the files have columns sim_1, sim_2, ...

        Returns
        -------
        ndarray or Path
            (n,), or (n, nsim) for more than one simulation; the path with `out`. Bernoulli responses are 0 and 1, where
            1 is the modelled level of a factor. Binomial responses are proportions of the row's trials, also for
            ``cbind()``.
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
        """Return the residuals of the rows of the fit, or of other rows. The rows are read again.

        Parameters
        ----------
        type : {"response", "pearson", "deviance", "working"}
            As R defines them: response minus mean; the others are divided by a standard deviation, from the deviance,
            or on the scale of the linear predictor. Weights count in "pearson" and "deviance", the dispersion in none.
        data : table, path or Dask DataFrame, optional
            Rows with a response. None means the rows of the fit.
        client : distributed.Client, optional
            Read the rows on the workers of this cluster.

        Returns
        -------
        ndarray (n,)
            NaN for rows with a missing value.
        """
        if not isinstance(type, str) or type not in RESIDUALS:
            raise UsageError(f"residuals(type={type!r}): choose one of {', '.join(RESIDUALS)}")
        task = Residuals(predictor(self.fitted, of_fit=data is None), self.fitted.family, self.fitted.dispersion, type)
        columns = stream.compute(task, self._data(data), self._columns, client=client)
        return columns.get("resid", np.empty(0))

    @property
    def fittedvalues(self) -> np.ndarray:
        """Fitted means (n,) of the rows of the fit, which are read again.

        A row with a missing value has NaN, a missing response among them, as under R's na.exclude. A row of weight zero
        has a fitted mean.
        """
        return self.predict()

    @property
    def resid(self) -> np.ndarray:
        """Response minus fitted mean (n,): ``residuals("response")``."""
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
        return None if self.fitted.criterion.solver.is_exact else stream.row_count(data)

    # Disk, and what is to come

    @strict
    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> Path:
        """Write the fit as a versioned directory without pickle. `bigmm.load` reads it.

        Parameters
        ----------
        path : path
            The directory, which appears whole or not at all.
        overwrite : bool
            Replace a directory that bigmm wrote. No other is replaced.

        Returns
        -------
        Path

        Raises
        ------
        UsageError
            If the place is, holds or lies in the data.
        OutputError
            If it cannot be written.
        TemporaryError
            If another run writes it.
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
