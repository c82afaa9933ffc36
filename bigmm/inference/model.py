"""The inference of one fitted linear mixed model: what is differentiated, in which coordinates."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, singledispatch
from typing import Any

import numpy as np
from scipy import sparse

from bigmm.blocks.gram import Gram
from bigmm.covariance import Covariance
from bigmm.errors import UsageError
from bigmm.inference.coefficients import Coefficients
from bigmm.inference.components import largest_component
from bigmm.inference.kenward_roger import Direction, KenwardRoger, kenward_roger
from bigmm.inference.satterthwaite import ProfileCurvature, profile_curvature, value_curvature
from bigmm.objective.criterion import Criterion, fixed_map
from bigmm.objective.frame import Framed
from bigmm.objective.general import GeneralCriterion
from bigmm.search.driver import quiet_driver
from bigmm.search.linear import frame_for

LARGEST_COMPONENT = 6000
"""Columns of Z in a component, above which the dense matrices of Kenward and Roger's method take gigabytes."""


@singledispatch
def curvature_of(criterion: Any, theta: np.ndarray, positions: np.ndarray) -> ProfileCurvature:
    """The curvature of a criterion at its optimum theta, for the estimable coefficients at positions (p,)."""
    raise TypeError(f"no curvature of a {type(criterion).__name__}")


@curvature_of.register
def _(criterion: Criterion, theta: np.ndarray, positions: np.ndarray) -> ProfileCurvature:
    frame = frame_for(criterion.solver, criterion.covariances)  # the coordinates of the search have ordinary units
    search = Framed(criterion, frame)

    def gradient(eta: np.ndarray) -> np.ndarray:
        return search.evaluate(eta).gradient

    def covariance(eta: np.ndarray) -> np.ndarray:
        return np.asarray(criterion.estimates(frame.outward(eta)).vcov[np.ix_(positions, positions)])

    with quiet_driver(criterion.gram):
        return profile_curvature(gradient, covariance, frame.inward(theta), criterion.dof)


@curvature_of.register
def _(criterion: GeneralCriterion, theta: np.ndarray, positions: np.ndarray) -> ProfileCurvature:
    def covariance(theta: np.ndarray) -> np.ndarray:
        return np.asarray(criterion.estimates(theta).vcov[np.ix_(positions, positions)])

    # Lambda(theta) is the user's code: an element at zero is taken for a bound, beyond which it may not be defined
    return value_curvature(criterion.value, covariance, theta, np.flatnonzero(theta != 0.0), criterion.dof)


@dataclass(frozen=True)
class LinearInference:
    """A criterion at its optimum.

    Parameters
    ----------
    criterion : of an exact solver. theta : (n_theta,) the optimum. coefficients : the estimable ones.
    """

    criterion: Any
    theta: np.ndarray
    coefficients: Coefficients

    @cached_property
    def curvature(self) -> ProfileCurvature:
        """Derivatives for Satterthwaite's degrees of freedom."""
        return curvature_of(self.criterion, self.theta, self.coefficients.positions)

    @cached_property
    def kenward_roger(self) -> KenwardRoger:
        """Kenward and Roger's covariance and what its tests need, in the user's basis of the estimable coefficients."""
        if not isinstance(self.criterion, Criterion):
            raise UsageError("ddf='kenward-roger' is for models with a formula: use ddf='satterthwaite'")
        criterion, gram = self.criterion, self.criterion.whole_gram
        if not criterion.reml:
            raise UsageError(
                "ddf='kenward-roger' is defined for REML fits only: fit with reml=True, or use 'satterthwaite'"
            )
        if any(not term.penalized for term in gram.terms):
            raise UsageError(
                "ddf='kenward-roger' is not available where a factor among the fixed effects is kept as levels: "
                "use ddf='satterthwaite'"
            )
        size = largest_component(gram)
        if size > LARGEST_COMPONENT:
            raise UsageError(
                f"ddf='kenward-roger' needs dense matrices of {size:,} random effects that are connected by rows, more "
                f"than {LARGEST_COMPONENT:,}: use ddf='satterthwaite'"
            )
        lams = criterion.covariances.working(gram, self.theta)
        to_user = fixed_map(gram)[gram.fixed_order][self.coefficients.positions]
        back = np.linalg.inv(to_user)
        sigma = float(np.sqrt(criterion.residual_variance(criterion.factor(self.theta))))
        work = kenward_roger(gram, lams, self._directions(), back @ self.coefficients.covariance @ back.T, sigma)
        slopes = back.T @ work.slopes @ back
        return KenwardRoger(self.coefficients.covariance, to_user @ work.adjusted @ to_user.T, slopes, work.weights)

    def covariance(self, ddf: str) -> np.ndarray:
        """(p, p) covariance of the estimable coefficients that goes with a method."""
        return self.kenward_roger.adjusted if ddf == "kenward-roger" else self.coefficients.covariance

    def root(self) -> np.ndarray:
        """(m, p) R with R'R = X'WX of the estimable coefficients, in the user's basis."""
        gram = self.criterion.gram
        to_user = fixed_map(gram)[gram.fixed_order][self.coefficients.positions]
        # X_working = X B, so the factor of X_working'WX_working times B^-1 is one of X'WX.
        squares = fixed_squares(gram)
        return np.linalg.cholesky(squares).T @ np.linalg.inv(to_user)

    def _directions(self) -> list[Direction]:
        """The changes of every Sigma that its structure allows."""
        gram, out = self.criterion.whole_gram, []
        for term in self.criterion.covariances.terms:
            basis = gram.terms[term.joint].basis
            for change in sigma_directions(term.covariance, self.theta[term.part]):
                # The columns of one user term are a part of the joint term's, whose basis is another one.
                whole = np.zeros((len(basis), len(basis)))
                whole[term.block] = change
                out.append(Direction(term.joint, basis @ whole @ basis.T))
        return out


def sigma_directions(structure: Covariance, theta: np.ndarray) -> list[np.ndarray]:
    """(k, k) derivatives of a term's covariance matrix.

    Where lambda is linear in theta, they are taken at lambda = I: they span the same matrices, at a boundary too, where
    some derivatives at theta vanish.
    """
    directions, lam = structure.directions(theta), structure.lam(theta)
    plain = structure.start(np.eye(structure.width))
    if np.array_equal(directions, structure.directions(plain)):
        lam = np.eye(structure.width)
    return [along @ lam.T + lam @ along.T for along in directions]


def fixed_squares(gram: Gram) -> np.ndarray:
    """(p, p) X'WX in the working basis: columns of factors that are kept as levels first, then the dense ones."""
    factors = [number for number, term in enumerate(gram.terms) if not term.penalized]
    if not factors:
        return gram.xy[:-1, :-1]
    maps = [np.asarray(gram.terms[j].contrast) for j in factors]
    dense = np.concatenate([c.T @ gram.terms[j].dense[:, 0, :-1] for j, c in zip(factors, maps, strict=True)])
    rows = []
    for a, j in enumerate(factors):
        row = []
        for b, k in enumerate(factors):
            if a == b:
                row.append(maps[a].T @ (gram.terms[j].diagonal[:, 0, 0][:, None] * maps[a]))
                continue
            block = gram.cross[min(j, k), max(j, k)]
            shape = (gram.terms[min(j, k)].n_levels, gram.terms[max(j, k)].n_levels)
            pairs = sparse.csr_array((block.data[:, 0, 0], block.indices, block.indptr), shape=shape)
            row.append(maps[a].T @ ((pairs if j < k else pairs.T) @ maps[b]))
        rows.append(np.concatenate(row, axis=1))
    squares = np.concatenate(rows)
    return np.block([[squares, dense], [dense.T, gram.xy[:-1, :-1]]])
