"""Omega^-1 for a right-hand side that is not the response: one forward and one backward sweep."""

from __future__ import annotations

import numpy as np

from bigmm.blocks.exact.coordinates import scale_rows
from bigmm.blocks.exact.factor import Factor, triangular
from bigmm.blocks.exact.solve import backward, forward


def solve_for(
    factor: Factor, rhs: tuple[np.ndarray, ...], rhs_x: np.ndarray, random_only: bool = False
) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """(Lambda t per term (q, k), tau (p,)) with Omega (t, tau) = (Lambda'rhs, rhs_x); all terms penalized.

    rhs (q, k) per term is not multiplied by Lambda', and rhs_x (p,) is for dense X. With ``random_only`` t solves
    M t = Lambda'rhs, and tau = 0.
    """
    structure, n_x = factor.structure, factor.structure.m - 1
    fixed = np.zeros(n_x) if random_only else rhs_x
    swept = forward(structure, factor.stages, tuple(np.ascontiguousarray(r[:, :, None]) for r in rhs), fixed[:, None])
    tail = np.concatenate([swept.tail, swept.fixed])
    n = factor.n_random + (0 if random_only else factor.n_fixed)
    lower = factor.tail[:n, :n]
    x = triangular(lower, np.asfortranarray(scale_rows(structure, factor.lams, tail, n_x)[:n, 0]))
    x = triangular(lower, x, transposed=True)
    tau = np.zeros(n_x) if random_only else x[factor.n_random :]
    # The right-hand side takes the place of the response, so the coefficients are (-tau, 1) as in `solve`.
    v = tuple(np.concatenate([p.v[:, :, :-1], w], axis=2) for p, w in zip(factor.stages, swept.w, strict=True))
    return backward(factor, np.concatenate([x[: factor.n_random], tau]), v, np.append(-tau, 1.0)), tau
