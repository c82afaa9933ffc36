"""Level numbers of values: the inner loops of encoding factors."""

from __future__ import annotations

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bigmm.design.levels.bits import NOTHING, SPARSE, is_increasing, number_by_rank, ranks

NARROW = 1 << 18
"""A table for up to so many integers stays in the processor's cache."""
_HASH = np.uint64(0x9E3779B97F4A7C15)  # Fibonacci hashing: 2^64 / golden ratio


@numba.njit(cache=True, nogil=True)
def number_by_table(keys: np.ndarray, low: int, table: np.ndarray, out: np.ndarray) -> None:
    """out[i] = table[keys[i] - low], -1 outside: keys (n,) integers, table (m,) int32, out (n,) int32."""
    size = table.size
    for i in range(keys.size):
        place = np.int64(keys[i]) - low
        out[i] = table[place] if 0 <= place < size else -1


@numba.njit(cache=True, nogil=True)
def number_without_gaps(keys: np.ndarray, low: int, size: int, out: np.ndarray) -> None:
    """out[i] = keys[i] - low, -1 outside 0..size-1: what `number_by_table` gives when every key of the range occurs."""
    for i in range(keys.size):
        place = np.int64(keys[i]) - low
        out[i] = place if 0 <= place < size else -1


@numba.njit(cache=True, nogil=True)
def fill_slots(keys: np.ndarray, slots: np.ndarray, shift: np.uint64) -> None:
    """Open addressing: put i for key i into the first free slot; slots are a power of two, -1 = free."""
    mask = slots.size - 1
    for i in range(keys.size):
        slot = np.int64((np.uint64(keys[i]) * _HASH) >> shift)
        while slots[slot] >= 0:
            slot = (slot + 1) & mask
        slots[slot] = i


@numba.njit(cache=True, nogil=True)
def number_by_slots(values: np.ndarray, keys: np.ndarray, slots: np.ndarray, shift: np.uint64, out: np.ndarray) -> None:
    """out[i] = the place of values[i] among keys, found by the slots of `fill_slots`, or -1."""
    mask = slots.size - 1
    for i in range(values.size):
        value = np.int64(values[i])
        slot = np.int64((np.uint64(value) * _HASH) >> shift)
        while slots[slot] >= 0 and keys[slots[slot]] != value:
            slot = (slot + 1) & mask
        out[i] = slots[slot]


class IntegerIndex:
    """Codes of int64 keys: by subtraction where they follow each other, a table in a narrow range, by rank among bits
    where they increase in a compact one, else hashing."""

    def __init__(self, keys: np.ndarray):
        self.low = int(keys.min()) if keys.size else 0
        span = int(keys.max()) - self.low + 1 if keys.size else 1
        self.size, self.kind = keys.size, "gapless"
        # Numbers of `ranks` and `gapless` are places in sorted order, so both need levels in increasing order.
        increasing = is_increasing(keys)
        if increasing and span == keys.size:
            return
        # A declared order is a permutation, which only a table or the slots can hold.
        if span <= NARROW or (not increasing and span <= 8 * keys.size):
            self.kind, self.table = "table", np.full(span, -1, dtype=np.int32)
            self.table[keys - self.low] = np.arange(keys.size, dtype=np.int32)
        elif increasing and span <= SPARSE * keys.size:
            self.kind, self.bits = "ranks", NOTHING.with_keys([keys])
            self.before = ranks(self.bits.words)
        else:
            # The high bits of the product select the slot: they depend on all bits of the key.
            bits = max(int(2 * keys.size - 1).bit_length(), 4)
            self.kind, self.keys, self.slots = "slots", keys, np.full(1 << bits, -1, dtype=np.int32)
            self.shift = np.uint64(64 - bits)
            fill_slots(keys, self.slots, self.shift)

    def find(self, keys: np.ndarray, out: np.ndarray) -> None:
        """Write the codes of keys (n,) of any integer type into out (n,) int32; -1 where a key is not among them."""
        if self.kind == "gapless":
            number_without_gaps(keys, self.low, self.size, out)
        elif self.kind == "table":
            number_by_table(keys, self.low, self.table, out)
        elif self.kind == "ranks":
            number_by_rank(keys, self.bits.low, self.bits.words, self.before, out)
        else:
            number_by_slots(keys, self.keys, self.slots, self.shift, out)


class ValueIndex:
    """Codes of strings, floats and decimals through Arrow's hash table."""

    def __init__(self, values: pa.Array):
        self.values = values

    def find(self, values: pa.Array, out: np.ndarray) -> None:
        """Write the codes of values (n,), of the type of the levels, into out (n,) int32; -1 for others."""
        codes = pc.index_in(values, value_set=self.values)
        out[:] = codes.fill_null(-1).to_numpy(zero_copy_only=False) if codes.null_count else codes.to_numpy()
