"""V^-1[X y] to the last digit, by iterative refinement with residuals in twofold arithmetic.

Each float is a pair of high and low parts (Higham 2002, Accuracy and Stability of Numerical Algorithms, section 12).
The factor need not be exact to the last digit: every refinement gains the digits that the factor has.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bigmm.blocks.exact.coordinates import scale_rows
from bigmm.blocks.exact.factor import Factor, triangular
from bigmm.blocks.exact.solve import backward, forward
from bigmm.blocks.exact.twofold_kernels import subtract_blocks, subtract_products
from bigmm.blocks.structure import Structure

Matrices = tuple[np.ndarray, ...]

REFINEMENTS = 4
SETTLED = 1e-25
"""Share of a solution below which what a refinement adds is of no account."""


@dataclass(frozen=True, slots=True)
class Refined:
    """Products with V^-1 in the working basis, rounded to float64 from more digits.

    Attributes
    ----------
    weighted : per term (q, k, p + 1) Z'V^-1[X y].
    squares : (p + 1, p + 1) [X y]'V^-1[X y].
    """

    weighted: Matrices
    squares: np.ndarray


def refined(structure: Structure, factor: Factor) -> Refined:
    """V^-1[X y] against Z and [X y], at the factor's Lambda."""
    gram, m = structure.gram, structure.m
    u = [_twofold(np.zeros_like(term.dense)) for term in gram.terms]
    for step in range(REFINEMENTS + 1):
        effects = tuple(_product(lam, solution) for lam, solution in zip(factor.lams, u, strict=True))
        weighted = _remainders(structure, effects)
        if step == REFINEMENTS:
            break
        remainders = [_shrunk(lam, s, solution) for lam, s, solution in zip(factor.lams, weighted, u, strict=True)]
        moves = _solved(factor, remainders)
        u = [_sum(solution, move) for solution, move in zip(u, moves, strict=True)]
        # weighted then belongs to the solution before this move, which changes nothing.
        if all(_is_settled(solution, move) for solution, move in zip(u, moves, strict=True)):
            break
    squares = _twofold(gram.xy)
    for term, effect in zip(gram.terms, effects, strict=True):
        subtract_products(term.dense, effect, squares)
    return Refined(tuple(s[0] for s in weighted), squares[0].reshape(m, m))


def _is_settled(solution: np.ndarray, move: np.ndarray) -> bool:
    return bool(np.abs(move).max(initial=0.0) <= SETTLED * np.abs(solution[0]).max())


def _twofold(values: np.ndarray) -> np.ndarray:
    """(2, ...) high and low parts."""
    return np.stack([values, np.zeros_like(values)])


def _sum(twofold: np.ndarray, move: np.ndarray) -> np.ndarray:
    """twofold + move, by two error-free sums."""
    # Knuth's two-sum: the order of these operations is the algorithm.
    high = twofold[0] + move
    back = high - twofold[0]
    low = twofold[1] + ((twofold[0] - (high - back)) + (move - back))
    total = high + low
    return np.stack([total, low - (total - high)])


def _each(matrix: np.ndarray, levels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One small matrix as the block of every level."""
    return (
        np.arange(levels + 1),
        np.arange(levels, dtype=np.int32),
        np.ascontiguousarray(np.broadcast_to(matrix, (levels, *matrix.shape))),
    )


def _product(lam: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Lambda u, twofold."""
    out = np.zeros_like(u)
    subtract_blocks(*_each(-lam, u.shape[1]), u, out)
    return out


def _shrunk(lam: np.ndarray, s: np.ndarray, u: np.ndarray) -> np.ndarray:
    """(q, k, m) Lambda's - u."""
    out = -u
    subtract_blocks(*_each(-lam.T, u.shape[1]), s, out)
    return np.asarray(out[0])


def _remainders(structure: Structure, effects: Matrices) -> list[np.ndarray]:
    """Per term Z'W([X y] - Z b), twofold; effects: per term b (2, q, k, m)."""
    gram = structure.gram
    out = [_twofold(term.dense) for term in gram.terms]
    for remainder, term, effect in zip(out, gram.terms, effects, strict=True):
        levels = np.arange(term.n_levels + 1)
        subtract_blocks(levels, levels[:-1].astype(np.int32), term.diagonal, effect, remainder)
    for (j, k), block in gram.cross.items():
        subtract_blocks(block.indptr, block.indices, block.data, effects[k], out[j])
        turned = structure.transposed[j, k]
        subtract_blocks(turned.indptr, turned.indices, turned.data, effects[j], out[k])
    return out


def _solved(factor: Factor, remainders: list[np.ndarray]) -> list[np.ndarray]:
    """M^-1 remainder per term (q, k, m), with the rounding of the factor."""
    structure, r = factor.structure, factor.n_random
    back = [np.linalg.pinv(lam, rcond=1e-12) for lam in factor.lams]  # the factor's right-hand sides are unscaled
    rhs = tuple(
        np.ascontiguousarray(np.einsum("cb,lcv->lbv", inverse, part)) for inverse, part in zip(back, remainders)
    )
    m = remainders[0].shape[2]
    swept = forward(structure, factor.stages, rhs, np.zeros((structure.m - 1, m)))
    scaled = scale_rows(structure, factor.lams, np.concatenate([swept.tail, swept.fixed]), structure.m - 1)[:r]
    lower = factor.tail[:r, :r]
    tail = triangular(lower, triangular(lower, np.asfortranarray(scaled)), transposed=True)
    fixed = np.zeros(factor.n_fixed)
    columns = [
        backward(factor, np.append(tail[:, v], fixed), tuple(w[:, :, [v]].copy() for w in swept.w), np.ones(1))
        for v in range(m)
    ]
    effects = [np.stack(parts, axis=2) for parts in zip(*columns, strict=True)]
    return [np.einsum("cb,lbv->lcv", inverse, effect) for inverse, effect in zip(back, effects, strict=True)]
