"""Draws that can be entered anywhere: draw i depends on seed, stream and i alone.

Philox (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") is a counter-based generator. One 64-bit word
gives one uniform, and by inversion one draw of any distribution (`Distribution.quantile`). So a partition can start at
its own row number, and the way rows are cut into partitions cannot matter. (numpy's samplers take a varying number of
words per draw and would not do.)
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from scipy.special import ndtri

from bigmm.errors import UsageError

WORDS_PER_COUNT = 4


def check_seed(seed: int) -> int:
    """The seed as an int; UsageError unless it is a non-negative integer."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise UsageError(f"seed must be a non-negative integer, got {seed!r}")
    return int(seed)


def stream_key(seed: int, stream: tuple[Any, ...]) -> int:
    """A 128-bit Philox key for a named stream of a seed."""
    # A hash, so that neighbouring seeds and streams have unrelated keys; repr separates ("a", 12) from ("a1", 2).
    digest = hashlib.blake2b(repr((seed, *stream)).encode(), digest_size=16).digest()
    return int.from_bytes(digest, "little")


def standard_normal(seed: int, stream: tuple[Any, ...], first: int, count: int) -> np.ndarray:
    """(count,) normal draws number first, first + 1, ... of a stream."""
    # Inversion takes one word for each draw, so draw i needs no draw before it.
    return ndtri(uniform(seed, stream, first, count))


def uniform(seed: int, stream: tuple[Any, ...], first: int, count: int) -> np.ndarray:
    """(count,) draws in (0, 1), number first, first + 1, ...; ``stream`` is a tuple of strings and integers."""
    # Philox makes four words at each count, and a draw may begin in the middle of them.
    skip = first % WORDS_PER_COUNT
    bits = np.random.Philox(key=stream_key(seed, stream), counter=first // WORDS_PER_COUNT)
    words = bits.random_raw(skip + count)[skip:]
    # 52 bits: with 53 the largest value would round to 1, an infinite draw.
    return ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
