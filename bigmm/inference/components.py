"""Independent parts of a Gram: levels that meet in some row, directly or through others, are of one component.

V is block diagonal over components. So sums over pairs of levels, which Kenward and Roger's method needs, are sums over
components: a level alone for one grouping factor, a tree for nested ones, everything for crossed ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from bigmm.blocks.gram import Gram

BATCH = 4_000_000
"""Numbers of Z'Z in a batch: 32 MB, so that a batch and what is made of it fit any memory limit."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Components of one shape.

    Parameters
    ----------
    counts : (T,) levels of each term in a component.
    widths : (T,) columns of each term's levels.
    zz : (b, m, m) Z'WZ of each component; m = sum of counts * widths, term after term, level after level.
    zx : (b, m, p + 1) Z'W[X y].
    multiplicity : (b,) number of components that each one stands for.
    """

    counts: tuple[int, ...]
    widths: tuple[int, ...]
    zz: np.ndarray
    zx: np.ndarray
    multiplicity: np.ndarray

    @property
    def slices(self) -> tuple[slice, ...]:
        """Per term its columns."""
        stops = np.cumsum([count * width for count, width in zip(self.counts, self.widths, strict=True)])
        return tuple(slice(int(stop) - c * w, int(stop)) for stop, c, w in zip(stops, self.counts, self.widths))


def component_labels(gram: Gram) -> tuple[np.ndarray, ...]:
    """Per term (q,) number of the component of each level."""
    sizes = [term.n_levels for term in gram.terms]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    rows, columns = [], []
    for (j, k), block in gram.cross.items():
        rows.append(np.repeat(np.arange(sizes[j]), np.diff(block.indptr)) + starts[j])
        columns.append(np.asarray(block.indices, np.int64) + starts[k])
    if not rows:
        # Without pairs every level is a component of its own.
        return tuple(np.arange(size) + start for size, start in zip(sizes, starts, strict=False))
    edges = np.concatenate(rows), np.concatenate(columns)
    graph = sparse.coo_array((np.ones(len(edges[0]), np.int8), edges), shape=(starts[-1], starts[-1]))
    labels = connected_components(graph, directed=False)[1]
    return tuple(labels[start : start + size] for start, size in zip(starts, sizes, strict=False))


def largest_component(gram: Gram) -> int:
    """Columns of Z in the largest component."""
    labels = component_labels(gram)
    size = np.zeros(max(int(labels_of_term.max(initial=0)) for labels_of_term in labels) + 1, np.int64)
    for term, labels_of_term in zip(gram.terms, labels, strict=True):
        size += term.width * np.bincount(labels_of_term, minlength=len(size))
    return int(size.max(initial=0))


def batches(gram: Gram) -> Iterator[Batch]:
    """All components of a Gram whose terms are penalized, in batches of one shape."""
    labels = component_labels(gram)
    n_components = max(int(labels_of_term.max(initial=-1)) for labels_of_term in labels) + 1
    counts = np.stack([np.bincount(labels_of_term, minlength=n_components) for labels_of_term in labels], axis=1)
    ranks = [_ranks(labels_of_term, n_components) for labels_of_term in labels]
    shapes, shape_of = np.unique(counts, axis=0, return_inverse=True)
    widths = tuple(term.width for term in gram.terms)
    order = np.argsort(shape_of, kind="stable")
    bounds = np.searchsorted(shape_of[order], np.arange(len(shapes) + 1))
    for shape, start, stop in zip(shapes, bounds, bounds[1:], strict=False):
        m = int((shape * widths).sum())
        if not m:
            continue
        # At least one component, which cannot be cut.
        size = max(1, BATCH // (m * m))
        for first in range(start, stop, size):
            members = order[first : min(first + size, stop)]
            yield _batch(gram, labels, ranks, members, tuple(map(int, shape)), widths)


def _ranks(labels: np.ndarray, n_components: int) -> np.ndarray:
    """(q,) number of each level among those of its component."""
    order = np.argsort(labels, kind="stable")
    # The sort is stable: levels keep their order within a component, and sums their bits.
    first = np.searchsorted(labels[order], np.arange(n_components))
    ranks = np.empty(len(labels), np.int64)
    ranks[order] = np.arange(len(labels)) - first[labels[order]]
    return ranks


def _batch(
    gram: Gram,
    labels: Sequence[np.ndarray],
    ranks: Sequence[np.ndarray],
    members: np.ndarray,
    counts: tuple[int, ...],
    widths: tuple[int, ...],
) -> Batch:
    n_components = max(int(labels_of_term.max(initial=-1)) for labels_of_term in labels) + 1
    slot = np.full(n_components, -1, np.int64)
    slot[members] = np.arange(len(members))
    starts = np.concatenate([[0], np.cumsum([c * w for c, w in zip(counts, widths, strict=True)])]).astype(np.int64)
    m, p1 = int(starts[-1]), len(gram.xy)
    zz, zx = np.zeros((len(members), m, m)), np.zeros((len(members), m, p1))
    multiplicity = np.ones(len(members))
    for t, term in enumerate(gram.terms):
        inside = np.flatnonzero(slot[labels[t]] >= 0)
        batch, place = slot[labels[t][inside]], starts[t] + ranks[t][inside] * term.width
        columns = place[:, None] + np.arange(term.width)
        zz[batch[:, None, None], columns[:, :, None], columns[:, None, :]] = term.diagonal[inside]
        zx[batch[:, None], columns] = term.dense[inside]
        if term.multiplicity is not None:
            multiplicity[batch] = term.multiplicity[inside]
    for (j, k), block in gram.cross.items():
        level = np.repeat(np.arange(len(block.indptr) - 1), np.diff(block.indptr))
        inside = np.flatnonzero(slot[labels[j][level]] >= 0)
        batch = slot[labels[j][level[inside]]]
        rows = starts[j] + ranks[j][level[inside]] * widths[j]
        columns = starts[k] + ranks[k][block.indices[inside]] * widths[k]
        rows = rows[:, None] + np.arange(widths[j])
        columns = columns[:, None] + np.arange(widths[k])
        data = block.data[inside]
        zz[batch[:, None, None], rows[:, :, None], columns[:, None, :]] = data
        zz[batch[:, None, None], columns[:, :, None], rows[:, None, :]] = data.transpose(0, 2, 1)
    return Batch(counts, widths, zz, zx, multiplicity)
