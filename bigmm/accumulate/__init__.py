"""Rows to sums: `CrossProducts` of a lane, merged by addition, and `assemble`, which makes the blocks of A."""

from bigmm.accumulate.assemble import Assembled, assemble
from bigmm.accumulate.crossproducts import CrossProducts, merge
from bigmm.accumulate.fold import accumulator_bytes, fold_lane
from bigmm.accumulate.pairs import PairSums
from bigmm.accumulate.shift import shift_vector

__all__ = [
    "Assembled",
    "CrossProducts",
    "PairSums",
    "accumulator_bytes",
    "assemble",
    "fold_lane",
    "merge",
    "shift_vector",
]
