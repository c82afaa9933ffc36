"""Kenward and Roger's adjusted covariance and scaled F test, from blocks.

Kenward and Roger (1997), Biometrics 53, 983-997. The covariance V of the response is linear in sigma^2 and in the
entries of the covariance matrices Sigma of the terms. With V0 = V / sigma^2, B = Z'V0^-1 X, N = Z'V0^-1 Z and
W = X'V0^-1 X

    X'V0^-2 X = W - B'LB,                B2 = Z'V0^-2 X = B - N L B,     L = Lambda Lambda',
    X'V0^-3 X = X'V0^-2 X - B2'L B,      N2 = Z'V0^-2 Z = N - N L N,     tr V0^-2 = n - q + |M^-1|^2,

so that no matrix of the size of the rows is needed. All sums are sums over components (`components`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from bigmm.blocks.gram import Gram
from bigmm.inference.components import Batch, batches


@dataclass(frozen=True, slots=True)
class Direction:
    """The derivative of one term's Sigma with respect to one of its entries.

    Parameters
    ----------
    term : position of the joint term in the Gram.
    matrix : (k, k) symmetric derivative, in the working basis of the term.
    """

    term: int
    matrix: np.ndarray


@dataclass(frozen=True, slots=True)
class KenwardRoger:
    """What tests need.

    Parameters
    ----------
    covariance : (p, p) C, the usual covariance of the coefficients.
    adjusted : (p, p) Kenward and Roger's covariance.
    slopes : (R + 1, p, p) P, derivatives of C^-1 in the entries of Sigma and, last, in sigma^2.
    weights : (R + 1, R + 1) covariance of the variance parameters.
    """

    covariance: np.ndarray
    adjusted: np.ndarray
    slopes: np.ndarray
    weights: np.ndarray


@dataclass(slots=True)
class _Totals:
    """Sums over components; R directions, p coefficients."""

    slopes: np.ndarray  # (R, p, p) B'E B
    second: np.ndarray  # (R, R, p, p) B'E N E B
    mixed: np.ndarray  # (R, p, p) B2'E B
    squares: np.ndarray  # (p, p) B'L B
    cubes: np.ndarray  # (p, p) B2'L B
    traces: np.ndarray  # (R, R) tr(N E N E)
    mixed_traces: np.ndarray  # (R,) tr(N2 E)
    inverse_square: float  # |M^-1|^2


def kenward_roger(
    gram: Gram, lams: Sequence[np.ndarray], directions: Sequence[Direction], covariance: np.ndarray, sigma: float
) -> KenwardRoger:
    """Sum over the components of A.

    Parameters
    ----------
    gram : all terms penalized. lams : per term (k, k) Lambda's block in the working basis.
    directions : of the entries of every Sigma. covariance : (p, p) C in the working basis. sigma : residual sd.

    Returns
    -------
    KenwardRoger in the working basis of X.
    """
    p, count = len(gram.xy) - 1, len(directions)
    total = _Totals(
        np.zeros((count, p, p)),
        np.zeros((count, count, p, p)),
        np.zeros((count, p, p)),
        np.zeros((p, p)),
        np.zeros((p, p)),
        np.zeros((count, count)),
        np.zeros(count),
        0.0,
    )
    for batch in batches(gram):
        _add(total, batch, lams, directions)
    q = sum(
        term.width * (term.n_levels if term.multiplicity is None else int(term.multiplicity.sum()))
        for term in gram.terms
    )
    return _finish(total, gram.n - q, covariance, sigma**2)


def _add(total: _Totals, batch: Batch, lams: Sequence[np.ndarray], directions: Sequence[Direction]) -> None:
    def times(factor_of: Callable[[int], np.ndarray | None], array: np.ndarray) -> np.ndarray:
        """Apply a (k, k) matrix per term to the levels' columns (axis 1)."""
        out = np.zeros_like(array)
        for t, part in enumerate(batch.slices):
            matrix = factor_of(t)
            if matrix is not None and part.stop > part.start:
                levels = array[:, part].reshape(len(array), batch.counts[t], batch.widths[t], -1)
                out[:, part] = np.einsum("ab,nlbc->nlac", matrix, levels).reshape(array[:, part].shape)
        return out

    weight = batch.multiplicity
    scaled = times(lambda t: lams[t].T, batch.zz)  # Lambda'Z'Z
    inner = times(lambda t: lams[t].T, scaled.transpose(0, 2, 1)) + np.eye(scaled.shape[1])
    # By Woodbury N = Z'Z - (L^-1 Lambda'Z'Z)'(L^-1 Lambda'Z'Z) with M = L L', and B likewise.
    chol = np.linalg.cholesky(inner)
    half = np.linalg.solve(chol, scaled)
    half_x = np.linalg.solve(chol, times(lambda t: lams[t].T, batch.zx[:, :, :-1]))
    n_block = batch.zz - half.transpose(0, 2, 1) @ half
    b_block = batch.zx[:, :, :-1] - half.transpose(0, 2, 1) @ half_x
    inverse = np.linalg.inv(inner)
    total.inverse_square += float(np.einsum("n,nij,nij->", weight, inverse, inverse))
    squares = [lam @ lam.T for lam in lams]
    lb = times(lambda t: squares[t], b_block)
    ln = times(lambda t: squares[t], n_block)
    b2 = b_block - n_block @ lb
    n2 = n_block - n_block @ ln
    weighted = weight[:, None, None]
    total.squares += ((b_block * weighted).transpose(0, 2, 1) @ lb).sum(axis=0)
    total.cubes += ((b2 * weighted).transpose(0, 2, 1) @ lb).sum(axis=0)
    moved = [times(partial(_matrix_at, d), b_block) for d in directions]
    for i, direction in enumerate(directions):
        total.slopes[i] += ((b_block * weighted).transpose(0, 2, 1) @ moved[i]).sum(axis=0)
        total.mixed[i] += ((b2 * weighted).transpose(0, 2, 1) @ moved[i]).sum(axis=0)
        part = batch.slices[direction.term]
        block = _levels(n2[:, part, part], batch.counts[direction.term], batch.widths[direction.term])
        total.mixed_traces[i] += float(np.einsum("n,nlalb,ab->", weight, block, direction.matrix, optimize=True))
        image = (n_block @ moved[i]) * weighted
        for j in range(i + 1):
            added = (image.transpose(0, 2, 1) @ moved[j]).sum(axis=0)
            total.second[i, j] += added
            if i != j:
                total.second[j, i] += added.T
    _add_traces(total, batch, n_block, directions)


def _matrix_at(direction: Direction, term: int) -> np.ndarray | None:
    """The direction's matrix for its own term; other terms do not change."""
    return direction.matrix if term == direction.term else None


def _levels(block: np.ndarray, count: int, width: int) -> np.ndarray:
    return block.reshape(len(block), count, width, count, width)


def _add_traces(total: _Totals, batch: Batch, n_block: np.ndarray, directions: Sequence[Direction]) -> None:
    """tr(N E_i N E_j) from the fourth-order sums over pairs of levels of each pair of terms."""
    terms = sorted({direction.term for direction in directions})
    for s in terms:
        for t in terms:
            # tr(N E_i N E_j) is symmetric in i and j.
            if t > s:
                continue
            block = n_block[:, batch.slices[s], batch.slices[t]]
            pairs = block.reshape(len(block), batch.counts[s], batch.widths[s], batch.counts[t], batch.widths[t])
            flat = pairs.transpose(2, 4, 0, 1, 3).reshape(batch.widths[s] * batch.widths[t], len(block), -1)
            weighted = (flat * batch.multiplicity[:, None]).reshape(len(flat), -1)
            sums = (weighted @ flat.reshape(len(flat), -1).T).reshape(
                batch.widths[s], batch.widths[t], batch.widths[s], batch.widths[t]
            )
            for i, first in enumerate(directions):
                for j, second in enumerate(directions):
                    if first.term == s and second.term == t:
                        value = float(np.einsum("acbd,ab,cd->", sums, first.matrix, second.matrix))
                        total.traces[i, j] += value
                        if s != t:
                            total.traces[j, i] += value


def _finish(total: _Totals, spare: int, covariance: np.ndarray, variance: float) -> KenwardRoger:
    count, p = len(total.traces), len(covariance)
    # C = sigma^2 W^-1. The last parameter is sigma^2, whose derivative of V is V0.
    w = variance * np.linalg.inv(covariance)
    w2 = w - total.squares
    w3 = w2 - total.cubes
    slopes = -np.concatenate([total.slopes, w2[None]]) / variance**2
    second = np.zeros((count + 1, count + 1, p, p))
    second[:count, :count] = total.second
    second[count, :count] = total.mixed
    second[:count, count] = total.mixed.transpose(0, 2, 1)
    second[count, count] = w3
    second /= variance**3
    traces = np.zeros((count + 1, count + 1))
    traces[:count, :count] = total.traces
    traces[count, :count] = traces[:count, count] = total.mixed_traces
    traces[count, count] = spare + total.inverse_square
    moved = covariance @ slopes
    information = (
        traces / variance**2
        - 2.0 * np.einsum("ab,ijba->ij", covariance, second)
        + np.einsum("iab,jba->ij", moved, moved)
    )
    weights = 2.0 * np.linalg.inv(information)
    excess = np.einsum("ij,ijab->ab", weights, second) - np.einsum(
        "ij,iab,bc,jcd->ad", weights, slopes, covariance, slopes, optimize=True
    )
    adjusted = covariance + 2.0 * covariance @ excess @ covariance
    return KenwardRoger(covariance, (adjusted + adjusted.T) / 2.0, slopes, weights)


def scaled_f(kr: KenwardRoger, hypothesis: np.ndarray, difference: np.ndarray) -> tuple[float, float]:
    """The scaled F statistic and its denominator degrees of freedom.

    Parameters
    ----------
    hypothesis : (r, p) of full row rank. difference : (r,) estimate less the value under the hypothesis.

    Returns
    -------
    (F, df).
    """
    rank = len(hypothesis)
    theta = hypothesis.T @ np.linalg.solve(hypothesis @ kr.covariance @ hypothesis.T, hypothesis)
    moved = theta @ kr.covariance @ kr.slopes @ kr.covariance
    traces = np.einsum("iaa->i", moved)
    a1 = float(traces @ kr.weights @ traces)
    a2 = float(np.einsum("ij,iab,jba->", kr.weights, moved, moved))
    statistic = float(difference @ np.linalg.solve(hypothesis @ kr.adjusted @ hypothesis.T, difference)) / rank
    # A1, A2, B, g, c1, c2, c3, rho and the scale have the paper's names.
    b = (a1 + 6.0 * a2) / (2.0 * rank)
    g = ((rank + 1) * a1 - (rank + 4) * a2) / ((rank + 2) * a2) if a2 else 0.0
    denominator = 3 * rank + 2.0 * (1.0 - g)
    c1, c2, c3 = g / denominator, (rank - g) / denominator, (rank + 2 - g) / denominator
    v0, v1, v2 = 1.0 + c1 * b, 1.0 - c2 * b, 1.0 - c3 * b
    # Where v0 is zero rounding leaves either sign of it.
    v0 = 0.0 if abs(v0) < 1e-10 else v0
    rho = ((1.0 - a2 / rank) / v1) ** 2 * v0 / (v2 * rank)
    df = 4.0 + (rank + 2.0) / (rank * rho - 1.0)
    scale = 1.0 if abs(df - 2.0) < 1e-2 else df * (1.0 - a2 / rank) / (df - 2.0)
    return scale * statistic, df
