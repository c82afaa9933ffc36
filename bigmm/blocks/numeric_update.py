"""New numbers in a known structure: a GLMM's blocks change at every reweighting, their pattern never does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bigmm.blocks.analysis import analyse
from bigmm.blocks.gram import CrossBlock, Gram
from bigmm.blocks.iterative.structure import IterativeStructure, analyse_iterative, iterative_order
from bigmm.blocks.structure import Structure


class NumericUpdate:
    """Analyses a pattern once, with every number replaced by its place, so that later blocks are only gathered."""

    def __init__(self, pattern: Gram):
        self.structure = analyse(_numbered(pattern))
        self.data = [stage.data.astype(np.int64) for stage in self.structure.stages]
        self.transposed = {pair: block.data.astype(np.int64) for pair, block in self.structure.transposed.items()}
        self.rows, self.columns = np.nonzero(self.structure.base)
        self.base = self.structure.base[self.rows, self.columns].astype(np.int64)

    def __call__(self, gram: Gram) -> Structure:
        """The structure of ``gram``, which has the pattern's levels, widths and entries."""
        # Places begin with 1, because 0 marks where the base of the numbered pattern has no entry.
        values = np.concatenate([np.zeros(1), *(array.ravel() for array in _arrays(gram))])
        stages = tuple(
            replace(
                stage, diagonal=gram.terms[stage.term].diagonal, dense=gram.terms[stage.term].dense, data=values[places]
            )
            for stage, places in zip(self.structure.stages, self.data, strict=True)
        )
        turned = {
            pair: CrossBlock(block.indptr, block.indices, values[self.transposed[pair]])
            for pair, block in self.structure.transposed.items()
        }
        base = np.zeros_like(self.structure.base)
        base[self.rows, self.columns] = values[self.base]
        # Pointers and columns are shared with the pattern; only numbers are new.
        return replace(self.structure, gram=gram, stages=stages, transposed=turned, base=base)


def _arrays(gram: Gram) -> list[np.ndarray]:
    terms, pairs = gram.terms, (gram.cross[pair].data for pair in sorted(gram.cross))  # in whatever order they came
    return [*(t.diagonal for t in terms), *(t.dense for t in terms), *pairs, gram.xy]


def _numbered(gram: Gram) -> Gram:
    """The same pattern whose numbers are 1, 2, 3, ... in the order of `_arrays`."""
    place = 1

    def numbers(array: np.ndarray) -> np.ndarray:
        nonlocal place
        # float64 has all integers up to 2^53, so a place survives the analysis as a floating-point number.
        out = np.arange(place, place + array.size, dtype=float).reshape(array.shape)
        place += array.size
        return out

    diagonals = [numbers(t.diagonal) for t in gram.terms]
    dense = [numbers(t.dense) for t in gram.terms]
    cross = {pair: CrossBlock(b.indptr, b.indices, numbers(b.data)) for pair, b in sorted(gram.cross.items())}
    terms = tuple(replace(t, diagonal=a, dense=b) for t, a, b in zip(gram.terms, diagonals, dense, strict=True))
    return replace(gram, terms=terms, cross=cross, xy=numbers(gram.xy))


class RowUpdate:
    """The same for `analyse_iterative`: stages hold their rows only.

    One tail term of scalar effects, the usual case of two large crossed factors, costs nothing: its cross block is the
    stage's rows as it stands.
    """

    def __init__(self, pattern: Gram):
        self.places: list[np.ndarray] | None = None
        chain, remainder = iterative_order(pattern)
        if len(chain) == 1 and len(remainder) == 1 and pattern.terms[remainder[0]].width == 1:
            self.structure = analyse_iterative(pattern)
            return
        # Rows hold numbers of cross blocks alone, which follow those of the terms in the order of `_arrays`.
        before = sum(t.diagonal.size + t.dense.size for t in pattern.terms) + 1
        self.structure = analyse_iterative(_numbered(pattern))
        self.places = [stage.data.astype(np.int64) - before for stage in self.structure.whole.stages]

    def __call__(self, gram: Gram) -> IterativeStructure:
        """The structure of ``gram``; the stages' numbers have the type of its cross blocks."""
        stages = []
        numbers = (
            None
            if self.places is None
            else np.concatenate([gram.cross[pair].data.ravel() for pair in sorted(gram.cross)])
        )
        for number, stage in enumerate(self.structure.whole.stages):
            term = gram.terms[stage.term]
            if self.places is None or numbers is None:
                (block,) = gram.cross.values()
                data = block.data.reshape(len(block.data), term.width)
            else:
                data = numbers[self.places[number]]
            stages.append(replace(stage, diagonal=term.diagonal, dense=term.dense, data=data))
        whole = replace(self.structure.whole, gram=gram, stages=tuple(stages))
        return replace(self.structure, whole=whole)
