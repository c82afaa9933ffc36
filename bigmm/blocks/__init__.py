"""Blocked symmetric matrices, their Cholesky factor, selected inverse and solves. Knows no data and no formula."""

from bigmm.blocks.analysis import analyse
from bigmm.blocks.compress import compress
from bigmm.blocks.gram import CrossBlock, Gram, TermBlock
from bigmm.blocks.structure import Structure

__all__ = ["CrossBlock", "Gram", "Structure", "TermBlock", "analyse", "compress"]
