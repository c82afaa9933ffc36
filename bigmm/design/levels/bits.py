"""Sets of integers as bits: level numbers of database keys, which have gaps but are no random numbers.

A set costs span / 8 bytes however often and in whatever order its members are seen, and the place of a member among all
is its word's rank plus a count of bits: a lake of 20 million levels is learned and looked up in a few megabytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np

ROOMY = 1 << 26
"""A span of up to so many integers is always kept as bits, which take 8 MiB."""
SPARSE = 64
"""A wider span is kept as bits up to so many integers for each row: bits then take no more than int64 rows."""


@dataclass(frozen=True, slots=True)
class Bits:
    """Bit b of word i says whether low + 64 i + b is in the set; low is a multiple of 64; words (w,) uint64."""

    low: int
    words: np.ndarray

    @property
    def high(self) -> int:
        """One more than the largest integer it could hold."""
        return self.low + 64 * len(self.words)

    def with_keys(self, keys: Sequence[np.ndarray]) -> Bits:
        """The set with all of these integers, (n,) arrays."""
        low, high = key_range(keys)
        out = self._over(low, high + 1)
        for chunk in keys:
            set_bits(chunk, out.low, out.words)
        return out

    def merge(self, other: Bits) -> Bits:
        """The union."""
        if not len(other.words):
            return self
        out = self._over(other.low, other.high)
        start = (other.low - out.low) >> 6
        out.words[start : start + len(other.words)] |= other.words
        return out

    def _over(self, low: int, high: int) -> Bits:
        """A copy with room for low <= key < high."""
        # Bounds at multiples of 64 keep the words of two sets aligned, so that a union is an OR of words.
        low, high = low & ~63, (high + 63) & ~63
        if len(self.words):
            low, high = min(low, self.low), max(high, self.high)
        words = np.zeros((high - low) >> 6, np.uint64)
        if len(self.words):
            start = (self.low - low) >> 6
            words[start : start + len(self.words)] = self.words
        return Bits(low, words)

    def values(self) -> np.ndarray:
        """(n,) int64 members, increasing."""
        out = np.empty(int(ranks(self.words)[-1]), np.int64)
        members(self.words, self.low, out)
        return out


NOTHING = Bits(0, np.zeros(0, np.uint64))


def key_range(keys: Sequence[np.ndarray]) -> tuple[int, int]:
    """Smallest and largest of all."""
    return min(int(chunk.min()) for chunk in keys), max(int(chunk.max()) for chunk in keys)


def are_compact(low: int, high: int, rows: int) -> bool:
    """Whether bits from low to high are small enough for so many rows."""
    # 64 bits, as many as an int64 key takes, are the most that a row may cost here.
    return high - low <= max(ROOMY, SPARSE * rows)


@numba.njit(cache=True, nogil=True)
def set_bits(keys: np.ndarray, low: int, words: np.ndarray) -> None:
    """words[(key - low) / 64] gets the key's bit; keys (n,) integers."""
    for i in range(keys.shape[0]):
        place = np.int64(keys[i]) - low
        words[place >> 6] |= np.uint64(1) << np.uint64(place & 63)


@numba.njit(inline="always")
def count_bits(word: np.uint64) -> np.int64:
    """Number of ones in a uint64 (Hacker's Delight, figure 5-2)."""
    word = word - ((word >> np.uint64(1)) & np.uint64(0x5555555555555555))
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((word * np.uint64(0x0101010101010101)) >> np.uint64(56))


@numba.njit(cache=True, nogil=True)
def ranks(words: np.ndarray) -> np.ndarray:
    """(w + 1,) int32 members before each word, and in all."""
    out = np.zeros(words.shape[0] + 1, np.int32)
    for i in range(words.shape[0]):
        out[i + 1] = out[i] + count_bits(words[i])
    return out


@numba.njit(cache=True, nogil=True)
def members(words: np.ndarray, low: int, out: np.ndarray) -> None:
    """The integers whose bits are set, increasing."""
    position = 0
    for i in range(words.shape[0]):
        word, base = words[i], low + 64 * i
        for b in range(64):
            if (word >> np.uint64(b)) & np.uint64(1):
                out[position] = base + b
                position += 1


@numba.njit(cache=True, nogil=True)
def number_by_rank(keys: np.ndarray, low: int, words: np.ndarray, before: np.ndarray, out: np.ndarray) -> None:
    """out[i] = how many members are smaller than keys[i], -1 where it is none itself; before: `ranks`."""
    size = words.shape[0] * 64
    one = np.uint64(1)
    for i in range(keys.shape[0]):
        place = np.int64(keys[i]) - low
        out[i] = -1
        if 0 <= place < size:
            word, bit = words[place >> 6], np.uint64(place & 63)
            if (word >> bit) & one:
                out[i] = before[place >> 6] + count_bits(word & ((one << bit) - one))


@numba.njit(cache=True, nogil=True)
def is_increasing(keys: np.ndarray) -> bool:
    """Whether keys (n,) increase strictly, and so have no repeats."""
    for i in range(1, keys.shape[0]):  # noqa: SIM110  compiled: a loop
        if keys[i] <= keys[i - 1]:
            return False
    return True
