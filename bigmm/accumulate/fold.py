"""One lane of partitions -> `CrossProducts`: the pass over the rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import pyarrow as pa

from bigmm.accumulate.crossproducts import CrossProducts
from bigmm.accumulate.kernels import ChunkRows, add_rows, count_levels, read_only, zero_records
from bigmm.accumulate.pairs import DENSE_BYTES, PairBuffer, pairs_of_terms
from bigmm.accumulate.shift import Shift, as_shift
from bigmm.design.layout import DesignChunk, JointTerm, Layout
from bigmm.errors import DataError
from bigmm.execute.lanes import Lane
from bigmm.source.partition import Source

_NONE = read_only(np.empty(0))
# Below this many levels per row of a chunk a term is summed chunk by chunk, which keeps rounding errors small.
_FEW_LEVELS = 1 / 16


class Encoder(Protocol):
    """What the fold needs of a `DesignSpec`."""

    @property
    def layout(self) -> Layout:
        """The columns, terms and groupings that a chunk has."""
        ...

    @property
    def used_columns(self) -> tuple[str, ...]:
        """Names of the columns of a table to read."""
        ...

    def encode(self, table: pa.Table, where: str) -> DesignChunk:
        """The rows of a table as numbers; where names the table in messages."""
        ...


def fold_lane(
    source: Source, spec: Encoder, shift: Shift | np.ndarray, lane: Lane, tick: Callable[[int], object]
) -> CrossProducts:
    """Read the lane's partitions in order and sum them; ``tick(rows)`` after each. Raises DataError, ReadError."""
    accumulator = Accumulator(spec.layout, shift)
    for partition in lane.partitions:
        accumulator.add(spec.encode(source.read(partition, spec.used_columns), partition.where))
        tick(partition.rows)
    return accumulator.freeze()


class Accumulator:
    """The buffers of one lane; `add` mutates them, `freeze` hands them over; without ``pairs`` none are summed."""

    def __init__(self, layout: Layout, shift: Shift | np.ndarray, dense_bytes: int = DENSE_BYTES, pairs: bool = True):
        self.layout, self.how, self.terms = layout, as_shift(layout, shift), layout.joint
        self.shift, self.covariates = np.ascontiguousarray(self.how.plain), self.how.covariates
        m = len(self.shift)
        sizes = [term.n_levels for term in self.terms]
        self.high, self.low = np.zeros((m, m)), np.zeros((m, m))
        self.records = [zero_records(q, term.width, m) for q, term in zip(sizes, self.terms)]
        self.counts = [np.zeros(q, np.int64) for q in sizes]
        widths = [term.width for term in self.terms]
        self.pairs = {
            (j, k): PairBuffer((sizes[j], sizes[k]), (widths[j], widths[k]), dense_bytes)
            for j, k in pairs_of_terms(sizes if pairs else ())
        }
        self.n = self.rows_read = 0
        self.dropped: dict[str, int] = {}
        self.sum_log_w = 0.0
        self.weighted = False

    def add(self, chunk: DesignChunk) -> None:
        """Add the rows of a chunk; rows of weight zero count as read only."""
        self.rows_read += chunk.rows_read
        for name, rows in chunk.dropped:
            self.dropped[name] = self.dropped.get(name, 0) + rows
        chunk = without_zero_weights(chunk)
        if chunk.rows == 0:
            return
        _check_levels(chunk, self.layout)
        chunk = self.how.prepared(chunk)
        self.n += chunk.rows
        self.weighted = chunk.w is not None
        if chunk.w is not None:
            self.sum_log_w += float(np.log(chunk.w).sum())
        self._add_rows(chunk)
        self._add_pairs(chunk)

    def _add_rows(self, chunk: DesignChunk) -> None:
        columns = read_only(np.ascontiguousarray(chunk.columns))
        offset, w = (_NONE if a is None else read_only(a) for a in (chunk.offset, chunk.w))
        rows = ChunkRows(columns, read_only(chunk.y), offset, w, self.shift)
        if not self.terms:
            nothing = read_only(np.empty(0, np.int32)), np.empty(0, np.int64), np.empty((0, 0, len(self.shift)))
            add_rows(rows, True, self.high, self.low, False, *nothing)
        for j, term in enumerate(self.terms):
            refs, record = read_only(chunk.refs[term.grouping]), self.records[j]
            few = len(record) <= _FEW_LEVELS * chunk.rows
            target = zero_records(len(record), len(self.covariates[j]), len(self.shift)) if few else record
            # The Gram matrix comes along with the first term, while a block is in the cache.
            add_rows(rows, j == 0, self.high, self.low, True, refs, self.covariates[j], target)
            if few:
                record += target
            if not self._counts_are_in_records(term):
                count_levels(refs, self.counts[j])

    def _counts_are_in_records(self, term: JointTerm) -> bool:
        """Without weights the sum of 1 * 1 is the count, exactly."""
        return not self.weighted and term.covariates[0] == 0

    def _add_pairs(self, chunk: DesignChunk) -> None:
        plain = {}
        weighted = {}
        for j, k in self.pairs:
            scalar_counts = chunk.w is None and self.terms[j].covariates == self.terms[k].covariates == (0,)
            refs_j, refs_k = chunk.refs[self.terms[j].grouping], chunk.refs[self.terms[k].grouping]
            if scalar_counts:
                self.pairs[j, k].add_counts(refs_j, refs_k)
                continue
            if j not in weighted:
                weighted[j] = self._covariate_rows(chunk, j, chunk.w)
            # The weight goes to one side alone: w z_j z_k'.
            if k not in plain:
                plain[k] = self._covariate_rows(chunk, k, None)
            self.pairs[j, k].add(refs_j, refs_k, weighted[j], plain[k])

    def _covariate_rows(self, chunk: DesignChunk, j: int, w: np.ndarray | None) -> np.ndarray:
        """(k, n) shifted covariates of joint term j, times w."""
        rows = np.ones((len(self.covariates[j]), chunk.rows))
        for row, column in zip(rows, self.covariates[j]):
            if column:
                np.subtract(chunk.columns[column - 1], self.shift[column], out=row)
            if w is not None:
                row *= w
        return rows

    def freeze(self) -> CrossProducts:
        """The sums; the buffers now belong to them."""
        # The rounding errors of all blocks are added once, at the end.
        gram = self.high + self.low
        gram = np.triu(gram) + np.triu(gram, 1).T
        counts = tuple(
            record[:, 0, 0].astype(np.int64) if self._counts_are_in_records(term) else count
            for term, record, count in zip(self.terms, self.records, self.counts)
        )
        pairs = {key: buffer.freeze() for key, buffer in self.pairs.items()}
        return CrossProducts(
            gram,
            self.how,
            tuple(self.records),
            counts,
            pairs,
            self.n,
            self.rows_read,
            self.dropped,
            self.sum_log_w,
        )


def without_zero_weights(chunk: DesignChunk) -> DesignChunk:
    """The chunk itself, or without the rows that count for nothing but as read."""
    if chunk.w is None or chunk.w.all():
        return chunk
    keep = chunk.w != 0.0
    return DesignChunk(
        chunk.columns[:, keep],
        chunk.y[keep],
        tuple(refs[keep] for refs in chunk.refs),
        chunk.w[keep],
        None if chunk.offset is None else chunk.offset[keep],
        chunk.rows_read,
        chunk.dropped,
    )


def _check_levels(chunk: DesignChunk, layout: Layout) -> None:
    """A level number outside the table would write over foreign memory in a kernel."""
    for grouping, refs in zip(layout.groupings, chunk.refs):
        if refs.min() < 0 or refs.max() >= grouping.n_levels:
            raise DataError(
                f"grouping factor '{grouping.name}' has a level that was not there when levels were learned; "
                "the data changed during the fit: run it again"
            )
