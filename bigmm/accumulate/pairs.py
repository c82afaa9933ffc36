"""Sums over the rows of every pair of levels (l_j, l_k) of two terms: the sparse blocks Z_j'W Z_k.

Few pairs are kept as a dense table. Many pairs are kept as sorted runs: each chunk is sorted by pair (radix sort) and
rows of one pair are added in row order. Runs are not merged with each other but cut at ranges of levels: what all runs
hold of one range is sorted once, at the end, in the cache, and ranges are independent, whether threads or the workers
of a cluster add them up. The bits depend on the rows and on the tree of lanes alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from bigmm.accumulate import pair_kernels as kernels
from bigmm.blocks.gram import CrossBlock
from bigmm.blocks.parallel import in_order

DENSE_BYTES = 16 << 20
RUN_ROWS = 1 << 19
RANGES = 64
"""Ranges of levels that are added up independently."""
PENDING = 1 << 18
"""Entries per range from which runs that hold pairs again and again are added up before the end of the pass."""
SHORT = 1 << 16
"""Runs below are added to their likes at once: partitions with few rows must not leave thousands of runs."""

Run = tuple[np.ndarray, np.ndarray | None]
"""keys: (n,) int64, increasing, level_j * q_k + level_k; data: (n, k_j, k_k) float64, None where every sum is 1."""


def pairs_of_terms(n_levels: Sequence[int]) -> list[tuple[int, int]]:
    """All pairs of terms, each with the term of more levels first, by whose levels its sums are sorted."""
    pairs = [(j, k) for k in range(len(n_levels)) for j in range(k)]
    return [(j, k) if n_levels[j] >= n_levels[k] else (k, j) for j, k in pairs]


@dataclass(frozen=True, slots=True)
class PairSums:
    """Z_j'W Z_k by pairs of levels, in runs that are yet to be added up.

    n_levels: (q_j, q_k); widths: (k_j, k_k); edges: first level of term j of each range, and the end;
    ranges: the runs of each range, in the order of rows.
    """

    n_levels: tuple[int, int]
    widths: tuple[int, int]
    edges: tuple[int, ...]
    ranges: tuple[tuple[Run, ...], ...]

    @property
    def nbytes(self) -> int:
        return sum(keys.nbytes + (0 if data is None else data.nbytes) for runs in self.ranges for keys, data in runs)

    def merge(self, other: PairSums) -> PairSums:
        """Sums over both sets of rows, those of self first."""
        joined = replace(self, ranges=tuple(a + b for a, b in zip(self.ranges, other.ranges, strict=True)))
        return joined.added_up() if any(_crowded(runs, PENDING) for runs in joined.ranges) else joined

    def added_up(self) -> PairSums:
        """The same with one run per range."""
        return replace(self, ranges=tuple((run,) for run in in_order(self._run, len(self.ranges))))

    def total(self) -> tuple[np.ndarray, np.ndarray]:
        """((nnz,) int64, (nnz, k_j, k_k)) keys, increasing, and sums."""
        runs = [run for (run,) in self.added_up().ranges]
        return np.concatenate([keys for keys, _ in runs]), self._data([(len(keys), data) for keys, data in runs])

    def subtract(self, other: PairSums) -> PairSums:
        """Sums without the rows of `other`; pairs of which only rounding is left are removed."""
        (keys, data), (less_keys, less_data) = self.total(), other.total()
        places = np.searchsorted(keys, less_keys)
        before = np.abs(data).max(axis=(1, 2), initial=0.0)
        data[places] -= less_data
        left = np.abs(data).max(axis=(1, 2), initial=0.0) > 1e-12 * before
        return replace(self, ranges=_cut([(keys[left], data[left])], self.edges, self.n_levels[1]))

    def parts(self, count: int) -> list[PairSums]:
        """About ``count`` parts of consecutive ranges."""
        bounds = [len(self.ranges) * i // count for i in range(count + 1)]
        return [replace(self, edges=self.edges[a : b + 1], ranges=self.ranges[a:b]) for a, b in pairwise(bounds)]

    @staticmethod
    def joined(parts: Sequence[PairSums]) -> PairSums:
        """`parts` undone."""
        edges = (parts[0].edges[0], *(edge for part in parts for edge in part.edges[1:]))
        return replace(parts[0], edges=edges, ranges=tuple(runs for part in parts for runs in part.ranges))

    def block(self) -> CrossBlock:
        """Block-CSR over the levels of term j from edges[0] to edges[-1]."""
        first = self.edges[0]
        indptr = np.zeros(self.edges[-1] - first + 1, np.int64)

        def piece(number: int) -> tuple[np.ndarray, np.ndarray | None]:
            keys, data = self._run(number)
            indices = np.empty(len(keys), np.int32)
            begin, end = self.edges[number : number + 2]
            kernels.split_keys(keys, begin, self.n_levels[1], indptr[begin - first + 1 : end - first + 1], indices)
            return indices, data

        pieces = list(in_order(piece, len(self.ranges)))
        np.cumsum(indptr, out=indptr)
        data = self._data([(len(indices), data) for indices, data in pieces])
        return CrossBlock(indptr, np.concatenate([indices for indices, _ in pieces]), data)

    def _data(self, pieces: Sequence[tuple[int, np.ndarray | None]]) -> np.ndarray:
        """(nnz, k_j, k_k) the sums of all pieces, (entries, sums or None) each."""
        if all(data is None for _, data in pieces):
            return np.ones((sum(n for n, _ in pieces), *self.widths))
        return np.concatenate([np.ones((n, *self.widths)) if data is None else data for n, data in pieces])

    def _run(self, number: int) -> Run:
        low, high = (edge * self.n_levels[1] for edge in self.edges[number : number + 2])
        return add_up(self.ranges[number], low, high)


class PairBuffer:
    """The mutable form while a lane is folded: a dense table or a stack of sorted runs, chosen by size."""

    def __init__(self, n_levels: tuple[int, int], widths: tuple[int, int], dense_bytes: int = DENSE_BYTES):
        self.n_levels, self.widths = n_levels, widths
        self.entries = n_levels[0] * n_levels[1]
        self.table = None
        if self.entries * widths[0] * widths[1] * 8 <= dense_bytes:
            self.table = np.zeros((self.entries, widths[0], widths[1]))
        self.runs: list[Run] = []
        self.bits = max(1, int(self.entries - 1).bit_length())

    def add(self, first: np.ndarray, second: np.ndarray, z_first: np.ndarray, z_second: np.ndarray) -> None:
        """Add rows with levels first, second (n,) and covariates z_first (k_j, n) (weighted), z_second (k_k, n)."""
        if self.table is not None:
            kernels.add_to_table(first, second, self.n_levels[1], z_first, z_second, self.table)
            return
        for start in range(0, len(first), RUN_ROWS):
            part = slice(start, start + RUN_ROWS)
            keys = kernels.pair_keys(first[part], second[part], self.n_levels[1])
            ordered, rows = kernels.radix_sort(keys, self.bits)
            self._push(kernels.collapse(ordered, rows, z_first[:, part], z_second[:, part]))

    def add_counts(self, first: np.ndarray, second: np.ndarray) -> None:
        """Add rows of two scalar constants without weights: their sums are counts."""
        if self.table is not None:
            kernels.count_in_table(first, second, self.n_levels[1], self.table.reshape(-1))
            return
        for start in range(0, len(first), RUN_ROWS):
            part = slice(start, start + RUN_ROWS)
            keys = kernels.pair_keys(first[part], second[part], self.n_levels[1])
            self._push(_counted(kernels.radix_sort_keys(keys, self.bits)))

    def freeze(self) -> PairSums:
        if self.table is not None:
            keys = np.flatnonzero(np.any(self.table != 0.0, axis=(1, 2))).astype(np.int64)
            return PairSums(self.n_levels, self.widths, (0, self.n_levels[0]), (((keys, self.table[keys]),),))
        count = min(RANGES, self.n_levels[0])
        edges = tuple(self.n_levels[0] * i // count for i in range(count + 1))
        return PairSums(self.n_levels, self.widths, edges, _cut(self.runs, edges, self.n_levels[1]))

    def _push(self, run: Run) -> None:
        runs = self.runs
        runs.append(run)
        while len(runs) > 1 and len(runs[-1][0]) < SHORT and len(runs[-2][0]) < 2 * len(runs[-1][0]):
            runs[-2:] = [add_up(runs[-2:], 0, self.entries)]
        if _crowded(runs, RANGES * PENDING):
            runs[:] = [add_up(runs, 0, self.entries)]


def add_up(runs: Sequence[Run], low: int, high: int) -> Run:
    """One run of the runs' entries, low <= key < high; blocks of a common key are added in the order of the runs."""
    if len(runs) == 1:
        return runs[0]
    keys = np.concatenate([keys for keys, _ in runs]) - low if runs else np.empty(0, np.int64)
    bits = max(1, int(high - low - 1).bit_length())
    if all(data is None for _, data in runs):
        distinct, data = _counted(kernels.radix_sort_keys(keys, bits))
    else:
        ordered, places = kernels.radix_sort(keys, bits)
        blocks = np.concatenate([np.ones((len(k), 1, 1)) if data is None else data for k, data in runs])
        distinct, data = kernels.collapse_blocks(ordered, places, blocks)
    return distinct + low, data


def _counted(ordered: np.ndarray) -> Run:
    """The run of sorted keys that count one each."""
    distinct, counts = kernels.collapse_counts(ordered)
    return distinct, None if len(distinct) == len(ordered) else counts.reshape(-1, 1, 1)


def _crowded(runs: Sequence[Run], pending: int) -> bool:
    """Whether adding up is due: each entry is then handled O(log) times, however often its pair comes."""
    lengths = [len(keys) for keys, _ in runs]
    return sum(lengths) > pending and sum(lengths) >= 2 * max(lengths)


def _cut(runs: Sequence[Run], edges: Sequence[int], n_second: int) -> tuple[tuple[Run, ...], ...]:
    """Each run at the edges; ranges without entries of a run have none of it."""
    ranges: list[list[Run]] = [[] for _ in edges[1:]]
    limits = np.array(edges, np.int64) * n_second
    for keys, data in runs:
        for mine, (a, b) in zip(ranges, pairwise(np.searchsorted(keys, limits)), strict=True):
            if a < b:
                mine.append((keys[a:b], None if data is None else data[a:b]))
    return tuple(map(tuple, ranges))
