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
from bigmm.accumulate.kernels import read_only
from bigmm.blocks.gram import CrossBlock
from bigmm.blocks.parallel import in_order

DENSE_BYTES = 16 << 20
RUN_ROWS = 1 << 19
RANGES = 64
"""Ranges of levels that are added up independently."""
PENDING = 1 << 18
"""Entries per range from which runs that hold pairs again and again are added up before the end of the pass."""
SHORT = 1 << 16
"""Entries below which a run is added to the run before it: partitions with few rows must not leave thousands."""

Run = tuple[np.ndarray, np.ndarray | None]
"""keys: (n,) int64, increasing, level_j * q_k + level_k; data: (n, k_j, k_k) float64, None where every sum is 1."""


def pairs_of_terms(n_levels: Sequence[int]) -> list[tuple[int, int]]:
    """All pairs of terms, each with the term of more levels first, by whose levels its sums are sorted."""
    pairs = [(j, k) for k in range(len(n_levels)) for j in range(k)]
    return [(j, k) if n_levels[j] >= n_levels[k] else (k, j) for j, k in pairs]


@dataclass(frozen=True, slots=True)
class PairSums:
    """Z_j'W Z_k by pairs of levels, in runs that are yet to be added up.

    Attributes
    ----------
    n_levels, widths: (q_j, q_k) and (k_j, k_k).
    edges: first level of term j of each range, and the end.
    ranges: the runs of each range, in the order of rows.
    """

    n_levels: tuple[int, int]
    widths: tuple[int, int]
    edges: tuple[int, ...]
    ranges: tuple[tuple[Run, ...], ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all runs."""
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
        keys, data = _concatenated(runs, self.widths)
        return keys, np.ones((len(keys), *self.widths)) if data is None else data

    def subtract(self, other: PairSums) -> PairSums:
        """Sums without the rows of `other`; pairs of which only rounding is left are removed."""
        (keys, data), (less_keys, less_data) = self.total(), other.total()
        places = np.searchsorted(keys, less_keys)
        before = np.abs(data).max(axis=(1, 2), initial=0.0)
        data[places] -= less_data
        nonzero = np.abs(data).max(axis=(1, 2), initial=0.0) > 1e-12 * before
        return replace(self, ranges=_cut([(keys[nonzero], data[nonzero])], self.edges, self.n_levels[1]))

    def parts(self, count: int) -> list[PairSums]:
        """About ``count`` parts of consecutive ranges."""
        bounds = [len(self.ranges) * i // count for i in range(count + 1)]
        return [replace(self, edges=self.edges[a : b + 1], ranges=self.ranges[a:b]) for a, b in pairwise(bounds)]

    def rows(self) -> PairRows:
        """The sums by levels of term j, from edges[0] to edges[-1]."""
        first, q_k = self.edges[0], self.n_levels[1]
        counts = np.zeros(self.edges[-1] - first, np.int64)

        def of_range(number: int) -> tuple[np.ndarray, np.ndarray | None]:
            keys, data = self._run(number)
            indices = np.empty(len(keys), np.int32)
            begin, end = self.edges[number : number + 2]
            kernels.split_keys(keys, begin, q_k, counts[begin - first : end - first], indices)
            return indices, data

        pieces = list(in_order(of_range, len(self.ranges)))
        return PairRows(self.n_levels, self.widths, counts, *_concatenated(pieces, self.widths))

    def block(self) -> CrossBlock:
        """Block-CSR over the levels of term j."""
        return self.rows().block()

    def _run(self, number: int) -> Run:
        low, high = (edge * self.n_levels[1] for edge in self.edges[number : number + 2])
        return add_up(self.ranges[number], low, high)


@dataclass(frozen=True, slots=True)
class PairRows:
    """Z_j'W Z_k, added up, by consecutive levels of term j.

    counts: (levels,) int64 entries of each level; indices: (nnz,) int32 level of term k, increasing within a level of
    term j; data: (nnz, k_j, k_k) float64, None where every sum is 1.
    """

    n_levels: tuple[int, int]
    widths: tuple[int, int]
    counts: np.ndarray
    indices: np.ndarray
    data: np.ndarray | None

    @staticmethod
    def joined(parts: Sequence[PairRows]) -> PairRows:
        """All levels from those of the parts, in order."""
        entries = _concatenated([(part.indices, part.data) for part in parts], parts[0].widths)
        return PairRows(parts[0].n_levels, parts[0].widths, np.concatenate([part.counts for part in parts]), *entries)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return self.counts.nbytes + self.indices.nbytes + (0 if self.data is None else self.data.nbytes)

    def block(self) -> CrossBlock:
        """The same as block-CSR."""
        indptr = np.zeros(len(self.counts) + 1, np.int64)
        np.cumsum(self.counts, out=indptr[1:])
        data = np.ones((len(self.indices), *self.widths)) if self.data is None else self.data
        return CrossBlock(indptr, self.indices, data)


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
        first, second = read_only(first), read_only(second)
        if self.table is not None:
            kernels.add_to_table(first, second, self.n_levels[1], z_first, z_second, self.table)
            return
        for start in range(0, len(first), RUN_ROWS):
            part = slice(start, start + RUN_ROWS)
            keys = kernels.pair_keys(first[part], second[part], self.n_levels[1])
            ordered, rows = kernels.radix_sort(keys, self.bits)
            covariates = (np.ascontiguousarray(z[:, part]) for z in (z_first, z_second))
            self._push(kernels.collapse(ordered, rows, *covariates))

    def add_counts(self, first: np.ndarray, second: np.ndarray) -> None:
        """Add rows of two scalar constants without weights: their sums are counts."""
        first, second = read_only(first), read_only(second)
        if self.table is not None:
            kernels.count_in_table(first, second, self.n_levels[1], self.table.reshape(-1))
            return
        for start in range(0, len(first), RUN_ROWS):
            part = slice(start, start + RUN_ROWS)
            keys = kernels.pair_keys(first[part], second[part], self.n_levels[1])
            self._push(_counted(kernels.radix_sort_keys(keys, self.bits)))

    def freeze(self) -> PairSums:
        """The sums, cut into ranges of levels; the buffer is not used after it."""
        if self.table is not None:
            keys = np.flatnonzero(np.any(self.table != 0.0, axis=(1, 2))).astype(np.int64)
            return PairSums(self.n_levels, self.widths, (0, self.n_levels[0]), (((keys, self.table[keys]),),))
        count = min(RANGES, self.n_levels[0])
        edges = tuple(self.n_levels[0] * i // count for i in range(count + 1))
        return PairSums(self.n_levels, self.widths, edges, _cut(self.runs, edges, self.n_levels[1]))

    def _push(self, run: Run) -> None:
        runs = self.runs
        runs.append(run)
        # Lengths at least halve from run to run, so that an entry is merged a logarithmic number of times.
        while len(runs) > 1 and len(runs[-1][0]) < SHORT and len(runs[-2][0]) < 2 * len(runs[-1][0]):
            runs[-2:] = [add_up(runs[-2:], 0, self.entries)]
        if _crowded(runs, RANGES * PENDING):
            runs[:] = [add_up(runs, 0, self.entries)]


def add_up(runs: Sequence[Run], low: int, high: int) -> Run:
    """One run of the runs' entries, low <= key < high; blocks of a common key are added in the order of the runs."""
    # A single run is sorted, and its keys are distinct.
    if len(runs) == 1:
        return runs[0]
    keys = np.concatenate([keys for keys, _ in runs]) - low if runs else np.empty(0, np.int64)
    # Keys count from the start of the range: fewer bits are fewer passes of the sort.
    bits = max(1, int(high - low - 1).bit_length())
    if all(data is None for _, data in runs):
        distinct, data = _counted(kernels.radix_sort_keys(keys, bits))
    else:
        ordered, places = kernels.radix_sort(keys, bits)
        blocks = np.concatenate([np.ones((len(k), 1, 1)) if data is None else data for k, data in runs])
        distinct, data = kernels.collapse_blocks(ordered, places, blocks)
    return distinct + low, data


def _concatenated(
    pieces: Sequence[tuple[np.ndarray, np.ndarray | None]], widths: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray | None]:
    """All entries, and their sums; None where every sum of every piece is 1."""
    entries = np.concatenate([piece for piece, _ in pieces])
    if all(data is None for _, data in pieces):
        return entries, None
    return entries, np.concatenate([np.ones((len(piece), *widths)) if data is None else data for piece, data in pieces])


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
