"""Formula to columns: what is learned once and replayed on every partition."""

from bigmm.design.formula.parser import parse
from bigmm.design.layout import DesignChunk, FixedFactor, Grouping, JointTerm, Layout, RandomTerm
from bigmm.design.learn import learn
from bigmm.design.spec import DesignSpec

__all__ = [
    "DesignChunk",
    "DesignSpec",
    "FixedFactor",
    "Grouping",
    "JointTerm",
    "Layout",
    "RandomTerm",
    "learn",
    "parse",
]
