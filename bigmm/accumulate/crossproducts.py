"""A = [Z X y]'W[Z X y] of some rows, in the additive form that lanes make and trees merge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bigmm.accumulate.pairs import PairRows, PairSums
from bigmm.accumulate.shift import Shift
from bigmm.errors import VersionError


@dataclass(frozen=True, slots=True)
class CrossProducts:
    """Sums over rows with weight w > 0 of v, the m numbers that a `Shift` makes of [1, columns[1:]..., y - offset].

    Attributes
    ----------
    gram: (m, m) sum of w v v'.
    shift: the shift, which is the same in all sums that are added.
    records: per joint term (order of `Layout.joint`) (q, k, >= m), sum over the rows of a level of w v[covariates] v'.
        Numbers past the first m are zeros that keep records on the boundaries of cache lines.
    counts: per joint term (q,) int64 rows of each level.
    pairs: {(j, k): PairSums} for all pairs of joint terms, the one with more levels first. They are `PairRows`, which
        are final, where workers have added them up.
    n: number of rows with a weight above zero.
    rows_read: number of rows before missing values and zero weights were dropped.
    dropped: {column: rows dropped}.
    sum_log_w: sum of log w.
    """

    gram: np.ndarray
    shift: Shift
    records: tuple[np.ndarray, ...]
    counts: tuple[np.ndarray, ...]
    pairs: Mapping[tuple[int, int], PairSums | PairRows]
    n: int
    rows_read: int
    dropped: dict[str, int]
    sum_log_w: float

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        arrays = self.gram.nbytes + sum(a.nbytes for a in (*self.records, *self.counts))
        return arrays + sum(pair.nbytes for pair in self.pairs.values())

    def merge(self, other: CrossProducts) -> CrossProducts:
        """Sums over the rows of both."""
        _check_same_layout(self, other)
        return CrossProducts(
            self.gram + other.gram,
            self.shift,
            tuple(a + b for a, b in zip(self.records, other.records)),
            tuple(a + b for a, b in zip(self.counts, other.counts)),
            {key: _open(pair).merge(_open(other.pairs[key])) for key, pair in self.pairs.items()},
            self.n + other.n,
            self.rows_read + other.rows_read,
            _add_counts(self.dropped, other.dropped, 1),
            self.sum_log_w + other.sum_log_w,
        )

    def subtract(self, other: CrossProducts) -> CrossProducts:
        """Sums without the rows of `other`, all of them among the rows of self; emptied levels become exactly zero."""
        _check_same_layout(self, other)
        counts = tuple(a - b for a, b in zip(self.counts, other.counts))
        if any((c < 0).any() for c in counts) or self.n < other.n:
            raise VersionError("cannot take rows away that were never added: some levels would have negative counts")
        records = tuple(a - b for a, b in zip(self.records, other.records))
        for record, count in zip(records, counts):
            # Differences of rounded sums are not exactly zero, and a level that comes back starts from zero.
            record[count == 0] = 0.0
        return CrossProducts(
            self.gram - other.gram,
            self.shift,
            records,
            counts,
            {key: _open(pair).subtract(_open(other.pairs[key])) for key, pair in self.pairs.items()},
            self.n - other.n,
            self.rows_read - other.rows_read,
            _add_counts(self.dropped, other.dropped, -1),
            self.sum_log_w - other.sum_log_w,
        )


def merge(first: CrossProducts, second: CrossProducts) -> CrossProducts:
    """`CrossProducts.merge` as a function, for `Executor.map_reduce`."""
    return first.merge(second)


def _check_same_layout(first: CrossProducts, second: CrossProducts) -> None:
    same = (
        first.shift.same(second.shift)
        and [r.shape for r in first.records] == [r.shape for r in second.records]
        and first.pairs.keys() == second.pairs.keys()
    )
    if not same:
        raise VersionError(
            "sums of different models cannot be combined: their columns, levels or shift differ; "
            "accumulate both with the same DesignSpec and shift"
        )


def _open(pair: PairSums | PairRows) -> PairSums:
    assert isinstance(pair, PairSums), "pairs that workers have added up are final"
    return pair


def _add_counts(first: dict[str, int], second: dict[str, int], sign: int) -> dict[str, int]:
    return {name: first.get(name, 0) + sign * second.get(name, 0) for name in {**first, **second}}
