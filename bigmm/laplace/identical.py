"""Identical rows counted instead of repeated: exact for likelihoods that are linear in y at a given linear predictor.

Rows of the same levels, covariates and offset share eta, and for such families (`Distribution.countable`)
sum_i w_i ll(y_i, eta) = W ll(ybar, eta) up to constants, with W = sum w_i, ybar = sum w_i y_i / W. Constants are of the
original rows: they have to be summed before.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bigmm.families import Family
from bigmm.kernel import njit
from bigmm.shards.shard import Shard

WORTHWHILE = 0.5
"""Rows are counted when at most this share of them is distinct."""
_LOOK, _HOPELESS = 1 << 15, 0.9
"""After so many rows a shard whose rows are nearly all distinct is left alone."""


def counted(shard: Shard, family: Family) -> Shard:
    """The shard with identical rows replaced by one with their mean response and total weight; pure.

    The shard itself where that does not halve it. Rows stay in the order in which each first appears within its level.
    """
    if not family.distribution.countable or not shard.rows:
        return shard
    member, first = _groups(shard.indptr, shard.columns, shard.refs, shard.offset, _LOOK, _HOPELESS)
    if not len(first) or len(first) > WORTHWHILE * shard.rows:
        return shard
    # bincount adds in the order of the rows, so the bits do not depend on workers.
    w = np.bincount(member, shard.w if len(shard.w) else None, len(first)).astype(float)
    wy = np.bincount(member, shard.w * shard.y if len(shard.w) else shard.y, len(first))
    # Rows of weight 0 keep the first response instead of 0 / 0.
    y = np.where(w > 0, wy / np.where(w > 0, w, 1.0), shard.y[first])
    return replace(
        shard,
        columns=np.ascontiguousarray(shard.columns[:, first]),
        y=y,
        w=w,
        offset=shard.offset[first] if len(shard.offset) else shard.offset,
        refs=np.ascontiguousarray(shard.refs[:, first]),
        # Distinct rows are numbered in the order in which they are met, so `first` increases.
        indptr=np.searchsorted(first, shard.indptr),
    )


@njit(cache=True, nogil=True)
def _same(columns, refs, offset, i, j):
    for c in range(columns.shape[0]):
        if columns[c, i] != columns[c, j]:
            return False
    for g in range(refs.shape[0]):
        if refs[g, i] != refs[g, j]:
            return False
    return len(offset) == 0 or offset[i] == offset[j]


@njit(cache=True, nogil=True)
def _mixed(h, bits):
    # 2^64 over the golden ratio: multiplicative hashing of Knuth (1998, volume 3, section 6.4).
    h = (h ^ bits) * np.uint64(0x9E3779B97F4A7C15)
    return h ^ (h >> np.uint64(29))


@njit(cache=True, nogil=True)
def _hash(columns, refs, offset, i):
    h = np.uint64(0)
    for c in range(columns.shape[0]):
        # By bits: 0.0 and -0.0 hash apart although they are equal, and at worst two such rows stay two.
        h = _mixed(h, np.float64(columns[c, i]).view(np.uint64))
    for g in range(refs.shape[0]):
        h = _mixed(h, np.uint64(refs[g, i]))
    if len(offset):
        h = _mixed(h, np.float64(offset[i]).view(np.uint64))
    return h


@njit(cache=True, nogil=True)
def _groups(indptr, columns, refs, offset, look, hopeless):
    """Numbers of the distinct rows.

    Returns
    -------
    tuple : (n,) number of the distinct row that each row is, and (d,) the first row of each. Both are empty where
        nearly all of the first rows are distinct.

    Notes
    -----
    Identical rows share their level, so every level has a hash table of its own; older stamps are empty slots.
    """
    n = indptr[-1]
    widest = np.int64(1)
    for level in range(len(indptr) - 1):
        widest = max(widest, indptr[level + 1] - indptr[level])
    # At most half of the slots are taken, so a search for a free one ends soon.
    size = np.int64(2)
    while size < 2 * widest:
        size *= 2
    slots, stamps = np.empty(size, np.int64), np.full(size, -1, np.int64)
    member, first, count = np.empty(n, np.int64), np.empty(n, np.int64), 0
    for level in range(len(indptr) - 1):
        rows = indptr[level + 1] - indptr[level]
        part = np.int64(2)
        while part < 2 * rows:
            part *= 2
        # A small level uses the head of the table only, which stays in the cache.
        mask = part - 1
        for i in range(indptr[level], indptr[level + 1]):
            slot = np.int64(_hash(columns, refs, offset, i) & np.uint64(mask))
            while stamps[slot] == level and not _same(columns, refs, offset, i, first[slots[slot]]):
                slot = (slot + 1) & mask
            if stamps[slot] != level:
                stamps[slot], slots[slot], first[count] = level, count, i
                count += 1
            member[i] = slots[slot]
            # Hashing of rows that are all distinct would cost more than it gives, so the head of the shard decides.
            if i + 1 == look and count > hopeless * look:
                return member[:0], first[:0]
    return member, first[:count]
