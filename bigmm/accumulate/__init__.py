"""Rows to sums: `CrossProducts` of a lane, merged by addition, and `assemble`, which makes the blocks of A."""

from bigmm.accumulate.assemble import Assembled, assemble, term_basis
from bigmm.accumulate.crossproducts import CrossProducts, merge
from bigmm.accumulate.fold import fold_lane
from bigmm.accumulate.origin import MORE_PASSES, first_shift, next_shift
from bigmm.accumulate.pairs import PairSums
from bigmm.accumulate.parts import N_PARTS, add_up_part, fold_in_parts, whole
from bigmm.accumulate.shift import Shift, as_shift, shift_vector

__all__ = [
    "MORE_PASSES",
    "N_PARTS",
    "Assembled",
    "CrossProducts",
    "PairSums",
    "Shift",
    "add_up_part",
    "as_shift",
    "assemble",
    "first_shift",
    "fold_in_parts",
    "fold_lane",
    "merge",
    "next_shift",
    "shift_vector",
    "term_basis",
    "whole",
]
