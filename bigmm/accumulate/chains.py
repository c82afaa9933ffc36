"""The rows of whole trees of a chain of nested factors -> `NestedSums`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bigmm.accumulate.fold import Accumulator, without_zero_weights
from bigmm.accumulate.shift import Shift
from bigmm.blocks.nested import NestedSums, tree_order
from bigmm.design.layout import DesignChunk, Layout


def chain_sums(
    layout: Layout, chain: Sequence[int], shift: Shift | np.ndarray, pieces: Sequence[DesignChunk]
) -> NestedSums:
    """Sum the rows of ``pieces``, which hold whole trees, in order; chain: the joint terms, finest first.

    Levels are numbered by the rows that are here, so the records are as large as these trees, not as the model.
    """
    joined = layout.joint
    groupings = [joined[j].grouping for j in chain]
    pieces = [without_zero_weights(piece) for piece in pieces]
    refs = [np.concatenate([np.zeros(0, np.int32), *(piece.refs[g] for piece in pieces)]) for g in groupings]
    order = tree_order(refs)
    # As many numbers as rows, and the places in `order` replace them.
    del refs
    accumulator = Accumulator(_local(layout, groupings, [len(levels) for levels in order.levels]), shift, pairs=False)
    start = 0
    for piece in pieces:
        rows = slice(start, start + piece.rows)
        block = list(piece.refs)
        for grouping, place in zip(groupings, order.rows, strict=True):
            block[grouping] = place[rows]
        accumulator.add(replace(piece, refs=tuple(block)))
        start += piece.rows
    products, m = accumulator.freeze(), len(shift)
    # The padding of records serves the kernels alone.
    records = [products.records[j][:, :, :m] for j in chain]
    nothing = np.zeros(0, np.int32)
    return NestedSums(
        tuple(len(levels) for levels in order.levels),
        tuple(joined[j].width for j in chain),
        np.concatenate([nothing, *order.levels]),
        np.concatenate([nothing, *order.parents]),
        np.concatenate([record.ravel() for record in records]),
        products.gram,
        products.n,
        products.rows_read,
        tuple(products.dropped.items()),
        products.sum_log_w,
    )


def _local(layout: Layout, groupings: Sequence[int], sizes: Sequence[int]) -> Layout:
    """The layout with as many levels as these rows have. Labels are not used, so that numbers serve."""
    fewer = list(layout.groupings)
    for grouping, size in zip(groupings, sizes, strict=True):
        fewer[grouping] = replace(fewer[grouping], labels=range(size))
    return replace(layout, groupings=tuple(fewer))
