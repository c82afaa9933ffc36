"""The fitted model behind `lmm_from_arrays`: matrices in, a Lambda(theta) of any structure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp

from bigmm.arguments import strict, true_or_false
from bigmm.errors import UsageError
from bigmm.execute import Lane, executor
from bigmm.objective.general import GeneralCriterion, GeneralEstimates
from bigmm.results.estimated import Estimated
from bigmm.results.fit_results import FitResults
from bigmm.results.inference import linear_inference
from bigmm.results.summary import Summary, SummaryBlock, criterion_block, fixed_block, lost_note, numbers
from bigmm.source.matrices import MatrixPartition, open_matrix, partition_matrices


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class FittedArrays(Estimated):
    """Everything about a fit to matrices; `LmmArraysResults` only asks questions of it.

    Attributes
    ----------
    columns : tuple of str (p,)
        Names of X's columns.
    lam : csr_array (q, q)
        Lambda(theta).
    rows : tuple of MatrixPartition
        The matrices as partitions; () once pickled.
    """

    criterion: GeneralCriterion
    estimates: GeneralEstimates
    columns: tuple[str, ...]
    lam: sp.csr_array
    rows: tuple[MatrixPartition, ...]

    @property
    def fixed_names(self) -> tuple[str, ...]:
        """(p,) names of the columns of X."""
        return self.columns

    @property
    def is_singular(self) -> bool:
        """Whether an element of theta lies at its lower bound."""
        return bool(np.any(self.outcome.at_boundary))

    @property
    def origin(self) -> str:
        """Rows and random effects."""
        return f"{self.nobs:,} rows, {len(self.estimates.b):,} random effects"


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
class LmmArraysResults(FitResults):
    """A linear mixed model that was fitted to matrices. It cannot be changed; names are those of `LmmResults`.

    A pickled fit is without `lambda_fn` and without the rows: it has Lambda at the estimate.
    """

    fitted: FittedArrays

    def __reduce__(self) -> tuple[Any, ...]:
        criterion = self.fitted.criterion
        frozen = GeneralCriterion(criterion.gram, FixedLambda(self.fitted.lam), criterion.reml, criterion.kind)
        # The curvature needs Lambda at other values of theta, and the user's function does not travel.
        curvature = linear_inference(self.fitted).curvature  # while Lambda(theta) is at hand
        return LmmArraysResults, (replace(self.fitted, criterion=frozen, rows=(), curvature=curvature),)

    @property
    def u(self) -> np.ndarray:
        """(q,) spherical random effects."""
        return self.fitted.estimates.u

    @property
    def b(self) -> np.ndarray:
        """(q,) conditional modes of the random effects, b = Lambda u, in the order of Z's columns."""
        return self.fitted.estimates.b

    def conditional_sd(self) -> np.ndarray:
        """Return the standard deviations (q,) of the random effects given y, theta, sigma and beta (lme4's condVar)."""
        return self.fitted.criterion.conditional_sd(self.theta)

    @property
    def lam(self) -> sp.csr_array:
        """(q, q) Lambda at the estimate; Var(b) = sigma^2 Lambda Lambda'."""
        return self.fitted.lam

    @property
    def is_singular(self) -> bool:
        """Whether an element of theta lies at its lower bound."""
        return self.fitted.is_singular

    def summary(self) -> Summary:
        """Printable (text and HTML)."""
        return _summary(self.fitted)

    # Rows

    @strict
    def predict(
        self, X: Any = None, Z: Any = None, offset: Any = None, *, random: bool = True, client: Any = None
    ) -> np.ndarray:
        """Predict for new rows, or for the rows of the fit: X beta + Z b + offset. Rows are read a chunk at a time.

        Parameters
        ----------
        X : array (n, p), optional
            Model matrix; without it the rows of the fit. Columns that were dropped count as zero.
        Z : array (n, q), optional
            Covariates of the random effects. It may be absent with ``random=False``.
        offset : array (n,), optional
            The known part of the linear predictor.
        random : bool
            Whether Z b is added.
        client : distributed.Client, optional
            Read the rows on the workers of this cluster.

        Returns
        -------
        ndarray (n,)

        Raises
        ------
        UsageError
            If shapes disagree with the fit, or a pickled fit is asked for its own rows.
        """
        # A list names terms in a fit of a formula, so it gets an answer of its own.
        if isinstance(random, (list, tuple)):
            raise UsageError(
                f"random={random!r}: columns of Z have no names, so no term can be chosen: it is True or False here, "
                "and Z with zeros in the columns of the other terms predicts with some"
            )
        random = true_or_false("random", random)
        rows = self.fitted.rows if X is None else self._new_rows(X, Z, offset, random)
        if not rows:
            raise UsageError("this fit was pickled and no longer knows its rows; pass X and Z")
        # One partition a lane: rows are independent, so nothing is merged.
        lanes = [Lane(number, (part,)) for number, part in enumerate(rows)]
        # NaN marks a dropped column, whose coefficient acts as zero.
        task = Linear(np.nan_to_num(self.beta), self.b if random else None)
        return np.concatenate(list(executor(client).map(task, lanes, label="predict")))

    def _new_rows(self, X: Any, Z: Any, offset: Any, random: bool) -> tuple[MatrixPartition, ...]:
        inputs = {"X": X, "Z": Z if random else None, "offset": offset}
        arrays = {name: open_matrix(values, name) for name, values in inputs.items() if values is not None}
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
        """Raise UsageError: `lambda_fn` is code, which a saved fit cannot hold."""
        raise UsageError(
            "a fit of lmm_from_arrays cannot be saved: lambda_fn is code, and bigmm.load runs none. Pickle the result "
            "(it keeps Lambda at the estimate), or keep theta and fit again with theta0=theta"
        )


def _summary(fitted: FittedArrays) -> Summary:
    estimates = fitted.estimates
    heading = (
        f"Linear mixed model fit by {fitted.method} (bigmm {fitted.bigmm_version})",
        f"Matrices: {fitted.nobs:,} rows, {len(estimates.beta)} columns of X, {len(estimates.b):,} columns of Z",
    )
    theta = [("", *(f"theta[{i}]" for i in range(len(fitted.theta))), "sigma")]
    theta.append(("", *numbers(np.append(fitted.theta, fitted.sigma))))
    lines = [f"solver {fitted.solver}, {fitted.outcome.evaluations} evaluations", *lost_note(fitted)]
    # An empty advice makes no line.
    lines += [fitted.outcome.advice] * bool(fitted.outcome.advice)
    notes = SummaryBlock("Notes:", lines=tuple(f" - {line}" for line in lines))
    blocks = (criterion_block(fitted), SummaryBlock("Covariance parameters:", tuple(theta)), fixed_block(fitted), notes)
    return Summary(heading, blocks)
