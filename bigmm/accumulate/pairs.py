"""Sums over the rows of every pair of levels (l_j, l_k) of two terms: the sparse blocks Z_j'W Z_k.

Few pairs are kept as a dense table. Many pairs are kept as sorted runs: each chunk is sorted by pair (radix sort), rows
of one pair are added in row order, and runs are merged as they pile up. Sorting reads memory in order where a hash
table would jump about, the result needs no final sort, and its bits depend on the rows alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from bigmm.blocks.parallel import run

DENSE_BYTES = 16 << 20
RUN_ROWS = 1 << 19
PIECE = 1 << 18
"""Entries of a run that are merged at a time: long runs, at the end of a pass, are merged by all threads."""
_DIGIT = 11


@dataclass(frozen=True, slots=True)
class PairSums:
    """Z_j'W Z_k by pairs of levels.

    keys: (nnz,) int64, increasing, level_j * q_k + level_k; data: (nnz, k_j, k_k) float64; n_levels: (q_j, q_k).
    """

    keys: np.ndarray
    data: np.ndarray
    n_levels: tuple[int, int]

    @property
    def levels(self) -> tuple[np.ndarray, np.ndarray]:
        """((nnz,), (nnz,)) int64 level numbers of term j and of term k."""
        first, second = np.divmod(self.keys, self.n_levels[1])
        return first, second

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.data.nbytes

    def merge(self, other: PairSums) -> PairSums:
        """Sums over both sets of rows."""
        keys, data = merge_runs(self.keys, self.data, other.keys, other.data)
        return PairSums(keys, data, self.n_levels)

    def subtract(self, other: PairSums) -> PairSums:
        """Sums without the rows of `other`; pairs of which only rounding is left are removed."""
        keys, data = merge_runs(self.keys, self.data, other.keys, -other.data)
        before = np.zeros(len(keys))
        before[np.searchsorted(keys, self.keys)] = np.abs(self.data).max(axis=(1, 2), initial=0.0)
        left = np.abs(data).max(axis=(1, 2), initial=0.0) > 1e-12 * before
        return PairSums(keys[left], data[left], self.n_levels)


class PairBuffer:
    """The mutable form while a lane is folded: a dense table or a stack of sorted runs, chosen by size."""

    def __init__(self, n_levels: tuple[int, int], widths: tuple[int, int], dense_bytes: int = DENSE_BYTES):
        self.n_levels, self.widths = n_levels, widths
        entries = n_levels[0] * n_levels[1]
        self.table = None
        if entries * widths[0] * widths[1] * 8 <= dense_bytes:
            self.table = np.zeros((entries, widths[0], widths[1]))
        self.runs: list[tuple[np.ndarray, np.ndarray]] = []
        self.bits = max(1, int(entries - 1).bit_length())

    def add(self, first: np.ndarray, second: np.ndarray, z_first: np.ndarray, z_second: np.ndarray) -> None:
        """Add rows with levels first, second (n,) and covariates z_first (k_j, n) (weighted), z_second (k_k, n)."""
        if self.table is not None:
            add_to_table(first, second, self.n_levels[1], z_first, z_second, self.table)
            return
        for start in range(0, len(first), RUN_ROWS):
            part = slice(start, start + RUN_ROWS)
            keys = pair_keys(first[part], second[part], self.n_levels[1])
            ordered, rows = radix_sort(keys, self.bits)
            self._push(*collapse(ordered, rows, z_first[:, part], z_second[:, part]))

    def add_counts(self, first: np.ndarray, second: np.ndarray) -> None:
        """Add rows of two scalar constants without weights: their sums are counts."""
        if self.table is not None:
            count_in_table(first, second, self.n_levels[1], self.table.reshape(-1))
            return
        for start in range(0, len(first), RUN_ROWS):
            part = slice(start, start + RUN_ROWS)
            keys = pair_keys(first[part], second[part], self.n_levels[1])
            self._push(*collapse_counts(radix_sort_keys(keys, self.bits)))

    def freeze(self) -> PairSums:
        if self.table is not None:
            keys = np.flatnonzero(np.any(self.table != 0.0, axis=(1, 2)))
            return PairSums(keys.astype(np.int64), self.table[keys], self.n_levels)
        while len(self.runs) > 1:
            self._merge_top()
        empty = np.empty(0, np.int64), np.empty((0, *self.widths))
        keys, data = self.runs[0] if self.runs else empty
        return PairSums(keys, data, self.n_levels)

    def _push(self, keys: np.ndarray, data: np.ndarray) -> None:
        # A run is merged with the one below it once it is half as long: every entry is moved O(log) times.
        self.runs.append((keys, data))
        while len(self.runs) > 1 and len(self.runs[-2][0]) < 2 * len(self.runs[-1][0]):
            self._merge_top()

    def _merge_top(self) -> None:
        later, earlier = self.runs.pop(), self.runs.pop()
        self.runs.append(merge_runs(*earlier, *later))


def merge_runs(keys_a, data_a, keys_b, data_b) -> tuple[np.ndarray, np.ndarray]:
    """Union of two sorted runs; blocks of a common key are added, a first."""
    if len(keys_a) == 0 or len(keys_b) == 0:
        return (keys_b, data_b) if len(keys_a) == 0 else (keys_a, data_a)
    cuts_a = np.append(np.arange(0, len(keys_a), PIECE), len(keys_a))
    cuts_b = np.append(np.searchsorted(keys_b, keys_a[cuts_a[:-1]]), len(keys_b))
    cuts_b[0] = 0
    pieces = len(cuts_a) - 1
    starts = np.zeros(pieces + 1, np.int64)
    run(_count_pieces, pieces, 1, keys_a, keys_b, cuts_a, cuts_b, starts[1:])
    np.cumsum(starts, out=starts)
    keys, data = np.empty(starts[-1], np.int64), np.empty((starts[-1], *data_a.shape[1:]))
    width = int(np.prod(data_a.shape[1:]))
    merge = _merge_scalars if width == 1 else _merge_blocks
    shape = -1 if width == 1 else (-1, width)
    parts = data_a.reshape(shape), data_b.reshape(shape), data.reshape(shape)
    run(merge, pieces, 1, keys_a, parts[0], keys_b, parts[1], cuts_a, cuts_b, starts, keys, parts[2])
    return keys, data


@numba.njit(cache=True, nogil=True)
def pair_keys(first, second, n_second):
    """(n,) int64 first * n_second + second."""
    keys = np.empty(first.shape[0], np.int64)
    for i in range(first.shape[0]):
        keys[i] = np.int64(first[i]) * n_second + second[i]
    return keys


@numba.njit(cache=True, nogil=True)
def _histograms(keys, digits):
    """(digits, 2^11) where each digit's bucket starts."""
    starts = np.zeros((digits, 1 << _DIGIT), np.int64)
    mask = (1 << _DIGIT) - 1
    for i in range(keys.shape[0]):
        for d in range(digits):
            starts[d, (keys[i] >> (d * _DIGIT)) & mask] += 1
    for d in range(digits):
        total = 0
        for b in range(starts.shape[1]):
            count = starts[d, b]
            starts[d, b] = total
            total += count
    return starts


@numba.njit(cache=True, nogil=True)
def radix_sort_keys(keys, bits):
    """(n,) the keys (< 2^bits) in increasing order."""
    digits = (bits + _DIGIT - 1) // _DIGIT
    starts = _histograms(keys, digits)
    mask = (1 << _DIGIT) - 1
    source, target = keys, np.empty_like(keys)
    spare = np.empty_like(keys)
    for d in range(digits):
        for i in range(keys.shape[0]):
            key = source[i]
            bucket = (key >> (d * _DIGIT)) & mask
            target[starts[d, bucket]] = key
            starts[d, bucket] += 1
        if d == 0:
            source, target = target, spare
        else:
            source, target = target, source
    return source


@numba.njit(cache=True, nogil=True)
def radix_sort(keys, bits):
    """(n,) the keys in increasing order, and (n,) int64 the row each comes from; rows of a key stay in order."""
    digits = (bits + _DIGIT - 1) // _DIGIT
    starts = _histograms(keys, digits)
    mask = (1 << _DIGIT) - 1
    n = keys.shape[0]
    source, target = keys.copy(), np.empty_like(keys)
    order, moved = np.arange(n), np.empty(n, np.int64)
    for d in range(digits):
        for i in range(n):
            bucket = (source[i] >> (d * _DIGIT)) & mask
            place = starts[d, bucket]
            starts[d, bucket] = place + 1
            target[place] = source[i]
            moved[place] = order[i]
        source, target = target, source
        order, moved = moved, order
    return source, order


@numba.njit(cache=True, nogil=True)
def _count_distinct(keys):
    distinct = 0
    for i in range(keys.shape[0]):
        distinct += i == 0 or keys[i] != keys[i - 1]
    return distinct


@numba.njit(cache=True, nogil=True)
def collapse_counts(keys):
    """Sorted keys (n,) -> distinct keys (d,) and how often each occurs (d, 1, 1)."""
    distinct = _count_distinct(keys)
    out, counts = np.empty(distinct, np.int64), np.zeros((distinct, 1, 1))
    at = -1
    for i in range(keys.shape[0]):
        if i == 0 or keys[i] != keys[i - 1]:
            at += 1
            out[at] = keys[i]
        counts[at, 0, 0] += 1.0
    return out, counts


@numba.njit(cache=True, nogil=True)
def collapse(keys, order, z_first, z_second):
    """Sorted keys (n,), their rows, covariates (k_j, n), (k_k, n) -> distinct keys (d,), sums of z z' (d, k_j, k_k)."""
    distinct = _count_distinct(keys)
    out, data = np.empty(distinct, np.int64), np.zeros((distinct, z_first.shape[0], z_second.shape[0]))
    at = -1
    for i in range(keys.shape[0]):
        if i == 0 or keys[i] != keys[i - 1]:
            at += 1
            out[at] = keys[i]
        row = order[i]
        for a in range(z_first.shape[0]):
            for b in range(z_second.shape[0]):
                data[at, a, b] += z_first[a, row] * z_second[b, row]
    return out, data


@numba.njit(cache=True, nogil=True)
def add_to_table(first, second, n_second, z_first, z_second, table):
    """table (q_j * q_k, k_j, k_k) += z z' of each row, in row order."""
    for i in range(first.shape[0]):
        key = np.int64(first[i]) * n_second + second[i]
        for a in range(z_first.shape[0]):
            for b in range(z_second.shape[0]):
                table[key, a, b] += z_first[a, i] * z_second[b, i]


@numba.njit(cache=True, nogil=True)
def count_in_table(first, second, n_second, table):
    """table (q_j * q_k,) += 1 for each row."""
    for i in range(first.shape[0]):
        table[np.int64(first[i]) * n_second + second[i]] += 1.0


@numba.njit(cache=True, nogil=True)
def _count_pieces(lo, hi, keys_a, keys_b, cuts_a, cuts_b, counts):
    """counts[p] = distinct keys of a[cuts_a[p]:cuts_a[p + 1]] and b[cuts_b[p]:cuts_b[p + 1]], for lo <= p < hi."""
    for piece in range(lo, hi):
        i, end_a = cuts_a[piece], cuts_a[piece + 1]
        j, end_b = cuts_b[piece], cuts_b[piece + 1]
        common = 0
        n_both = end_a - i + end_b - j
        while i < end_a and j < end_b:
            key_a, key_b = keys_a[i], keys_b[j]
            common += key_a == key_b
            i += key_a <= key_b
            j += key_b <= key_a
        counts[piece] = n_both - common


@numba.njit(cache=True, nogil=True)
def _merge_scalars(lo, hi, keys_a, data_a, keys_b, data_b, cuts_a, cuts_b, starts, keys, data):
    """Merge pieces lo..hi, each to where it starts; without branches on the keys, which no processor can predict."""
    for piece in range(lo, hi):
        i, end_a = cuts_a[piece], cuts_a[piece + 1]
        j, end_b = cuts_b[piece], cuts_b[piece + 1]
        at = starts[piece]
        while i < end_a and j < end_b:
            key_a, key_b = keys_a[i], keys_b[j]
            take_a, take_b = key_a <= key_b, key_b <= key_a
            keys[at] = key_a if take_a else key_b
            data[at] = (data_a[i] if take_a else 0.0) + (data_b[j] if take_b else 0.0)
            i += take_a
            j += take_b
            at += 1
        while i < end_a:
            keys[at], data[at] = keys_a[i], data_a[i]
            i += 1
            at += 1
        while j < end_b:
            keys[at], data[at] = keys_b[j], data_b[j]
            j += 1
            at += 1


@numba.njit(cache=True, nogil=True)
def _merge_blocks(lo, hi, keys_a, data_a, keys_b, data_b, cuts_a, cuts_b, starts, keys, data):
    """The same for blocks, given as rows (nnz, k_j * k_k)."""
    width = data.shape[1]
    for piece in range(lo, hi):
        i, end_a = cuts_a[piece], cuts_a[piece + 1]
        j, end_b = cuts_b[piece], cuts_b[piece + 1]
        at = starts[piece]
        while i < end_a and j < end_b:
            key_a, key_b = keys_a[i], keys_b[j]
            take_a, take_b = key_a <= key_b, key_b <= key_a
            keys[at] = key_a if take_a else key_b
            for c in range(width):
                data[at, c] = (data_a[i, c] if take_a else 0.0) + (data_b[j, c] if take_b else 0.0)
            i += take_a
            j += take_b
            at += 1
        rest_a, rest_b = end_a - i, end_b - j
        keys[at : at + rest_a], data[at : at + rest_a] = keys_a[i:end_a], data_a[i:end_a]
        at += rest_a
        keys[at : at + rest_b], data[at : at + rest_b] = keys_b[j:end_b], data_b[j:end_b]
