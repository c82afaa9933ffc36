"""numba kernel of the probes' exact part: squared norms of sparse rows in the tail's normalised coordinates."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bigmm.kernel import njit


class TailEffects(NamedTuple):
    """What rows of data have to do with the T terms of the tail, and the terms' factors.

    refs: (T, n) level of each term or -1.
    z: (n, sum of widths) covariates.
    first, width: (T,) first column of a term in the tail, and its covariates.
    blocks, start: the (q, k, k) blocks M of all terms laid out flat, each term's from start on.
    """

    refs: np.ndarray
    z: np.ndarray
    first: np.ndarray
    width: np.ndarray
    start: np.ndarray
    blocks: np.ndarray


@njit(cache=True, nogil=True)
def row_norms(lo, hi, level, w, rows, effects, size, out):
    """out[i] = squared norm of the row M'(z_tail - f'w), which touches the row's own tail levels and the columns that
    its level of the stage meets.

    Parameters
    ----------
    level: (n,) level of the stage, or -1.
    w: (n, k) h z.
    rows: `TailRows` of the stage.
    effects: `TailEffects`.
    size: number of tail columns.
    out: (n,), written.
    """
    tail_start, indptr, columns, f = rows
    refs, z, first, width, start, into = effects
    k, n_terms = w.shape[1], len(first)
    # Dense scratch for the whole range. A row clears the blocks that it touched, so that it costs what it touches.
    # last_row needs no clearing: it tells which row has listed a block last.
    raw, last_row = np.zeros(size), np.full(size, -1)
    block, owner = np.empty(size, np.int64), np.empty(size, np.int64)
    for i in range(lo, hi):
        count, position = 0, 0
        for t in range(n_terms):
            if refs[t, i] >= 0:
                c = first[t] + refs[t, i] * width[t]
                for a in range(width[t]):
                    raw[c + a] = z[i, position + a]
                last_row[c] = i
                block[count], owner[count] = c, t
                count += 1
            position += width[t]
        if level[i] >= 0:
            t = 0
            for e in range(tail_start[level[i]], indptr[level[i] + 1]):
                c = columns[e]
                # Terms lie side by side in the tail and a row's entries come in their order: t moves little.
                while t + 1 < n_terms and c >= first[t + 1]:
                    t += 1
                while c < first[t]:
                    t -= 1
                for a in range(k):
                    raw[c] -= f[e, a] * w[i, a]
                if (c - first[t]) % width[t] == 0 and last_row[c] != i:
                    last_row[c] = i
                    block[count], owner[count] = c, t
                    count += 1
        total = 0.0
        for b in range(count):
            c, t = block[b], owner[b]
            k_t = width[t]
            begin = start[t] + (c - first[t]) * k_t
            for q in range(k_t):
                x = 0.0
                for p in range(k_t):
                    x += into[begin + p * k_t + q] * raw[c + p]
                total += x * x
            for p in range(k_t):
                raw[c + p] = 0.0
        out[i] = total
