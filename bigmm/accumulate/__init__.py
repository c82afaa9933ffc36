"""Rows to sums: `CrossProducts` of a lane, merged by addition, and `assemble`, which makes the blocks of A."""

from bigmm.accumulate.assemble import Assembled, assemble
from bigmm.accumulate.crossproducts import CrossProducts, merge
from bigmm.accumulate.fold import accumulator_bytes, fold_lane, has_many_pairs, many_pairs_bytes
from bigmm.accumulate.pairs import PairSums
from bigmm.accumulate.parts import N_PARTS, add_up_part, fold_in_parts, whole
from bigmm.accumulate.shift import shift_vector

__all__ = [
    "N_PARTS",
    "Assembled",
    "CrossProducts",
    "PairSums",
    "accumulator_bytes",
    "add_up_part",
    "assemble",
    "fold_in_parts",
    "fold_lane",
    "has_many_pairs",
    "many_pairs_bytes",
    "merge",
    "shift_vector",
    "whole",
]
