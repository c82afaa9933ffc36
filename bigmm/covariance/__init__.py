"""Structures of the covariance of one random term, over its columns. `registry` lists them by their names in formulas."""

from bigmm.covariance.protocol import Covariance
from bigmm.covariance.registry import STRUCTURES, covariance

__all__ = ["STRUCTURES", "Covariance", "covariance"]
