"""Random effects that the fixed effects reproduce in every level: the REML criterion says nothing about their variance.

With a coefficient for every level of a factor, P Z = 0 for the random intercepts of that factor, so the criterion is
the same at every variance, and rounding alone would lead the search. The variance is 0 then, as under maximum
likelihood.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bigmm.objective.covariances import TermCovariance, lower_factor
from bigmm.objective.criterion import Criterion
from bigmm.objective.evaluation import Evaluation
from bigmm.objective.frame import Frame, Framed
from bigmm.objective.start import summed_diagonal

NOTHING = 1e-12
"""Share of a direction's sum of squares below which what fixed effects leave of it is rounding."""
ROUNDING = 1e-11
APART = 1e-5
"""A covariate is reproduced when less than this of what it adds to the covariates before it is outside of what is."""


@dataclass(frozen=True, slots=True)
class Restricted:
    """A criterion of eta without the elements that it does not depend on.

    Attributes
    ----------
    framed : the criterion as a function of a search point.
    free : (n_theta,) bool, the elements that it depends on.
    saturated : (term, covariate) of what fixed effects reproduce.
    """

    framed: Framed
    free: np.ndarray
    saturated: tuple[tuple[TermCovariance, str], ...]

    @property
    def curvature_noise(self) -> np.ndarray:
        """(n_theta,) curvature at zero that rounding may leave: a share of what it would be without fixed effects."""
        out, gram = np.zeros(len(self.free)), self.criterion.gram
        for user_term, factor in zip(self.criterion.covariances.terms, self.frame.factors, strict=True):
            term = gram.terms[user_term.joint]
            basis = term.basis[:, user_term.slots] @ factor
            whole = np.einsum("ab,ac,cb->b", basis, summed_diagonal(term), basis)
            out[user_term.part] = [
                2.0 * ROUNDING * sum(whole[list(columns)]) for columns in user_term.covariance.columns
            ]
        return out

    @property
    def criterion(self) -> Criterion:
        """The criterion as a function of theta."""
        return self.framed.criterion

    @property
    def frame(self) -> Frame:
        """The coordinates of the search."""
        return self.framed.frame

    def start(self, eta: np.ndarray) -> np.ndarray:
        """eta, zero where nothing depends on it."""
        return np.where(self.free, eta, 0.0)

    def outward(self, eta: np.ndarray) -> np.ndarray:
        """(n_theta,) theta of eta, the variances of saturated covariates 0: the same criterion."""
        theta = np.array(self.frame.outward(self.start(eta)))
        covariances = self.criterion.covariances
        for user_term, lam in zip(covariances.terms, covariances.lambdas(theta), strict=True):
            rows = [user_term.names.index(name) for term, name in self.saturated if term is user_term]
            if rows and user_term.covariance.is_invariant:
                lam[rows] = 0.0
                lam = lower_factor(np.column_stack([lam, np.zeros(user_term.width)]))  # a column more: no short cut
                theta[user_term.part] = user_term.covariance.start(lam)
        return theta

    def value(self, eta: np.ndarray) -> float:
        """See `Criterion.value`."""
        return self.framed.value(self.start(eta))

    def evaluate(self, eta: np.ndarray) -> Evaluation:
        """See `Criterion.evaluate`; gradient 0 and curvature 1 where nothing depends on eta."""
        model, flat = self.framed.evaluate(self.start(eta)), ~self.free
        if not flat.any():
            return model
        gradient, hessian = model.gradient.copy(), model.hessian.copy()
        # Curvature 1 with gradient 0: Newton's step leaves the element where it is, and the matrix stays invertible.
        gradient[flat], hessian[flat], hessian[:, flat] = 0.0, 0.0, 0.0
        hessian[flat, flat] = 1.0
        return Evaluation(model.value, gradient, hessian)

    def exact_gradient(self, eta: np.ndarray) -> np.ndarray:
        """See `Framed.exact_gradient`."""
        return np.where(self.free, self.framed.exact_gradient(self.start(eta)), 0.0)


def restricted(framed: Framed) -> Restricted:
    """The criterion, and which of its elements are free."""
    criterion, frame = framed.criterion, framed.frame
    free, saturated = np.ones(criterion.n_theta, bool), []
    for joint, remainder_squares in _remainders(criterion).items():
        term = criterion.gram.terms[joint]
        whole = summed_diagonal(term)
        for user_term, inward, outward in zip(criterion.covariances.terms, frame.inverses, frame.factors, strict=True):
            if user_term.joint == joint:
                basis = term.basis[:, user_term.slots] @ outward
                flat = _reproduced(basis.T @ remainder_squares @ basis, basis.T @ whole @ basis, inward)
                free[user_term.part] = [not flat[list(columns)].all() for columns in user_term.covariance.columns]
                saturated += [(user_term, name) for name, is_flat in zip(user_term.names, flat, strict=True) if is_flat]
    return Restricted(framed, free, tuple(saturated))


def _reproduced(remainder_squares: np.ndarray, whole: np.ndarray, inward: np.ndarray) -> np.ndarray:
    """(k,) bool, covariates that lie in the null space of the remainder.

    Parameters
    ----------
    remainder_squares, whole : (k, k) sums of squares with and without the projection, in coordinates that are
        orthonormal in an average level.
    inward : (k, k) upper triangular, the covariates in these coordinates.
    """
    size = np.sqrt(np.diagonal(whole))
    size = np.where(size > 0.0, size, 1.0)
    values, vectors = np.linalg.eigh(remainder_squares / size[:, None] / size)
    outside = vectors[:, values > NOTHING].T @ (size[:, None] * inward)
    remainder = size * np.diagonal(inward)  # 0 for what depends on other covariates
    return np.asarray((np.linalg.norm(outside, axis=0) <= APART * remainder) & (remainder > 0.0))


def _remainders(criterion: Criterion) -> dict[int, np.ndarray]:
    """{joint term: (k, k) sum over levels of Z'W(I - projection on X)Z}, where X has enough columns to reproduce Z."""
    gram = criterion.gram
    # Fewer columns than levels cannot reproduce every level.
    random = [j for j, term in enumerate(gram.terms) if term.penalized and term.n_levels <= criterion.rank]
    if not (criterion.reml and random and has_levels(criterion)):
        return {}
    if all(term.penalized for term in gram.terms):
        return {j: summed_diagonal(gram.terms[j]) - _explained(criterion, j) for j in random}
    if not criterion.solver.is_exact:
        return {}
    # At Lambda = 0 V is W^-1, so Z'PZ is the remainder itself. Probes would leave noise where a zero is tested.
    projected = criterion.factor(np.zeros(criterion.n_theta)).projected(True)
    return {j: remainder_squares for j in random if (remainder_squares := projected[j]) is not None}


def has_levels(criterion: Criterion) -> bool:
    """Whether the Gram holds the blocks of its levels; shards leave it empty."""
    return all(term.n_levels for term in criterion.gram.terms if term.penalized)


def _explained(criterion: Criterion, joint: int) -> np.ndarray:
    """(k, k) sum over levels of Z'WX (X'WX)^-1 X'WZ, in units where the diagonal of X'WX is 1."""
    gram, term = criterion.gram, criterion.gram.terms[joint]
    squares, rows = gram.xy[:-1, :-1], term.dense[:, :, :-1]
    scale = np.sqrt(np.maximum(np.diagonal(squares), 1e-300))
    values, vectors = np.linalg.eigh(squares / scale[:, None] / scale)
    positive = values > 0.0
    half = (rows / scale) @ (vectors[:, positive] / np.sqrt(values[positive]))
    # rows that stand for several levels have the sums of their squares
    return np.asarray(np.einsum("lap,lbp->ab", half, half))
