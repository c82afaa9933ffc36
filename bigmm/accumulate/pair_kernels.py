"""Loops over keys of pairs of levels, key = level_j * q_k + level_k: sorting, adding up what has the same key."""

from __future__ import annotations

import numpy as np

from bigmm.kernel import njit

# 2^11 counters of 8 bytes are 16 KiB, half of a usual L1 cache.
_DIGIT = 11


@njit(cache=True, nogil=True)
def pair_keys(first, second, n_second):
    """(n,) int64 first * n_second + second."""
    keys = np.empty(first.shape[0], np.int64)
    for i in range(first.shape[0]):
        keys[i] = np.int64(first[i]) * n_second + second[i]
    return keys


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
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
        # The first pass reads the caller's keys, which must not be written: `spare` takes their place.
        if d == 0:
            source, target = target, spare
        else:
            source, target = target, source
    return source


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
def _count_distinct(keys):
    distinct = 0
    for i in range(keys.shape[0]):
        distinct += i == 0 or keys[i] != keys[i - 1]
    return distinct


@njit(cache=True, nogil=True)
def collapse_counts(keys):
    """Sorted keys (n,) -> distinct keys (d,) and how often each occurs (d,)."""
    distinct = _count_distinct(keys)
    out, counts = np.empty(distinct, np.int64), np.zeros(distinct)
    position = -1
    for i in range(keys.shape[0]):
        if i == 0 or keys[i] != keys[i - 1]:
            position += 1
            out[position] = keys[i]
        # Counts are float64, as the sums they are joined with are; exact up to 2^53.
        counts[position] += 1.0
    return out, counts


@njit(cache=True, nogil=True)
def collapse(keys, order, z_first, z_second):
    """Sorted keys (n,), their rows, covariates (k_j, n), (k_k, n) -> distinct keys (d,), sums of z z' (d, k_j, k_k)."""
    distinct = _count_distinct(keys)
    out, data = np.empty(distinct, np.int64), np.zeros((distinct, z_first.shape[0], z_second.shape[0]))
    position = -1
    for i in range(keys.shape[0]):
        if i == 0 or keys[i] != keys[i - 1]:
            position += 1
            out[position] = keys[i]
        row = order[i]
        for a in range(z_first.shape[0]):
            for b in range(z_second.shape[0]):
                data[position, a, b] += z_first[a, row] * z_second[b, row]
    return out, data


@njit(cache=True, nogil=True)
def collapse_blocks(keys, order, blocks):
    """Sorted keys (n,), where each was in blocks (n, k_j, k_k) -> distinct keys (d,), sums of blocks (d, k_j, k_k)."""
    distinct = _count_distinct(keys)
    out, data = np.empty(distinct, np.int64), np.zeros((distinct, blocks.shape[1], blocks.shape[2]))
    position = -1
    for i in range(keys.shape[0]):
        if i == 0 or keys[i] != keys[i - 1]:
            position += 1
            out[position] = keys[i]
        row = order[i]
        for a in range(blocks.shape[1]):
            for b in range(blocks.shape[2]):
                data[position, a, b] += blocks[row, a, b]
    return out, data


@njit(cache=True, nogil=True)
def add_to_table(first, second, n_second, z_first, z_second, table):
    """table (q_j * q_k, k_j, k_k) += z z' of each row, in row order."""
    for i in range(first.shape[0]):
        key = np.int64(first[i]) * n_second + second[i]
        for a in range(z_first.shape[0]):
            for b in range(z_second.shape[0]):
                table[key, a, b] += z_first[a, i] * z_second[b, i]


@njit(cache=True, nogil=True)
def count_in_table(first, second, n_second, table):
    """table (q_j * q_k,) += 1 for each row."""
    for i in range(first.shape[0]):
        table[np.int64(first[i]) * n_second + second[i]] += 1.0


@njit(cache=True, nogil=True)
def split_keys(keys, first_level, n_second, counts, indices):
    """Sorted keys -> indices (n,) int32 levels of the second term, counts[l - first_level] += entries of level l."""
    level, end = 0, (np.int64(first_level) + 1) * n_second
    for i in range(keys.shape[0]):
        # Keys increase, so the level only moves on: no division by n_second per key.
        while keys[i] >= end:
            level += 1
            end += n_second
        counts[level] += 1
        indices[i] = keys[i] - (end - n_second)
