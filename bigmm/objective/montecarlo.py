"""How far the probes of the iterative solver may have moved the objective, theta, and a difference of objectives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bigmm.blocks.exact.solve import residual_products, tall_product
from bigmm.blocks.iterative.probes import keys_of, standard_error
from bigmm.objective.algebra import IterativeAlgebra
from bigmm.objective.criterion import Criterion
from bigmm.objective.saturation import Restricted

TOLERANCE = (0.01, 0.05)
"""What the errors are brought below: share of a theta's statistical standard error, error of the objective."""


@dataclass(frozen=True, slots=True)
class MonteCarloError:
    """Standard errors that come from the probes alone, at one theta.

    objective: of -2 log L; theta (n_theta,): of the estimate, see `parameter_errors`; statistical (n_theta,): the
    standard error of theta from the data, sqrt(2 H^-1), beside it; probes, deflation: their numbers; seed: theirs;
    objective_each (t,): -2 log L as each single probe would have it; probed: the factors that have probes, so that fits
    with the same seed have common probes for the factors they share; tolerance: what the errors were to be below (share
    of the statistical standard error, error of the objective).
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

    @property
    def share(self) -> float:
        """Largest Monte Carlo error of a theta in units of its statistical standard error."""
        return largest_share(self.theta, self.statistical)

    def as_record(self) -> dict:
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


def monte_carlo_error(
    framed: Restricted, eta: np.ndarray, tolerance: tuple[float, float] = TOLERANCE
) -> MonteCarloError:
    """From the spread over probes of log|M| and of the gradient, at the end of a search, eta."""
    criterion, frame, theta = framed.criterion, framed.frame, framed.frame.outward(eta)
    algebra = criterion.algebra
    assert isinstance(algebra, IterativeAlgebra)
    factor = criterion.factor(theta)
    lams = criterion.templates.working(criterion.gram, theta)
    outer = [tall_product(s, s) for s in residual_products(criterion.structure, lams, algebra.solve(factor))]
    along, sigma2 = (frame.joint, criterion.templates.joint(eta)), criterion.residual_variance(factor)
    spread = algebra.spread(factor, criterion.reml)
    gradients = np.array([criterion.gradient_of(*along, projected, outer, sigma2) for projected in spread])
    model = framed.evaluate(eta)
    moved, statistical = parameter_errors(gradients, model.hessian, model.gradient, frame.jacobian(eta))
    return MonteCarloError(
        factor.logdet_error,
        moved,
        statistical,
        algebra.n_probes,
        algebra.n_deflation,
        algebra.seed,
        objective_each(criterion, theta),
        tuple(name for name, _, _ in keys_of(algebra.structure)),
        tolerance,
    )


def parameter_errors(
    gradients: np.ndarray, hessian: np.ndarray, left: np.ndarray | None = None, outward: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(P,) standard errors of the zero of the score that come from the probes, H^-1 Cov(gradient) H^-1 / t, and (P,)
    from the data, sqrt(2 H^-1).

    gradients (t, P): as each single probe has it; hessian (P, P); left (P,): the score where the search stopped, whose
    step, which was not taken, is part of the error; outward (P, P): derivative of the parameters that are reported.
    """
    noise = np.atleast_2d(np.cov(gradients.T)) / len(gradients)
    scale = np.sqrt(np.abs(np.diagonal(hessian)))
    scale[scale == 0.0] = 1.0
    values, vectors = np.linalg.eigh(hessian / scale[:, None] / scale)
    vectors = vectors / scale[:, None]
    inverse = (vectors / np.maximum(np.abs(values), 1e-12 * np.abs(values).max(initial=1e-300))) @ vectors.T
    out = np.eye(len(hessian)) if outward is None else outward
    moved, statistical = (
        np.maximum(np.diagonal(out @ matrix @ out.T), 0.0) for matrix in (inverse @ noise @ inverse, 2.0 * inverse)
    )
    if left is not None:
        moved = moved + (out @ inverse @ left) ** 2
    return np.sqrt(moved), np.sqrt(statistical)


def largest_share(moved: np.ndarray, statistical: np.ndarray) -> float:
    """Largest Monte Carlo error of a parameter in units of its statistical standard error."""
    return float(np.max(moved / np.maximum(statistical, 1e-300), initial=0.0))


def effective_df_error(criterion: Criterion, theta: np.ndarray) -> float | None:
    """Standard error of `Criterion.effective_df` from the spread over probes; None for an exact criterion."""
    algebra = getattr(criterion, "algebra", None)
    if not isinstance(algebra, IterativeAlgebra):
        return None
    lams = criterion.templates.working(criterion.gram, np.asarray(theta, float))
    each = [
        sum(float(np.trace(lam.T @ projected @ lam)) for lam, projected in zip(lams, found, strict=True))
        for found in algebra.spread(criterion.factor(theta), True)
    ]
    return standard_error(np.array(each))


def eliminated(criterion: Criterion) -> tuple[str, ...]:
    """The factors that the iterative solver eliminates exactly; () for another."""
    algebra = getattr(criterion, "algebra", None)
    if not isinstance(algebra, IterativeAlgebra):
        return ()
    return tuple(criterion.gram.terms[stage.term].name for stage in algebra.structure.stages)


def probe_counts(criterion: Criterion) -> tuple[int, int]:
    """(probes, size of the deflation basis) of an iterative criterion."""
    algebra = criterion.algebra
    assert isinstance(algebra, IterativeAlgebra)
    return algebra.n_probes, algebra.n_deflation


def eliminating(criterion: Criterion, chain: Sequence[str], probes: int, deflation: int) -> Criterion:
    """The same criterion with probes for all factors but these, so that it has those of a model that eliminates them.

    log|M| is the same number whatever is eliminated, but its estimate then errs together with the other model's.
    """
    algebra, gram = criterion.algebra, criterion.gram
    assert isinstance(algebra, IterativeAlgebra)
    first = [number for number, term in enumerate(gram.terms) if term.name in chain]
    order = first, [number for number in range(len(gram.terms)) if number not in first]
    again = IterativeAlgebra(gram, probes, deflation, algebra.seed, order)
    return Criterion(gram, criterion.templates, criterion.reml, again)


def objective_record(criterion: Criterion, theta: np.ndarray) -> dict[str, Any]:
    """What `MonteCarloError.as_record` says of the objective alone."""
    algebra = criterion.algebra
    assert isinstance(algebra, IterativeAlgebra)
    probed = [name for name, _, _ in keys_of(algebra.structure)]
    each = objective_each(criterion, theta).tolist()
    counts = dict(zip(("probes", "deflation"), probe_counts(criterion), strict=True))
    return counts | {"objective": criterion.factor(theta).logdet_error, "probed": probed, "objective_each": each}


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
    each = [np.asarray(record["objective_each"], float) for record in (first, second)]
    return DifferenceError(paired_error(*each), "common probes")


def paired_error(a: np.ndarray, b: np.ndarray) -> float:
    """Standard error of mean(a) - mean(b), a (t1,) and b (t2,), whose first min(t1, t2) elements are pairs.

    Var = s_a^2 / t1 + s_b^2 / t2 - 2 c_ab / max(t1, t2). As the mean over n pairs of a - (n / t) b, b the longer, minus
    (1 - n / t) times the mean of the rest of b, no estimate of it can be negative.
    """
    if len(a) > len(b):
        a, b = b, a
    n, t = len(a), len(b)
    pairs = np.var(a - (n / t) * b[:n], ddof=1) / n
    rest = (t - n) / t**2 * np.var(b, ddof=1)
    return float(np.sqrt(pairs + rest))
