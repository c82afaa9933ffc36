"""Offsets that no coefficient can make up for: exp() of their range overflows."""

from __future__ import annotations

import numpy as np

from bigmm.design.formula.expression import unparse
from bigmm.laplace.glmm_data import GlmmData
from bigmm.shards.shard import Shard

WIDE = 30.0
"""An offset that spans more multiplies odds and means by more than 1e13."""


def offset_range(shard: Shard) -> tuple[float, float]:
    """(smallest, largest) offset of a shard, (inf, -inf) without any; a pure task."""
    return float(shard.offset.min(initial=np.inf)), float(shard.offset.max(initial=-np.inf))


def wide_offset(model: GlmmData) -> str:
    """A sentence on an offset that spans too much, to follow a message; "" without one. One look at the rows."""
    ranges = np.array(model.shards.map(offset_range))
    low, high = ranges[:, 0].min(), ranges[:, 1].max()
    # The difference is -inf where no shard has an offset, and NaN is no wide range either.
    if not high - low > WIDE:
        return ""
    spec = model.spec
    names = [unparse(node) for node in spec.parsed.offsets] + ([spec.settings.offset] if spec.settings.offset else [])
    hint = "; an exposure enters as its logarithm" if model.family.link == "log" else ""
    return f". Offset {' + '.join(map(repr, names))} goes from {low:.6g} to {high:.6g}: mend such rows{hint}"
