"""Sums over rows of sparse blocks that scatter into their columns, on the driver's threads.

So a block is read row by row in both directions, and no second copy of it, sorted by column, has to be kept.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np

from bigmm.blocks.exact import scatter_kernels as kernels
from bigmm.blocks.parallel import in_order

PIECES = 16
"""Ranges of levels that scatter into buffers of their own: a constant, so that sums have the same bits everywhere."""
SMALL = 200_000
"""Fewer multiplications are one range."""


def scattered(kernel: Callable, indptr: np.ndarray, shape: tuple, dtype: Any, *args: Any) -> np.ndarray:
    """Sum over ranges of levels of what ``kernel(lo, hi, *args, out)`` adds to a zero ``out`` of that shape.

    Ranges hold equal numbers of the entries that ``indptr`` counts; few buffers are alive at a time.
    """
    entries, levels = int(indptr[-1] - indptr[0]), len(indptr) - 1
    count = PIECES if entries * shape[-1] > SMALL else 1
    # Cuts by entries and not by levels, since few levels may have most entries. An empty range adds zeros.
    edges = np.searchsorted(indptr, indptr[0] + entries * np.arange(count + 1) / count)
    edges[0], edges[-1] = 0, levels

    def piece(number: int) -> np.ndarray:
        out = np.zeros(shape, dtype)
        kernel(edges[number], edges[number + 1], *args, out)
        return out

    if count == 1:
        return piece(0)
    # Pieces are added in the order of the ranges, into the buffer of the first.
    return reduce(_added, in_order(piece, count))


def _added(total: np.ndarray, part: np.ndarray) -> np.ndarray:
    return np.add(total, part, out=total)


def both_ways(block: Any, x_j: np.ndarray, x_k: np.ndarray, out_j: np.ndarray) -> np.ndarray:
    """out_j += C x_k; returns C'x_j (q_k, k_k, nv)."""
    pattern = block.indptr, block.indices, block.data
    return scattered(kernels.multiply_both, block.indptr, x_k.shape, x_k.dtype, *pattern, x_j, x_k, out_j)
