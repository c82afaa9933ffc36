"""The iterative solver: the tail's Schur complement S is applied, never formed (DESIGN section 4b).

All terms that can be eliminated level by level are (nested ones exactly, with the same code as for the dense
factor); on
the rest S is normalised by its own diagonal blocks, S_hat = L^-1 S L^-T, and conjugate gradients solve for many
right-hand sides at once. The Lanczos coefficients of log-determinants are recycled from the same iterations
(Golub and Meurant 2010, section 4; Gardner et al. 2018, arXiv:1809.11165).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bigmm.blocks import coupling_kernels, scatter_kernels, solve_kernels
from bigmm.blocks import krylov_kernels as kernels
from bigmm.blocks.factor import GRAIN, NotPositiveDefiniteError, StageFactor
from bigmm.blocks.gram import CrossBlock
from bigmm.blocks.parallel import run
from bigmm.blocks.scatter import both_ways, scattered
from bigmm.blocks.structure import Stage, Structure, TailTerm

ROWS = 512
"""Rows of the tail or levels of a stage per range, for kernels that do much work per row."""
TOLERANCE = 1e-8
"""Relative residual of data solves; quadratic forms are then good to its square."""
MAX_ITERATIONS = 2000


@dataclass(frozen=True, slots=True)
class TailOperator:
    """S_hat on the tail at one theta.

    structure (without dense tail), lams per term, stages: their factors; into: per tail term (q, k, k) blocks M =
    Lambda L^-T from normalised to raw coordinates; ridge: (q, k, k) blocks L^-1 L^-T; logdet: log|L L'|.
    """

    structure: Structure
    lams: tuple[np.ndarray, ...]
    stages: tuple[StageFactor, ...]
    into: tuple[np.ndarray, ...]
    ridge: tuple[np.ndarray, ...]
    logdet: float

    @property
    def size(self) -> int:
        return self.structure.r_raw

    def raw(self, x: np.ndarray) -> np.ndarray:
        """M x: normalised (r, nv) -> raw coordinates."""
        return _blockwise(self.structure.tail, self.into, x, False)

    def normalised(self, x: np.ndarray) -> np.ndarray:
        """M'x: raw (r, nv) -> normalised right-hand side."""
        return _blockwise(self.structure.tail, self.into, x, True)

    def apply(self, x: np.ndarray) -> np.ndarray:
        """S_hat x for x (r, nv)."""
        raw = self.raw(x)
        image = apply_schur(self.structure, self.stages, raw)
        out = self.normalised(image)
        out += _blockwise(self.structure.tail, self.ridge, x, False)
        return out


def _blockwise(
    tail: tuple[TailTerm, ...], blocks: tuple[np.ndarray, ...], x: np.ndarray, transposed: bool
) -> np.ndarray:
    out = np.empty_like(x)
    for t, block in zip(tail, blocks, strict=True):
        shape = (t.n_levels, t.width, x.shape[1])
        source, target = x[t.offset : t.stop].reshape(shape), out[t.offset : t.stop].reshape(shape)
        run(kernels.block_multiply, t.n_levels, GRAIN, block, transposed, source, target)
    return out


def apply_schur(structure: Structure, stages: tuple[StageFactor, ...], x: np.ndarray) -> np.ndarray:
    """(A_tt - sum over stages f'f) x in raw coordinates, x (r_raw, nv)."""
    gram, nv = structure.gram, x.shape[1]
    out = np.zeros_like(x)
    views = {t.term: x[t.offset : t.stop].reshape(t.n_levels, t.width, nv) for t in structure.tail}
    targets = {t.term: out[t.offset : t.stop].reshape(t.n_levels, t.width, nv) for t in structure.tail}
    for t in structure.tail:
        diagonal = gram.terms[t.term].diagonal.astype(x.dtype, copy=False)
        run(solve_kernels.multiply_own, t.n_levels, GRAIN, diagonal, views[t.term], targets[t.term])
    for (j, k), block in gram.cross.items():
        if j in views and k in views:
            _between(block, views[j], views[k], targets[j], targets[k])
    for stage, part in zip(structure.stages, stages, strict=True):
        where = stage.tail_start, stage.indptr, stage.columns, part.f
        out += scattered(coupling_kernels.through_levels, stage.indptr, x.shape, x.dtype, *where, x)
    return out


def _between(block: CrossBlock, x_j: np.ndarray, x_k: np.ndarray, out_j: np.ndarray, out_k: np.ndarray) -> None:
    """out_j += C x_k and out_k += C'x_j for two terms of the tail, all (levels, width, nv)."""
    nv = x_j.shape[2]
    if x_k.shape[1] > 1:
        out_k += both_ways(block, x_j, x_k, out_j)
        return
    where = block.indptr, block.indices, block.data.reshape(len(block.data), -1), x_k.reshape(-1, nv), -x_j, out_j
    shape = len(x_k), nv
    out_k += scattered(coupling_kernels.between_levels, block.indptr, shape, x_k.dtype, *where).reshape(x_k.shape)


def subtract_levels(stage: Stage, part: StageFactor, w: np.ndarray, out: np.ndarray) -> None:
    """out -= sum over a stage's levels of F_l'w_l, in the tail: w (q, k, nv), out (r_raw, nv)."""
    where = stage.tail_start, stage.indptr, stage.columns, part.f
    out += scattered(coupling_kernels.from_levels, stage.indptr, out.shape, out.dtype, *where, np.ascontiguousarray(w))


def tail_operator(structure: Structure, lams: tuple[np.ndarray, ...], stages: tuple[StageFactor, ...]) -> TailOperator:
    """Normalise S by its diagonal blocks; raises NotPositiveDefiniteError."""
    into, ridge, logdet = [], [], 0.0
    for t in structure.tail:
        lam = lams[t.term]
        schur = structure.gram.terms[t.term].diagonal.copy()
        for stage, part in zip(structure.stages, stages, strict=True):
            where = stage.tail_start, stage.indptr, stage.columns, part.f, t.offset, t.stop, t.width
            schur -= scattered(scatter_kernels.scatter_own, stage.indptr, schur.shape, np.float64, *where)
        blocks = lam.T @ schur @ lam + np.eye(t.width)
        try:
            low = np.linalg.cholesky(blocks)
        except np.linalg.LinAlgError:
            raise NotPositiveDefiniteError("a diagonal block of the Schur complement is not positive") from None
        inverse = np.linalg.inv(low)
        logdet += 2.0 * float(np.log(np.einsum("lkk->lk", low)).sum())
        into.append(np.ascontiguousarray(lam @ inverse.transpose(0, 2, 1)))
        ridge.append(np.ascontiguousarray(inverse @ inverse.transpose(0, 2, 1)))
    return TailOperator(structure, lams, stages, tuple(into), tuple(ridge), logdet)


@dataclass(frozen=True, slots=True)
class Solved:
    """x (r, nv) with S_hat x = rhs; image (r, nv): S_hat rhs, known from the first iteration; iterations;
    alpha, beta (iterations, nv): CG's coefficients, which are Lanczos' in another form."""

    x: np.ndarray
    image: np.ndarray
    iterations: int
    alpha: np.ndarray
    beta: np.ndarray


def conjugate_gradients(operator: TailOperator, rhs: np.ndarray, tolerance: float = TOLERANCE) -> Solved:
    """Solve for all columns of rhs (r, nv); a column rests when its residual is below tolerance times its norm."""
    nv = rhs.shape[1]
    r = padded(rhs)
    x, p = np.zeros_like(r), r.copy()
    norm = _dots(r, r)
    rho, image = norm.copy(), np.zeros_like(r)
    alphas, betas = [], []
    floor = np.maximum(norm, 1e-300) * tolerance**2  # norms are summed in float64 whatever the columns are
    for iteration in range(MAX_ITERATIONS):
        active = rho > floor
        if not active.any():
            break
        ap = operator.apply(p)
        if iteration == 0:
            image = ap
        curvature = _dots(p, ap)
        if np.any(curvature[active] <= 0):
            raise NotPositiveDefiniteError("conjugate gradients met a direction without positive curvature")
        alpha = np.where(active, rho / np.where(active, curvature, 1.0), 0.0).astype(rhs.dtype)
        new = sum(run(kernels.cg_update, len(x), ROWS * 8, alpha, p, ap, x, r))
        beta = np.where(active, new / np.where(active, rho, 1.0), 0.0).astype(rhs.dtype)
        alphas.append(np.where(active, alpha, np.nan))
        betas.append(np.where(active, beta, np.nan))
        rho = np.where(active, new, rho)
        run(kernels.cg_direction, len(x), ROWS * 8, beta, r, p)
    else:
        raise NotPositiveDefiniteError(
            f"conjugate gradients did not converge in {MAX_ITERATIONS} iterations "
            "(nested factors hidden among crossed ones?)"
        )
    coefficients = (np.array(each).reshape(len(alphas), r.shape[1])[:, :nv] for each in (alphas, betas))
    return Solved(_first(x, nv), _first(image, nv), len(alphas), *coefficients)


def padded(rhs: np.ndarray) -> np.ndarray:
    """A copy of rhs (r, nv) with columns of zeros to a multiple of what `coupling_kernels` handles at once."""
    r, nv = rhs.shape
    step = coupling_kernels.MIDDLE if nv > coupling_kernels.MIDDLE // 2 else coupling_kernels.NARROW
    out = np.zeros((r, -(-nv // step) * step), rhs.dtype)
    out[:, :nv] = rhs
    return out


def _first(x: np.ndarray, nv: int) -> np.ndarray:
    return x if x.shape[1] == nv else np.ascontiguousarray(x[:, :nv])


def _dots(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return sum(run(kernels.column_dots, len(x), ROWS * 8, x, y))


def lanczos_quadrature(solved: Solved, norms: np.ndarray, function) -> np.ndarray:
    """(nv,) v'function(S_hat)v for the right-hand sides v of squared norm ``norms``: Gauss quadrature on CG's
    tridiagonals."""
    out = np.zeros(len(norms))
    for column in range(len(norms)):
        alpha = solved.alpha[:, column]
        steps = int(np.count_nonzero(np.isfinite(alpha)))
        if not steps:
            continue
        alpha, beta = alpha[:steps].astype(float), solved.beta[:steps, column].astype(float)
        diagonal = 1.0 / alpha
        diagonal[1:] += beta[:-1] / alpha[:-1]
        off = np.sqrt(np.maximum(beta[:-1], 0.0)) / alpha[:-1]
        values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(off, 1) + np.diag(off, -1))
        out[column] = norms[column] * float(vectors[0] ** 2 @ function(np.maximum(values, 1e-300)))
    return out


def back_substitute(
    structure: Structure, stages: tuple[StageFactor, ...], tail: np.ndarray, v=None
) -> tuple[np.ndarray, ...]:
    """Per stage (q, k, nv): h'(v - f solution) for values ``tail`` (r_raw, nv) of the tail, in raw coordinates.

    v: per stage (q, k, nv) forward right-hand sides, or None for zero. Returned in the order of the stages, in the
    type of the tail's values.
    """
    nv, dtype = tail.shape[1], tail.dtype
    sizes = [s.n_levels * s.width for s in structure.stages]
    starts = structure.r_raw + np.cumsum([0, *sizes])
    solution = np.concatenate([tail, np.zeros((sum(sizes), nv), dtype)]) if len(sizes) > 1 else tail
    out: list[np.ndarray] = [np.zeros(0)] * len(structure.stages)
    for number in range(len(structure.stages) - 1, -1, -1):
        stage, part = structure.stages[number], stages[number]
        own = np.empty((stage.n_levels, stage.width, nv), dtype)
        given = np.zeros((0, stage.width, nv), dtype) if v is None else v[number]
        where = stage.indptr, stage.columns
        run(coupling_kernels.back_levels, stage.n_levels, ROWS, part.h, part.f, given, *where, solution, own)
        if len(sizes) > 1:
            solution[starts[number] : starts[number + 1]] = own.reshape(-1, nv)
        out[number] = own
    return tuple(out)


def effects_of(whole: Structure, operator: TailOperator, tail: np.ndarray, v=None) -> tuple[np.ndarray, ...]:
    """Per term (q, k, nv) from the tail's raw values and the stages' back-substitution."""
    out: list[np.ndarray] = [np.zeros(0)] * len(whole.gram.terms)
    for t in whole.tail:
        out[t.term] = tail[t.offset : t.stop].reshape(t.n_levels, t.width, -1)
    for stage, values in zip(whole.stages, back_substitute(whole, operator.stages, tail, v), strict=True):
        out[stage.term] = values
    return tuple(out)


def lower_root(matrix: np.ndarray) -> np.ndarray:
    """Lower Cholesky factor of what the random effects leave of [X y]'[X y]; raises NotPositiveDefiniteError."""
    try:
        return np.linalg.cholesky(0.5 * (matrix + matrix.T))
    except np.linalg.LinAlgError:
        raise NotPositiveDefiniteError("the fixed effects' Schur complement is not positive definite") from None
