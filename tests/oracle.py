"""Random mixed models twice: as the blocks of A that the solver is given, and as the dense matrices of the textbook.

`Rows.draw` makes rows of any structure (crossed, nested chains, a fixed factor kept as level numbers, dependent
columns, weights, shifted working columns); `Rows.gram` sums them into a `Gram` by the definition; `Rows.dense` is the
same model for the formulas of `tests.results.oracle.Dense`, which share no code with the package.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from bigmm.blocks.gram import CrossBlock, Gram, TermBlock
from bigmm.objective.covariances import ModelCovariance, TermCovariance
from tests.results.oracle import Dense, indicator, relative_factor


@dataclass(frozen=True)
class Shape:
    """What to draw: terms as (levels, width, nested in the next one), levels of a fixed factor (0: none)."""

    terms: tuple[tuple[int, int, bool], ...]
    fixed: int = 0
    weighted: bool = True
    shifted: bool = False
    dependent: bool = False
    n: int = 60


@dataclass(frozen=True)
class Rows:
    """refs, z: per random term (n,) levels and (n, k) covariates; x: (n, p) dense columns, independent ones where
    ``active``; factor: (n,) levels of the fixed factor or None; shift: means taken off the columns before summing."""

    shape: Shape
    refs: tuple[np.ndarray, ...]
    z: tuple[np.ndarray, ...]
    x: np.ndarray
    factor: np.ndarray | None
    y: np.ndarray
    w: np.ndarray
    active: np.ndarray
    shift: float

    @classmethod
    def draw(cls, shape: Shape, seed: int) -> Rows:
        rng, n = np.random.default_rng(seed), shape.n
        refs: list[np.ndarray] = [np.zeros(n, int)] * len(shape.terms)
        for j, (q, _, _) in reversed(list(enumerate(shape.terms))):
            refs[j] = all_levels(rng, n, q)
            if shape.terms[j][2]:
                above = shape.terms[j + 1][0]
                refs[j] = nested_levels(rng, refs[j + 1], q, above)
        z = [np.column_stack([np.ones(n), rng.normal(1.0, 1.0, (n, k - 1))]) for _, k, _ in shape.terms]
        x = np.column_stack([np.ones(n), rng.normal(size=n)])
        if shape.dependent:
            x = np.column_stack([x, 2.0 * x[:, 1] - 1.0, rng.normal(size=n)])
        y = rng.normal(size=n) + x[:, :2] @ [1.0, 2.0]
        for (q, k, _), r, columns in zip(shape.terms, refs, z, strict=True):
            y += np.einsum("nk,nk->n", columns, (rng.normal(size=(q, k)) * 0.8 ** np.arange(k))[r])
        w = rng.uniform(0.5, 2.0, n) if shape.weighted else np.ones(n)
        active = np.array([True, True, False, True])[: x.shape[1]]
        factor = all_levels(rng, n, shape.fixed) if shape.fixed else None
        return cls(shape, tuple(refs), tuple(z), x, factor, y, w, active, 0.7 if shape.shifted else 0.0)

    @property
    def covariances(self) -> ModelCovariance:
        terms, start = [], 0
        for j, (_, k, _) in enumerate(self.shape.terms):
            terms.append(TermCovariance(f"t{j}", tuple(map(str, range(k))), j, tuple(range(k)), start))
            start += terms[-1].size
        return ModelCovariance(tuple(terms), tuple(k for _, k, _ in self.shape.terms))

    @property
    def gram(self) -> Gram:
        """Sums over rows, column by column as `Gram` defines them; slopes, X and y less ``shift`` where shifted."""
        s = self.shift
        moved = np.append(0.0, np.full(self.x.shape[1] - 1, s))
        x = self.x - moved
        xy = np.column_stack([x[:, self.active], self.y - s])
        weighted = self.w[:, None] * xy
        blocks, places = [], []
        for j, ((q, k, _), r, z) in enumerate(zip(self.shape.terms, self.refs, self.z, strict=True)):
            working = z - np.append(0.0, np.full(k - 1, s))
            basis = np.eye(k)
            basis[0, 1:] = s
            blocks.append(term_block(f"t{j}", r, working, self.w, weighted, q, basis, None))
            places.append((r, working, q))
        p = x.shape[1]
        if self.factor is not None:
            ones, q = np.ones((len(x), 1)), self.shape.fixed
            blocks.append(term_block("f", self.factor, ones, self.w, weighted, q, np.eye(1), np.eye(q)[:, 1:]))
            places.append((self.factor, ones, q))
            p += q - 1
        cross = {(j, k): cross_block(places[j], places[k], self.w) for k in range(len(places)) for j in range(k)}
        x_basis = np.eye(p)
        x_basis[0, 1 : x.shape[1]] = s
        active = np.append(self.active, np.ones(p - x.shape[1], bool))
        spread = float(self.w @ (self.y - np.average(self.y, weights=self.w)) ** 2)
        # the user's order puts the factor's coefficients before the dense ones
        order = np.concatenate([np.arange(x.shape[1], p), np.arange(x.shape[1])])
        one = np.eye(p)[0]
        return Gram(
            tuple(blocks),
            cross,
            xy.T @ weighted,
            len(x),
            float(np.log(self.w).sum()),
            x_basis,
            s,
            one,
            active,
            order,
            spread,
        )

    @property
    def x_user(self) -> np.ndarray:
        """(n, p) X in the user's order: the fixed factor's columns, then the dense ones."""
        if self.factor is None:
            return self.x
        return np.column_stack([np.eye(self.shape.fixed)[self.factor][:, 1:], self.x])

    @property
    def kept(self) -> np.ndarray:
        """(p,) bool, user's order."""
        return np.append(np.ones(self.x_user.shape[1] - len(self.active), bool), self.active)

    def dense(self, theta: np.ndarray, reml: bool) -> Dense:
        lam = relative_factor(list(self.covariances.lambdas(theta)), [q for q, _, _ in self.shape.terms])
        z = [indicator(r, z, q) for (q, _, _), r, z in zip(self.shape.terms, self.refs, self.z, strict=True)]
        return Dense(self.y, self.x_user[:, self.kept], np.hstack(z), lam, self.w, reml)


def all_levels(rng: np.random.Generator, n: int, q: int) -> np.ndarray:
    """(n,) levels of which each of 0..q occurs."""
    levels = rng.integers(0, q, n)
    levels[:q] = np.arange(q)
    return rng.permutation(levels)


def nested_levels(rng: np.random.Generator, above: np.ndarray, q: int, n_above: int) -> np.ndarray:
    """(n,) q levels, each within one level of ``above``, all of which occur."""
    parent = np.concatenate([np.arange(n_above), rng.integers(0, n_above, q - n_above)])
    levels = np.zeros(len(above), int)
    for p in range(n_above):
        rows, children = np.flatnonzero(above == p), np.flatnonzero(parent == p)
        levels[rows] = children[np.arange(len(rows)) % len(children)]
    return np.unique(levels, return_inverse=True)[1]


def term_block(name, refs, z, w, weighted_xy, q, basis, contrast) -> TermBlock:
    full = indicator(refs, z, q).reshape(len(refs), q, -1)
    diagonal = np.einsum("nqa,n,nqb->qab", full, w, full)
    dense = np.einsum("nqa,nm->qam", full, weighted_xy)
    return TermBlock(name, diagonal, dense, basis, contrast is None, contrast)


def cross_block(first, second, w) -> CrossBlock:
    (r1, z1, q1), (r2, z2, q2) = first, second
    met = np.zeros((q1, q2), bool)
    met[r1, r2] = True
    sums = np.einsum("na,n,nb->nab", z1, w, z2)
    data = np.zeros((q1, q2, z1.shape[1], z2.shape[1]))
    np.add.at(data, (r1, r2), sums)
    rows, columns = np.nonzero(met)
    indptr = np.append(0, np.cumsum(met.sum(axis=1))).astype(np.int64)
    return CrossBlock(indptr, columns.astype(np.int32), data[rows, columns])


#: Every kind of structure the solver tells apart.
SHAPES = {
    "one": Shape(((7, 1, False),)),
    "one slope": Shape(((7, 2, False),)),
    "one wide": Shape(((8, 4, False),), shifted=True),
    "crossed": Shape(((9, 1, False), (5, 1, False))),
    "crossed slope": Shape(((9, 2, False), (5, 1, False)), shifted=True),
    "three crossed": Shape(((9, 2, False), (5, 2, False), (4, 1, False))),
    "nested": Shape(((12, 1, True), (6, 2, False)), shifted=True),
    "nested chain": Shape(((16, 2, True), (8, 1, True), (3, 2, False))),
    "nested and crossed": Shape(((16, 2, True), (8, 1, False), (5, 2, False)), shifted=True, dependent=True),
    "chain, crossed, fixed": Shape(((16, 1, True), (8, 1, True), (4, 2, False), (3, 1, False)), fixed=4),
    "fixed": Shape(((9, 2, False),), fixed=5, dependent=True, shifted=True),
    "unweighted": Shape(((9, 2, False), (4, 1, False)), weighted=False),
}


@st.composite
def thetas(draw, covariances: ModelCovariance) -> np.ndarray:
    """Any theta: signs of all kinds, some or all columns of the covariances exactly zero (singular)."""
    kind = draw(st.sampled_from(["any", "some zero", "all zero", "diagonal"]))
    value = st.floats(-2.0, 2.0, allow_subnormal=False)
    theta = np.array([draw(value) for _ in range(covariances.n_theta)])
    scales = covariances.lower == 0
    if kind == "diagonal":
        theta[~scales] = 0.0
    if kind == "all zero":
        theta[:] = 0.0
    if kind == "some zero":
        theta[scales & (np.arange(len(theta)) % 2 == draw(st.integers(0, 1)))] = 0.0
    return theta
