"""The iterative solver: the tail's Schur complement S is applied, never formed (docs/theory/iterative.md).

One chain of nested terms is eliminated level by level, with the same code as for the dense factor. On the rest S is
normalised by its own diagonal blocks and those between nested terms, S_hat = L^-1 S L^-T (`preconditioner`), and
conjugate gradients solve for many right-hand sides at once. The Lanczos coefficients of log-determinants are recycled
from the same iterations (Golub and Meurant 2010, section 4; Gardner et al. 2018, arXiv:1809.11165).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bigmm.blocks.exact import solve_kernels
from bigmm.blocks.exact.factor import GRAIN, NotPositiveDefiniteError, StageFactor
from bigmm.blocks.exact.scatter import both_ways, scattered
from bigmm.blocks.exact.sweeps import ROWS, back_substitute
from bigmm.blocks.gram import CrossBlock
from bigmm.blocks.iterative import coupling_kernels
from bigmm.blocks.iterative import krylov_kernels as kernels
from bigmm.blocks.iterative.preconditioner import ChainFactor, factor_chain, first_moment
from bigmm.blocks.iterative.structure import IterativeStructure
from bigmm.blocks.parallel import run
from bigmm.blocks.structure import Structure, TailTerm

TOLERANCE = 1e-8
"""Relative residual of data solves; quadratic forms are then good to its square."""
MAX_ITERATIONS = 2000


@dataclass(frozen=True, slots=True)
class TailOperator:
    """S_hat = L^-1 S L^-T on the tail at one theta.

    Attributes
    ----------
    structure: the model without a dense tail.
    lams: per term (k, k) Lambda's block.
    stages: factors of the stages.
    chains: P = L L' chain by chain, see `preconditioner`.
    couplings: (j, k, block) for two terms of the tail: S less P, but for the part that goes through the stages.
    logdet: log|P| + tr(S_hat - I).
    """

    structure: Structure
    lams: tuple[np.ndarray, ...]
    stages: tuple[StageFactor, ...]
    chains: tuple[ChainFactor, ...]
    couplings: tuple[tuple[TailTerm, TailTerm, CrossBlock], ...]
    logdet: float

    @property
    def size(self) -> int:
        """Number of columns of the tail."""
        return self.structure.r_raw

    @property
    def nested(self) -> frozenset[int]:
        """Terms of the tail that are nested in, or contain, another one."""
        return frozenset(t.term for chain in self.chains if len(chain.places) > 1 for t in chain.places)

    def raw(self, x: np.ndarray) -> np.ndarray:
        """Lambda L^-T x: normalised (r, nv) -> raw coordinates."""
        out = np.empty_like(x)
        for chain in self.chains:
            chain.to_raw(x, out)
        return out

    def normalised(self, x: np.ndarray) -> np.ndarray:
        """L^-1 Lambda'x: raw (r, nv) -> normalised right-hand side."""
        out = np.empty_like(x)
        for chain in self.chains:
            chain.to_normalised(x, out)
        return out

    def diagonal_blocks(self) -> dict[int, np.ndarray]:
        """{term: (q, k, k)} diagonal blocks of Lambda P^-1 Lambda'."""
        return {
            t.term: block
            for chain in self.chains
            for t, block in zip(chain.places, chain.diagonal_blocks(), strict=True)
        }

    def apply(self, x: np.ndarray) -> np.ndarray:
        """S_hat x = x + L^-1 Lambda'(S - P) Lambda L^-T x for x (r, nv), S and P without their ridge."""
        raw, nv = self.raw(x), x.shape[1]
        image = np.zeros_like(x)

        def view(array: np.ndarray, t: TailTerm) -> np.ndarray:
            return array[t.offset : t.stop].reshape(t.n_levels, t.width, nv)

        for chain in self.chains:
            for t, share in zip(chain.places, chain.losses, strict=True):
                # S - P vanishes on P's blocks: what `through_levels` takes off there comes back here.
                # One type for both operands, or another kernel would be compiled.
                share = share.astype(x.dtype, copy=False)
                run(solve_kernels.multiply_own, t.n_levels, GRAIN, share, view(raw, t), view(image, t))
        for j, k, block in self.couplings:
            _between(block, view(raw, j), view(raw, k), view(image, j), view(image, k))
        for stage, part in zip(self.structure.stages, self.stages, strict=True):
            where = stage.tail_start, stage.indptr, stage.columns, part.f
            image += scattered(coupling_kernels.through_levels, stage.indptr, x.shape, x.dtype, *where, raw)
        out = self.normalised(image)
        out += x
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


def tail_operator(
    analysed: IterativeStructure, lams: tuple[np.ndarray, ...], stages: tuple[StageFactor, ...]
) -> TailOperator:
    """Normalise S by P; raises NotPositiveDefiniteError."""
    structure = analysed.whole
    chains = tuple(factor_chain(structure, lams, stages, chain) for chain in analysed.tail)
    within = {pair: block for chain in chains for pair, block in chain.between.items()}
    places = {t.term: t for t in structure.tail}
    couplings = tuple(
        (places[j], places[k], replace(block, data=within.get((j, k), block.data)))
        for (j, k), block in structure.gram.cross.items()
        if j in places and k in places
    )
    logdet = sum(chain.factor.logdet_z + first_moment(structure, stages, chain) for chain in chains)
    return TailOperator(structure, lams, stages, chains, couplings, logdet)


@dataclass(frozen=True, slots=True)
class Solved:
    """What conjugate gradients found: x (r, nv) with S_hat x = rhs, and image (r, nv) = S_hat rhs.

    alpha and beta (iterations, nv) are the coefficients of the iterations, which are Lanczos' in another form."""

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
        # The first direction is the right-hand side itself, so this product is S_hat rhs.
        if iteration == 0:
            image = ap
        curvature = _dots(p, ap)
        if np.any(curvature[active] <= 0):
            raise NotPositiveDefiniteError("conjugate gradients met a direction without positive curvature")
        # Columns of zeros have curvature 0: dividing by 1 avoids 0 / 0. A column at rest takes a step of 0.
        alpha = np.where(active, rho / np.where(active, curvature, 1.0), 0.0).astype(rhs.dtype)
        new = sum(run(kernels.cg_update, len(x), ROWS * 8, alpha, p, ap, x, r))
        beta = np.where(active, new / np.where(active, rho, 1.0), 0.0).astype(rhs.dtype)
        # NaN marks steps after a column has come to rest; `lanczos_quadrature` counts the others.
        alphas.append(np.where(active, alpha, np.nan))
        betas.append(np.where(active, beta, np.nan))
        rho = np.where(active, new, rho)
        run(kernels.cg_direction, len(x), ROWS * 8, beta, r, p)
    else:
        raise NotPositiveDefiniteError(
            f"conjugate gradients did not converge in {MAX_ITERATIONS} iterations "
            "(nested factors hidden among crossed ones?)"
        )
    coefficients = (np.array(index).reshape(len(alphas), r.shape[1])[:, :nv] for index in (alphas, betas))
    return Solved(_first(x, nv), _first(image, nv), len(alphas), *coefficients)


def padded(rhs: np.ndarray) -> np.ndarray:
    """A copy of rhs (r, nv) with columns of zeros to a multiple of what `coupling_kernels` handles at once."""
    r, nv = rhs.shape
    step = coupling_kernels.MIDDLE if nv > coupling_kernels.MIDDLE // 2 else coupling_kernels.NARROW
    # Columns of zeros are at rest from the start, and rows are then whole vectors of the kernels.
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
        # Lanczos' tridiagonal from the coefficients of conjugate gradients (docs/theory/iterative.md, Log-determinant).
        diagonal = 1.0 / alpha
        diagonal[1:] += beta[:-1] / alpha[:-1]
        off = np.sqrt(np.maximum(beta[:-1], 0.0)) / alpha[:-1]
        # Below, values are kept positive: rounding can push one under zero, where f has no value.
        values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(off, 1) + np.diag(off, -1))
        out[column] = norms[column] * float(vectors[0] ** 2 @ function(np.maximum(values, 1e-300)))
    return out


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
