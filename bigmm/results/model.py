"""What every fitted mixed model answers; the numbers happen in this room's functions."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bigmm.errors import UsageError
from bigmm.optimize.outcome import Outcome
from bigmm.results import broom, coefficients, comparison, effects, record, save, simulation, stream
from bigmm.results.fitted import FittedLmm, freeze
from bigmm.results.predictor import check_new_levels, predictor, variance
from bigmm.results.rows import Noise, Predict, RowTask
from bigmm.results.rows_generalized import Residuals
from bigmm.results.scale import RESIDUALS
from bigmm.results.summary import Summary, coefficient_line, summarize

TYPES = ("response", "link")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class MixedModelResults:
    """What `LmmResults` and `GlmmResults` share; the kinds differ in `fitted` and in two hooks at the end.

    Coefficients come in the order of the formula, theta in lme4's order (lower triangles column by column, terms by
    decreasing number of levels). Rows are never read again but by predict, augment, residuals and simulate.
    """

    fitted: FittedLmm

    def __post_init__(self) -> None:
        freeze(self.fitted.theta)
        freeze(self.fitted.estimates)
        freeze(self.fitted.outcome)

    def __reduce__(self) -> tuple:
        return type(self), (replace(self.fitted, source=None),)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {coefficient_line(self.fitted)}>"

    def __str__(self) -> str:
        return str(self.summary())

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()

    # Fixed effects

    @property
    def params(self) -> pd.Series:
        """Coefficients by name; NaN for columns that depend on earlier ones."""
        return coefficients.named(self.fitted, self.fitted.estimates.beta, "params")

    @property
    def bse(self) -> pd.Series:
        """Standard errors of the coefficients: given theta for a linear model, else as `se_method` says."""
        return coefficients.named(self.fitted, coefficients.standard_errors(self.fitted), "bse")

    @property
    def tvalues(self) -> pd.Series:
        """Coefficient / standard error."""
        return coefficients.named(self.fitted, coefficients.z_values(self.fitted), "tvalues")

    @property
    def zvalues(self) -> pd.Series:
        """The same as `tvalues`: p values use the normal distribution."""
        return self.tvalues.rename("zvalues")

    @property
    def pvalues(self) -> pd.Series:
        """Two-sided Wald p values from the normal distribution."""
        return coefficients.named(self.fitted, coefficients.p_values(self.fitted), "pvalues")

    def conf_int(self, level: float = 0.95, method: str = "wald") -> pd.DataFrame:
        """Confidence limits of the coefficients: columns lower, upper."""
        return coefficients.intervals(self.fitted, level, method)

    def cov_params(self) -> pd.DataFrame:
        """(p, p) covariance matrix of the coefficients."""
        return coefficients.covariance(self.fitted)

    def vcov(self) -> pd.DataFrame:
        """lme4's name for `cov_params`."""
        return self.cov_params()

    def fixef(self) -> pd.Series:
        """lme4's name for `params`."""
        return self.params

    @property
    def beta(self) -> np.ndarray:
        """(p,) coefficients."""
        return self.fitted.estimates.beta

    # Random effects

    @property
    def theta(self) -> np.ndarray:
        """(n_theta,) relative covariance parameters in lme4's order."""
        return self.fitted.theta

    @property
    def u(self) -> np.ndarray:
        """Spherical random effects, grouping after grouping, level after level."""
        numbers = [number for number, _ in effects.random_joints(self.fitted)]
        return np.concatenate([np.ravel(self.fitted.estimates.u[n]) for n in numbers]) if numbers else np.empty(0)

    @property
    def sigma(self) -> float:
        """Residual standard deviation; sqrt(dispersion) for gamma and inverse gaussian, 1 for families without a
        scale."""
        return self.fitted.sigma

    @property
    def scale(self) -> float:
        """sigma^2."""
        return self.sigma**2

    @property
    def varcorr(self) -> pd.DataFrame:
        """Variance components: group, name1, name2, vcov, sdcor; Residual last, in families that have a scale."""
        return effects.varcorr(self.fitted)

    def VarCorr(self) -> pd.DataFrame:
        """lme4's name for `varcorr`."""
        return self.varcorr

    def ranef(self, condvar: bool = False) -> dict[str, pd.DataFrame]:
        """Conditional modes by grouping and level; with condvar also their standard deviations (`_sd` columns)."""
        return effects.ranef(self.fitted, condvar)

    @property
    def n_groups(self) -> dict[str, int]:
        """Number of levels with rows, by grouping."""
        return effects.n_groups(self.fitted)

    # Criterion and fit

    @property
    def objective(self) -> float:
        """-2 log L (ML) or the REML criterion."""
        return float(self.fitted.estimates.objective)

    @property
    def deviance(self) -> float:
        """-2 llf: the objective, as in lme4."""
        return self.objective

    @property
    def llf(self) -> float:
        """Log likelihood (restricted for REML)."""
        return -self.objective / 2.0

    def logLik(self) -> float:
        """lme4's name for `llf`."""
        return self.llf

    @property
    def aic(self) -> float:
        """objective + 2 npar."""
        return broom.information(self.fitted)["AIC"]

    @property
    def bic(self) -> float:
        """objective + log(nobs) npar."""
        return broom.information(self.fitted)["BIC"]

    @property
    def nobs(self) -> int:
        """Rows used."""
        return self.fitted.nobs

    @property
    def npar(self) -> int:
        """Coefficients, theta, and sigma or the dispersion where there is one."""
        return self.fitted.npar

    @property
    def df_resid(self) -> int:
        """nobs - npar."""
        return self.fitted.nobs - self.fitted.npar

    @property
    def formula(self) -> str:
        """The formula as given."""
        return self.fitted.formula

    @property
    def reml(self) -> bool:
        """Whether the REML criterion was minimised."""
        return self.fitted.reml

    @property
    def is_singular(self) -> bool:
        """Whether a variance is estimated as zero or a correlation as 1 (lme4's isSingular)."""
        return bool(self.fitted.is_singular)

    @property
    def converged(self) -> bool:
        """Whether the gradient certifies the optimum."""
        return bool(self.fitted.outcome.converged)

    @property
    def optimizer_result(self) -> Outcome:
        """Status, evaluations, largest gradient entry at the optimum, advice."""
        return self.fitted.outcome

    @property
    def monte_carlo_error(self) -> Any:
        """None for the exact solver; else standard errors of objective and theta."""
        return self.fitted.monte_carlo_error

    @property
    def passes(self) -> int:
        """How many times all rows were looked at."""
        return self.fitted.passes

    @property
    def solver(self) -> str:
        """Which solver evaluated the criterion."""
        return self.fitted.solver

    @property
    def effective_df(self) -> pd.Series:
        """Trace of the map from y to the fitted values (of the working model at the mode): total, fixed, random."""
        values = self.fitted.criterion.effective_df(self.theta)
        return pd.Series(list(values), index=["total", "fixed", "random"], name="effective_df", dtype=float)

    # Tables

    def summary(self) -> Summary:
        """Printable (text and HTML), laid out like lme4's."""
        return summarize(self.fitted)

    def tidy(self, effects: str = "fixed", scales: str = "sdcor", level: float = 0.95) -> pd.DataFrame:
        """One row per coefficient ("fixed"), variance parameter ("ran_pars") or conditional mode ("ran_vals")."""
        return broom.tidy(self.fitted, effects, scales, coefficients.check_level(level))

    def glance(self) -> pd.DataFrame:
        """One row about the model."""
        return broom.glance(self.fitted)

    def as_record(self) -> dict[str, Any]:
        """JSON-able: what `bigmm fit --json` writes; NaN is null."""
        return record.as_record(self.fitted)

    def anova(self, *others: MixedModelResults) -> pd.DataFrame:
        """Likelihood-ratio table against nested or nesting fits of the same rows."""
        return likelihood_ratio(self, *others)

    # Rows

    def predict(
        self,
        newdata: Any = None,
        random: bool = True,
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
        """Predictions for new rows, None meaning the rows of the fit: the inverse link of x'beta (+ z'b) + offset, or
        with type="link" that itself. For a linear mixed model they agree.

        Returns an array (n,), or with se a DataFrame with columns prediction, se (standard error of the mean, not of a
        new observation; on the scale of the response by the delta method); a row with a missing value gives NaN. A Dask
        DataFrame gives a lazy Dask series or frame. With `out` a directory of Parquet files is written, one per
        partition, holding the columns `keep` of the data (None: all) beside prediction and se, and its path is
        returned. new_levels: levels that the fit has not seen count as an average level ("population"), are an error
        ("raise") or give NaN ("missing"); an unseen level within a known parent still uses the parent's mode.
        """
        if type not in TYPES:
            raise UsageError(f"type={type!r}: choose one of {', '.join(TYPES)}")
        check_new_levels(new_levels)
        spread = variance(self.fitted) if se else None
        family = self.fitted.family
        transform = None if type == "link" or family.link == "identity" else family
        task = Predict(predictor(self.fitted), bool(random), new_levels, spread, transform)
        data = self._data(newdata)
        if out is not None:
            to = stream.Destination(out, keep, overwrite)
            return stream.write(task, data, self._columns, to, client=client, progress=progress)
        finish = pd.DataFrame if se else _prediction_series
        if stream.is_dask(data):
            return stream.lazily(task, data, self._columns, finish, _meta(se))
        columns = stream.compute(task, data, self._columns, client=client)
        return pd.DataFrame(columns) if se else columns.get("prediction", np.empty(0))

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

        A generalized model has broom.mixed's further columns, and .fitted, .fixed on the scale of the linear predictor,
        .resid as deviance residuals; see `AugmentGeneralized`.
        """
        task = self._augmenter()
        source = self._data(data)
        if out is not None:
            to = stream.Destination(out, keep, overwrite)
            return stream.write(task, source, self._columns, to, client=client, progress=progress)
        return stream.augmented(task, source, self._columns, keep, client=client)

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
        seen get no random effect. Bernoulli responses are 0 and 1 (1: not the first level of a factor), binomial ones
        proportions of the row's trials, also for cbind(): times the trials they are counts.
        """
        task = simulation.simulation(self.fitted, self._noise(), seed, nsim, use_modes, new_levels)
        data = self._data(newdata)
        if out is not None:
            to = stream.Destination(out, keep, overwrite)
            return stream.write(task, data, self._columns, to, client=client, progress=progress)
        values = list(stream.compute(task, data, self._columns, client=client).values())
        return values[0] if nsim == 1 else np.column_stack(values)

    def residuals(self, type: str = "response", data: Any = None, *, client: Any = None) -> np.ndarray:
        """(n,) residuals of the rows of the fit (or of `data`), NaN for rows that were dropped; reads the rows again.

        type: "response" (y - mu), "pearson", "deviance" or "working", as R defines them; weights count in the two
        middle ones, the dispersion in none.
        """
        if type not in RESIDUALS:
            raise UsageError(f"residuals(type={type!r}): choose one of {', '.join(RESIDUALS)}")
        task = Residuals(predictor(self.fitted), self.fitted.family, self.fitted.dispersion, type)
        columns = stream.compute(task, self._data(data), self._columns, client=client)
        return columns.get("resid", np.empty(0))

    @property
    def fittedvalues(self) -> np.ndarray:
        """(n,) fitted means of the rows of the fit, NaN for rows that were dropped; reads the rows again."""
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

    # Disk, and what is to come

    def save(self, path: str | os.PathLike, overwrite: bool = False) -> Path:
        """Write the fit as a versioned directory without pickle; `bigmm.load` reads it."""
        return save.save_fit(self.fitted, path, overwrite)

    def bootstrap(self, n: int = 1000, seed: int = 0) -> None:
        """Not available yet: raises UsageError."""
        raise UsageError("bootstrap() is not available in this version; use conf_int(method='wald') or simulate()")

    def refit(self, formula: str | None = None, reml: bool | None = None) -> None:
        """Not available yet: raises UsageError."""
        raise UsageError("refit() is not available in this version; call bigmm.lmm() or glmm() with the other formula")

    # What the kinds of model differ in

    def _augmenter(self) -> RowTask:
        raise NotImplementedError

    def _noise(self) -> Noise:
        raise NotImplementedError


def _prediction_series(columns: dict[str, np.ndarray]) -> pd.Series:
    return pd.Series(columns["prediction"], name="prediction")


def _meta(se: bool) -> pd.DataFrame | pd.Series:
    empty = {"prediction": np.empty(0)} | ({"se": np.empty(0)} if se else {})
    return pd.DataFrame(empty) if se else _prediction_series(empty)


def likelihood_ratio(*models: MixedModelResults) -> pd.DataFrame:
    """Likelihood-ratio table of fits of the same rows, by number of parameters; REML fits are refitted by ML."""
    for model in models:
        if not isinstance(model, MixedModelResults):
            raise UsageError(f"lrt() compares fitted mixed models of lmm() or glmm(), got {type(model).__name__}")
    return comparison.lrt_table([model.fitted for model in models])
