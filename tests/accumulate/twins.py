"""What the kernels compute, in plain NumPy, and models made by hand."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

from bigmm.accumulate.crossproducts import CrossProducts
from bigmm.accumulate.fold import Accumulator
from bigmm.design.layout import DesignChunk, FixedFactor, Grouping, Layout, RandomTerm


def add_rows(rows, with_gram, high, low, with_records, refs, covariates, records):
    """Twin of `kernels.add_rows` (the full symmetric matrix goes to `high`)."""
    columns, y, offset, w, shift = rows
    v = rows_of(columns, y, offset, shift)
    weighted = v * (w if len(w) else np.ones(len(y)))[:, None]
    if with_gram:
        high += v.T @ weighted
    if with_records:
        for a, c in enumerate(covariates):
            np.add.at(records[:, a], refs, v[:, [c]] * weighted)


def rows_of(columns, y, offset, shift):
    """(n, m) shifted rows."""
    response = y - offset if len(offset) else y
    return np.column_stack([np.ones(len(y)), *columns, response]) - shift


def pair_sums(first, second, n_second, z_first, z_second):
    """{key: (k_j, k_k)} sums of z z' over rows of a pair of levels."""
    sums: dict[int, np.ndarray] = {}
    for i, key in enumerate(first.astype(np.int64) * n_second + second):
        block = np.outer(z_first[:, i], z_second[:, i])
        sums[int(key)] = sums[int(key)] + block if int(key) in sums else block
    return dict(sorted(sums.items()))


@dataclass(frozen=True)
class Model:
    """A layout with data for it, and its model matrices written out: X (n, p), Z per joint term (n, q * k), w (n,)."""

    layout: Layout
    chunk: DesignChunk

    @property
    def w(self):
        return np.ones(self.chunk.rows) if self.chunk.w is None else self.chunk.w

    @property
    def y(self):
        return self.chunk.y if self.chunk.offset is None else self.chunk.y - self.chunk.offset

    def column(self, c):
        return np.ones(self.chunk.rows) if c == 0 else self.chunk.columns[c - 1]

    def x(self):
        x = np.zeros((self.chunk.rows, len(self.layout.fixed_names)))
        for i, c in enumerate(self.layout.fixed_columns):
            if c >= 0:
                x[:, i] = self.column(c)
        for factor in self.layout.fixed_factors:
            rows = factor.contrast[self.chunk.refs[factor.grouping]]
            x[:, list(factor.positions)] = self.column(factor.covariate)[:, None] * rows
        return x

    def z(self, j):
        """(n, q, k) of joint term j, dense."""
        term = self.layout.joint[j]
        z = np.zeros((self.chunk.rows, term.n_levels, term.width))
        for a, c in enumerate(term.covariates):
            z[np.arange(self.chunk.rows), self.chunk.refs[term.grouping], a] = self.column(c)
        return z


def make_layout(columns, fixed, terms, levels, *, one=None, factors=(), response="y"):
    """columns: names after "1"; fixed: column numbers of dense coefficients; terms: (grouping, covariates);

    levels: number per grouping; factors: (grouping, covariate, contrast), their coefficients follow the dense ones.
    """
    groupings = tuple(
        Grouping(f"g{i}", (f"g{i}",), np.array([f"l{v}" for v in range(q)])) for i, q in enumerate(levels)
    )
    names = ("1", *columns)
    fixed_names = [names[c] if c else "Intercept" for c in fixed]
    fixed_columns = list(fixed)
    made = []
    for grouping, covariate, contrast in factors:
        start = len(fixed_names)
        positions = tuple(range(start, start + contrast.shape[1]))
        fixed_names += [f"g{grouping}[{i}]" for i in range(contrast.shape[1])]
        fixed_columns += [-1] * contrast.shape[1]
        made.append(FixedFactor(grouping, covariate, contrast, positions))
    if one is None and 0 in fixed:
        one = np.zeros(len(fixed_names))
        one[list(fixed).index(0)] = 1.0
    random = tuple(RandomTerm(f"g{g}", g, tuple(c), tuple(names[i] for i in c)) for g, c in terms)
    return Layout(names, tuple(fixed_names), tuple(fixed_columns), tuple(made), random, groupings, one, response)


def make_chunk(columns, y, refs, w=None, offset=None, dropped=()):
    columns = np.ascontiguousarray(np.asarray(columns, float).reshape(len(columns), len(y)))
    refs = tuple(np.asarray(r, np.int32) for r in refs)
    rows_read = len(y) + sum(rows for _, rows in dropped)
    return DesignChunk(columns, np.asarray(y, float), refs, w, offset, rows_read, tuple(dropped))


def rows_slice(chunk, rows):
    """The chunk of some of the rows."""
    return make_chunk(
        chunk.columns[:, rows],
        chunk.y[rows],
        [r[rows] for r in chunk.refs],
        None if chunk.w is None else chunk.w[rows],
        None if chunk.offset is None else chunk.offset[rows],
    )


def accumulate(layout, chunks, shift=None, **options) -> CrossProducts:
    """One lane of ready chunks."""
    shift = np.zeros(len(layout.columns) + 1) if shift is None else shift
    accumulator = Accumulator(layout, shift, **options)
    for chunk in chunks:
        accumulator.add(chunk)
    return accumulator.freeze()


def random_model(seed, *, n=120, weighted=False, offset=False, center=0.0, intercept=True, factor=False) -> Model:
    """A model with slopes, two crossed terms, columns in X only, Z only and both."""
    rng = np.random.default_rng(seed)
    levels = (7, 11, 4)
    refs = [rng.integers(0, q, n) for q in levels]
    x = rng.normal(size=(4, n)) + center
    fixed = [0, 1, 2, 4] if intercept else [1, 2, 4]
    terms = [(1, (0, 1)), (0, (0, 3)), (0, (2,))] if seed % 2 else [(0, (0, 2, 3)), (1, (0,))]
    factors = [(2, 0, np.vstack([np.zeros(3), np.eye(3)]))] if factor else []
    layout = make_layout(("a", "b", "c", "d"), fixed, terms, levels, factors=factors)
    y = x[0] - 2 * x[3] + rng.normal(size=n) + center + refs[0] * 0.1
    chunk = make_chunk(
        x, y, refs, rng.uniform(0.5, 2.0, n) if weighted else None, rng.normal(size=n) if offset else None
    )
    return Model(layout, chunk)


class ListSource:
    """Partitions that are chunks already, for `fold_lane`; `encode` is the identity."""

    def __init__(self, layout, chunks):
        self.layout, self.chunks, self.used_columns = layout, chunks, ("a",)
        self.partitions = tuple(SimpleNamespace(index=i, rows=c.rows, where=f"part {i}") for i, c in enumerate(chunks))
        self.asked: list = []

    def read(self, partition, columns):
        self.asked.append((partition.index, tuple(columns)))
        return self.chunks[partition.index]

    def encode(self, table, where):
        return table
