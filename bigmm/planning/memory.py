"""The memory model: bytes of the arrays that a fit holds, as functions of sizes.

Every formula of bytes stands in this file, and says which arrays it counts. A grouping factor has q levels and k
covariates per level. X has p columns, and y is one more, so that a row of [X y] has m = p + 1 numbers. The columns of a
layout are the different ones of X and of all Z, without y. Numbers are float64 (8 bytes), counts int64, and level
numbers int32, if nothing else is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from bigmm.accumulate.kernels import padded
from bigmm.accumulate.pairs import DENSE_BYTES
from bigmm.design.layout import Layout
from bigmm.objective.solvers import FIRST_DEFLATION, FIRST_PROBES

VECTORS = FIRST_PROBES + FIRST_DEFLATION
"""Probes and deflation vectors that the iterative solver starts with."""

# Reading

TEXT_COPIES = 8
"""Reading a piece of text, and learning its values, takes so many times its bytes: the piece as it is stored and
decompressed, Arrow's table of distinct values, which grows by doubling, and the columns and levels that are made of it
(measured: 4.3 for Arrow alone, 7.3 in all)."""


def reading_bytes(rows: int, n_columns: int, text: int) -> int:
    """Bytes of some columns of a partition while it is read: 8 bytes for each value, and the large pieces of text.

    text: bytes of the pieces of text that are large, as they are stored.
    """
    return 8 * rows * n_columns + TEXT_COPIES * text


# The pass over the rows


def accumulator_bytes(layout: Layout, rows: int = 0) -> int:
    """Bytes of one accumulator of the pass.

    It has the cross-products of all columns (c, c), and for each joint term a record of sums (q, k, c), whose rows are
    padded, and counts (q,). The sums of a pair of terms stand in a table (q_j, q_k, k_j, k_k) where that is small.

    Parameters
    ----------
    rows: a bound of the number of different pairs of levels that meet, for pairs of terms without a table. Each such
        pair is counted as two keys and two blocks, because sorted runs are added up into a new run.
    """
    c = len(layout.columns) + 1
    total = 8 * c * c + sum(8 * term.n_levels * (term.width * padded(c) + 1) for term in layout.joint)
    for pairs, numbers in _pairs(layout):
        total += 8 * pairs * numbers if _has_table(pairs, numbers) else 16 * min(rows, pairs) * (1 + numbers)
    return total


def run_bytes(layout: Layout, rows: int) -> int:
    """Bytes of the sorted runs of pairs that have no table, at the end of a pass, when all of them are added up."""
    return accumulator_bytes(layout, rows) - accumulator_bytes(layout)


def has_many_pairs(layout: Layout) -> bool:
    """Whether the pairs of levels of some two terms are too many for a table."""
    return not all(_has_table(pairs, numbers) for pairs, numbers in _pairs(layout))


def pass_bytes(layout: Layout, partition: int, partitions: int, rows: int, n_workers: int) -> int:
    """Peak of the pass of a linear model, whose blocks are made in this process.

    Every worker has a partition and an accumulator. Three more accumulators wait in the tree of merges. The runs of
    pairs of all lanes are there at once.

    Parameters
    ----------
    partition: bytes of the largest partition as a table and as encoded columns, see `partition_bytes`.
    """
    at_once = min(n_workers, max(partitions, 1))
    return at_once * partition + (at_once + 3) * accumulator_bytes(layout) + run_bytes(layout, rows)


def partition_bytes(layout: Layout, table: int, rows: int) -> int:
    """Bytes of a partition: its table, and its encoded columns with y and one more number per row."""
    return table + 8 * rows * (len(layout.columns) + 2)


# The blocks of A = [Z X y]'W[Z X y] in this process, and an evaluation by them


def effects(layout: Layout) -> int:
    """Number of random effects, and of coefficients of fixed factors that are kept as levels."""
    return sum(term.n_levels * term.width for term in layout.joint)


def cross_bytes(pairs: int, numbers: int) -> int:
    """Bytes of a cross block: for each pair of levels that meet its numbers, an index, and the index of the transposed
    block with its position."""
    return pairs * (8 * numbers + 16)


def level_bytes(levels: int, width: int, m: int) -> int:
    """Bytes of the blocks of a term that is eliminated level by level: the diagonal block (q, k, k) and its factor, and
    the coupling with [X y] (q, k, m)."""
    return 8 * levels * width * (2 * width + m)


def exact_bytes(tail: int, sparse: int, levels: int) -> int:
    """Bytes of an exact evaluation beside A.

    Parameters
    ----------
    tail: columns of the dense tail. The tail, its factor, its inverse and two products are (tail, tail).
    sparse: bytes of the cross blocks, which are there four times: couplings and their solutions, both ways round.
    levels: bytes of the blocks that are eliminated level by level, which are there twice: factor and selected inverse.
    """
    return 5 * 8 * tail * tail + 4 * sparse + 2 * levels


def iterative_bytes(sparse: int, n_effects: int, m: int) -> int:
    """Bytes of an iterative evaluation beside A.

    The cross blocks are there twice more, as scaled blocks with their tables of indices. Conjugate gradients have six
    vectors of all random effects for each probe and each deflation vector, and one for each column of [X y]
    (70 MiB for a million ratings; 85 MiB were measured).
    """
    return 2 * sparse + 8 * n_effects * (6 * VECTORS + m)


def stage_bytes(levels: int, width: int, p: int) -> int:
    """Bytes of the part of the Cholesky factor that a term has which is eliminated level by level: its diagonal block,
    factor and inverse (q, k, k), and its coupling with [X y] before and after elimination (q, k, p + 1)."""
    return 8 * levels * width * (3 * width + 2 * (p + 1))


def tail_bytes(levels: int, width: int) -> int:
    """Bytes of the part of the Cholesky factor that a term has in the dense tail."""
    return 8 * (levels * width) ** 2


def applied_bytes(pairs: int) -> int:
    """Bytes of what is applied, and never formed, of a term with so many pairs of levels: scaled numbers and indices of
    three copies."""
    return 48 * pairs


def driver_bytes(layout: Layout, n_workers: int) -> int:
    """Peak of holding all levels of nested factors in this process: the sums of the workers and of the tree of merges,
    or the blocks and their factor (measured: 165 bytes per level for y ~ x + (1 | g), 480 for three nested
    intercepts)."""
    c = len(layout.columns) + 1
    records = sum(8 * term.n_levels * (term.width * padded(c) + 1) for term in layout.joint)
    return max((n_workers + 3) * min(records, accumulator_bytes(layout)), _nested_blocks(layout))


def _nested_blocks(layout: Layout) -> int:
    """A twice, its factor, the selected inverse and modes; and what each level has with the levels that contain it."""
    m, total = len(layout.fixed_names) + 1, 0
    for number, term in enumerate(layout.joint):
        k, above = term.width, sum(larger.width for larger in layout.joint[number + 1 :])
        total += term.n_levels * (8 * (4 * k * (k + m) + 5 * k) + above * 8 * (8 * k + 5))
    return total


# Rows and sums that stay in shards

SHUFFLE_COPIES = 4
"""Making shards in memory takes so many times the bytes of the shards: chunks, pieces and shards are there before
memory that was given back is used again."""
WORKING_COPIES = 4
"""Summing or evaluating a shard takes so many times the bytes of its rows or sums."""


def row_bytes(n_columns: int, n_groupings: int, weighted: bool, with_offset: bool) -> int:
    """Bytes of one row in a shard: columns without the constant, y, weight, offset, and level numbers."""
    return 8 * (n_columns - 1 + 1 + weighted + with_offset) + 4 * n_groupings


def pattern_bytes(terms: int) -> int:
    """Bytes that crossed terms add to a row of a shard: numbers of its levels among those with rows, and for each pair
    of terms the entry of the block that the row adds to."""
    return 4 * terms + 4 * terms * (terms - 1) // 2


def label_bytes(layout: Layout) -> int:
    """Bytes of the driver's dictionaries of levels."""
    return sum(8 * grouping.n_levels for grouping in layout.groupings)


def level_sums_bytes(layout: Layout) -> int:
    """Bytes of all sums per level in shards, wherever they are."""
    return sum(record_bytes(term.n_levels, term.width, len(layout.columns) + 1) for term in layout.joint)


def record_bytes(levels: int, width: int, c: int) -> int:
    """Bytes of the sums of a factor in shards: a record (k, c) and two numbers (level and parent, int32) per level."""
    return levels * (8 * width * c + 8)


def shard_work_bytes(nbytes: int, n_shards: int) -> int:
    """Bytes of working with shards that are `nbytes` / `n_shards` large."""
    return WORKING_COPIES * nbytes // n_shards


def gathered_bytes(levels: Sequence[int], widths: Sequence[int], m: int) -> int:
    """Bytes of gathering the blocks of nested factors, finest first, from the shards: those of the shards, and those
    that are joined of them. A level has its diagonal block and its coupling with [X y], both with a copy, and its
    blocks with the levels that contain it, with their indices."""
    total = 0
    for term, (q, k) in enumerate(zip(levels, widths, strict=True)):
        total += 2 * q * 8 * k * (2 * k + 2 * m + 3 * sum(widths[term + 1 :]))
    return total


def mode_bytes(levels: int, width: int) -> int:
    """Bytes of the levels of a factor that only shards have: modes (q, k), and what a level knows of its parent."""
    return levels * (8 * width + 16)


def working_sums_bytes(layout: Layout, entries: int, pairs: int) -> int:
    """Bytes of the working sums of all shards of a generalized model with crossed factors.

    Each level has a diagonal block (k, k), a coupling with [X y] (k, m), and three vectors (k,).

    Parameters
    ----------
    entries: numbers in all cross blocks. pairs: pairs of levels that meet, which have an index each.
    """
    m = len(layout.fixed_names) + 1
    levels = sum(8 * t.n_levels * t.width * (t.width + m + 3) for t in layout.joint)
    return levels + 8 * entries + 4 * pairs


# Matrices


def matrix_accumulator_bytes(q: int, p: int, entries: int) -> int:
    """Bytes of the sums of `lmm_from_arrays`: [Z X y]'[X y] dense, and Z'Z sparse with a number and an index for each
    entry. Z'Z is taken to have about as many entries as Z has, and at most (q, q)."""
    # 12 bytes for each entry of Z'Z: a number of 8 and an index of 4.
    return 8 * (q + p + 1) * (p + 1) + 12 * q * min(q, max(1, entries // max(q, 1)))


def matrix_pass_bytes(q: int, p: int, largest: int, partitions: int, n_workers: int) -> int:
    """Peak of the pass over matrices: per worker three copies of a chunk (read, weighted, multiplied), and the dense
    sums of the workers and of the tree of merges."""
    return min(n_workers, partitions) * 3 * largest + 8 * (q + p + 1) * (p + 1) * (n_workers + 3)


def matrix_solver_bytes(factor: int) -> int:
    """Bytes of an evaluation of `lmm_from_arrays`: M, its factor, and the two products that make M."""
    return 4 * factor


def _pairs(layout: Layout) -> list[tuple[int, int]]:
    """(pairs of levels, numbers per pair) of each two joint terms."""
    return [(a.n_levels * b.n_levels, a.width * b.width) for a, b in combinations(layout.joint, 2)]


def _has_table(pairs: int, numbers: int) -> bool:
    return 8 * pairs * numbers <= DENSE_BYTES
