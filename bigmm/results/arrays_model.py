"""The fitted model behind `lmm_from_arrays`: matrices in, a Lambda(theta) of any structure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

import numpy as np
import pandas as pd
import scipy.sparse as sp

from bigmm.errors import UsageError
from bigmm.execute import Lane, executor
from bigmm.objective.general import GeneralCriterion, GeneralEstimates
from bigmm.optimize.outcome import Outcome
from bigmm.results import coefficients
from bigmm.results.broom import glance, information
from bigmm.results.fitted import FittedLmm, freeze
from bigmm.results.summary import Block, Summary, numbers, p_text
from bigmm.source.matrices import MatrixPartition, open_matrix, partition_matrices


@dataclass(frozen=True, slots=True)
class FixedNames:
    """The part of a `Layout` that tables of coefficients need."""

    fixed_names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FittedArrays:
    """Everything about a fit to matrices; `LmmArraysResults` only asks questions of it.

    theta: (n_theta,); lam: (q, q) csr Lambda(theta); seconds: {phase: s}; solver: how M was factored;
    rows: the matrices as partitions, () once pickled.
    """

    statistic: ClassVar[str] = "t value"

    layout: FixedNames
    reml: bool
    criterion: GeneralCriterion
    theta: np.ndarray
    lam: sp.csr_array
    estimates: GeneralEstimates
    outcome: Outcome
    nobs: int
    seconds: Mapping[str, float]
    solver: str
    bigmm_version: str
    rows: tuple[MatrixPartition, ...]

    @property
    def rank(self) -> int:
        """Number of estimable coefficients."""
        return int(np.isfinite(self.estimates.beta).sum())

    @property
    def npar(self) -> int:
        """Coefficients, theta and sigma."""
        return self.rank + len(self.theta) + 1

    @property
    def sigma(self) -> float:
        """Residual standard deviation."""
        return float(self.estimates.sigma)


@dataclass(frozen=True, slots=True)
class FixedLambda:
    """Lambda at the estimate: what a pickled fit keeps of the user's function."""

    lam: sp.csr_array

    def __call__(self, theta: np.ndarray) -> sp.csr_array:
        return self.lam


@dataclass(frozen=True, slots=True)
class Linear:
    """x'beta + z'b for the rows of a lane of one partition."""

    beta: np.ndarray
    b: np.ndarray | None

    def __call__(self, lane: Lane) -> np.ndarray:
        (partition,) = lane.partitions
        eta = partition.read("X") @ self.beta
        if self.b is not None:
            eta = eta + partition.read("Z") @ self.b
        return eta + partition.read("offset") if "offset" in partition.loads else eta


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class LmmArraysResults:
    """A linear mixed model fitted to matrices, deep-frozen; names as in `LmmResults`.

    Pickles without lambda_fn and without the rows: what is kept is Lambda at the estimate.
    """

    fitted: FittedArrays

    def __post_init__(self) -> None:
        freeze(self.fitted.theta)
        freeze(self.fitted.estimates)

    def __reduce__(self) -> tuple:
        criterion = self.fitted.criterion
        frozen = GeneralCriterion(criterion.gram, FixedLambda(self.fitted.lam), criterion.reml, criterion.kind)
        return LmmArraysResults, (replace(self.fitted, criterion=frozen, rows=()),)

    def __repr__(self) -> str:
        criterion = "REML criterion" if self.reml else "-2 log likelihood"
        q, rows = len(self.b), self.nobs
        return f"<LmmArraysResults: {rows:,} rows, {q:,} random effects, {criterion} {self.objective:.4f}>"

    def __str__(self) -> str:
        return str(self.summary())

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()

    @property
    def _coefficients(self) -> FittedLmm:
        # coefficients.* asks for layout.fixed_names and estimates.beta / .vcov only
        return cast(FittedLmm, self.fitted)

    # Fixed effects

    @property
    def params(self) -> pd.Series:
        """Coefficients by name; NaN for columns that depend on earlier ones."""
        return coefficients.named(self._coefficients, self.beta, "params")

    @property
    def bse(self) -> pd.Series:
        """Standard errors of the coefficients, given theta."""
        return coefficients.named(self._coefficients, coefficients.standard_errors(self._coefficients), "bse")

    @property
    def tvalues(self) -> pd.Series:
        """Coefficient / standard error."""
        return coefficients.named(self._coefficients, coefficients.z_values(self._coefficients), "tvalues")

    @property
    def zvalues(self) -> pd.Series:
        """The same as `tvalues`: p values use the normal distribution."""
        return self.tvalues.rename("zvalues")

    @property
    def pvalues(self) -> pd.Series:
        """Two-sided Wald p values from the normal distribution."""
        return coefficients.named(self._coefficients, coefficients.p_values(self._coefficients), "pvalues")

    def conf_int(self, level: float = 0.95, method: str = "wald") -> pd.DataFrame:
        """Confidence limits of the coefficients: columns lower, upper."""
        return coefficients.intervals(self._coefficients, level, method)

    def cov_params(self) -> pd.DataFrame:
        """(p, p) covariance matrix of the coefficients."""
        return coefficients.covariance(self._coefficients)

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
        """(n_theta,) what lambda_fn takes, at the minimum."""
        return self.fitted.theta

    @property
    def u(self) -> np.ndarray:
        """(q,) spherical random effects."""
        return self.fitted.estimates.u

    @property
    def b(self) -> np.ndarray:
        """(q,) conditional modes of the random effects, b = Lambda u, in the order of Z's columns."""
        return self.fitted.estimates.b

    def conditional_sd(self) -> np.ndarray:
        """(q,) standard deviations of the random effects given y, theta, sigma and beta (lme4's condVar, its root)."""
        return self.fitted.criterion.conditional_sd(self.theta)

    @property
    def lam(self) -> sp.csr_array:
        """(q, q) Lambda at the estimate; Var(b) = sigma^2 Lambda Lambda'."""
        return self.fitted.lam

    @property
    def sigma(self) -> float:
        """Residual standard deviation."""
        return float(self.fitted.estimates.sigma)

    @property
    def scale(self) -> float:
        """Residual variance, sigma^2."""
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

    @property
    def aic(self) -> float:
        """objective + 2 npar, npar counting coefficients, theta and sigma."""
        return information(self._coefficients)["AIC"]

    @property
    def bic(self) -> float:
        """objective + log(nobs) npar."""
        return information(self._coefficients)["BIC"]

    @property
    def nobs(self) -> int:
        """Rows used."""
        return self.fitted.nobs

    @property
    def npar(self) -> int:
        """Coefficients, theta and sigma."""
        return self.fitted.npar

    @property
    def df_resid(self) -> int:
        """nobs - npar."""
        return self.nobs - self.npar

    @property
    def reml(self) -> bool:
        """Whether the REML criterion was minimised."""
        return self.fitted.reml

    @property
    def converged(self) -> bool:
        """Whether finite differences certify the minimum."""
        return self.optimizer_result.converged

    @property
    def is_singular(self) -> bool:
        """Whether an element of theta lies at its lower bound."""
        return bool(np.any(self.optimizer_result.at_boundary))

    @property
    def optimizer_result(self) -> Outcome:
        """Status, evaluations, largest gradient element, advice."""
        return self.fitted.outcome

    @property
    def effective_df(self) -> pd.Series:
        """Trace of the map from y to the fitted values: total, fixed, random."""
        values = self.fitted.criterion.effective_df(self.theta)
        return pd.Series(list(values), index=["total", "fixed", "random"], name="effective_df", dtype=float)

    def summary(self) -> Summary:
        """Printable (text and HTML)."""
        return _summary(self)

    def glance(self) -> pd.DataFrame:
        """One row about the model, as `LmmResults.glance`."""
        return glance(self._coefficients)

    # Rows

    def predict(
        self, X: Any = None, Z: Any = None, offset: Any = None, *, random: bool = True, client: Any = None
    ) -> np.ndarray:
        """(n,) X beta (+ Z b) + offset; rows are read a chunk at a time, whatever kind of array they are in.

        Without X the rows of the fit; random=False leaves Z b out, and then Z may be missing. Columns that were dropped
        for depending on earlier ones count as zero. Raises UsageError when shapes disagree with the fit.
        """
        rows = self.fitted.rows if X is None else self._new_rows(X, Z, offset, random)
        if not rows:
            raise UsageError("this fit was pickled and no longer knows its rows; pass X and Z")
        lanes = [Lane(number, (part,)) for number, part in enumerate(rows)]
        task = Linear(np.nan_to_num(self.beta), self.b if random else None)
        return np.concatenate(list(executor(client).map(task, lanes, label="predict")))

    def _new_rows(self, X: Any, Z: Any, offset: Any, random: bool) -> tuple[MatrixPartition, ...]:
        given = {"X": X, "Z": Z if random else None, "offset": offset}
        arrays = {name: open_matrix(values, name) for name, values in given.items() if values is not None}
        if random and Z is None:
            raise UsageError("predict() needs Z beside X, or random=False for X beta alone")
        columns = {"X": len(self.beta), "Z": len(self.b)}
        n = arrays["X"].shape[0]
        for name, array in arrays.items():
            expected = (n, columns[name]) if name in columns else (n,)
            if array.shape != expected:
                raise UsageError(f"{name} has shape {array.shape}, but this fit and X with {n} rows need {expected}")
        return partition_matrices(arrays)

    @property
    def fittedvalues(self) -> np.ndarray:
        """(n,) fitted values of the rows of the fit; reads the rows again."""
        return self.predict()

    @property
    def resid(self) -> np.ndarray:
        """(n,) response minus fitted value; reads the rows again."""
        fitted = self.predict()
        return np.concatenate([part.read("y") for part in self.fitted.rows]) - fitted

    def save(self, path: Any, overwrite: bool = False) -> None:
        """Not available: raises UsageError."""
        raise UsageError(
            "a fit of lmm_from_arrays cannot be saved: lambda_fn is code, and bigmm.load runs none. Pickle the result "
            "(it keeps Lambda at the estimate), or keep theta and fit again with theta0=theta"
        )


def _summary(model: LmmArraysResults) -> Summary:
    how = "REML" if model.reml else "maximum likelihood"
    fitted = model.fitted
    heading = (
        f"Linear mixed model fit by {how} (bigmm {fitted.bigmm_version})",
        f"Matrices: {model.nobs:,} rows, {len(model.beta)} columns of X, {len(model.b):,} columns of Z",
    )
    labels = ("AIC", "BIC", "logLik", "REML crit." if model.reml else "deviance", "df.resid")
    values = (model.aic, model.bic, model.llf, model.objective)
    criterion = Block("", (labels, (*(f"{v:.1f}" for v in values), str(model.df_resid))), left=0)
    theta = [("", *(f"theta[{i}]" for i in range(len(model.theta))), "sigma")]
    theta.append(("", *numbers(np.append(model.theta, model.sigma))))
    lines = [f"solver {fitted.solver}, {model.optimizer_result.evaluations} evaluations"]
    dropped = [str(n) for n, b in model.params.items() if np.isnan(b)]
    lines += [f"columns dropped because they depend on earlier ones: {', '.join(dropped)}"] * bool(dropped)
    lines += [model.optimizer_result.advice] * bool(model.optimizer_result.advice)
    notes = Block("Notes:", lines=tuple(f" - {line}" for line in lines))
    return Summary(heading, (criterion, Block("Covariance parameters:", tuple(theta)), _fixed(model), notes))


def _fixed(model: LmmArraysResults) -> Block:
    table = coefficients.table(model._coefficients)
    estimates = numbers(np.concatenate([table["Estimate"], table["Std. Error"]]))
    p = len(table)
    cells: Sequence[Sequence[str]] = [
        estimates[:p],
        estimates[p:],
        numbers(table["t value"].to_numpy(), 3),
        [p_text(v) for v in table["Pr(>|z|)"]],
    ]
    rows = [("", *table.columns)]
    rows += [(str(name), *row) for name, *row in zip(table.index, *cells, strict=True)]
    return Block("Fixed effects:", tuple(rows))
