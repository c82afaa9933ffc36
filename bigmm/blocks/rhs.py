"""Omega^-1 for a right-hand side that is not the response: one forward and one backward sweep."""

from __future__ import annotations

import numpy as np

from bigmm.blocks import solve_kernels as kernels
from bigmm.blocks.coordinates import scale_rows, unscale_rows
from bigmm.blocks.factor import GRAIN, TAIL_GRAIN, Factor, triangular
from bigmm.blocks.parallel import run


def solve_for(
    factor: Factor, rhs: tuple[np.ndarray, ...], rhs_x: np.ndarray, random_only: bool = False
) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """(Lambda t per term (q, k), tau (p,)) with Omega (t, tau) = (Lambda'rhs, rhs_x); all terms penalized.

    rhs: per term (q, k), not multiplied by Lambda'; rhs_x: (p,) for dense X. ``random_only``: M t = Lambda'rhs, tau
    = 0.
    """
    structure, n_x = factor.structure, factor.structure.m - 1
    below = {s.term: np.ascontiguousarray(rhs[s.term][:, :, None]) for s in structure.stages}
    below = {term: array.copy() for term, array in below.items()}
    fixed = np.zeros(n_x) if random_only else rhs_x
    tail = np.concatenate([rhs[t.term].reshape(-1, 1) for t in structure.tail] + [fixed[:, None]])
    forward = []
    for stage, part in zip(structure.stages, factor.stages, strict=True):
        w = np.empty_like(below[stage.term])
        parts = run(kernels.forward_levels, stage.n_levels, stage.grain, part.h, part.v, below[stage.term], w)
        tail[structure.r_raw :] -= sum(p[0] for p in parts)[:-1]
        if structure.r_raw:
            run(
                kernels.forward_tail,
                structure.r_raw,
                TAIL_GRAIN,
                stage.colptr,
                stage.entry,
                stage.level,
                part.f,
                w,
                tail,
            )
        for parent in stage.parents:
            target = below[structure.stages[parent.stage].term]
            run(
                kernels.forward_parent,
                len(parent.start) - 1,
                GRAIN,
                parent.order,
                parent.start,
                parent.block,
                part.f,
                w,
                target,
            )
        forward.append(w)
    n = factor.n_random + (0 if random_only else factor.n_fixed)
    lower = factor.tail[:n, :n]
    x = triangular(lower, np.asfortranarray(scale_rows(structure, factor.lams, tail, n_x)[:n, 0]))
    x = triangular(lower, x, transposed=True)
    tau = np.zeros(n_x) if random_only else x[factor.n_random :]
    return _backward(factor, np.concatenate([x[: factor.n_random], tau]), tau, forward), tau


def _backward(factor: Factor, x: np.ndarray, tau: np.ndarray, forward: list[np.ndarray]) -> tuple[np.ndarray, ...]:
    structure = factor.structure
    raw = unscale_rows(structure, factor.lams, x[:, None], max(factor.n_fixed, 1))[: structure.r_raw, 0]
    effects: list[np.ndarray] = [np.zeros(0)] * len(structure.gram.terms)
    for t in structure.tail:
        effects[t.term] = raw[t.offset : t.stop].reshape(t.n_levels, t.width)
    solution = np.concatenate([raw, np.zeros(sum(s.n_levels * s.width for s in structure.stages))])
    starts = structure.r_raw + np.cumsum([0, *[s.n_levels * s.width for s in structure.stages]])
    coefficients = np.append(-tau, 1.0)
    for number in range(len(structure.stages) - 1, -1, -1):
        stage, part = structure.stages[number], factor.stages[number]
        v = np.concatenate([part.v[:, :, :-1], forward[number]], axis=2)
        out = np.empty((stage.n_levels, stage.width))
        run(
            kernels.backsolve,
            stage.n_levels,
            stage.grain,
            part.h,
            part.f,
            v,
            stage.indptr,
            stage.columns,
            solution,
            coefficients,
            out,
        )
        solution[starts[number] : starts[number + 1]] = out.ravel()
        effects[stage.term] = out
    return tuple(effects)
