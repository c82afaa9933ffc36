"""The tail's preconditioner P = L L': S where a term meets itself, or a term that contains it.

The tail's terms form chains of nested ones; most are chains of one, and P is then block-diagonal. In a longer chain
every level is coupled with the levels that contain it: a tree, which block Cholesky eliminates from leaf to root
without fill, by the same code as the stages. Whatever the chain, K = Lambda P^-1 Lambda' is known on the tree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bigmm.blocks.exact import scatter_kernels, solve_kernels
from bigmm.blocks.exact.factor import GRAIN, Factor, NotPositiveDefiniteError, StageFactor, eliminate_stages
from bigmm.blocks.exact.inverse import SelectedInverse, selected_inverse
from bigmm.blocks.exact.scatter import scattered
from bigmm.blocks.exact.scatter_kernels import TailRows, TermColumns
from bigmm.blocks.exact.sweeps import ROWS, back_substitute
from bigmm.blocks.iterative import krylov_kernels, preconditioner_kernels
from bigmm.blocks.iterative.preconditioner_kernels import FlatTree
from bigmm.blocks.iterative.structure import TailChain
from bigmm.blocks.parallel import run
from bigmm.blocks.structure import Structure, TailTerm, cross

Pairs = dict[tuple[int, int], np.ndarray]


@dataclass(frozen=True, slots=True)
class ChainFactor:
    """P on one chain of nested terms, and what the stages take from A there: the sum of f'f.

    Attributes
    ----------
    places: the chain's terms in the tail, finest first.
    factor: the factor of P.
    losses: per term of the chain (q, k, k), what the stages take from its diagonal blocks.
    between: {terms (j, k) of the model: (q_j, k_j, k_k)}, the same between two terms, where P has these blocks.
    """

    places: tuple[TailTerm, ...]
    factor: Factor
    losses: tuple[np.ndarray, ...]
    between: Pairs

    def to_raw(self, x: np.ndarray, out: np.ndarray) -> None:
        """out = Lambda L^-T x in the chain's rows; both (r, nv)."""
        source, targets = self._views(x), self._views(out)
        stages = self.factor.stages
        if len(stages) == 1:
            run(krylov_kernels.block_multiply, len(source[0]), GRAIN, stages[0].h, True, source[0], targets[0])
            return
        # The chain is a model of its own, whose tail is empty.
        none = np.empty((0, x.shape[1]), x.dtype)
        for target, result in zip(targets, back_substitute(self.factor.structure, stages, none, source), strict=True):
            target[:] = result

    def to_normalised(self, x: np.ndarray, out: np.ndarray) -> None:
        """out = L^-1 Lambda'x in the chain's rows; both (r, nv)."""
        below, targets = self._views(x), self._views(out)
        # Nothing is subtracted from the finest term, whose rows may stay views of the caller's.
        below[1:] = [rhs.copy() for rhs in below[1:]]
        structure = self.factor.structure
        for number, (stage, part) in enumerate(zip(structure.stages, self.factor.stages, strict=True)):
            w = targets[number]
            run(krylov_kernels.block_multiply, len(w), GRAIN, part.h, False, below[number], w)
            for parent in stage.parents:
                children, rhs = (parent.order, parent.start, parent.block), below[parent.stage]
                run(solve_kernels.forward_parent, len(rhs), GRAIN, *children, part.f, w, rhs)

    def _views(self, x: np.ndarray) -> list[np.ndarray]:
        return [x[t.offset : t.stop].reshape(t.n_levels, t.width, -1) for t in self.places]

    def diagonal_blocks(self) -> tuple[np.ndarray, ...]:
        """Per term (q, k, k) diagonal blocks of K."""
        if len(self.places) == 1:
            h = self.factor.stages[0].h
            return (h.transpose(0, 2, 1) @ h,)
        return tuple(self._inverse().covariances)

    def _inverse(self) -> SelectedInverse:
        return selected_inverse(self.factor, with_fixed=False, pattern=True)


def factor_chain(
    structure: Structure, lams: tuple[np.ndarray, ...], stages: tuple[StageFactor, ...], chain: TailChain
) -> ChainFactor:
    """P on one chain, given the factors of the stages; raises NotPositiveDefiniteError.

    What S has on a tree need not be positive (slopes can make it so): then P has the diagonal blocks only.
    """
    gram, terms = structure.gram, [t.term for t in chain.places]
    share = []
    for t in chain.places:
        shape = t.n_levels, t.width, t.width
        share.append(_taken(scatter_kernels.scatter_own, structure, stages, shape, _columns(t)))
    between = {}
    for child, stage in zip(chain.places, chain.alone.stages, strict=True):
        for parent in stage.parents:
            above = chain.places[parent.stage]
            where = (_columns(child), _columns(above), parent.level)
            shape = child.n_levels, child.width, above.width
            block = _taken(preconditioner_kernels.scatter_nested, structure, stages, shape, *where)
            between[child.term, above.term] = block
    diagonals = [gram.terms[j].diagonal - block for j, block in zip(terms, share, strict=True)]
    below = tuple(lams[j] for j in terms)
    for pairs in (between, {}) if between else ({},):
        data = {(j, k): cross(gram, j, k).data - block for (j, k), block in pairs.items()}
        alone = _with_numbers(chain, diagonals, data)
        parts, logdet, _ = eliminate_stages(alone, below)
        if np.isfinite(logdet):
            none = np.zeros((0, 0))
            factor = Factor(alone, below, parts, none, none, 0, 0, logdet, 0.0, 0.0)
            return ChainFactor(chain.places, factor, tuple(share), pairs)
    raise NotPositiveDefiniteError("a diagonal block of the Schur complement is not positive")


def _taken(
    kernel: Callable, structure: Structure, stages: tuple[StageFactor, ...], shape: tuple, *where: Any
) -> np.ndarray:
    """Sum over the stages of what a kernel adds up from their rows in the tail."""
    out = np.zeros(shape)
    for stage, part in zip(structure.stages, stages, strict=True):
        rows = TailRows(stage.tail_start, stage.indptr, stage.columns, part.f)
        out += scattered(kernel, stage.indptr, shape, np.float64, rows, *where)
    return out


def _columns(t: TailTerm) -> TermColumns:
    return TermColumns(t.offset, t.stop, t.width)


def _with_numbers(chain: TailChain, diagonals: list[np.ndarray], pairs: Pairs) -> Structure:
    """The chain's structure with P's numbers; a level's row has one level of each coarser term, nearest first."""
    stages = []
    for number, (t, stage, diagonal) in enumerate(zip(chain.places, chain.alone.stages, diagonals, strict=True)):
        rows = [np.zeros((t.n_levels, 0, t.width))]
        for above in chain.places[number + 1 :]:
            block = pairs.get((t.term, above.term))
            # Zeros where P has no block: the pattern stays the tree's, so that one analysis serves.
            missing = np.zeros((t.n_levels, above.width, t.width))
            rows.append(missing if block is None else block.transpose(0, 2, 1))
        data = np.ascontiguousarray(np.concatenate(rows, axis=1).reshape(-1, t.width))
        stages.append(replace(stage, diagonal=diagonal, data=data))
    return replace(chain.alone, stages=tuple(stages))


def first_moment(structure: Structure, stages: tuple[StageFactor, ...], chain: ChainFactor) -> float:
    """The chain's part of tr(S_hat - I) = tr (S - P) K: zero for one term.

    Of S - P it takes sum of f'f on the tree, and less than that f'f itself: f K f' = |L^-1 Lambda'f'|^2 needs the tree
    only, because a level that meets another one meets what contains that one.
    """
    if not chain.between:
        return 0.0
    result = chain._inverse()
    total = sum(float((a * b).sum()) for a, b in zip(chain.losses, result.covariances, strict=True))
    for (a, b), block in result.pairs.items():
        total += 2.0 * float((block * chain.between[chain.places[a].term, chain.places[b].term]).sum())
    tree = _flat_tree(chain)
    for stage, part in zip(structure.stages, stages, strict=True):
        rows = TailRows(stage.tail_start, stage.indptr, stage.columns, part.f)
        total -= sum(run(preconditioner_kernels.tree_norms, stage.n_levels, ROWS, rows, tree, structure.r_raw))
    return total


def _flat_tree(chain: ChainFactor) -> FlatTree:
    alone, parts, places = chain.factor.structure, chain.factor.stages, chain.places
    column = np.concatenate([np.arange(t.offset, t.stop) for t in places])  # the chain's columns in the tail
    widest = max(t.width for t in places)
    above = [len(stage.columns) // stage.n_levels for stage in alone.stages]
    return FlatTree(
        np.array([t.offset for t in places]),
        np.array([t.stop for t in places]),
        np.array([t.width for t in places]),
        np.cumsum([0, *(part.h.size for part in parts)]),
        np.concatenate([part.h.ravel() for part in parts]),
        np.array(above),
        np.cumsum([0, *(len(stage.columns) for stage in alone.stages)]),
        column[np.concatenate([stage.columns for stage in alone.stages])],
        # All terms in one array of one width: a kernel that took them one by one would be compiled for each depth.
        np.concatenate([np.pad(part.f, [(0, 0), (0, widest - part.f.shape[1])]) for part in parts]),
    )
