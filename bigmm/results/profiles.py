"""Profiles of a fit as tables, and the intervals that they give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from bigmm.arguments import did_you_mean
from bigmm.errors import UsageError
from bigmm.inference.profile import Parameter, limit, parameters_of, zeta
from bigmm.results.comparison import ml_fit

GRID = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
"""|zeta| of the points of a profile's table."""


@dataclass(frozen=True, slots=True)
class Profile:
    """Profiles of some parameters.

    Attributes
    ----------
    table : DataFrame
        Columns parameter, value, zeta; zeta^2 is the rise of the deviance above its minimum.
    """

    table: pd.DataFrame

    def plot(self, axes: Any = None) -> Any:
        """Draw zeta against the value of each parameter; straight lines are quadratic log-likelihoods.

        Parameters
        ----------
        axes : array of matplotlib axes, optional
            One for each parameter.

        Returns
        -------
        array of matplotlib axes

        Raises
        ------
        UsageError
            If matplotlib is not installed.
        """
        names = list(dict.fromkeys(self.table["parameter"]))
        if axes is None:
            try:
                from matplotlib import pyplot
            except ImportError:
                raise UsageError("profile().plot() needs matplotlib: pip install matplotlib") from None
            axes = pyplot.subplots(1, len(names), figsize=(3 * len(names), 3), squeeze=False)[1][0]
        for name, axis in zip(names, np.ravel(axes), strict=False):
            part = self.table[self.table["parameter"] == name]
            axis.plot(part["value"], part["zeta"], marker=".")
            axis.axhline(0.0, linewidth=0.5)
            axis.set(xlabel=name, ylabel="zeta")
        return axes


def parameters(fitted: Any, chosen: Any) -> tuple[list[Parameter], float]:
    """(parameters, least deviance) of the maximum likelihood fit of the same blocks.

    Parameters
    ----------
    chosen : "beta" for the coefficients, "theta" for variance parameters and sigma, "all", or a list of names.
    """
    # A root search on a noisy criterion would follow the noise.
    if fitted.solver == "iterative":
        raise UsageError("profiles are available for linear mixed models of a formula that the exact solver fitted")
    # Profiles are those of the likelihood, as in lme4: under REML a coefficient has no profile.
    fit = ml_fit(fitted)
    beta = np.asarray(fit.estimates.beta)
    errors = np.sqrt(np.diag(np.asarray(fit.estimates.vcov)))
    every = parameters_of(fit.criterion, np.array(fit.theta), fit.sigma, fit.fixed_names, beta, errors)
    return _chosen(every, chosen, fit.fixed_names), float(fit.estimates.objective)


def _chosen(every: Sequence[Parameter], chosen: Any, coefficients: Sequence[str]) -> list[Parameter]:
    kinds = {"all": lambda name: True, "beta": lambda name: name in coefficients}
    kinds["theta"] = lambda name: name not in coefficients
    if isinstance(chosen, str) and chosen in kinds:
        return [parameter for parameter in every if kinds[chosen](parameter.name)]
    names = [chosen] if isinstance(chosen, str) else list(chosen)
    by_name = {parameter.name: parameter for parameter in every}
    for name in names:
        if name not in by_name:
            hint = did_you_mean(str(name), list(by_name))
            raise UsageError(
                f"parameters={name!r}: choose 'beta', 'theta', 'all', or among {', '.join(by_name)}"
                + (f"; {hint}" * bool(hint))
            )
    return [by_name[name] for name in names]


def intervals(fitted: Any, level: float, chosen: Any) -> pd.DataFrame:
    """Profile limits: columns lower, upper, indexed by parameter."""
    picked, least = parameters(fitted, chosen)
    quantile = float(stats.norm.ppf(0.5 + level / 2.0))
    # zeta is the signed root of the rise in deviance, and normal at the true value: hence normal quantiles.
    rows = [(limit(p, least, -quantile), limit(p, least, quantile)) for p in picked]
    return pd.DataFrame(rows, index=pd.Index([p.name for p in picked], name="parameter"), columns=["lower", "upper"])


def profile(fitted: Any, chosen: Any) -> Profile:
    """Points of the profiles at about the same steps of zeta."""
    picked, least = parameters(fitted, chosen)
    rows = []
    for parameter in picked:
        points = {parameter.estimate: 0.0}
        # Each side starts from the standard error again, since profiles of variances are skewed.
        for sign in (-1.0, 1.0):
            step = sign * parameter.error
            for target in GRID:
                value = float(np.clip(parameter.estimate + step * target, parameter.lower, parameter.upper))
                points[value] = zeta(parameter, value, least)
                # Beyond a bound there is no model. The clip makes the comparison exact.
                if value in (parameter.lower, parameter.upper):
                    break
                if points[value]:  # the next step by the slope so far
                    step = sign * abs((value - parameter.estimate) / points[value])
        rows += [(parameter.name, value, points[value]) for value in sorted(points)]
    return Profile(pd.DataFrame(rows, columns=["parameter", "value", "zeta"]))
