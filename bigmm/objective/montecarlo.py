"""How far the probes of the iterative solver may have moved the objective, theta, and a difference of objectives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bigmm.blocks.exact.solve import residual_products, tall_product
from bigmm.objective.criterion import Criterion
from bigmm.objective.factorization import Probing
from bigmm.objective.saturation import Restricted

TOLERANCE = (0.01, 0.05)
"""What the errors are brought below: share of a theta's statistical standard error, error of the objective."""


@dataclass(frozen=True, slots=True)
class ProbeError:
    """Standard errors that come from the probes alone, at the end of a search.

    Attributes
    ----------
    objective : of -2 log L; infinite where the objective has no value.
    parameters : (P,) of the estimate, see `parameter_errors`.
    statistical : (P,) the standard error from the data, sqrt(2 H^-1), beside it.
    """

    objective: float
    parameters: np.ndarray
    statistical: np.ndarray

    @property
    def share(self) -> float:
        """Largest Monte Carlo error of a parameter in units of its statistical standard error."""
        return float(np.max(self.parameters / np.maximum(self.statistical, 1e-300), initial=0.0))


@dataclass(frozen=True, slots=True)
class MonteCarloError:
    """Standard errors that come from the probes alone, at one theta.

    Attributes
    ----------
    objective : of -2 log L.
    theta : (n_theta,) of the estimate, see `parameter_errors`.
    statistical : (n_theta,) the standard error of theta from the data, sqrt(2 H^-1), beside it.
    probes, deflation, seed : numbers of random vectors, and their seed.
    objective_each : (t,) -2 log L as each single probe would have it.
    probed : the factors that have probes. Fits with one seed have common probes for the factors they share.
    tolerance : limits of the errors, a share of the statistical standard error and an error of the objective.
    """

    objective: float
    theta: np.ndarray
    statistical: np.ndarray
    probes: int
    deflation: int
    seed: int
    objective_each: np.ndarray
    probed: tuple[str, ...]
    tolerance: tuple[float, float]

    def as_record(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "objective": self.objective,
            "theta": [float(x) for x in self.theta],
            "theta_statistical": [float(x) for x in self.statistical],
            "probes": self.probes,
            "deflation": self.deflation,
            "seed": self.seed,
            "probed": list(self.probed),
            "mc_tol": [float(x) for x in self.tolerance],
            "objective_each": [float(x) for x in self.objective_each],
        }


def probe_error(search: Restricted, eta: np.ndarray) -> ProbeError:
    """The errors of theta and of the criterion from the spread over probes of log|M| and of the gradient.

    Parameters
    ----------
    search : the criterion in the coordinates of its search.
    eta : (n_theta,) the end of the search.
    """
    criterion, frame, theta = search.criterion, search.frame, search.frame.outward(eta)
    factor = criterion.factor(theta)
    lams = criterion.covariances.working(criterion.gram, theta)
    # Only log|M| and the traces are estimates. Scores and sigma^2 are solved for, so all probes share them.
    outer = [tall_product(s, s) for s in residual_products(criterion.structure, lams, factor.solution())]
    sigma2, spread = criterion.residual_variance(factor), factor.spread(criterion.reml)
    gradients = np.array([search.framed.gradient_of(eta, projected, outer, sigma2) for projected in spread])
    model = search.evaluate(eta)
    errors = parameter_errors(gradients, model.hessian, model.gradient, frame.jacobian(eta))
    return ProbeError(factor.logdet_error, *errors)


def monte_carlo_error(
    criterion: Criterion, theta: np.ndarray, error: ProbeError, tolerance: tuple[float, float], objective: float
) -> MonteCarloError:
    """The errors that a fit reports.

    Parameters
    ----------
    criterion : whose factor at theta has the probes of the fit.
    theta : (n_theta,) the estimate.
    error : of theta, from the end of the search.
    tolerance : of the search.
    objective : the value that the fit reports.
    """
    factor = criterion.factor(theta)
    logdet_error = factor.logdet_error  # solves for the probes, of which there may be fewer than asked for
    probing = probing_of(criterion)
    return MonteCarloError(
        logdet_error,
        error.parameters,
        error.statistical,
        probing.probes,
        probing.deflation,
        probing.seed,
        objective + (factor.logdet_each - factor.logdet_z),
        criterion.solver.probed,
        tolerance,
    )


def parameter_errors(
    gradients: np.ndarray, hessian: np.ndarray, score: np.ndarray | None = None, outward: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Standard errors of the zero of the score, from the probes and from the data.

    Parameters
    ----------
    gradients : (t, P) the gradient by each single probe.
    hessian : (P, P)
    score : (P,) the gradient where the search stopped. Its step, which was not taken, is part of the error.
    outward : (P, P) derivative of the parameters that are reported.

    Returns
    -------
    (P,) roots of the diagonal of H^-1 Cov(gradient) H^-1 / t, and (P,) of 2 H^-1.
    """
    # np.cov of one parameter has no axes.
    noise = np.atleast_2d(np.cov(gradients.T)) / len(gradients)
    scale = np.sqrt(np.abs(np.diagonal(hessian)))
    scale[scale == 0.0] = 1.0
    # Absolute eigenvalues: away from an optimum the curvature may be indefinite, and an error is positive all the same.
    values, vectors = np.linalg.eigh(hessian / scale[:, None] / scale)
    vectors = vectors / scale[:, None]
    inverse = (vectors / np.maximum(np.abs(values), 1e-12 * np.abs(values).max(initial=1e-300))) @ vectors.T
    out = np.eye(len(hessian)) if outward is None else outward
    moved, statistical = (
        np.maximum(np.diagonal(out @ matrix @ out.T), 0.0) for matrix in (inverse @ noise @ inverse, 2.0 * inverse)
    )
    if score is not None:
        moved = moved + (out @ inverse @ score) ** 2
    return np.sqrt(moved), np.sqrt(statistical)


def probing_of(criterion: Criterion) -> Probing:
    """The random vectors of an iterative criterion."""
    probing = criterion.solver.probing
    if probing is None:
        raise TypeError(f"the {criterion.solver.name} solver has no probes")
    return probing


def reordered(criterion: Criterion, first: Sequence[str], probes: int, deflation: int) -> Criterion:
    """The same criterion with the factors of these names eliminated and probes for all others, as another model has.

    log|M| is the same number whatever is eliminated, but its estimate then errs together with the other model's.
    """
    solver = criterion.solver.reordered(first, probes, deflation)
    return Criterion(criterion.gram, criterion.covariances, criterion.reml, solver)


def objective_record(criterion: Criterion, theta: np.ndarray) -> dict[str, Any]:
    """The part of `MonteCarloError.as_record` that is about the objective alone."""
    error = criterion.factor(theta).logdet_error  # solves for the probes, of which there may be fewer than asked for
    probing = probing_of(criterion)
    counts = {"probes": probing.probes, "deflation": probing.deflation, "objective": error}
    by_probe = objective_each(criterion, theta).tolist()
    return counts | {"probed": list(criterion.solver.probed), "objective_each": by_probe}


def objective_each(criterion: Criterion, theta: np.ndarray) -> np.ndarray:
    """(t,) the criterion as each single probe would have it; all but log|M| needs none."""
    factor = criterion.factor(theta)
    return criterion.value(theta) + (factor.logdet_each - factor.logdet_z)


@dataclass(frozen=True, slots=True)
class DifferenceError:
    """Monte Carlo standard error of a difference of two criteria, and in words where it comes from."""

    value: float
    how: str


def difference_error(first: Mapping[str, Any] | None, second: Mapping[str, Any] | None) -> DifferenceError:
    """Of two fits given by their records (`MonteCarloError.as_record`, None for an exact one).

    With one seed and a probed factor in common the probes are common random numbers, and what they do to both cancels;
    else the two errors are independent.
    """
    errors = [float((record or {}).get("objective", 0.0)) for record in (first, second)]
    independent = float(np.hypot(errors[0], errors[1]))
    if not first or not second:
        return DifferenceError(independent, "one fit is exact" if first or second else "both fits are exact")
    if first.get("seed") != second.get("seed"):
        return DifferenceError(independent, "independent probes: the seeds differ")
    if not set(first.get("probed", ())) & set(second.get("probed", ())):
        return DifferenceError(independent, "independent probes: no probed factor in common")
    pair = [np.asarray(record["objective_each"], float) for record in (first, second)]
    return DifferenceError(paired_error(*pair), "common probes")


def paired_error(a: np.ndarray, b: np.ndarray) -> float:
    """Standard error of mean(a) - mean(b), a (t1,) and b (t2,), whose first min(t1, t2) elements are pairs.

    Var = s_a^2 / t1 + s_b^2 / t2 - 2 c_ab / max(t1, t2). As the mean over n pairs of a - (n / t) b, b the longer, minus
    (1 - n / t) times the mean of the rest of b, no estimate of it can be negative.
    """
    if len(a) > len(b):
        a, b = b, a
    n, t = len(a), len(b)
    # Probes beyond the first n of the longer record have no partner, and their error does not cancel.
    pairs = np.var(a - (n / t) * b[:n], ddof=1) / n
    remainder = (t - n) / t**2 * np.var(b, ddof=1)
    return float(np.sqrt(pairs + remainder))
