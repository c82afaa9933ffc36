"""Named records that the row kernels take, and the symbols of `docs/theory/laplace.md`.

A kernel takes a few records instead of many arrays. numba compiles a record as the tuple of its fields, so a field must
have the same type in every call: integers are Python ints, flags Python bools, and level numbers int32 arrays.

| symbol         | shape     | meaning                                                                         |
|----------------|-----------|---------------------------------------------------------------------------------|
| n, c           |           | rows and columns of a shard; column 0 is the constant and is not stored         |
| p, k, D        |           | fixed effects; random effects of a level; random effects on a path of a tree    |
| P              |           | parameters: beta, elements of lambda, and log phi where there is a dispersion   |
| eta0, eta      | (n,)      | linear predictor without and with random effects                                |
| b              | (k,)      | effects lambda u of spherical u                                                 |
| zwz            | (k, k)    | Z'WZ of a level                                                                 |
| chol, chol_obs | (k, k)    | Cholesky factors of H in log|H|, and of the H that moves the mode               |
| leverage       | (n,)      | h_i = z_i' lambda H^-1 lambda' z_i                                              |
| slope          | (n,)      | dW_i / d eta_i, and c_i = h_i dW_i / d eta_i once leverages are known           |
| response       | (k,)      | t = Ho^-1 lambda' Z'c: what the mode answers to the slope of the weights        |
| pull           | (k, k)    | half the curvature in a column of lambda that is 0                              |
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class LevelRows(NamedTuple):
    """Rows by level, or by leaf of a tree: columns (c - 1, n); y (n,); w, offset (n,) or empty; indptr (q + 1,)."""

    columns: np.ndarray
    y: np.ndarray
    w: np.ndarray
    offset: np.ndarray
    indptr: np.ndarray


class LevelModel(NamedTuple):
    """A model whose levels, or trees of levels, are integrals of their own.

    xc (p,), zc (D,) are column numbers. observed says which weights log|H| takes, same whether both kinds agree.
    depths (T + 1,) says where the slots of each depth of a tree begin. elements (m, 2) are the rows and columns of the
    elements of lambda that have a derivative.
    """

    family: int
    link: int
    xc: np.ndarray
    zc: np.ndarray
    observed: bool
    same: bool
    with_phi: bool
    depths: np.ndarray
    elements: np.ndarray

    @property
    def size(self) -> int:
        """P, the number of parameters."""
        return len(self.xc) + len(self.elements) + self.with_phi


class Point(NamedTuple):
    """Parameters: beta (p,), lam (k, k) or blocks over a path (D, D), phi."""

    beta: np.ndarray
    lam: np.ndarray
    phi: float


class Quadrature(NamedTuple):
    """Gauss-Hermite rule: nodes (Q,), log_weights (Q,)."""

    nodes: np.ndarray
    log_weights: np.ndarray


class Block(NamedTuple):
    """Levels first .. stop (exclusive), whose rows lie in the cache together."""

    first: int
    stop: int


class RowScratch(NamedTuple):
    """By row of a block (n,): eta0, score d ll / d eta, slope, weight_obs, leverage."""

    eta0: np.ndarray
    score: np.ndarray
    slope: np.ndarray
    weight_obs: np.ndarray
    leverage: np.ndarray


class LevelScratch(NamedTuple):
    """By level of a block: value (B,) of ll - |u|^2 / 2, score (B, k) Z's, zwz, chol, chol_obs (B, k, k), shares (B, Q)
    of each quadrature node."""

    value: np.ndarray
    score: np.ndarray
    zwz: np.ndarray
    chol: np.ndarray
    chol_obs: np.ndarray
    shares: np.ndarray


class Gradients(NamedTuple):
    """By level of a block: deviance (B, P) gradient of -2 ll + |u|^2, logdet (B, P) of log|H|, response (B, k), pull
    (B, k) Z' times the gradient of log|H| in eta."""

    deviance: np.ndarray
    logdet: np.ndarray
    response: np.ndarray
    pull: np.ndarray


class LevelSums(NamedTuple):
    """Of one level or leaf: score (k,) Z's, observed and expected (k, k) Z'WZ, lower triangles."""

    score: np.ndarray
    observed: np.ndarray
    expected: np.ndarray


class NewtonScratch(NamedTuple):
    """Of one level: sums, chol, h (k, k), step, effects, u, old (k,)."""

    sums: LevelSums
    chol: np.ndarray
    h: np.ndarray
    step: np.ndarray
    effects: np.ndarray
    u: np.ndarray
    old: np.ndarray


class Trees(NamedTuple):
    """The trees of a shard; fields are those of `tree.Forest`."""

    leaves: np.ndarray
    first: np.ndarray
    parent: np.ndarray


class TreeNodes(NamedTuple):
    """One tree: first (T + 1,) its nodes by depth; parent (N,) of all nodes; depths (T + 1,) slots of each depth."""

    first: np.ndarray
    parent: np.ndarray
    depths: np.ndarray


class TreeFactor(NamedTuple):
    """chol (n, K, K): L L' = lambda'front lambda + I of each node; half (n, K, D) = L^-1 lambda'front in the slots
    above the node's own."""

    chol: np.ndarray
    half: np.ndarray


class TreeScratch(NamedTuple):
    """By node of a tree: front, front_obs (n, D, D) with the weights of log|M| and with observed ones, dense (n, D, R)
    columns beside them, inverse (n, D, D), score, rhs (n, D), x, old (n, K)."""

    front: np.ndarray
    front_obs: np.ndarray
    dense: np.ndarray
    inverse: np.ndarray
    score: np.ndarray
    rhs: np.ndarray
    x: np.ndarray
    old: np.ndarray


class KernelRows(NamedTuple):
    """Rows for any number of terms.

    columns (c - 1, n), y (n,), w and offset (n,) or empty, refs (T, n) int32 levels, and entries (n_pairs, n) int32
    entries of the block-CSR cross blocks.
    """

    columns: np.ndarray
    y: np.ndarray
    w: np.ndarray
    offset: np.ndarray
    refs: np.ndarray
    entries: np.ndarray


class KernelModel(NamedTuple):
    """The places of a row's numbers in flat sums.

    xc (p,) and zc (sum of widths,) are column numbers. start, diagonal_start, dense_start (T,) and cross_start
    (n_pairs,) say where the numbers of a term or pair begin. pair_first and pair_second (n_pairs,) are a pair's
    terms.
    """

    family: int
    link: int
    xc: np.ndarray
    zc: np.ndarray
    width: np.ndarray
    start: np.ndarray
    diagonal_start: np.ndarray
    dense_start: np.ndarray
    pair_first: np.ndarray
    pair_second: np.ndarray
    cross_start: np.ndarray


class KernelPoint(NamedTuple):
    """beta (p,), effects b (q,) flat, phi, and whether weights are the observed ones."""

    beta: np.ndarray
    effects: np.ndarray
    phi: float
    observed: bool


class FlatSums(NamedTuple):
    """Sums over rows, flat: ll (1,), vectors (q,) Z's, diagonal Z'WZ, dense Z'W[X y*], cross, xy (m, m)."""

    ll: np.ndarray
    vectors: np.ndarray
    diagonal: np.ndarray
    dense: np.ndarray
    cross: np.ndarray
    xy: np.ndarray


class FlatThirdOrder(NamedTuple):
    """Sums with c_i = h_i dW_i / d eta: xs (p,) X's; x_c (p,) X'c; z_c (q,) Z'c; phi (2 + p,) = [sum d ll, sum h dW,
    X' d s] / d log phi; z_phi (q,) Z' d s / d log phi, empty without a dispersion."""

    xs: np.ndarray
    x_c: np.ndarray
    z_c: np.ndarray
    phi: np.ndarray
    z_phi: np.ndarray
