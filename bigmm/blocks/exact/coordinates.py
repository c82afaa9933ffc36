"""Raw and scaled coordinates of the dense tail: B = blockdiag(Lambda of each tail term, contrasts, I)."""

from __future__ import annotations

import numpy as np

from bigmm.blocks.structure import Structure


def scalar_scale(structure: Structure, lams, n_dense: int) -> np.ndarray | None:
    """(r_raw + n_dense,) the diagonal of B where every tail term is a scalar random effect, else None."""
    # The usual case: one pass over the matrix replaces two products with B.
    if any(t.width > 1 or not t.penalized for t in structure.tail):
        return None
    return np.concatenate([np.full(t.n_levels, lams[t.term][0, 0]) for t in structure.tail] + [np.ones(n_dense)])


def scale_tail(structure: Structure, lams, matrix: np.ndarray, n_dense: int) -> np.ndarray:
    """B'matrix B with B = blockdiag(Lambda of the tail, contrasts, I): (r_raw + n_dense)^2 -> scaled coordinates."""
    # B' on the rows twice, with a transposition between: (B'(B'M)')' = B'MB.
    return scale_rows(structure, lams, scale_rows(structure, lams, matrix, n_dense).T, n_dense).T


def scale_rows(structure: Structure, lams, matrix: np.ndarray, n_dense: int) -> np.ndarray:
    """B'matrix for rows in raw coordinates: (r_raw + n_dense, nv) -> scaled."""
    pieces = []
    for t in structure.tail:
        rows = matrix[t.offset : t.stop]
        if not t.penalized:
            pieces.append(t.contrast.T @ rows)
        elif t.width == 1:
            pieces.append(rows * lams[t.term][0, 0])
        else:
            blocks = rows.reshape(t.n_levels, t.width, -1)
            pieces.append(np.einsum("cb,lcn->lbn", lams[t.term], blocks).reshape(rows.shape))
    return np.concatenate([*pieces, matrix[structure.r_raw : structure.r_raw + n_dense]])


def unscale_tail(structure: Structure, lams, matrix: np.ndarray, n_fixed: int) -> np.ndarray:
    """B matrix B' back to raw columns; fixed columns are absent (zero) when n_fixed == 0."""
    return unscale_rows(structure, lams, unscale_rows(structure, lams, matrix, n_fixed).T, n_fixed).T


def unscale_rows(structure: Structure, lams, matrix: np.ndarray, n_fixed: int) -> np.ndarray:
    """B matrix for rows in scaled coordinates, back to raw ones; fixed columns are absent when n_fixed == 0."""
    pieces, position = [], 0
    for t in structure.tail:
        if not t.penalized:
            # Without fixed effects (ML) the inverse has no rows for the factor's coefficients: they count as zero.
            size = t.contrast.shape[1] if n_fixed else 0
            absent = np.zeros((t.n_levels, matrix.shape[1]))
            pieces.append(t.contrast @ matrix[position : position + size] if size else absent)
        else:
            size = t.n_levels * t.width
            rows = matrix[position : position + size]
            if t.width == 1:
                pieces.append(rows * lams[t.term][0, 0])
            else:
                blocks = rows.reshape(t.n_levels, t.width, -1)
                pieces.append(np.einsum("bc,lcn->lbn", lams[t.term], blocks).reshape(rows.shape))
        position += size
    return np.concatenate([*pieces, matrix[position:]])
