"""Algebra of one level: matrices as small as its random effects, loops instead of LAPACK calls."""

from __future__ import annotations

import numpy as np

from bigmm.kernel import njit


@njit(cache=True, nogil=True)
def column(columns, c, i):
    """Row i of column c; column 0 is the constant."""
    return columns[c - 1, i] if c > 0 else 1.0


@njit(cache=True, nogil=True)
def copy(x, out):
    """out <- x (k,): numba compiles the checks of a slice for seconds."""
    for a in range(len(x)):
        out[a] = x[a]


@njit(cache=True, nogil=True)
def multiply(lam, x, out):
    """out <- lam x."""
    for a in range(len(x)):
        t = 0.0
        for c in range(len(x)):
            t += lam[a, c] * x[c]
        out[a] = t


@njit(cache=True, nogil=True)
def multiply_transposed(lam, x, out):
    """out <- lam'x."""
    for a in range(len(x)):
        t = 0.0
        for c in range(len(x)):
            t += lam[c, a] * x[c]
        out[a] = t


@njit(cache=True, nogil=True)
def cholesky(h, k, chol):
    """chol chol' = h for the leading (k, k) part of h, in its lower triangle; returns False where it is not positive
    definite."""
    for a in range(k):
        for b in range(a + 1):
            t = h[a, b]
            for c in range(b):
                t -= chol[a, c] * chol[b, c]
            if a == b:
                # `not >` refuses NaN too.
                if not t > 0.0:
                    return False
                chol[a, a] = np.sqrt(t)
            else:
                chol[a, b] = t / chol[b, b]
    return True


@njit(cache=True, nogil=True)
def solve(chol, x):
    """x <- (chol chol')^-1 x."""
    k = len(x)
    for a in range(k):
        t = x[a]
        for c in range(a):
            t -= chol[a, c] * x[c]
        x[a] = t / chol[a, a]
    for a in range(k - 1, -1, -1):
        t = x[a]
        for c in range(a + 1, k):
            t -= chol[c, a] * x[c]
        x[a] = t / chol[a, a]


@njit(cache=True, nogil=True)
def factor_scaled(zwz, lam, chol, row, h):
    """chol <- Cholesky factor of lam'zwz lam + I from the lower triangle of zwz (k, k); row (k,), h (k, k): scratch."""
    # lam is any square root of the covariance, so no triangle is skipped.
    k = lam.shape[0]
    for a in range(k):
        for d in range(k):
            t = 0.0
            for c in range(k):
                t += (zwz[d, c] if c <= d else zwz[c, d]) * lam[c, a]
            row[d] = t
        for b in range(k):
            t = 1.0 if a == b else 0.0
            for d in range(k):
                t += lam[d, b] * row[d]
            h[b, a] = t
    return cholesky(h, k, chol)
