"""Variances level by level and row by row under the iterative solver: exact by conjugate gradients, or from probes.

A row with covariates z and fixed covariates x has the variance (over sigma^2)

    [Lambda'z; x]' Omega^-1 [Lambda'z; x] = c + |r|^2 + r (S_hat^-1 - I) r' + d'Omega_XX^-1 d

where c is what the eliminated chain alone would have, r (1, r_raw) the row in normalised coordinates of the tail, and
d = x - X'W Z Lambda M^-1 Lambda'z. All is sparse and exact but the third piece, which is one solve per row, or
Hutchinson's estimate of a diagonal (Bekas, Kokiopoulou and Saad 2007, Appl. Numer. Math. 57) with the deflation basis
and the identity as control variates: about a hundred solves for all rows together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bigmm.blocks.exact.rows import sweep_rows
from bigmm.blocks.exact.scatter_kernels import TailRows
from bigmm.blocks.exact.sweeps import ROWS
from bigmm.blocks.iterative import conditional_kernels as kernels
from bigmm.blocks.iterative.factor import IterativeFactor, fixed_effects_of_levels, fixed_part
from bigmm.blocks.iterative.krylov import conjugate_gradients, effects_of
from bigmm.blocks.iterative.probes import Probes
from bigmm.blocks.iterative.sampled import SampledFactor
from bigmm.blocks.parallel import run

ROW_TOLERANCE = 1e-6
"""Relative residual of a row's solve: its quadratic form is then good to the square."""
ROWS_AT_ONCE = 64
ROWS_PER_BLOCK = 8192
EXACT_WORK = 2e10
"""Multiplications that solving row by row may cost, about ten seconds; more rows than that are estimated."""
MOST_PROBES = 64
PROBE_BYTES = 2**29
"""Of the effects that are kept, and of those that are computed at a time."""


def rows_within(factor: IterativeFactor) -> int:
    """How many rows can be solved for exactly at a moderate cost; a function of the model alone."""
    whole = factor.structure
    entries = sum(len(stage.columns) * stage.width for stage in whole.stages)
    tail = {t.term for t in whole.tail}
    entries += sum(block.data.size for pair, block in whole.gram.cross.items() if tail.issuperset(pair))
    return int(EXACT_WORK / (2.0 * max(entries, 1) * max(fixed_part(factor).iterations, 1)))


def exact_rows(factor: IterativeFactor, x: np.ndarray | None, refs, z) -> np.ndarray:
    """(n,) [Lambda'z; x]'Omega^-1 [Lambda'z; x] per row to the tolerance, or z'Lambda M^-1 Lambda'z without x.

    x (n, p), refs and z per term in the working basis; a level of -1 contributes nothing.
    """
    whole, operator, n_dense = factor.structure, factor.operator, factor.n_dense
    fixed_columns = fixed_part(factor)
    pieces = []
    for lo in range(0, len(refs[0]), ROWS_AT_ONCE):
        part = slice(lo, lo + ROWS_AT_ONCE)
        mine = tuple(r[part] for r in refs)
        fixed = np.zeros((len(mine[0]), n_dense)) if x is None else x[part]
        swept = sweep_rows(whole, operator.stages, fixed, mine, tuple(a[part] for a in z))
        right = operator.normalised(swept.tail)
        # r S_hat^-1 r' = r (I + (S_hat^-1 - I)) r': the norm needs no estimate here, since the solve is exact.
        inner = conjugate_gradients(operator, right, ROW_TOLERANCE).x
        value = swept.total + np.einsum("rn,rn->n", right, inner)
        if x is not None and n_dense:
            remainder_vectors = swept.x.T - fixed_columns.dense[:, :n_dense].T @ inner
            value += (np.linalg.solve(fixed_columns.root[:n_dense, :n_dense], remainder_vectors) ** 2).sum(axis=0)
        pieces.append(value)
    return np.concatenate(pieces) if pieces else np.zeros(0)


@dataclass(frozen=True, slots=True)
class RowEstimator:
    """What the probes say about any row.

    Attributes
    ----------
    start: per term (q, k, t + d) effects of the probes and the deflation basis.
    image: per term (q, k, t + d) the same of (S_hat^-1 - I) times these vectors.
    remainder: per term the same of S_hat^-1 - 2 I + S_hat, None for terms outside the tail and nested ones. It suffices
        for a single level, because the level's own block of S_hat is the identity.
    probes: t.
    fixed: per term (q, k, p) Lambda M^-1 Lambda'Z'W X.
    root: (p, p) inverse of the lower Cholesky factor of X'V^-1X.
    """

    factor: IterativeFactor
    start: tuple[np.ndarray, ...]
    image: tuple[np.ndarray, ...]
    remainder: tuple[np.ndarray | None, ...]
    probes: int
    fixed: tuple[np.ndarray, ...]
    root: np.ndarray

    def rows(self, x: np.ndarray | None, refs, z) -> tuple[np.ndarray, np.ndarray]:
        """(value, standard error), each (n,): see `exact_rows`."""
        n = len(refs[0])
        value, error = np.empty(n), np.empty(n)
        for lo in range(0, n, ROWS_PER_BLOCK):
            part = slice(lo, lo + ROWS_PER_BLOCK)
            mine = tuple(r[part] for r in refs), tuple(a[part] for a in z)
            value[part], error[part] = self._block(None if x is None else x[part], *mine)
        return value, error

    def _block(self, x, refs, z) -> tuple[np.ndarray, np.ndarray]:
        fixed_columns = [
            (np.where(r >= 0, r, 0), np.where((r >= 0)[:, None], a, 0.0)) for r, a in zip(refs, z, strict=True)
        ]
        start, remainder_vectors = (
            sum(np.einsum("nk,nkv->nv", a, e[r]) for (r, a), e in zip(fixed_columns, effects, strict=True))
            for effects in (self.start, self.image)
        )
        chain, norm = chain_and_norm(self.factor, refs, z)
        lams = self.factor.lams
        prior = sum(((a @ lam) ** 2).sum(axis=1) for (_, a), lam in zip(fixed_columns, lams, strict=True))
        value, error = self._combined(chain + norm, start * remainder_vectors)
        # The chain alone is a lower bound, the prior an upper one; an estimate may leave both.
        value = np.clip(value, chain, prior)
        if x is not None and self.factor.n_dense:
            d = x - sum(np.einsum("nk,nkp->np", a, e[r]) for (r, a), e in zip(fixed_columns, self.fixed, strict=True))
            value = value + ((d @ self.root.T) ** 2).sum(axis=1)
        return value, error

    def _combined(self, exact: np.ndarray, products: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Exact part (...,), products (..., t + d) of the probes, then of the basis."""
        # Products may be float32; mean and spread are taken in float64.
        index = products[..., : self.probes].astype(float)
        value = exact + products[..., self.probes :].sum(axis=-1) + index.mean(axis=-1)
        return value, index.std(axis=-1, ddof=1) / np.sqrt(self.probes)

    def levels(self, term: int, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(q, m) z'Lambda (M^-1)_ll Lambda'z for every level of a term and every z among directions (m, k), and its
        standard error; never below what the chain (or the level's own diagonal block) gives, nor above the prior."""
        lam = self.factor.lams[term]
        q, remainder = len(self.start[term]), self.remainder[term]
        remainder_vectors = self.image[term] if remainder is None else remainder
        values, errors = np.empty((q, len(directions))), np.empty((q, len(directions)))
        for number, z in enumerate(directions):
            refs, covariates = one_term(self.factor, term, np.arange(q), z)
            chain, norm = chain_and_norm(self.factor, refs, covariates)
            products = np.einsum("k,qkv->qv", z, self.start[term]) * np.einsum("k,qkv->qv", z, remainder_vectors)
            value, errors[:, number] = self._combined(chain + norm, products)
            least = chain if remainder is None else norm
            values[:, number] = np.clip(value, least, ((z @ lam) ** 2).sum())
        return values, errors


def one_term(factor: IterativeFactor, term: int, levels: np.ndarray, z: np.ndarray) -> tuple[tuple, tuple]:
    """(refs, covariates) of rows that have only one level of one term, all with covariates z (k,)."""
    n, terms = len(levels), factor.structure.gram.terms
    refs = tuple(levels if j == term else np.full(n, -1) for j in range(len(terms)))
    return refs, tuple(np.tile(z, (n, 1)) if j == term else np.zeros((n, t.width)) for j, t in enumerate(terms))


def row_estimator(factor: IterativeFactor, probes: Probes) -> RowEstimator:
    """Solve for the probes and the basis and carry them to the levels of all terms."""
    whole, operator = factor.structure, factor.operator
    start = np.concatenate([probes.vectors, probes.basis], axis=1).astype(factor.precision.probes)
    shape = start.shape[1]
    starts, images = (
        tuple(np.empty((t.n_levels, t.width, shape), start.dtype) for t in whole.gram.terms) for _ in range(2)
    )
    raw_remainder = np.empty_like(start)
    columns = int(np.clip(PROBE_BYTES // (24 * _effects_in_all(factor)), 1, ROWS_AT_ONCE))
    for lo in range(0, shape, columns):
        part = slice(lo, lo + columns)
        mine = np.ascontiguousarray(start[:, part])
        # S_hat z comes with the first iteration: that term of the Neumann series costs no product.
        solved = conjugate_gradients(operator, mine, factor.precision.probe_tolerance)
        remainder_vectors = solved.x - mine
        raw_remainder[:, part] = operator.raw(remainder_vectors - mine + solved.image)
        for out, vectors in ((starts, mine), (images, remainder_vectors)):
            for target, effects in zip(out, effects_of(whole, operator, operator.raw(vectors), None), strict=True):
                target[:, :, part] = effects
    places = {t.term: t for t in whole.tail if t.term not in operator.nested}
    remainder = tuple(
        raw_remainder[places[j].offset : places[j].stop].reshape(e.shape) if j in places else None
        for j, e in enumerate(starts)
    )
    n = factor.n_dense
    root = np.linalg.inv(fixed_part(factor).root[:n, :n])
    fixed = fixed_effects_of_levels(factor)
    return RowEstimator(factor, starts, images, remainder, probes.vectors.shape[1], fixed, root)


def affordable_probes(factor: SampledFactor) -> int:
    """Probes for `row_estimator`: as many as their effects fit in memory, at most `MOST_PROBES`, at least the fit's."""
    fitting = PROBE_BYTES // (8 * _effects_in_all(factor)) - factor.probes.basis.shape[1]
    return max(factor.n_probes, min(MOST_PROBES, fitting))


def _effects_in_all(factor: IterativeFactor) -> int:
    return max(1, sum(t.n_levels * t.width for t in factor.structure.gram.terms))


def chain_and_norm(factor: IterativeFactor, refs, z) -> tuple[np.ndarray, np.ndarray]:
    """(c, |r|^2), each (n,): the exact parts of the module's equation."""
    whole, operator = factor.structure, factor.operator
    if len(whole.stages) != 1 or operator.nested:
        return _swept_norms(factor, refs, z)
    stage, part, n = whole.stages[0], operator.stages[0], len(refs[0])
    level = refs[stage.term]
    w = np.einsum("nab,nb->na", part.h[np.maximum(level, 0)], z[stage.term])
    # A level of -1 has read level 0 above, which does not count.
    w[level < 0] = 0.0
    places = whole.tail
    first = np.array([t.offset for t in places])
    width = np.array([t.width for t in places])
    blocks = {chain.places[0].term: chain.factor.stages[0].h.transpose(0, 2, 1) for chain in operator.chains}
    start = np.cumsum([0, *(blocks[t.term].size for t in places)])[:-1]
    into = np.concatenate([blocks[t.term].ravel() for t in places])
    tail_refs = np.stack([refs[t.term] for t in places]).astype(np.int64)
    tail_z = np.concatenate([z[t.term] for t in places], axis=1)
    out = np.empty(n)
    rows = TailRows(stage.tail_start, stage.indptr, stage.columns, part.f)
    effects = kernels.TailEffects(tail_refs, tail_z, first, width, start, into)
    run(kernels.row_norms, n, ROWS, level, w, rows, effects, whole.r_raw, out)
    return (w**2).sum(axis=1), out


def _swept_norms(factor: IterativeFactor, refs, z) -> tuple[np.ndarray, np.ndarray]:
    """The same with nested stages, or terms of the tail, whose columns overlap: rows are swept densely, a few at a
    time."""
    whole, operator = factor.structure, factor.operator
    n = len(refs[0])
    chain, norm = np.empty(n), np.empty(n)
    for lo in range(0, n, ROWS_AT_ONCE):
        part = slice(lo, lo + ROWS_AT_ONCE)
        mine = tuple(r[part] for r in refs), tuple(a[part] for a in z)
        swept = sweep_rows(whole, operator.stages, np.zeros((len(mine[0][0]), factor.n_dense)), *mine)
        chain[part] = swept.total
        norm[part] = (operator.normalised(swept.tail) ** 2).sum(axis=0)
    return chain, norm
