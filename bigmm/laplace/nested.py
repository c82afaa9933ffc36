"""Nested grouping factors: a whole evaluation, all inner iterations included, is one task per shard.

Shards are cut by the top factor, so each holds whole trees of levels, and given psi no tree depends on another. (Not so
for nagq = 0: the coefficients that PIRLS finds tie all trees together, and `crossed` map-reduces each of its steps.)
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.linalg import block_diag

from bigmm.families import Family
from bigmm.laplace import nested_kernels
from bigmm.laplace.nested_blocks import blocks_of_shard, joined
from bigmm.laplace.objective import EnginePoint, ModeBlocks, Parameters
from bigmm.laplace.records import LevelModel, LevelRows, Point, Trees
from bigmm.laplace.tree import Forest
from bigmm.objective.covariances import RootElements
from bigmm.objective.evaluation import Evaluation, no_evaluation


def evaluate_shard(forest: Forest, u, model: LevelModel, point: Point, want_gradient: bool) -> tuple:
    """One shard's part of an evaluation; a pure task.

    Parameters
    ----------
    u : (N, K) starts, or empty for zeros.

    Returns
    -------
    tuple : value and gradient (1 + P,), products (p + m, p + m) and pull (D, D) for the curvature with m elements of
        lambda, modes (N, K), number of trees without a mode.
    """
    size = len(model.xc) + len(model.elements)
    # A copy: the kernel writes the modes, and a task must not change its arguments.
    u = np.array(u) if len(u) else np.zeros((len(forest.parent), int(np.diff(model.depths).max())))
    out, gram, pull = np.zeros(1 + model.size), np.zeros((size, size)), np.zeros(point.lam.shape)
    rows = LevelRows(forest.columns, forest.y, forest.w, forest.offset, forest.indptr)
    trees = Trees(forest.leaves, forest.first, forest.parent)
    failures = nested_kernels.tree_deviance(rows, trees, model, point, want_gradient, u, out, gram, pull)
    return out, gram, pull, u, failures


class NestedFactors:
    """Laplace deviance of a model whose grouping factors form a chain, as a function of psi.

    The modes of an evaluation are the start of the next one.

    Parameters
    ----------
    map_shards : ``map_shards(task, *args, per_shard=[...])`` runs ``task(forest, item, *args)`` on every shard.
    n_shards : number of shards.
    xc : (p,) column numbers of X.
    covariates : column numbers per factor, finest first.
    observed : whether log|M| has observed weights.
    constant : what the log-likelihood of the kernels leaves out, times -2.
    """

    probed = None

    def __init__(
        self,
        map_shards: Callable[..., list],
        n_shards: int,
        xc: np.ndarray,
        covariates: list[tuple[int, ...]],
        family: Family,
        roots: RootElements,
        parameters: Parameters,
        observed: bool,
        constant: float,
    ):
        self.map_shards, self.family, self.roots, self.parameters = map_shards, family, roots, parameters
        self.observed, self.constant = observed, constant
        self.xc = np.asarray(xc, np.int64)
        self.zc = np.array([c for term in covariates for c in term], np.int64)
        self.at = np.cumsum([0, *(len(term) for term in covariates)]).astype(np.int64)
        # The kernels number lambda's rows and columns along a path, not within a factor.
        places = [(self.at[j] + row, self.at[j] + column) for j, row, column in roots.elements]
        self.places = np.array(places, np.int64).reshape(-1, 2)
        self.u = [np.zeros((0, 0))] * n_shards
        self.passes = 0

    @property
    def model(self) -> LevelModel:
        """The model as a record of the kernels."""
        observed, with_phi = bool(self.observed), bool(self.parameters.with_phi)
        same = bool(observed or self.family.canonical)
        numbers = self.family.family_id, self.family.link_id
        return LevelModel(*numbers, self.xc, self.zc, observed, same, with_phi, self.at, self.places)

    def lam(self, theta: np.ndarray) -> np.ndarray:
        """(D, D) Lambda's blocks over the slots of a path."""
        return np.ascontiguousarray(block_diag(*self.roots.joint(theta)))

    def _run(self, psi: np.ndarray, want_gradient: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        beta, theta, phi = self.parameters.split(psi)
        task = evaluate_shard, self.model, Point(beta, self.lam(theta), phi), want_gradient
        parts = self.map_shards(*task, per_shard=self.u)
        self.passes += 1
        # Added in the order of shards, so the bits do not depend on workers.
        out, gram, pull = (sum(part[i] for part in parts) for i in range(3))
        if any(part[4] for part in parts):
            out = np.full_like(out, np.inf)
        # Modes of a point without a value are no start for the next one.
        elif np.isfinite(out[0]):
            self.u = [part[3] for part in parts]
        return out, gram, pull

    def value(self, psi: np.ndarray) -> float:
        """The deviance; inf where some tree has no mode."""
        return float(self._run(psi, False)[0][0]) + self.constant

    def evaluate(self, psi: np.ndarray) -> Evaluation:
        """Value, exact gradient, and the information of the working linear model as curvature."""
        out, gram, pull = self._run(psi, True)
        if not np.isfinite(out[0]):
            return no_evaluation(self.parameters.size)
        return Evaluation(float(out[0]) + self.constant, out[1:], self._curvature(gram, pull))

    def _curvature(self, gram: np.ndarray, pull: np.ndarray) -> np.ndarray:
        """X'V^-1X for beta; for theta the average information F'PF (Gilmour, Thompson and Cullis 1995), and what it
        lacks where a column of lambda is 0; for log phi the order of its size."""
        p = self.parameters.p
        # Kernels write lower triangles.
        gram = np.tril(gram) + np.tril(gram, -1).T
        if not np.all(np.isfinite(gram)):
            return np.full((self.parameters.size, self.parameters.size), np.nan)
        information, cross = gram[:p, :p], gram[:p, p:]
        # Least squares instead of a solve: X'V^-1X may be singular to rounding at a trial point.
        theta = gram[p:, p:] - cross.T @ np.linalg.lstsq(information, cross, rcond=None)[0]
        for a, (row, column) in enumerate(self.places):
            for b, (row2, column2) in enumerate(self.places):
                if column == column2:
                    theta[a, b] += 2.0 * pull[row, row2]
        return self.parameters.blocks(2.0 * information, theta, 0.5 * self.parameters.rows)

    def at_optimum(self, point: EnginePoint, observed: bool) -> ModeBlocks:
        """See `LaplaceObjective.at_optimum`."""
        # Modes are those of the last evaluation, which may have been elsewhere.
        self.value(point.psi)
        beta, theta, phi = self.parameters.split(point.psi)
        model = self.model._replace(observed=bool(observed))
        parts = self.map_shards(blocks_of_shard, model, Point(beta, self.lam(theta), phi), per_shard=self.u)
        self.passes += 1
        return joined(parts, point.beta)
