"""numba kernels of the selected inverse; each has a NumPy twin in the tests.

Every kernel works on a range of levels (or of tail columns) that no other call writes to, releases the GIL and
touches only the buffers it was given. Shapes: k width of the term, m dense columns (X then y), nnz sparse entries.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit


class StageRows(NamedTuple):
    """The entries of a stage, level by level; see `Stage`."""

    multiplicity: np.ndarray
    indptr: np.ndarray
    columns: np.ndarray


class TailInverse(NamedTuple):
    """The inverse on the tail.

    values: (r_raw + p, r_raw + p), unscaled, of r_raw raw columns and p fixed effects.
    widest: the largest number of columns that a level of the stage touches.
    """

    values: np.ndarray
    r_raw: int
    p: int
    widest: int


class ParentInverses(NamedTuple):
    """Inverses of the stages that contain this one, side by side in flat arrays, so that any depth has one kernel.

    Attributes
    ----------
    level, position: (P, q) the parent's level, and (P, nnz) entries in its row; see `Parent`.
    width: (P,) covariates of the parent.
    diagonal_start, column_start, fixed_start: (P,) where the parent's values begin in the next three.
    diagonal, columns, fixed: flat, of each parent what `StageInverse` holds.
    """

    level: np.ndarray
    position: np.ndarray
    width: np.ndarray
    diagonal_start: np.ndarray
    column_start: np.ndarray
    fixed_start: np.ndarray
    diagonal: np.ndarray
    columns: np.ndarray
    fixed: np.ndarray


class StageInverse(NamedTuple):
    """The unscaled inverse of one stage: diagonal (q, k, k) blocks; columns (nnz, k) and fixed (q, k, p), which are
    empty where ``with_columns`` is false."""

    diagonal: np.ndarray
    columns: np.ndarray
    fixed: np.ndarray
    with_columns: bool


@njit(cache=True, nogil=True)
def invert(lo, hi, shrinkage, rows, factor, tail, parents, inverse):
    """Selected inverse of levels lo..hi, and their part of sum_l (Z'PZ)_ll.

    (Z'PZ)_ll = B diagonal - E J E', where B = (I + diagonal lam lam')^-1, E = B [data, dense] and J the inverse of
    everything eliminated later. Nothing cancels, and lam may be singular.

    Parameters
    ----------
    shrinkage: (hi - lo, k, k) B of each level, see `shrinkage_of`.
    rows: `StageRows`.
    factor: `StageFactor`.
    tail: `TailInverse`.
    parents: `ParentInverses`, or None for a stage without parents.
    inverse: `StageInverse` that is written, or None where only the sum is wanted. numba compiles a short kernel for
        each None, and most models need no other.

    Returns
    -------
    The sum (k, k).
    """
    k, p = shrinkage.shape[1], tail.p
    multiplicity, indptr, columns = rows
    diagonal, dense, data, h, f, v = factor
    n_max = tail.widest + p
    # Scratch of the widest level, made once for the range: J is gathered level by level and products are dense.
    joint = np.empty((n_max, n_max))
    touched = np.empty((k, n_max))
    product = np.empty((k, n_max))
    total = np.zeros((k, k))
    for i in range(lo, hi):
        first, last = indptr[i], indptr[i + 1]
        n = last - first + p
        shrunk = shrinkage[i - lo]
        for a in range(k):
            for b in range(k):
                t = 0.0
                for c in range(k):
                    t += shrunk[a, c] * diagonal[i, c, b]
                # B D counts for each level that the entry stands for.
                # E J E' does not: its rows hold the moments of them all.
                total[a, b] += multiplicity[i] * t
        if n > 0:
            skipped = 0
            if parents is not None:
                skipped = _gather_parents(first, last, i, p, parents, joint)
            _gather_tail(first + skipped, last, skipped, columns, tail, joint)
            _transform(shrunk, data, dense, i, first, last, p, touched)
            _multiply_joint(touched, joint, n, product)
            for a in range(k):
                for b in range(k):
                    t = 0.0
                    for j in range(n):
                        t += product[a, j] * touched[b, j]
                    total[a, b] -= t
        if inverse is not None:
            _copy_factor(f, v, i, first, last, p, touched)
            _multiply_joint(touched, joint, n, product)
            _put_diagonal(h, product, touched, n, i, inverse.diagonal)
            if inverse.with_columns:
                _put_between(h, product, n, i, first, last, inverse.columns, inverse.fixed)
    return total


def shrinkage_of(lo, hi, lam, diagonal):
    """(hi - lo, k, k) the inverses of I + diagonal lam lam' of levels lo..hi; lam (k, k), diagonal (q, k, k).

    Most models have terms of width 1 only, and need no kernel for this.
    """
    if lam.shape[0] == 1:
        return 1.0 / (1.0 + diagonal[lo:hi] * (lam[0, 0] * lam[0, 0]))
    out = np.empty((hi - lo, *lam.shape))
    shrink(lo, hi, lam, diagonal, out)
    return out


@njit(cache=True, nogil=True)
def shrink(lo, hi, lam, diagonal, out):
    """`shrinkage_of` for widths above 1; out (hi - lo, k, k) is written."""
    k = lam.shape[0]
    sigma = times_own_transpose(lam)
    units = units_of(lo, hi, diagonal)
    work = np.empty((k, 2 * k))
    for i in range(lo, hi):
        inverse_plus_identity(diagonal[i], sigma, units, work, out[i - lo])


@njit(cache=True, nogil=True)
def times_own_transpose(lam):
    """lam lam'."""
    k = lam.shape[0]
    out = np.zeros((k, k))
    for a in range(k):
        for b in range(k):
            for c in range(k):
                out[a, b] += lam[a, c] * lam[b, c]
    return out


@njit(cache=True, nogil=True)
def units_of(lo, hi, diagonal):
    """(k,) powers of two near the scales of effects that levels lo..hi with diagonal blocks (q, k, k) can tell, in
    which covariates of very different size have effects of one size, so that pivots can be compared."""
    units = np.ones(diagonal.shape[1])
    for a in range(len(units)):
        total = 0.0
        for i in range(lo, hi):
            total += diagonal[i, a, a]
        if 0.0 < total < np.inf:
            # A power of two scales exactly: it changes which pivot is chosen and no other bit.
            units[a] = 2.0 ** np.round(-0.5 * np.log2(total / (hi - lo)))
    return units


@njit(inline="always")
def _gather_parents(first, last, i, p, parents, out):
    """The inverse between the parents' columns of level i (entries first..last) and all columns -> out.

    Returns the number of the parents' columns, which stand first.
    """
    level_of, position, widths, diagonal_start, column_start, fixed_start, diagonal, columns, fixed = parents
    nc = last - first
    offset = 0
    for q in range(len(widths)):
        width = widths[q]
        level = level_of[q, i]
        for a in range(width):
            for b in range(width):
                out[offset + a, offset + b] = diagonal[diagonal_start[q] + (level * width + a) * width + b]
            # J is symmetric: a number is read once and written to both of its places.
            for e in range(first + offset + width, last):
                x = columns[column_start[q] + position[q, e] * width + a]
                out[offset + a, e - first] = x
                out[e - first, offset + a] = x
            for j in range(p):
                x = fixed[fixed_start[q] + (level * width + a) * p + j]
                out[offset + a, nc + j] = x
                out[nc + j, offset + a] = x
        offset += width
    return offset


@njit(inline="always")
def _gather_tail(first, last, skipped, columns, tail, out):
    """The inverse between the tail columns of entries first..last and the fixed effects -> out, from ``skipped`` on."""
    inverse, r_raw, p = tail.values, tail.r_raw, tail.p
    stop = skipped + last - first
    start = first - skipped
    for e in range(first, last):
        c = columns[e]
        for e2 in range(first, last):
            out[e - start, e2 - start] = inverse[c, columns[e2]]
        for j in range(p):
            x = inverse[c, r_raw + j]
            out[e - start, stop + j] = x
            out[stop + j, e - start] = x
    for j in range(p):
        for j2 in range(p):
            out[stop + j, stop + j2] = inverse[r_raw + j, r_raw + j2]


@njit(inline="always")
def _transform(shrunk, data, dense, i, first, last, p, out):
    """out (k, n) = shrunk [data of the level, its first p dense columns]."""
    k = shrunk.shape[0]
    nc = last - first
    for a in range(k):
        for j in range(nc):
            t = 0.0
            for c in range(k):
                t += shrunk[a, c] * data[first + j, c]
            out[a, j] = t
        for j in range(p):
            t = 0.0
            for c in range(k):
                t += shrunk[a, c] * dense[i, c, j]
            out[a, nc + j] = t


@njit(inline="always")
def _copy_factor(f, v, i, first, last, p, out):
    """out (k, n) = [f of the level transposed, its first p columns of v]."""
    nc = last - first
    for a in range(v.shape[1]):
        for j in range(nc):
            out[a, j] = f[first + j, a]
        for j in range(p):
            out[a, nc + j] = v[i, a, j]


@njit(inline="always")
def _multiply_joint(rows, joint, n, out):
    """out = rows joint, on the first n columns."""
    for a in range(rows.shape[0]):
        for j in range(n):
            out[a, j] = 0.0
        for c in range(n):
            # The inner loop runs along a row of J, where numbers are neighbours.
            t = rows[a, c]
            for j in range(n):
                out[a, j] += t * joint[c, j]


@njit(inline="always")
def _put_diagonal(h, product, rows, n, i, out):
    """out[i] = h'(I + product rows')h."""
    k = h.shape[1]
    for a in range(k):
        for b in range(k):
            t = 0.0
            for c in range(k):
                t += h[i, c, a] * h[i, c, b]
                for d in range(k):
                    u = 0.0
                    for j in range(n):
                        u += product[c, j] * rows[d, j]
                    t += h[i, c, a] * u * h[i, d, b]
            out[i, a, b] = t


@njit(inline="always")
def _put_between(h, product, n, i, first, last, out_columns, out_dense):
    """-h'product: between the level's effects and its columns, and the fixed effects."""
    k = h.shape[1]
    nc = last - first
    for b in range(k):
        for j in range(n):
            t = 0.0
            for c in range(k):
                t -= h[i, c, b] * product[c, j]
            if j < nc:
                out_columns[first + j, b] = t
            else:
                out_dense[i, b, j - nc] = t


@njit(inline="always")
def inverse_plus_identity(diagonal, sigma, units, work, out):
    """out = (I + diagonal sigma)^-1 by Gauss-Jordan with partial pivoting; units (k,): see `units_of`; work (k, 2k).

    NaN where there is no inverse in floating point.
    """
    k = sigma.shape[0]
    for a in range(k):
        for b in range(k):
            t = 1.0 if a == b else 0.0
            for c in range(k):
                t += diagonal[a, c] * sigma[c, b]
            work[a, b] = t * (units[a] / units[b])
            work[a, k + b] = 1.0 if a == b else 0.0
    for c in range(k):
        # I + D sigma is not symmetric, so there is no Cholesky factor.
        pivot = c
        for a in range(c + 1, k):
            if abs(work[a, c]) > abs(work[pivot, c]):
                pivot = a
        if pivot != c:
            for b in range(2 * k):
                work[c, b], work[pivot, b] = work[pivot, b], work[c, b]
        # One level without an inverse does not stop the others: its NaN spreads to the sums.
        scale = 1.0 / work[c, c] if work[c, c] != 0.0 else np.nan
        for b in range(2 * k):
            work[c, b] *= scale
        for a in range(k):
            if a != c:
                t = work[a, c]
                for b in range(2 * k):
                    work[a, b] -= t * work[c, b]
    for a in range(k):
        for b in range(k):
            out[a, b] = work[a, k + b] * (units[b] / units[a])


@njit(cache=True, nogil=True)
def scale_mirrored(lo, hi, lower, scale, out):
    """Rows and columns lo..hi of out = diag(scale) symmetric(lower) diag(scale), both triangles."""
    for i in range(lo, hi):
        s = scale[i]
        for j in range(i + 1):
            t = lower[i, j] * (s * scale[j])
            out[i, j] = t
            out[j, i] = t
