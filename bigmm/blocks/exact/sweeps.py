"""Back-substitution and subtraction of eliminated stages, for many vectors side by side."""

from __future__ import annotations

import numpy as np

from bigmm.blocks.exact.factor import StageFactor
from bigmm.blocks.exact.scatter import scattered
from bigmm.blocks.iterative import coupling_kernels
from bigmm.blocks.parallel import run
from bigmm.blocks.structure import Stage, Structure

ROWS = 512
"""Rows of the tail or levels of a stage per range, for kernels that do much work per row."""


def subtract_levels(stage: Stage, part: StageFactor, w: np.ndarray, out: np.ndarray) -> None:
    """out -= sum over a stage's levels of F_l'w_l, in the tail: w (q, k, nv), out (r_raw, nv)."""
    where = stage.tail_start, stage.indptr, stage.columns, part.f
    # The kernel subtracts from zeros, so its result is added.
    out += scattered(coupling_kernels.from_levels, stage.indptr, out.shape, out.dtype, *where, np.ascontiguousarray(w))


def back_substitute(
    structure: Structure, stages: tuple[StageFactor, ...], tail: np.ndarray, v=None
) -> tuple[np.ndarray, ...]:
    """Per stage (q, k, nv): h'(v - f solution) for values ``tail`` (r_raw, nv) of the tail, in raw coordinates.

    v: per stage (q, k, nv) forward right-hand sides, or None for zero. Returned in the order of the stages, in the
    type of the tail's values.
    """
    nv, dtype = tail.shape[1], tail.dtype
    sizes = [s.n_levels * s.width for s in structure.stages]
    starts = structure.r_raw + np.cumsum([0, *sizes])
    # One stage has nothing after it but the tail, whose values then need no copy.
    solution = np.concatenate([tail, np.zeros((sum(sizes), nv), dtype)]) if len(sizes) > 1 else tail
    out: list[np.ndarray] = [np.zeros(0)] * len(structure.stages)
    for number in range(len(structure.stages) - 1, -1, -1):
        stage, part = structure.stages[number], stages[number]
        values = np.empty((stage.n_levels, stage.width, nv), dtype)
        right_side = np.zeros((0, stage.width, nv), dtype) if v is None else v[number]
        where = stage.indptr, stage.columns
        run(coupling_kernels.back_levels, stage.n_levels, ROWS, part.h, part.f, right_side, *where, solution, values)
        if len(sizes) > 1:
            solution[starts[number] : starts[number + 1]] = values.reshape(-1, nv)
        out[number] = values
    return tuple(out)
