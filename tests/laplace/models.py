"""Random generalized models: as the engines take them, and as the dense matrices of the textbook.

`Rows.draw` makes rows of one, crossed or nested factors for any family; `single`, `nested` and `crossed` build the
engines from shards of these rows; `dense_laplace` is the Laplace deviance from dense matrices, which shares only the
row functions of `families` (tested there) with the package.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from bigmm.blocks import Gram
from bigmm.design.layout import DesignChunk
from bigmm.execute.threads.shards import ThreadShards
from bigmm.families import Family, rows, simulate
from bigmm.laplace.block_layout import block_layout, ready_rows
from bigmm.laplace.crossed import CrossedLaplace
from bigmm.laplace.nested import NestedFactors
from bigmm.laplace.objective import EnginePoint, Parameters
from bigmm.laplace.one_factor import SingleFactor
from bigmm.laplace.tree import Forest, grow
from bigmm.objective import ModelCovariance, TermCovariance
from bigmm.objective.cholesky import CholeskySolver
from bigmm.objective.covariances import RootElements
from bigmm.objective.factorization import WorkingSolver
from bigmm.shards import shard as shards
from tests.oracle import all_levels, cross_block, nested_levels, term_block
from tests.results.oracle import indicator, relative_factor

#: (levels, covariates, nested in the next term) per term; covariate 0 is the constant, 1 the first column of X.
KINDS = {
    "one": ((9, (0,), False),),
    "one slope": ((7, (0, 1), False),),
    "crossed": ((8, (0,), False), (5, (0,), False)),
    "nested": ((10, (0,), True), (4, (0,), False)),
    "crossed slopes": ((8, (0, 1), False), (5, (0,), False)),
    "nested slopes": ((10, (0, 1), True), (4, (0, 2), False)),
    "slope at the top": ((10, (0,), True), (4, (0, 1), False)),
    "three levels": ((16, (0,), True), (8, (0, 1), True), (3, (0,), False)),
}
PHI = 0.8
#: (intercept, slope, size of theta) that keep eta where the link has a mean.
SIZES = {"log": (0.4, 0.2, 0.3), "identity": (1.6, 0.1, 0.12), "inverse": (1.6, 0.1, 0.12), "sqrt": (1.6, 0.1, 0.2)}
UNIT_SIZES = {"log": (-1.6, 0.1, 0.15), "identity": (0.5, 0.05, 0.05)}


@dataclass(frozen=True)
class Rows:
    """family; terms as in `KINDS`; x (n, p), refs per term (n,), y (n,); w and offset (n,) or None; psi: a point near
    which every linear predictor has a mean."""

    family: Family
    terms: tuple
    x: np.ndarray
    refs: tuple[np.ndarray, ...]
    y: np.ndarray
    w: np.ndarray | None
    offset: np.ndarray | None
    psi: np.ndarray

    @classmethod
    def draw(cls, family: Family, kind: str, n: int = 60, seed: int = 1, weighted: bool = True) -> Rows:
        rng, terms = np.random.default_rng(seed), KINDS[kind]
        refs: list[np.ndarray] = [np.zeros(n, int)] * len(terms)
        for j in reversed(range(len(terms))):
            q, _, nested = terms[j]
            refs[j] = nested_levels(rng, refs[j + 1], q, terms[j + 1][0]) if nested else all_levels(rng, n, q)
        unit = family.name in ("bernoulli", "binomial", "beta")
        level, slope, size = (UNIT_SIZES if unit else SIZES).get(family.link, (-0.3, 0.5, 0.6))
        x = np.column_stack([np.ones(n), rng.uniform(-1.0, 1.0, (n, 2))])
        beta = np.array([level, slope, -slope])
        offset = 0.5 * slope * rng.uniform(-1.0, 1.0, n) if weighted else None
        eta = x @ beta + (0.0 if offset is None else offset)
        theta = []
        for (q, covariates, _), r in zip(terms, refs, strict=True):
            template = size * np.tril(np.where(np.eye(len(covariates)) > 0, 1.0, 0.4))
            b = np.clip(rng.normal(size=(q, len(covariates))), -1.5, 1.5) @ template.T
            eta += (x[:, covariates] * b[r]).sum(axis=1)
            theta += [template[row, c] for c in range(len(covariates)) for row in range(c, len(covariates))]
        w = rng.integers(1, 5, n).astype(float) if weighted and family.name != "bernoulli" else None
        y = simulate(family, rng, rows.mean(family, eta), 1.0 if w is None else w, PHI)
        if family.name in ("gamma", "inverse_gaussian"):
            y = np.clip(y, 0.05, 20.0)
        psi = np.concatenate([beta + 0.02, 0.9 * np.array(theta), [np.log(1.2 * PHI)] if family.has_dispersion else []])
        return cls(family, terms, x, tuple(refs), y, w, offset, psi)

    @property
    def covariances(self) -> ModelCovariance:
        found, start = [], 0
        for j, (_, covariates, _) in enumerate(self.terms):
            k = len(covariates)
            found.append(TermCovariance(f"t{j}", tuple(map(str, range(k))), j, tuple(range(k)), start))
            start += found[-1].size
        return ModelCovariance(tuple(found), tuple(len(c) for _, c, _ in self.terms))

    def parameters(self, profile: bool = False) -> Parameters:
        return Parameters(self.x.shape[1], self.roots.n_theta, self.family.has_dispersion, profile, len(self.y))

    @property
    def chunk(self) -> DesignChunk:
        refs = tuple(r.astype(np.int32) for r in self.refs)
        columns = np.ascontiguousarray(self.x[:, 1:].T)
        return DesignChunk(columns, self.y, refs, self.w, self.offset, len(self.y), ())

    @property
    def weights(self) -> np.ndarray:
        return np.ones(len(self.y)) if self.w is None else self.w

    @property
    def constant(self) -> float:
        """-2 sum of what the row functions leave out of the log density."""
        return -2.0 * float(rows.constant(self.family, self.y, self.weights).sum())

    def shards(self, edges: np.ndarray) -> list[shards.Shard]:
        pieces = shards.split(self.chunk, edges, 0)
        return [shards.join([p], int(a), int(b - a), 0) for p, a, b in zip(pieces, edges[:-1], edges[1:], strict=True)]

    def forests(self, count: int) -> list[Forest]:
        """Of nested terms: the rows cut by levels of the last."""
        top, depth = self.terms[-1][0], len(self.terms)
        edges = shards.bounds(top, count)
        pieces = shards.split(self.chunk, edges, depth - 1)
        cuts = zip(pieces, edges[:-1], edges[1:], strict=True)
        return [grow(shards.join([p], int(a), int(b - a), depth - 1, 0), range(depth)) for p, a, b in cuts]

    def nested(self, observed: bool, count: int = 1) -> NestedFactors:
        held = self.forests(count)
        return NestedFactors(
            mapped(held),
            len(held),
            np.arange(self.x.shape[1]),
            [c for _, c, _ in self.terms],
            self.family,
            self.roots,
            self.parameters(),
            observed,
            self.constant,
        )

    def edges(self, count: int) -> np.ndarray:
        return shards.bounds(self.terms[0][0], count)

    def single(self, observed: bool, nagq: int = 1, count: int = 1) -> SingleFactor:
        edges, xc = self.edges(count), np.arange(self.x.shape[1])
        return SingleFactor(
            mapped(self.shards(edges)),
            edges,
            xc,
            self.terms[0][1],
            self.family,
            self.roots,
            self.parameters(),
            observed,
            nagq,
            self.constant,
        )

    @property
    def roots(self) -> RootElements:
        """The engine's parameters: the elements of theta."""
        return self.covariances.root_elements

    @property
    def pattern(self) -> Gram:
        """Blocks with the right levels, widths and entries."""
        n, p = self.x.shape
        one, blocks, places = np.ones(n), [], []
        for j, ((q, covariates, _), r) in enumerate(zip(self.terms, self.refs, strict=True)):
            z = self.x[:, covariates]
            blocks.append(
                term_block(f"t{j}", r, z, one, np.column_stack([self.x, self.y]), q, np.eye(z.shape[1]), None)
            )
            places.append((r, z, q))
        cross = {(j, k): cross_block(places[j], places[k], one) for k in range(len(places)) for j in range(k)}
        xy = np.column_stack([self.x, self.y])
        return Gram(tuple(blocks), cross, xy.T @ xy, n, 0.0, np.eye(p), 0.0, None, np.ones(p, bool), np.arange(p), 1.0)

    def crossed(
        self, observed: bool, profile: bool = False, count: int = 1, solver: WorkingSolver | None = None
    ) -> CrossedLaplace:
        wiring = block_layout(self.pattern, np.arange(self.x.shape[1]), [c for _, c, _ in self.terms])
        own = [np.arange(q) for q, _, _ in self.terms]
        prepare = partial(ready_rows, wiring=wiring, groupings=list(range(len(own))), places=own)
        held = [prepare(shard) for shard in self.shards(self.edges(count))]
        return CrossedLaplace(
            ThreadShards(held, 1),
            wiring,
            self.family,
            self.roots,
            self.parameters(profile),
            observed,
            self.constant,
            self.psi[: self.x.shape[1]],
            solver or CholeskySolver(wiring.pattern),
        )

    @property
    def point(self) -> EnginePoint:
        """psi as engines have it."""
        beta, theta, phi = self.parameters().split(self.psi)
        return EnginePoint(self.psi, beta, self.covariances.joint(theta), phi)

    @property
    def z(self) -> np.ndarray:
        """(n, sum of levels times width) dense."""
        parts = [indicator(r, self.x[:, c], q) for (q, c, _), r in zip(self.terms, self.refs, strict=True)]
        return np.hstack(parts)

    def with_rows(self, keep: np.ndarray) -> Rows:
        """Only the rows where ``keep``."""
        w, offset = (None if a is None else a[keep] for a in (self.w, self.offset))
        return replace(self, x=self.x[keep], refs=tuple(r[keep] for r in self.refs), y=self.y[keep], w=w, offset=offset)


def mapped(held: list):
    """What `Held.map` does, one shard after the other."""

    def run(task, *args, per_shard=None):
        own = [(s,) if per_shard is None else (s, per_shard[i]) for i, s in enumerate(held)]
        return [task(*first, *args) for first in own]

    return run


def dense_laplace(model: Rows, psi: np.ndarray, observed: bool) -> float:
    """The Laplace deviance by Newton's method on dense matrices."""
    beta, theta, phi = model.parameters().split(psi)
    zl = model.z @ relative_factor(list(model.covariances.lambdas(theta)), [q for q, _, _ in model.terms])
    fixed = model.x @ beta + (0.0 if model.offset is None else model.offset)
    u = np.zeros(zl.shape[1])

    def penalized(u):
        ll = rows.score_full(model.family, model.y, model.weights, fixed + zl @ u, phi)[0].sum()
        return -2.0 * ll + u @ u

    for _ in range(200):
        _, d1, expected, seen, _, _ = rows.score_full(model.family, model.y, model.weights, fixed + zl @ u, phi)
        h = zl.T @ (seen[:, None] * zl) + np.eye(len(u))
        if np.linalg.eigvalsh(h)[0] <= 0:
            h = zl.T @ (expected[:, None] * zl) + np.eye(len(u))
        step = np.linalg.solve(h, zl.T @ d1 - u)
        while np.abs(step).max() > 1e-9 and not penalized(u + step) <= penalized(u):
            step = 0.5 * step
        u = u + step
        if np.abs(step).max() < 1e-12:
            break
    _, _, expected, seen, _, _ = rows.score_full(model.family, model.y, model.weights, fixed + zl @ u, phi)
    weights = seen if observed else expected
    sign, logdet = np.linalg.slogdet(zl.T @ (weights[:, None] * zl) + np.eye(len(u)))
    return penalized(u) + logdet + model.constant if sign > 0 else np.inf


def differences(value, psi: np.ndarray, step: float = 1e-3) -> np.ndarray:
    """Gradient by central differences of sixth order."""
    out = np.empty(len(psi))
    for i, e in enumerate(np.eye(len(psi))):
        d = [value(psi + m * step * e) - value(psi - m * step * e) for m in (1, 2, 3)]
        out[i] = (45.0 * d[0] - 9.0 * d[1] + d[2]) / (60.0 * step)
    return out
