"""What every result answers from its estimates alone: coefficients, criterion, convergence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bigmm.arguments import strict
from bigmm.errors import UsageError
from bigmm.optimize.outcome import Outcome
from bigmm.results import broom, coefficients, inference
from bigmm.results.estimated import Estimated, freeze
from bigmm.results.summary import Summary, headline

DEGREES = ("total", "fixed", "random")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class FitResults:
    """A fit that cannot be changed. Names are those of statsmodels, with lme4's names as aliases."""

    fitted: Estimated

    def __post_init__(self) -> None:
        # Users get the arrays themselves and no copies, so writing into them has to fail.
        freeze(self.fitted.theta)
        freeze(self.fitted.estimates)
        freeze(self.fitted.outcome)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {headline(self.fitted)}>"

    def __str__(self) -> str:
        return str(self.summary())

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()

    def summary(self) -> Summary:
        """Return the summary, laid out like lme4's; it prints as text, and as HTML in a notebook."""
        raise NotImplementedError

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
        """The same numbers as `tvalues`."""
        return self.tvalues.rename("zvalues")

    @property
    def pvalues(self) -> pd.Series:
        """Two-sided p values: of t with Satterthwaite's degrees of freedom for a linear model that the exact solver
        fitted, else of the normal distribution."""
        return coefficients.named(self.fitted, inference.coefficient_tests(self.fitted).p_value, "pvalues")

    @strict
    def conf_int(
        self,
        bare: float | None = None,
        /,
        method: str = "wald",
        *,
        parameters: Any = "beta",
        level: float | None = None,
        alpha: Any = None,
        ddf: str = "auto",
    ) -> pd.DataFrame:
        """Return confidence limits of the coefficients, or of other parameters.

        Parameters
        ----------
        bare : float, optional
            A confidence level of at least 0.5. A smaller number is refused, because statsmodels reads it as alpha.
        method : {"wald", "profile"}
            Wald limits, from t or the normal distribution, or limits from the profile likelihood. A profile is that of
            the maximum likelihood fit, as in lme4; it needs a linear model of a formula and the exact solver.
        parameters : {"beta", "theta", "all"} or list of str
            "beta" are the coefficients. The others need profiles: "theta" are standard deviations and correlations of
            random effects and sigma, in lme4's names such as ``sd_Days|Subject``.
        level : float, optional
            Confidence level, 0.95 if none is there.
        alpha : float, optional
            1 - level.
        ddf : {"auto", "satterthwaite", "kenward-roger", "normal"}
            Where the degrees of freedom come from. "kenward-roger" is for REML fits. "auto" is Satterthwaite's method
            where the model has degrees of freedom, else the normal distribution.

        Returns
        -------
        DataFrame
            Columns lower and upper, a row for each parameter.

        Raises
        ------
        UsageError
            If the level is not between 0 and 1, or is there twice, or the fit has no such intervals.
        """
        level = coefficients.confidence_level(bare, level=level, alpha=alpha)
        if method == "profile":
            return self._profile_limits(level, parameters)
        # Wald limits of variances are symmetric about the estimate and cover badly near zero.
        if not isinstance(parameters, str) or parameters != "beta":
            raise UsageError(f"parameters={parameters!r} needs method='profile': Wald limits are for coefficients only")
        return coefficients.intervals(self.fitted, level, method, ddf)

    def _profile_limits(self, level: float, parameters: Any) -> pd.DataFrame:
        raise UsageError("profiles are available for linear mixed models of a formula that the exact solver fitted")

    @strict
    def cov_params(self, *, ddf: str | None = None) -> pd.DataFrame:
        """Return the covariance matrix (p, p) of the coefficients, as a frame with their names.

        Parameters
        ----------
        ddf : str, optional
            "kenward-roger" gives the adjusted matrix of that method; all else the usual one.

        Returns
        -------
        DataFrame
        """
        return inference.covariance(self.fitted, ddf)

    @strict
    def t_test(
        self, hypotheses: Any, ddf: str = "auto", *, level: float | None = None, alpha: float | None = None
    ) -> pd.DataFrame:
        """Test linear hypotheses about the coefficients, each on its own.

        Parameters
        ----------
        hypotheses : str, list of str, array (r, p), or pair of array (r, p) and values (r,)
            Text is such as ``"x1 - x2 = 0"``, several with commas; without ``=`` it means ``= 0``.
        ddf : {"auto", "satterthwaite", "kenward-roger", "normal"}
            Where the degrees of freedom come from. "kenward-roger" is for REML fits. "auto" is Satterthwaite's method
            where the model has degrees of freedom, else the normal distribution.
        level : float, optional
            Confidence level, 0.95 if neither `level` nor `alpha` is there.
        alpha : float, optional
            1 - level.

        Returns
        -------
        DataFrame
            Columns term, estimate, std.error, statistic, df, p.value, conf.low, conf.high.

        Raises
        ------
        UsageError
            If a name is no coefficient, an expression is not linear, or a coefficient is not estimable.
        """
        level = coefficients.confidence_level(level=level, alpha=alpha)
        return inference.t_test(self.fitted, hypotheses, ddf, level)

    @strict
    def f_test(self, hypotheses: Any, ddf: str = "auto") -> pd.DataFrame:
        """Test all hypotheses together by F.

        Parameters
        ----------
        hypotheses : str, list of str, array (r, p), or pair of array (r, p) and values (r,)
            See `t_test`.
        ddf : {"auto", "satterthwaite", "kenward-roger", "normal"}
            Where the degrees of freedom come from. "kenward-roger" is for REML fits. "auto" is Satterthwaite's method
            where the model has degrees of freedom, else the normal distribution.

        Returns
        -------
        DataFrame
            One row with numdf, dendf, F, p.value.
        """
        return inference.f_test(self.fitted, hypotheses, ddf)

    @strict
    def wald_test(self, hypotheses: Any) -> pd.DataFrame:
        """Test all hypotheses together by Wald's chi-square, without denominator degrees of freedom.

        Parameters
        ----------
        hypotheses : str, list of str, array (r, p), or pair of array (r, p) and values (r,)
            See `t_test`.

        Returns
        -------
        DataFrame
            One row with df, statistic, p.value.
        """
        return inference.wald_test(self.fitted, hypotheses)

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

    # Covariance parameters

    @property
    def theta(self) -> np.ndarray:
        """Relative covariance parameters (n_theta,): in lme4's order, or what `lambda_fn` takes."""
        return self.fitted.theta

    @property
    def sigma(self) -> float:
        """Residual standard deviation; sqrt(dispersion) for gamma and inverse gaussian, 1 for families without a
        scale."""
        return self.fitted.sigma

    @property
    def scale(self) -> float:
        """sigma^2."""
        return self.sigma**2

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
        """Number of rows that the fit used."""
        return self.fitted.nobs

    @property
    def npar(self) -> int:
        """Number of parameters: coefficients, theta, and sigma or the dispersion where there is one."""
        return self.fitted.npar

    @property
    def df_resid(self) -> int:
        """nobs - npar."""
        return self.fitted.nobs - self.fitted.npar

    @property
    def reml(self) -> bool:
        """Whether the REML criterion was minimised."""
        return self.fitted.reml

    @property
    def converged(self) -> bool:
        """Whether the optimum is certified: by the gradient, or by finite differences where there is none."""
        return bool(self.fitted.outcome.converged)

    @property
    def optimizer_result(self) -> Outcome:
        """The outcome of the search: status, evaluations, largest entry of the gradient at the optimum, advice."""
        return self.fitted.outcome

    @property
    def solver(self) -> str:
        """The solver that evaluated the criterion."""
        return self.fitted.solver

    @property
    def effective_df(self) -> pd.Series:
        """Trace of the map from y to the fitted values (of the working model at the mode): total, fixed, random."""
        values = self.fitted.criterion.effective_df(self.theta)
        return pd.Series(list(values), index=list(DEGREES), name="effective_df", dtype=float)

    @property
    def effective_df_error(self) -> float | None:
        """Monte Carlo standard error of the random and the total effective_df; None where they are exact."""
        return self.fitted.criterion.effective_df_error(self.theta)

    def glance(self) -> pd.DataFrame:
        """Return one row about the model, as R's broom does: nobs, sigma, logLik, AIC, BIC, deviance and more."""
        return broom.glance(self.fitted)
