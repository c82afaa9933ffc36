"""Structures of the covariance of one random term over its columns; `registry` names them."""

from bigmm.covariance.protocol import Covariance
from bigmm.covariance.registry import STRUCTURES, covariance

__all__ = ["STRUCTURES", "Covariance", "covariance"]
