"""The third-order sums of the Laplace gradient, and what each probe says of them: tasks on shards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bigmm.laplace import third_order
from bigmm.laplace.block_layout import BlockLayout, LinearPredictor, NumberedRows, RowLayout, local
from bigmm.laplace.records import FlatThirdOrder
from bigmm.laplace.working_sums import add_windows, each_in_order
from bigmm.objective.factorization import Leverages


@dataclass(slots=True)
class ThirdOrder:
    """Sums over all rows; c_i is the leverage of a row times the slope of its weight.

    Attributes
    ----------
    xs : (p,) X's.
    x_c : (p,) X'c.
    z_c : per term (q, k) Z'c.
    phi, z_phi : (2 + p,) and per term (q, k), as in `records.FlatThirdOrder`.
    """

    xs: np.ndarray
    x_c: np.ndarray
    z_c: tuple[np.ndarray, ...]
    phi: np.ndarray
    z_phi: tuple[np.ndarray, ...]


def third_order_part(
    rows: NumberedRows, j_cross, rules: RowLayout, predictor: LinearPredictor, with_phi, j_diagonal, sampled
) -> tuple:
    """One shard's third-order sums; a pure task.

    Parameters
    ----------
    j_cross : the shard's exact blocks of J between levels, flat.
    j_diagonal : per term (q, k, k) exact diagonal blocks of J.
    sampled : start, image and weights of `Leverages`; None where J has no estimated part.
    """
    # `known_leverages` writes every h, so nothing has to be zero.
    h, model, record = np.empty(len(rows.y)), rules.record(rows, 1), rows.record()
    third_order.known_leverages(record, model, local(rows, j_diagonal), j_cross, h)
    if sampled is not None:
        start, image, weight = sampled
        starts, images = (lanes(local(rows, terms, (-1, len(weight)))) for terms in (start, image))
        # In place: `local` has made a copy of the driver's arrays.
        starts *= lanes(weight)
        third_order.sampled_leverages(record, model, starts, images, h)
    p, q = len(predictor.beta), int((rows.windows[:, 1] * rules.width).sum())
    out = FlatThirdOrder(np.zeros(p), np.zeros(p), np.zeros(q), np.zeros(2 + p), np.zeros(q if with_phi else 0))
    third_order.third_order_sums(record, model, predictor.record(rows), with_phi, h, out)
    return rows.windows, *out


def lanes(x: np.ndarray) -> np.ndarray:
    """x (..., nv) with zeros up to a multiple of `third_order.LANES` columns."""
    missing = -x.shape[-1] % third_order.LANES
    return np.pad(x, [*[(0, 0)] * (x.ndim - 1), (0, missing)]) if missing else x


def third_order_sums(
    fold: Callable,
    wiring: BlockLayout,
    rules: RowLayout,
    entry_windows: list,
    predictor: LinearPredictor,
    with_phi: bool,
    leverages: Leverages,
) -> ThirdOrder:
    """One look at all rows; entry_windows: per shard, those of `NumberedRows`."""
    p = len(predictor.beta)
    z_c, z_phi = np.zeros(wiring.q), np.zeros(wiring.q)
    # The terms are views of z_c and z_phi, which `add` fills shard by shard.
    out = ThirdOrder(np.zeros(p), np.zeros(p), wiring.terms(z_c), np.zeros(2 + p), wiring.terms(z_phi))
    sizes = wiring.width * wiring.n_levels

    def add(part: tuple) -> None:
        windows, xs, x_c, z_c_part, phi_part, z_phi_part = part
        out.xs += xs
        out.x_c += x_c
        out.phi += phi_part
        add_windows(z_c, sizes, wiring.width, windows, z_c_part)
        if with_phi:
            add_windows(z_phi, sizes, wiring.width, windows, z_phi_part)

    exact = leverages.start is None
    sampled = None if exact else (leverages.start, leverages.image, leverages.weight)
    slices = [cross_slices(wiring, leverages.pairs, windows) for windows in entry_windows]
    task = third_order_part, rules, predictor, with_phi, leverages.exact, sampled
    each_in_order(fold, add, *task, per_shard=slices)
    return out


def cross_slices(wiring: BlockLayout, pairs: dict, windows: np.ndarray) -> np.ndarray:
    """A shard's known blocks between levels, flat; a view where there is one pair of terms."""
    pieces = []
    for pair, (begin, count) in zip(wiring.pairs, windows, strict=True):
        if pair in pairs:
            pieces.append(pairs[pair][begin : begin + count].reshape(-1))
        else:
            pieces.append(np.zeros(count * wiring.width[pair[0]] * wiring.width[pair[1]]))
    # The slice of a single pair is contiguous, so nothing is copied before it travels.
    if len(pieces) == 1:
        return pieces[0]
    return np.concatenate(pieces) if pieces else np.zeros(0)


def spread_part(
    rows: NumberedRows, rules: RowLayout, predictor: LinearPredictor, with_phi, start, image, along_x, along_z
) -> Any:
    """(nv, P) of one shard: see `third_order.sampled_spread`; a pure task."""
    nv, n_psi = start[0].shape[-1], along_x.shape[1]
    out, shape = np.zeros((nv, n_psi)), (-1, nv)
    third_order.sampled_spread(
        rows.record(),
        rules.record(rows, 1),
        predictor.record(rows),
        with_phi,
        local(rows, start, shape),
        local(rows, image, shape),
        along_x,
        local(rows, along_z, (-1, n_psi)),
        out,
    )
    return out
