"""t, F and Wald tests of linear hypotheses, with the degrees of freedom that a method gives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from bigmm.errors import UsageError
from bigmm.inference.kenward_roger import scaled_f
from bigmm.inference.model import LinearInference
from bigmm.inference.satterthwaite import contrast_df, joint_df

METHODS = ("auto", "satterthwaite", "kenward-roger", "normal")


def method_of(ddf: str) -> str:
    """The name of a method; raises UsageError."""
    if ddf not in METHODS:
        raise UsageError(f"ddf={ddf!r}: choose one of {', '.join(METHODS)}")
    return ddf


@dataclass(frozen=True, slots=True)
class Contrasts:
    """Tests of single hypotheses.

    Parameters
    ----------
    estimate, error, statistic, df, p_value : (r,) each; df is infinite for the normal distribution.
    """

    estimate: np.ndarray
    error: np.ndarray
    statistic: np.ndarray
    df: np.ndarray
    p_value: np.ndarray


@dataclass(frozen=True, slots=True)
class Joint:
    """One test of several hypotheses: F with (numerator_df, denominator_df) degrees of freedom."""

    numerator_df: int
    denominator_df: float
    statistic: float
    p_value: float


def contrasts(inference: LinearInference, matrix: np.ndarray, values: np.ndarray | float, ddf: str) -> Contrasts:
    """t tests of the rows of L beta = r.

    Parameters
    ----------
    matrix : (r, p_all) L. values : (r,). ddf : a method but ``auto``.
    """
    rows = inference.coefficients.rows(matrix)
    covariance = inference.covariance(ddf)
    estimate = rows @ inference.coefficients.beta
    error = np.sqrt(np.einsum("ri,ij,rj->r", rows, covariance, rows))
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = (estimate - values) / error
    df = degrees(inference, rows, ddf)
    return Contrasts(estimate, error, statistic, df, np.asarray(2.0 * stats.t.sf(np.abs(statistic), df)))


def degrees(inference: LinearInference, rows: np.ndarray, ddf: str) -> np.ndarray:
    """(r,) degrees of freedom of the rows (r, p) of hypotheses about estimable coefficients."""
    if ddf == "normal":
        return np.full(len(rows), np.inf)
    if ddf == "satterthwaite":
        return contrast_df(inference.curvature, rows)
    kr = inference.kenward_roger
    return np.array([scaled_f(kr, row[None], row[None] @ inference.coefficients.beta)[1] for row in rows])


def joint(inference: LinearInference, matrix: np.ndarray, values: np.ndarray | float, ddf: str) -> Joint:
    """The F test of all rows of L beta = r together; rows that depend on others are left out."""
    rows, difference = _independent(inference, matrix, values)
    rank = len(rows)
    if not rank:
        return Joint(0, np.nan, np.nan, np.nan)
    sizes, directions = _principal(rows, inference.covariance(ddf))
    rows, difference = directions.T @ rows, directions.T @ difference
    if ddf == "kenward-roger":  # the same test in any basis of the hypotheses: here their variances are 1
        statistic, df = scaled_f(inference.kenward_roger, rows / sizes[:, None], difference / sizes)
        return Joint(rank, df, statistic, float(stats.f.sf(statistic, rank, df)))
    # Fai and Cornelius: in these directions the contrasts are orthogonal, and their squared t statistics add up.
    statistic = float(((difference / sizes) ** 2).sum()) / rank
    df = joint_df(degrees(inference, rows, ddf)) if ddf != "normal" else np.inf
    p_value = stats.chi2.sf(statistic * rank, rank) if np.isinf(df) else stats.f.sf(statistic, rank, df)
    return Joint(rank, float(df), statistic, float(p_value))


def _principal(rows: np.ndarray, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(r,) roots of the eigenvalues of LCL' and (r, r) eigenvectors, L (r, p) rows and C (p, p) covariance.

    By singular values of L times a root of C that has each coefficient in its own unit: LCL' itself would lose the
    digits of a coefficient whose variance is 1e-16 of another's, as that of a covariate in a small unit is.
    """
    errors = np.sqrt(np.diagonal(covariance))
    values, vectors = np.linalg.eigh(covariance / np.outer(errors, errors))
    root = errors[:, None] * vectors * np.sqrt(np.maximum(values, 0.0))
    directions, sizes, _ = np.linalg.svd(rows @ root, full_matrices=False)
    return sizes, directions


def _independent(
    inference: LinearInference, matrix: np.ndarray, values: np.ndarray | float
) -> tuple[np.ndarray, np.ndarray]:
    """(rows, difference) of independent hypotheses; raises UsageError where they contradict each other."""
    rows = inference.coefficients.rows(matrix)
    values = np.broadcast_to(np.asarray(values, float), (len(rows),))
    if not len(rows):
        return rows, values
    combinations, sizes, directions = np.linalg.svd(rows, full_matrices=False)
    large = sizes > 1e-8 * sizes.max(initial=0.0)
    reduced = (combinations[:, large].T @ values) / sizes[large]
    if not np.allclose(rows @ (directions[large].T @ reduced), values, atol=1e-8 * (1.0 + np.abs(values).max())):
        raise UsageError("the hypotheses contradict each other: no coefficients fulfil all of them")
    span = directions[large]
    return span, span @ inference.coefficients.beta - reduced
