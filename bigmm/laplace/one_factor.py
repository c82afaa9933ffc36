"""One grouping factor: a whole evaluation, all inner iterations included, is one task per shard."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bigmm.families import Family
from bigmm.laplace import levelwise, working_kernels
from bigmm.laplace.objective import EnginePoint, ModeBlocks, Parameters
from bigmm.laplace.quadrature import quadrature_rule
from bigmm.laplace.records import (
    FlatSums,
    KernelModel,
    KernelPoint,
    KernelRows,
    LevelModel,
    LevelRows,
    Point,
    Quadrature,
)
from bigmm.objective.covariances import RootElements
from bigmm.objective.evaluation import Evaluation
from bigmm.shards.shard import Shard


def evaluate_shard(
    shard: Shard, u, model: LevelModel, point: Point, quadrature: Quadrature | None, want_gradient: bool
) -> tuple:
    """(value and gradient (1 + P,), outer products (P, P), modes (q, k), levels without a mode) of one shard; pure."""
    # u is copied: the kernel writes the modes, and a task must not change its arguments.
    out, outer, u = np.zeros(1 + model.size), np.zeros((model.size, model.size)), np.array(u)
    rows = LevelRows(shard.columns, shard.y, shard.w, shard.offset, shard.indptr)
    failures = levelwise.level_deviance(rows, model, point, quadrature, want_gradient, u, out, outer)
    return out, outer, u, failures


class SingleFactor:
    """Laplace or adaptive quadrature deviance of a model with one grouping factor, as a function of psi.

    The modes of an evaluation are the start of the next one.

    Parameters
    ----------
    map_shards : ``map_shards(task, *args, per_shard=[...])`` runs ``task(shard, item, *args)`` on every shard.
    edges : (S + 1,) first level of each shard.
    xc, zc : (p,) and (k,) column numbers of X and Z.
    observed : whether log|H| has observed weights.
    nagq : nodes of the quadrature, 1 for Laplace.
    constant : what the log-likelihood of the kernels leaves out, times -2.
    """

    probed = None

    def __init__(
        self,
        map_shards: Callable[..., list],
        edges: np.ndarray,
        xc,
        zc,
        family: Family,
        roots: RootElements,
        parameters: Parameters,
        observed: bool,
        nagq: int,
        constant: float,
    ):
        self.map_shards, self.edges, self.family, self.roots = map_shards, edges, family, roots
        self.parameters, self.observed, self.constant = parameters, observed, constant
        self.xc, self.zc = np.asarray(xc, np.int64), np.asarray(zc, np.int64)
        self.quadrature = quadrature_rule(nagq)
        self.model = LevelModel(
            family.family_id,
            family.link_id,
            self.xc,
            self.zc,
            bool(observed),
            bool(observed or family.canonical),
            bool(parameters.with_phi),
            np.array([0, len(self.zc)], np.int64),
            np.array([[row, column] for _, row, column in roots.elements], np.int64).reshape(-1, 2),
        )
        self.u = np.zeros((int(edges[-1]), len(self.zc)))
        self.passes = 0

    def _run(self, psi: np.ndarray, want_gradient: bool) -> tuple[np.ndarray, np.ndarray]:
        beta, theta, phi = self.parameters.split(psi)
        lam = np.ascontiguousarray(self.roots.joint(theta)[0])
        starts = [self.u[a:b] for a, b in zip(self.edges[:-1], self.edges[1:], strict=True)]
        task = evaluate_shard, self.model, Point(beta, lam, phi), self.quadrature, want_gradient
        parts = self.map_shards(*task, per_shard=starts)
        self.passes += 1
        # Added in the order of shards, so the bits do not depend on workers.
        out, outer = sum(part[0] for part in parts), sum(part[1] for part in parts)
        # Modes are kept only where every level has one: others would be bad starts.
        if np.isfinite(out[0]) and not any(part[3] for part in parts):
            self.u = np.concatenate([part[2] for part in parts])
        elif any(part[3] for part in parts):
            out = np.full_like(out, np.inf)
        return out, outer

    def value(self, psi: np.ndarray) -> float:
        """The deviance; inf where some level has no mode."""
        out, _ = self._run(psi, False)
        return float(out[0]) + self.constant

    def evaluate(self, psi: np.ndarray) -> Evaluation:
        """Value, exact gradient, and the levels' outer products as curvature."""
        out, outer = self._run(psi, True)
        # The kernel writes twice a curvature, its lower triangle.
        outer = np.tril(outer) + np.tril(outer, -1).T
        return Evaluation(float(out[0]) + self.constant, out[1:], 0.5 * outer)

    def at_optimum(self, point: EnginePoint, observed: bool) -> ModeBlocks:
        """See `LaplaceObjective.at_optimum`."""
        # Modes are those of the last evaluation, which may have been elsewhere.
        self.value(point.psi)
        modes = [self.u[a:b] for a, b in zip(self.edges[:-1], self.edges[1:], strict=True)]
        task = working_blocks, self.xc, self.zc, self.family, point.beta, point.lams[0], point.phi, observed
        parts = self.map_shards(*task, per_shard=modes)
        # Levels without rows have no blocks; dropped rows leave such levels behind.
        level_numbers = np.flatnonzero(np.concatenate([part[4] for part in parts]))
        diagonal, dense = (np.concatenate([part[i] for part in parts])[level_numbers] for i in (0, 1))
        xy, ll = sum(part[2] for part in parts), sum(part[3] for part in parts)
        return ModeBlocks((level_numbers,), (diagonal,), (dense,), {}, xy, point.beta, (self.u[level_numbers],), ll)


def working_blocks(shard: Shard, u, xc, zc, family: Family, beta, lam, phi, observed: bool) -> tuple:
    """A shard's blocks at the modes: (Z'WZ (q, k, k), Z'W[X y*] (q, k, p + 1), [X y*]'W[X y*], sum ll, rows per
    level)."""
    q, k, p = shard.n_levels, len(zc), len(xc)
    none, zero = np.zeros(0, np.int64), np.zeros(1, np.int64)
    numbers = family.family_id, family.link_id
    model = KernelModel(*numbers, xc, zc, np.array([k], np.int64), zero, zero, zero, none, none, none)
    # Rows are sorted by level, so a level's number is repeated over its rows.
    refs = np.repeat(np.arange(q, dtype=np.int32), np.diff(shard.indptr))[None]
    entries = np.zeros((0, shard.rows), np.int32)
    rows = KernelRows(shard.columns, shard.y, shard.w, shard.offset, refs, entries)
    dense, xy = np.zeros(q * k * (p + 1)), np.zeros((p + 1, p + 1))
    sums = FlatSums(np.zeros(1), np.zeros(q * k), np.zeros(q * k * k), dense, np.zeros(0), xy)
    point = KernelPoint(beta, (np.asarray(u) @ lam.T).ravel(), phi, bool(observed))
    working_kernels.add_working_sums(rows, model, point, True, sums)
    xy[-1, -1] = working_kernels.LAST_CORNER
    diagonal = sums.diagonal.reshape(q, k, k)
    return diagonal, dense.reshape(q, k, p + 1), xy, float(sums.ll[0]), np.diff(shard.indptr)
