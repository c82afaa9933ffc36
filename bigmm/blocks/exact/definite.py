"""Factors of a symmetric positive definite matrix without block structure: log-determinant and solves.

dense: LAPACK's Cholesky; sparse: SuperLU in symmetric mode with diagonal pivots, which is then L D L' (scipy has no
sparse Cholesky). Which of them is a rule of size and fill, see `choose_kind`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import scipy.sparse as sp
from scipy.linalg import lapack
from scipy.sparse.linalg import splu

from bigmm.blocks.exact.factor import NotPositiveDefiniteError

DENSE_SIZE = 256
"""Up to this size a dense factor takes under a millisecond, less than SuperLU needs to order the columns."""
DENSE_SHARE = 0.1
"""From this share of non-zeros on, LAPACK's speed per operation makes up for the zeros."""
PANEL = 256


class DefiniteFactor(Protocol):
    """log|M| and solves with M."""

    @property
    def logdet(self) -> float:
        """log|M|."""
        ...

    def solve(self, rhs: np.ndarray) -> np.ndarray:
        """M^-1 rhs, (q, m)."""
        ...


@dataclass(frozen=True, slots=True)
class DenseFactor:
    """lower: (q, q) Cholesky factor in Fortran order."""

    lower: np.ndarray
    logdet: float

    def solve(self, rhs: np.ndarray) -> np.ndarray:
        """M^-1 rhs by two triangular solves."""
        return lapack.dpotrs(self.lower, rhs, lower=1)[0]


@dataclass(frozen=True, slots=True)
class SparseFactor:
    """lu: scipy's SuperLU; fill: stored elements of both factors."""

    lu: Any
    logdet: float
    fill: int

    def solve(self, rhs: np.ndarray) -> np.ndarray:
        """M^-1 rhs by SuperLU, which takes right-hand sides in C order."""
        return self.lu.solve(np.ascontiguousarray(rhs))


def dense_factor(matrix: Any) -> DenseFactor:
    """Cholesky of (q, q), dense or sparse; raises NotPositiveDefiniteError."""
    # a symmetric matrix in C order is itself in Fortran order, without a copy
    full = (matrix.toarray() if hasattr(matrix, "toarray") else matrix.copy()).T
    # clean=0 leaves old numbers above the diagonal, which `dpotrs` does not read.
    lower, info = lapack.dpotrf(full, lower=1, overwrite_a=1, clean=0)
    diagonal = np.diagonal(lower)
    if info or not np.all(np.isfinite(diagonal)):
        raise NotPositiveDefiniteError(f"pivot {info} of {len(full)} is not positive")
    return DenseFactor(lower, float(2.0 * np.log(diagonal).sum()))


def sparse_factor(matrix: Any) -> SparseFactor:
    """LDL' of a sparse (q, q); raises NotPositiveDefiniteError."""
    try:
        lu = splu(
            sp.csc_array(matrix), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
        )
    except RuntimeError as error:  # "Factor is exactly singular"
        raise NotPositiveDefiniteError(str(error)) from error
    # L has a unit diagonal, so log|M| is the sum of the logarithms of the pivots D.
    pivots = lu.U.diagonal()
    # A pivot off the diagonal means that a diagonal one was zero; then the signs say nothing.
    if not np.all(pivots > 0) or not np.array_equal(lu.perm_r, lu.perm_c):
        raise NotPositiveDefiniteError("a pivot is not positive")
    return SparseFactor(lu, float(np.log(pivots).sum()), int(lu.nnz))


FACTORS: dict[str, Callable[[Any], DefiniteFactor]] = {"dense": dense_factor, "sparse": sparse_factor}


def choose_kind(matrix: sp.csr_array) -> tuple[str, int]:
    """("dense" or "sparse", bytes of a factor) for a matrix of this pattern.

    Small or well-filled: dense. Otherwise it is factored once: dense after all when the factor fills in.
    """
    q = matrix.shape[0]
    dense_bytes = 8 * q * q
    if q <= DENSE_SIZE or matrix.nnz > DENSE_SHARE * q * q:
        return "dense", dense_bytes
    # Fill depends on the pattern alone, so one factorization decides for all theta. An entry takes 8 + 4 bytes.
    fill = sparse_factor(matrix).fill
    return ("dense", dense_bytes) if fill > DENSE_SHARE * q * q else ("sparse", 12 * fill)


def inverse_products(factor: DefiniteFactor, first: sp.csr_array) -> np.ndarray:
    """(m,) diagonal of first M^-1 first', in panels of rows so that M^-1 is never held."""
    out = np.empty(first.shape[0])
    for start in range(0, len(out), PANEL):
        rows = first[start : start + PANEL].toarray()
        out[start : start + PANEL] = np.einsum("ij,ji->i", rows, factor.solve(rows.T))
    return out
